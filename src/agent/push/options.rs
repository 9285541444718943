//! What a push is to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::agent::chunk_cache::CACHE_BYTES_DEFAULT;
use crate::agent::scan::Selection;
use ground::ids::{AppName, DestinationName, Label};
use protocol::push::Window;

/// What to push, and how.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct PushOptions {
    /// The application.
    pub app: AppName,
    /// A directory or a file.
    pub path: PathBuf,
    /// What of it.
    pub selection: Selection,
    /// Words for the release.
    pub labels: Vec<Label>,
    /// Where to deliver it.
    pub destinations: Vec<DestinationName>,
    /// Negotiate only.
    pub dry_run: bool,
    /// Workers for hashing and compressing.
    pub threads: usize,
    /// Bytes a second that the link carries, where it is not to be measured.
    pub link_rate: Option<f64>,
    /// The state folder in which the agent remembers its pushes; none to remember nothing.
    pub state: Option<PathBuf>,
    /// Read every file, also those that look as they did at the last push.
    pub checksum: bool,
    /// Bytes of pushed content that may be kept in the state folder as the basis of later pushes.
    pub cache_bytes_max: u64,
    /// Bytes a second that may be sent.
    pub upload_rate_max: Option<f64>,
    /// How long to go on trying while nothing new gets stored.
    pub patience: Duration,
    /// Bounds what is under way of the negotiation at a time.
    pub window: Window,
    /// Whether archives and executables are pushed as plain bytes, instead of as what is in them.
    pub raw: bool,
    /// Whether to say, file by file, why bytes crossed. Costs as much processor time again.
    pub explain: bool,
}

impl PushOptions {
    /// A push of all of `path`, that remembers nothing.
    pub fn new(app: AppName, path: PathBuf) -> Self {
        Self {
            app,
            path,
            selection: Selection::default(),
            labels: Vec::new(),
            destinations: Vec::new(),
            dry_run: false,
            threads: 1,
            link_rate: None,
            state: None,
            checksum: false,
            cache_bytes_max: CACHE_BYTES_DEFAULT,
            upload_rate_max: None,
            patience: Duration::ZERO,
            window: Window::default(),
            raw: false,
            explain: false,
        }
    }
}
