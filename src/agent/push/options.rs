//! The options of a push.

use std::path::PathBuf;
use std::time::Duration;

use crate::agent::chunk_cache::CACHE_BYTES_DEFAULT;
use crate::agent::pace::Effort;
use crate::agent::scan::Selection;
use ground::ids::{ActionName, AppName, DestinationName, Label};
use protocol::push::Window;
use protocol::token::Hop;

/// The options of a push.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct PushOptions {
    /// The application.
    pub app: AppName,
    /// A directory or a file.
    pub path: PathBuf,
    /// Which files to include.
    pub selection: Selection,
    /// Words for the release.
    pub labels: Vec<Label>,
    /// Where to deliver it.
    pub destinations: Vec<DestinationName>,
    /// End once the deliveries are queued, without waiting for them.
    pub no_wait: bool,
    /// Negotiate only.
    pub dry_run: bool,
    /// Leave the application's current release as it is, where there is one.
    pub keeps_current: bool,
    /// Make the release current although it was rolled back, and move labels that name other releases.
    pub moves: bool,
    /// Workers for hashing and compressing.
    pub threads: usize,
    /// How much the push may spend to save bytes.
    pub effort: Effort,
    /// Bytes a second that the link carries, where it is not to be measured.
    pub link_rate: Option<f64>,
    /// The folder of the memory and the chunk cache; none to write nothing down.
    pub state: Option<PathBuf>,
    /// Read every file, also those that look as they did at the last push.
    pub checksum: bool,
    /// Bytes that the chunk cache in the state folder may take; later pushes send deltas against its content.
    pub cache_bytes_max: u64,
    /// Bytes a second that may be sent.
    pub upload_rate_max: Option<f64>,
    /// How long to go on trying while the proxy stores nothing new.
    pub patience: Duration,
    /// Bounds what is negotiated at a time.
    pub window: Window,
    /// True if archives are not unpacked, and executables are sent as other files are.
    pub raw: bool,
    /// True if the receipt explains, file by file, why bytes crossed. Costs as much processor time again.
    pub explain: bool,
    /// The proxies that the release came through and on whose behalf, where it is one that pushes.
    pub behalf: Vec<Hop>,
    /// The actions that are to follow each delivery, in order.
    pub then: Vec<ActionName>,
    /// Only fill the proxy's cache, for a later push, and make no release: without labels, destinations and actions.
    pub cache_only: bool,
}

impl PushOptions {
    /// Returns the options of a push of all of `path` that writes nothing down.
    pub fn new(app: AppName, path: PathBuf) -> Self {
        Self {
            app,
            path,
            selection: Selection::default(),
            labels: Vec::new(),
            destinations: Vec::new(),
            no_wait: false,
            dry_run: false,
            keeps_current: false,
            moves: false,
            threads: 1,
            effort: Effort::default(),
            link_rate: None,
            state: None,
            checksum: false,
            cache_bytes_max: CACHE_BYTES_DEFAULT,
            upload_rate_max: None,
            patience: Duration::ZERO,
            window: Window::default(),
            raw: false,
            explain: false,
            behalf: Vec::new(),
            then: Vec::new(),
            cache_only: false,
        }
    }
}
