//! The names of things: hashes that identify content and validated words that people choose.
//!
//! A [`ChunkId`] or [`ReleaseId`] is 32 bytes of BLAKE3. A name such as [`AppName`] is a short word that
//! is safe as one component of a path on every system, so that it needs no escaping anywhere.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::counted_id::{DeliveryId, RolloutId};
pub use crate::id_error::Error;
use crate::threads;

macro_rules! content_id {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Names `bytes` by their BLAKE3-256.
            pub fn of(bytes: &[u8]) -> Self {
                threads::hashes(bytes.len());
                Self(*blake3::hash(bytes).as_bytes())
            }

            /// Takes over 32 bytes that are a BLAKE3-256.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Returns the 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Returns the first 12 hexadecimal digits: enough for people to distinguish two.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.short())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let refuse = || Error::Id(text.chars().take(80).collect());
                let digits = text.as_bytes();
                if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(refuse());
                }
                let mut bytes = [0; 32];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| refuse())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse())?;
                }
                Ok(Self(bytes))
            }
        }

        /// Text (64 digits) where people read, 32 bytes where machines do.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    serde_bytes::ByteArray::<32>::deserialize(deserializer).map(|bytes| Self(*bytes))
                }
            }
        }
    )+};
}

content_id! {
    /// BLAKE3-256 of a chunk's plain bytes, by which chunks are named, found and verified.
    ChunkId;
    /// BLAKE3-256 of an artifact's bytes, whole.
    ArtifactId;
    /// BLAKE3-256 of the list of an artifact's chunks: it names the artifact however it is stored.
    ContentId;
    /// It names one release's whole content, however that is stored (FORMAT 2.6).
    ReleaseId;
}

impl From<ReleaseId> for ChunkId {
    /// A root is stored as a chunk like any other.
    fn from(id: ReleaseId) -> Self {
        Self(id.0)
    }
}

impl From<ChunkId> for ReleaseId {
    fn from(id: ChunkId) -> Self {
        Self(id.0)
    }
}

impl ChunkId {
    /// Returns the first 8 bytes as a little-endian number: a chunk's short name inside one negotiation.
    pub fn prefix(&self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().expect("an id has 32 bytes"))
    }
}

/// The first 6 bytes of a chunk's id: the name of a chunk in a manifest on the link (PROTOCOL 2).
///
/// Resolving one may find another chunk with the same beginning; the hash of the whole detects it (docs/decisions/0013).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortId([u8; 6]);

impl ShortId {
    /// Its bytes.
    pub const BYTES: usize = 6;

    /// Takes over 6 bytes.
    pub const fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// Returns the 6 bytes.
    pub const fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }

    /// Returns the lowest id that begins with it.
    pub fn lowest(&self) -> ChunkId {
        let mut bytes = [0; 32];
        bytes[..Self::BYTES].copy_from_slice(&self.0);
        ChunkId(bytes)
    }
}

