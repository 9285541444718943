//! Why a release could not be delivered.

use std::path::PathBuf;
use std::time::Duration;

use super::Mistake;
use crate::delivery::command::{self, Ended};
use crate::{agent, ledger, restore};
use disk::files;
use ground::faults::{Fault, faulty};
use ground::ids::DestinationName;
use ground::threads;

/// Why a release could not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is where a folder is needed.
    #[error("`{}` is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Something else than the link is where the link goes.
    #[error("`{}` is not a symbolic link", .0.display())]
    NotALink(PathBuf),
    /// A folder of whit's own that others may write to.
    #[error("`{}` belongs to another user, or others may write to it", .0.display())]
    NotOwn(PathBuf),
    /// A shared file that neither the destination nor the release has.
    #[error("the shared file `{}` does not exist", .0.display())]
    SharedMissing(PathBuf),
    /// What the proxy creates cannot be given to the configured owner.
    #[error("files cannot be given to {}: {source}", accounts(*.owner, *.group))]
    Owner {
        /// The user.
        owner: Option<u32>,
        /// The group.
        group: Option<u32>,
        /// The system's error.
        source: std::io::Error,
    },
    /// The definition does not fit this machine any more.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// Another delivery or pull to the same folder is under way.
    #[error("another delivery or pull to `{}` is under way", .0.display())]
    Busy(PathBuf),
    /// What a pull knows of the copies could not be read or written.
    #[error(transparent)]
    Pull(Box<agent::Error>),
    /// The release could not be rebuilt.
    #[error(transparent)]
    Rebuild(#[from] restore::Error),
    /// What the destination shows could not be written down.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// A service refused a request, or could not be reached.
    #[error("{what}: {reason}")]
    Service {
        /// The request and what it was about; without secrets.
        what: String,
        /// The answer, or why there is none.
        reason: String,
        /// What can be done about it.
        fault: Fault,
        /// The service's own wish when to try again.
        retry_after: Option<Duration>,
    },
    /// Another proxy cannot be reached, or refuses.
    #[error("{proxy}: {source}")]
    Proxy {
        /// The proxy's host and port.
        proxy: String,
        /// Why.
        source: Box<agent::Error>,
    },
    /// Another proxy has the release, and could not deliver it on.
    #[error("{proxy} has the release; its delivery to {destination} failed: {reason}")]
    Onward {
        /// The proxy's host and port.
        proxy: String,
        /// Its destination.
        destination: DestinationName,
        /// What it says.
        reason: String,
        /// True if it tries again.
        is_passing: bool,
    },
    /// A source of chunks that only its owner can read.
    #[error("only a release in a store can be delivered to another proxy")]
    NotStored,
    /// A service said that it stored something, and has it not.
    #[error("{0} is not there as it was sent, although the service said so")]
    Unverified(String),
    /// A name that the service cannot hold.
    #[error("`{path}` cannot be delivered here: its name {reason}")]
    KeyName {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A link that leads to no file of the release.
    #[error("the link `{0}` leads to no file of the release")]
    Link(String),
    /// More would be removed than the definition allows.
    #[error("{deleted} of {files} files would be removed, more than max_delete = {most}")]
    MaxDelete {
        /// Files of the current release that would go.
        deleted: u64,
        /// Files of the current release.
        files: u64,
        /// What the definition allows.
        most: String,
    },
    /// What readers see is not the release that was delivered.
    #[error("the probe of {url} did not find the release: {reason}")]
    Probe {
        /// The address, without secrets.
        url: String,
        /// What was found instead.
        reason: String,
    },
    /// Files with secrets of a definition.
    #[error("{name}: {reason}")]
    Secret {
        /// The file or variable.
        name: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The delivery was cancelled, or the proxy stops.
    #[error("the delivery was cancelled")]
    Cancelled,
    /// The threads that deliver cannot be started.
    #[error(transparent)]
    Threads(#[from] threads::Error),
    /// The destination's folders could not be changed.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A command that was to deliver could not be started.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// A command that was to deliver failed.
    #[error("the command `{}` {ended}{}{output}", .program.display(), if .output.is_empty() { "" } else { ": " })]
    CommandFailed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        ended: Ended,
        /// True if another try may succeed.
        is_passing: bool,
        /// The last lines of its output.
        output: String,
    },
    /// A command said success before it had read its input.
    #[error("the command `{}` ended with success before it had read the release", .0.display())]
    Unread(PathBuf),
}

faulty! {
    Error passes on Rebuild, Ledger, Threads, File, Command;
    Self::NotAFolder(path) | Self::NotALink(path) => Fault::Input,
        format!("move `{}` away, or deliver to another folder", path.display());
    Self::NotOwn(path) => Fault::Input,
        format!("remove `{}`, or make it the proxy's own (chown, chmod go-w)", path.display());
    Self::SharedMissing(path) => Fault::Input,
        format!("create `{}`; if it is a folder, write its name in `shared` with a slash at the end", path.display());
    Self::Owner { .. } => Fault::Denied,
        "run the proxy as root, or with CAP_CHOWN, CAP_FOWNER and CAP_DAC_OVERRIDE; it may give files to its own groups";
    Self::Mistake(mistake) => Fault::Input, mistake.hint();
    Self::Busy(_) | Self::CommandFailed { is_passing: true, .. } => Fault::Retry;
    Self::CommandFailed { is_passing: false, .. } => Fault::Input;
    Self::Unread(_) => Fault::Input,
        "let the command read standard input to its end, or set `input = \"none\"` for the destination";
    Self::Service { fault: Fault::Denied, .. } => Fault::Denied, "check the credentials in the destination's definition, and their rights";
    Self::Service { fault, .. } => *fault;
    Self::Proxy { source, .. } => source.fault();
    Self::Onward { is_passing: true, .. } => Fault::Retry;
    Self::Onward { is_passing: false, .. } => Fault::Input,
        "look there: `whit deliveries` with a token of that proxy; then deliver again from here";
    Self::Pull(source) => source.fault(), source.hint();
    Self::NotStored => Fault::Bug;
    Self::Unverified(_) => Fault::Retry, "look at the service: it may be full, or something else may change its content";
    Self::KeyName { .. } => Fault::Input, "rename the file, or leave it out with --exclude";
    Self::Link(_) => Fault::Input, "set `links = \"skip\"` for the destination, or push with --links follow";
    Self::MaxDelete { .. } => Fault::Input,
        "look at `whit deliver --dry-run`; if that is meant, raise `max_delete` for this delivery";
    Self::Probe { .. } => Fault::Retry, "what was delivered is there: look at what serves it, and at caches before it";
    Self::Secret { .. } => Fault::Input, "correct the destination's definition, then restart the proxy";
    Self::Cancelled => Fault::Interrupted;
}

impl Error {
    /// Returns whether nothing at all was written before this.
    pub fn is_before_all(&self) -> bool {
        matches!(self, Self::MaxDelete { .. } | Self::Link(_))
    }

    /// Returns when the service wishes to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Service { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn accounts(owner: Option<u32>, group: Option<u32>) -> String {
    let named = |kind: &str, number: Option<u32>| number.map(|number| format!("{kind} {number}"));
    let both: Vec<String> = named("user", owner).into_iter().chain(named("group", group)).collect();
    both.join(", ")
}
