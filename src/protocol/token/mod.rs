//! Tokens: what a user may do, signed by the proxy that must honour it.
//!
//! A token is text, `whit1.PAYLOAD.SIGNATURE`: a MessagePack payload and its Ed25519 signature, both in
//! base64url. It carries its whole [`Grant`], so that a proxy needs no lookup to know what it allows;
//! that it was not revoked is the caller's to check. Nothing here reads a clock or draws randomness.
//!
//! Layout: FORMAT 6.

mod grant;
mod signed;

pub use format::hop::Hop;
pub use grant::{Action, Grant};
pub use ground::token_id::TokenId;
pub use signed::{Issuer, PUBLIC_KEY_BYTES, claimed, claimed_space, verify};

use std::time::{Duration, SystemTime};

use ground::faults::{Fault, faulty};

/// Why a token, or a part of one, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the text of a token.
    #[error("not a token: expected whit1.PAYLOAD.SIGNATURE")]
    Malformed,
    /// Made by a newer whit.
    #[error("token version {0} is unknown to this version")]
    Version(u32),
    /// Signed by another proxy, or by this one before it was installed again.
    #[error("the token was issued by another proxy")]
    Foreign,
    /// Neither signed by this proxy nor by one that it names.
    #[error("the token's signature does not match its content")]
    Forged,
    /// Its time is over.
    #[error("the token expired at {}; by the proxy's clock it is {}", time_text(*.since), time_text(*.now))]
    Expired {
        /// When it expired, Unix seconds.
        since: u64,
        /// The time by the clock, Unix seconds.
        now: u64,
    },
    /// A grant with more names than a token may carry.
    #[error("a token would have {found} B, expected at most {max} B", max = ground::limits::TOKEN_BYTES_MAX)]
    TooLarge {
        /// The bytes that its text would take.
        found: usize,
    },
    /// A list beyond the limit.
    #[error("a token would list {found} {what}, expected at most {max}", max = ground::limits::LIST_MAX)]
    TooMany {
        /// The kind of thing that is listed.
        what: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A word that is no action.
    #[error("`{0}` is not an action: use push, pull, read, deliver or admin")]
    Action(String),
    /// Bytes that are no Ed25519 key.
    #[error("the token key is not an Ed25519 key in PKCS#8 form")]
    Key,
}

faulty! {
    Error;
    Self::Malformed => Fault::Denied, "copy the whole line that `whit token create` printed";
    Self::Version(_) => Fault::Version, "update the proxy, or create a token with the proxy's version";
    Self::Foreign => Fault::Denied, "create a token on the proxy that you connect to: `whit token create`";
    Self::Forged => Fault::Denied, "copy the token again; if that does not help, ask for a new one";
    Self::Expired { .. } => Fault::Denied,
        "ask for a new token: `whit token create` on the proxy; or set the proxy's clock, if it is wrong";
    Self::TooLarge { .. } | Self::TooMany { .. } => Fault::Input,
        "use patterns such as `web-*` instead of many names";
    Self::Key => Fault::Corrupt, "restore the proxy's identity from a backup";
    Self::Action(_) => Fault::Input;
}

/// Unix seconds for people.
fn time_text(seconds: u64) -> String {
    /// The last second of the year 9999, beyond which RFC 3339 has no text.
    const LAST: u64 = 253_402_300_799;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(LAST));
    humantime::format_rfc3339_seconds(time).to_string()
}
