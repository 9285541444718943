//! Secrets of definitions: read from files and environment variables, never shown.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
use disk::files;

/// The longest secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretFrom {
    /// A file, which is read at each delivery: it may be replaced meanwhile.
    File(PathBuf),
    /// A variable of the proxy's environment.
    Env(String),
}

/// A secret. Shown as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl SecretFrom {
    /// Reads the secret, without white space around it.
    ///
    /// # Errors
    /// [`Error::Secret`] names the file or variable, and never what is in it.
    pub fn read(&self) -> Result<Secret, Error> {
        match self {
            Self::File(path) => read_file(path),
            Self::Env(name) => match std::env::var(name) {
                Ok(value) if !value.trim().is_empty() => Ok(Secret(value.trim().to_owned())),
                Ok(_) => Err(refuse(format!("the variable {name}"), "is empty")),
                Err(_) => {
                    Err(refuse(format!("the variable {name}"), "is not set for the proxy, or is no text"))
                }
            },
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, Error> {
    let bytes = files::read_bounded(path, SECRET_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| refuse(path.display().to_string(), "holds no text"))?;
    match text.trim() {
        "" => Err(refuse(path.display().to_string(), "is empty")),
        secret => Ok(Secret(secret.to_owned())),
    }
}

fn refuse(name: String, reason: &str) -> Error {
    Error::Secret { name, reason: reason.to_owned() }
}
