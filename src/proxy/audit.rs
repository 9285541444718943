//! The audit log: one line of JSON for each push, delivery and requested change, with its user and time.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;

use disk::files::{self, OnPath};
use ground::ids::{AppName, DestinationName, ReleaseId, SpaceName, UserName};
use ground::poison::Unpoisoned as _;

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct Entry<'a> {
    /// Seconds since 1970.
    pub time: u64,
    /// `push`, `deliver`, `remove`, `pin` or `unpin`.
    pub action: &'static str,
    /// The user on whose behalf it was done.
    pub user: &'a UserName,
    /// The space.
    pub space: &'a SpaceName,
    /// The application.
    pub app: &'a AppName,
    /// The release.
    pub release: ReleaseId,
    /// The destinations, if any.
    pub destinations: &'a [DestinationName],
}

/// The log, open for appending.
#[derive(Debug)]
pub struct Audit(Mutex<File>);

impl Audit {
    /// Opens or creates the log.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: &Path) -> files::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).on("open", path)?;
        Ok(Self(Mutex::new(file)))
    }

    /// Appends a line. A failed write is logged and undoes nothing.
    pub fn write(&self, entry: &Entry<'_>) {
        let mut line = serde_json::to_vec(entry).expect("an entry is plain words and numbers");
        line.push(b'\n');
        if let Err(error) = self.0.lock().unpoisoned().write_all(&line) {
            tracing::error!(%error, "the audit log could not be written");
        }
    }
}
