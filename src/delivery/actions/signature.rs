//! Signatures of webhooks, by <https://www.standardwebhooks.com>.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;

use disk::files;
use ground::faults::{Fault, faulty};

/// How the text of a secret begins.
const MARK: &str = "whsec_";
/// The longest file of a secret.
const SECRET_BYTES_MAX: u64 = 4096;
/// The least bytes of a secret: fewer can be guessed.
const KEY_BYTES_MIN: usize = 16;

/// Why a secret cannot be used. Never has a part of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its file.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A file that holds something else.
    #[error("{} holds no secret: expected `{MARK}` and at least {KEY_BYTES_MIN} bytes in base64", .0.display())]
    NoSecret(PathBuf),
    /// A variable that holds something else, or nothing.
    #[error(
        "the variable {0} holds no secret: expected `{MARK}` and at least {KEY_BYTES_MIN} bytes in base64"
    )]
    NoSecretInVariable(String),
}

faulty! {
    Error passes on File;
    Self::NoSecret(_) | Self::NoSecretInVariable(_) => Fault::Input,
        "to make one: `echo whsec_$(openssl rand -base64 32)`";
}

/// A secret that a receiver knows, too.
pub struct Secret(hmac::Key);

impl Secret {
    /// Reads a secret's file; white space around it does not count.
    ///
    /// # Errors
    /// It cannot be read, or holds no secret.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = files::read_bounded(path, SECRET_BYTES_MAX)?;
        let secret = std::str::from_utf8(&text).ok().and_then(Self::parse);
        secret.ok_or_else(|| Error::NoSecret(path.to_owned()))
    }

    /// Reads a secret from a variable of the proxy's environment.
    ///
    /// # Errors
    /// It is not set, or holds no secret.
    pub fn from_variable(name: &str) -> Result<Self, Error> {
        let secret = std::env::var(name).ok().and_then(|text| Self::parse(&text));
        secret.ok_or_else(|| Error::NoSecretInVariable(name.to_owned()))
    }

    /// Parses the text of a secret.
    fn parse(text: &str) -> Option<Self> {
        let key = BASE64.decode(text.trim().strip_prefix(MARK)?).ok()?;
        (key.len() >= KEY_BYTES_MIN).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Returns the header `webhook-signature` of a message sent at `seconds` since 1970: one signature for each secret.
pub fn signatures(secrets: &[Secret], id: &str, seconds: u64, body: &[u8]) -> String {
    secrets.iter().map(|secret| secret.sign(id, seconds, body)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_reference() {
        // From the tests of the crate standardwebhooks 1.0.1.
        let secret = Secret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n").expect("a secret");
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let (id, seconds) = ("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553);
        let expected = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
        assert_eq!(signatures(&[secret], id, seconds, body), expected);
    }

    #[test]
    fn every_secret_signs_while_one_replaces_another() {
        let secret =
            |byte: u8| Secret::parse(&format!("{MARK}{}", BASE64.encode([byte; 24]))).expect("a secret");
        let one = |byte| signatures(&[secret(byte)], "id", 1, b"body");
        assert_eq!(signatures(&[secret(1), secret(2)], "id", 1, b"body"), format!("{} {}", one(1), one(2)));
        assert_ne!(one(1), one(2));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_showing_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("secret");
        for text in ["", "whsec_", "hunter2", "whsec_hunter2hunter2hunter2!", "whsec_c2hvcnQ="] {
            std::fs::write(&path, text).expect("written");
            let error = Secret::read(&path).expect_err("no secret");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("holds no secret") && !shown.contains("hunter2"), "{shown}");
        }
        assert!(Secret::from_variable("WHIT_NO_SUCH_VARIABLE").is_err());
    }
}
