//! Where a proxy is and which key proves that it is the right one.
//!
//! A [`ProxyUrl`] is what people copy from `whit serve` to an agent: `whit://HOST:PORT#FINGERPRINT`.
//! The agent trusts no authority, only the fingerprint in it.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use ground::faults::{Fault, faulty};

/// What every address of a proxy starts with.
const SCHEME: &str = "whit://";
/// RFC 1035, section 2.3.4: the longest name of a host.
const HOST_BYTES_MAX: usize = 255;

/// Why an address or a fingerprint was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not 64 hexadecimal digits.
    #[error("`{0}` is not a fingerprint: expected 64 hexadecimal digits")]
    Fingerprint(String),
    /// Another scheme, or none.
    #[error("`{0}` is not a proxy address: expected it to start with `whit://`")]
    Scheme(String),
    /// Nothing says which key the proxy has.
    #[error("address `{0}` has no fingerprint: expected whit://HOST:PORT#FINGERPRINT")]
    NoFingerprint(String),
    /// No port, or one that is no port.
    #[error("address `{0}` has no port: expected whit://HOST:PORT#FINGERPRINT with a port of 1 to 65535")]
    Port(String),
    /// Neither a name nor an IP address.
    #[error("host `{0}` is neither a name, an IPv4 address, nor an IPv6 address in brackets")]
    Host(String),
}

faulty! {
    Error;
    _ => Fault::Input, "copy the whole address that `whit serve` prints, and quote it in a shell";
}

/// BLAKE3-256 of a proxy's public key in its `SubjectPublicKeyInfo` form: what agents pin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Fingerprints a key, given as the DER of its `SubjectPublicKeyInfo` (44 bytes for Ed25519).
    pub fn of_key(key_info: &[u8]) -> Self {
        Self(*blake3::hash(key_info).as_bytes())
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        from_hex(text).map(Self).ok_or_else(|| Error::Fingerprint(shown(text)))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// A proxy's address with its pinned key: `whit://HOST:PORT#FINGERPRINT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProxyUrl {
    host: String,
    port: u16,
    fingerprint: Fingerprint,
}

impl ProxyUrl {
    /// Puts an address together; an IPv6 host is given without brackets.
    ///
    /// # Errors
    /// [`Error::Host`] for what is neither a name nor an IP address, [`Error::Port`] for port 0.
    pub fn new(host: &str, port: u16, fingerprint: Fingerprint) -> Result<Self, Error> {
        check_host(host)?;
        if port == 0 {
            return Err(Error::Port(shown(host)));
        }
        Ok(Self { host: host.to_owned(), port, fingerprint })
    }

    /// A name or an IP address; without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the UDP port, not 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the key that the proxy must prove to have.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// Checks that an address can name `host`; an IPv6 host is given without brackets.
///
/// # Errors
/// [`Error::Host`].
pub fn check_host(host: &str) -> Result<(), Error> {
    if is_name(host) || host.parse::<Ipv6Addr>().is_ok() { Ok(()) } else { Err(Error::Host(shown(host))) }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, fingerprint } = self;
        if host.contains(':') {
            write!(f, "{SCHEME}[{host}]:{port}#{fingerprint}")
        } else {
            write!(f, "{SCHEME}{host}:{port}#{fingerprint}")
        }
    }
}

impl FromStr for ProxyUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| Error::Scheme(shown(text)))?;
        let (place, fingerprint) = match rest.split_once('#') {
            Some((place, fingerprint)) if !fingerprint.is_empty() => (place, fingerprint),
            _ => return Err(Error::NoFingerprint(shown(text))),
        };
        let fingerprint = fingerprint.parse()?;
        let no_port = || Error::Port(shown(text));
        let (host, port) = match place.strip_prefix('[').map(|inside| inside.split_once(']')) {
            Some(Some((host, port))) if host.contains(':') => (host, port.strip_prefix(':')),
            Some(_) => return Err(Error::Host(shown(place))),
            None => match place.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => return Err(Error::Host(shown(place))),
                Some((host, port)) => (host, Some(port)),
                None => return Err(no_port()),
            },
        };
        let port = port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit())).ok_or_else(no_port)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(no_port)?;
        Self::new(host, port, fingerprint)
    }
}

impl TryFrom<String> for ProxyUrl {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ProxyUrl> for String {
    fn from(url: ProxyUrl) -> Self {
        url.to_string()
    }
}

/// Reads exactly `N` bytes from twice as many hexadecimal digits.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A host's name or an IPv4 address: what a resolver can be asked for.
fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(allowed) && !host.starts_with(['.', '-'])
}

/// As much of a refused text as an error may repeat.
fn shown(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint() -> Fingerprint {
        Fingerprint::of_key(b"a key")
    }

    #[test]
    fn an_address_survives_its_text_form() {
        for host in ["proxy.example.com", "10.0.0.1", "::1", "2001:db8::7", "build_host"] {
            let url = ProxyUrl::new(host, 4433, fingerprint()).expect("a host");
            assert_eq!(url.to_string().parse(), Ok(url), "{host}");
        }
        let url = ProxyUrl::new("::1", 4433, fingerprint()).expect("a host");
        assert_eq!(url.to_string(), format!("whit://[::1]:4433#{}", fingerprint()));
    }

    #[test]
    fn an_address_without_its_parts_says_which_is_missing() {
        let key = fingerprint();
        let parse = |text: String| text.parse::<ProxyUrl>().expect_err("it lacks something");
        assert!(matches!(parse(format!("https://h:1#{key}")), Error::Scheme(_)));
        assert!(matches!(parse("whit://h:1".to_owned()), Error::NoFingerprint(_)));
        assert!(matches!(parse("whit://h:1#".to_owned()), Error::NoFingerprint(_)));
        assert!(matches!(parse("whit://h:1#00ff".to_owned()), Error::Fingerprint(_)));
        for place in ["h", "h:", "h:0", "h:65536", "h:+1", "h:1/", "[::1]", "[::1]1"] {
            assert!(matches!(parse(format!("whit://{place}#{key}")), Error::Port(_)), "{place}");
        }
        for place in ["::1:80", "[::1:80", "[h]:1", ":1", "-h:1", "a b:1", "[::x]:1"] {
            assert!(matches!(parse(format!("whit://{place}#{key}")), Error::Host(_)), "{place}");
        }
    }

    #[test]
    fn an_address_cut_short_is_refused_everywhere() {
        let text = ProxyUrl::new("proxy.example.com", 4433, fingerprint()).expect("a host").to_string();
        for length in 0..text.len() {
            assert!(text[..length].parse::<ProxyUrl>().is_err(), "{length}");
        }
    }
}
