//! Why a command failed: the errors of every floor, with an exit code and a hint.

use std::io;

use super::outcome::Outcome;
use crate::net::{identity, link};
use crate::{agent, config, proxy, restore, target};
use disk::files;
use ground::faults::{Fault, Faulty as _, faulty};
use ground::ids;
use protocol::address;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Agent(#[from] agent::Error),
    #[error(transparent)]
    Place(#[from] target::place::Error),
    #[error(transparent)]
    Target(#[from] target::Error),
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    Rebuild(#[from] restore::Error),
    #[error(transparent)]
    Name(#[from] ids::Error),
    #[error(transparent)]
    Address(#[from] address::Error),
    #[error(transparent)]
    Link(#[from] link::Error),
    #[cfg(feature = "bench")]
    #[error(transparent)]
    Bench(#[from] whit_bench::Error),
    #[error(transparent)]
    Threads(#[from] ground::threads::Error),
    /// A failure of the command itself.
    #[error("{text}")]
    Message { fault: Fault, text: String, hint: Option<String> },
    /// A rollout that did not succeed, or has not yet.
    #[error("{text}")]
    Rollout { outcome: Outcome, text: String, hint: String },
    #[error("interrupted")]
    Interrupted,
    /// A path that is not UTF-8.
    #[error("the command succeeded, but its result cannot be written as JSON: {0}")]
    Report(serde_json::Error),
    /// Standard output.
    #[error("could not write to standard output: {0}")]
    Output(io::Error),
}

/// The exit code that a shell gives a program ended by a closed pipe: 128 and SIGPIPE.
const READER_GONE: u8 = 141;

impl Error {
    /// Returns whether the reader of standard output has gone, which needs no message.
    pub fn is_reader_gone(&self) -> bool {
        let (Self::Output(source)
        | Self::Rebuild(restore::Error::Output { source, .. } | restore::Error::OutputEnd(source))) = self
        else {
            return false;
        };
        source.kind() == io::ErrorKind::BrokenPipe
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Rollout { outcome, .. } => outcome.exit_code(),
            _ if self.is_reader_gone() => READER_GONE,
            _ => self.fault().exit_code(),
        }
    }

    /// Returns what became of the rollout that the command asked for.
    pub fn outcome(&self) -> Option<Outcome> {
        if let Self::Rollout { outcome, .. } = self { Some(*outcome) } else { None }
    }

    /// Returns the error's own hint, else that of its fault.
    pub fn advice(&self) -> Option<String> {
        self.hint().or_else(|| general_hint(self.fault()).map(str::to_owned))
    }

    pub fn input(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Message { fault: Fault::Input, text: text.into(), hint: Some(hint.into()) }
    }
}

faulty! {
    Error passes on Agent, Place, Target, Proxy, Config, File, Identity, Rebuild, Address, Link, #[cfg(feature = "bench")] Bench, Threads;
    Self::Name(_) | Self::Report(_) => Fault::Input;
    Self::Message { fault, hint, .. } => *fault, hint.clone();
    Self::Rollout { outcome, hint, .. } => outcome.fault(), hint.clone();
    Self::Interrupted => Fault::Interrupted;
    Self::Output(source) => Fault::of_io(source),
        "check the output's target; the command itself succeeded";
}

/// Returns the hint for a fault whose error has none of its own.
fn general_hint(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::Retry => Some("try again; what was acknowledged is not sent twice"),
        Fault::Full => Some("make room on the disk, then try again"),
        Fault::Corrupt => Some("push the release again from where it was built; only lost content is sent"),
        Fault::Version => Some("update the older of the two sides"),
        Fault::Bug => Some("this is a bug in whit: please report it, with the command"),
        Fault::Denied => Some("check the permissions, or ask the proxy's admin for another token"),
        Fault::Interrupted => {
            Some("run it again: it continues where it stopped; queued deliveries go on by themselves")
        }
        Fault::Input => Some("check the arguments: the command's `--help` lists them"),
        Fault::Missing => None,
    }
}