impl From<ChunkId> for ShortId {
    fn from(id: ChunkId) -> Self {
        Self(*id.0.first_chunk().expect("an id has 32 bytes"))
    }
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the word itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                if is_word(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Error::Name { what: $what, name: text.chars().take(80).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

word! {
    /// A group of users who trust one another.
    SpaceName, "space"
}
word! {
    /// A named series of releases inside a space.
    AppName, "application"
}
word! {
    /// The user on whose behalf a push or a query is made.
    UserName, "user"
}
word! {
    /// A word that people give to a release, like `v1.2.3`.
    Label, "label"
}
word! {
    /// A place for complete copies, as the admin named it.
    DestinationName, "destination"
}
word! {
    /// A machine or directory that pulls, as its token names it.
    TargetName, "target"
}
word! {
    /// A hook or webhook that may follow a delivery, as the admin named it.
    ActionName, "action"
}

/// An application, and which of its releases if not the current one: `APP`, `APP@LABEL`, `APP@RELEASE`, or `APP@latest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// The application.
    pub app: AppName,
    /// A label, or a release's id, or at least six of its first digits, or `latest`; none, or `current`, for the current one.
    pub at: Option<Label>,
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('@') {
            None => Ok(Self { app: text.parse()?, at: None }),
            Some((app, at)) => Ok(Self { app: app.parse()?, at: Some(at.parse()?) }),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            None => write!(f, "{}", self.app),
            Some(at) => write!(f, "{}@{at}", self.app),
        }
    }
}

/// The word of a selector for the current release, as no word is.
const CURRENT: &str = "current";
/// The word of a selector for the release that was pushed last.
const LATEST: &str = "latest";

/// Fewer hexadecimal digits than this do not name a release.
pub const ID_DIGITS_MIN: usize = 6;
/// The digits of a whole id.
pub const ID_DIGITS: usize = 64;

/// Returns whether a word could be a release's id, or the first digits of one: 6 to 64 hexadecimal digits.
fn reads_as_id(word: &str) -> bool {
    (ID_DIGITS_MIN..=ID_DIGITS).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Label {
    /// Returns whether the word could be a release's id, or the first digits of one: no push gives such a label
    /// any more.
    pub fn reads_as_id(&self) -> bool {
        reads_as_id(&self.0)
    }

    /// Returns whether the word means the current or the latest release in a selector: no push gives such a label any more.
    pub fn is_reserved(&self) -> bool {
        matches!(self.as_str(), CURRENT | LATEST)
    }
}

impl Selector {
    /// Returns the digits, in lower case, where the selector may name a release by them: all 64, or the first of them.
    pub fn digits(&self) -> Option<String> {
        let at = self.at.as_ref().filter(|at| at.reads_as_id())?;
        Some(at.as_str().to_ascii_lowercase())
    }

    /// Returns whether the selector means the current release.
    pub fn is_current(&self) -> bool {
        self.at.as_ref().is_none_or(|at| at.as_str() == CURRENT)
    }

    /// Returns whether the selector means the release that was pushed last.
    pub fn is_latest(&self) -> bool {
        self.at.as_ref().is_some_and(|at| at.as_str() == LATEST)
    }

    /// Returns the release, where the selector names it by its whole id, which then means nothing else.
    pub fn release(&self) -> Option<ReleaseId> {
        self.digits()?.parse().ok()
    }
}

fn is_word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form() {
        let id = ChunkId::of(b"whit");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short().len(), 12);
    }

    #[test]
    fn a_word_of_hexadecimal_digits_reads_as_an_id() {
        let id = ReleaseId(*ChunkId::of(b"whit").as_bytes());
        let label = |text: &str| text.parse::<Label>().expect("a word");
        for text in ["abcdef", "20261130", "DEADBEEF", &id.to_string()] {
            assert!(label(text).reads_as_id(), "{text}");
        }
        for text in ["abcde", "v20261130", "abcdefg", "abc-def", "1.2.3.4"] {
            assert!(!label(text).reads_as_id(), "{text}");
        }
        let selector = |at: &str| format!("web@{at}").parse::<Selector>().expect("a selector");
        assert_eq!(selector(&id.to_string().to_uppercase()).release(), Some(id));
        assert_eq!(selector("ABCDEF").digits().as_deref(), Some("abcdef"));
        assert_eq!(selector("ABCDEF").release(), None);
        assert_eq!(selector("v1").digits(), None);
        assert!(selector("current").is_current() && selector("latest").is_latest());
        assert!(!selector("v1").is_current() && !selector("v1").is_latest());
        assert!(label("latest").is_reserved() && !label("Latest").is_reserved());
    }

    #[test]
    fn a_refusal_repeats_only_the_beginning_of_a_long_text() {
        let text = "x".repeat(10_000);
        let error = text.parse::<ChunkId>().expect_err("no id");
        assert!(error.to_string().len() < 200, "{error}");
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "-x", "a b", "ä", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?}");
        }
        assert!("web-1.2_x".parse::<AppName>().is_ok());
    }
}
