//! The result of a pull.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::fetch::Fetched;
use super::options::Layout;
use super::staging::SetAside;
use crate::agent::Session;
use crate::agent::push::receipt::{self, ReceiptWire};
use ground::escape;
use ground::ids::{AppName, ReleaseId};

/// The result of a pull.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pulled {
    /// The release.
    pub release: ReleaseId,
    /// The application.
    pub app: AppName,
    /// The directory.
    #[serde(serialize_with = "escape::serialize_path")]
    pub place: PathBuf,
    /// How it holds the release.
    pub layout: Layout,
    /// The folder of the release: the directory itself, or a copy in it.
    #[serde(serialize_with = "escape::serialize_path")]
    pub copy: PathBuf,
    /// The release that was shown before, if its copy is kept.
    pub previous: Option<ReleaseId>,
    /// The releases whose copies are kept, the shown one first.
    pub kept: Vec<ReleaseId>,
    /// Files of the release.
    pub files: u64,
    /// Bytes of the release.
    pub bytes: u64,
    /// Chunks that the directory did not have.
    pub fetched_chunks: u64,
    /// Their plain bytes.
    pub fetched_bytes: u64,
    /// Bytes on the wire.
    pub wire: ReceiptWire,
    /// True if the directory held the release already: nothing was written.
    pub unchanged: bool,
    /// Entries of the last pull that the user had changed.
    pub set_aside: SetAside,
    /// Seconds from beginning to end.
    pub seconds: f64,
    /// The process's largest resident memory, in bytes.
    pub peak_rss: u64,
}

impl Pulled {
    /// Takes what was fetched for the directory at `place`, and is at `copy`.
    pub fn new(
        session: &Session,
        fetched: &Fetched,
        layout: Layout,
        (place, copy): (&Path, &Path),
        unchanged: bool,
    ) -> Self {
        let (counters, record) = (session.counters(), &fetched.record);
        Self {
            release: fetched.root.release(),
            app: record.app.clone(),
            place: place.to_owned(),
            layout,
            copy: copy.to_owned(),
            previous: None,
            kept: Vec::new(),
            files: record.totals.files,
            bytes: record.totals.bytes,
            fetched_chunks: fetched.chunks,
            fetched_bytes: fetched.bytes,
            wire: ReceiptWire { up: counters.sent_bytes, down: counters.received_bytes },
            unchanged,
            set_aside: SetAside::default(),
            seconds: 0.0,
            peak_rss: 0,
        }
    }

    /// Notes that the pull, which began at `begin`, has ended.
    #[must_use]
    pub fn ended(self, begin: Instant) -> Self {
        Self { seconds: begin.elapsed().as_secs_f64(), peak_rss: receipt::peak_rss(), ..self }
    }
}
