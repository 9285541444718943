//! Why a benchmark did not come to an end.

use std::io;

use disk::files;
use ground::faults::{Fault, faulty};

/// The errors of a benchmark.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the input, of the work folder, or of a report.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A program cannot be started.
    #[error("could not start {program}: {source}")]
    Start {
        /// Its name.
        program: String,
        /// The system's error.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} ended with {status}: {output}")]
    Program {
        /// Its name.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of its standard error, on one line.
        output: String,
    },
    /// A program did not print the expected text.
    #[error("{program} printed no {expected}")]
    Unreadable {
        /// Its name.
        program: &'static str,
        /// The expected text.
        expected: &'static str,
    },
    /// A tool made something else than NEW.
    #[error("{tool} brought something that differs from NEW at {place}")]
    Differs {
        /// The tool's name.
        tool: &'static str,
        /// A path, or the stream.
        place: String,
    },
    /// The input has an entry that not every tool can copy.
    #[error("{path} is neither a file, a folder nor a symbolic link")]
    Kind {
        /// Its path.
        path: String,
    },
    /// A file beside a directory.
    #[error("{old} and {new} are neither both files nor both directories")]
    Mixed {
        /// The earlier release.
        old: String,
        /// The later release.
        new: String,
    },
    /// An unknown name of a tool.
    #[error("there is no tool `{name}`")]
    Tool {
        /// The given text.
        name: String,
        /// The known tools.
        known: Vec<&'static str>,
    },
    /// A text that is no link.
    #[error("`{text}` is no link like 20mbit/50ms: {reason}")]
    Link {
        /// The given text.
        text: String,
        /// The reason.
        reason: &'static str,
    },
    /// A file that is no report.
    #[error("{path} is no report of `whit bench --json`: {source}")]
    Report {
        /// The file.
        path: String,
        /// Where reading stopped.
        source: serde_json::Error,
    },
    /// A plot cannot be drawn.
    #[error("could not draw {path}: {reason}")]
    Plot {
        /// The file.
        path: String,
        /// In the library's words.
        reason: String,
    },
    /// The emulated link cannot be built.
    #[error("could not build the link: {action}: {source}")]
    Wan {
        /// The failed action.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A socket between the tools' two sides.
    #[error("could not {action}: {source}")]
    Socket {
        /// The failed action.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// whit did not deliver what was pushed.
    #[error("the release {release} was pushed, and is not at its destination after {seconds} s")]
    Undelivered {
        /// Its id.
        release: String,
        /// The seconds since the push.
        seconds: u64,
    },
    /// A baseline of another input.
    #[error("the baseline is of other releases, named {name}")]
    Baseline {
        /// The input's name in it.
        name: String,
    },
    /// A text that is no share.
    #[error("`{text}` is no share like 10%")]
    Share {
        /// The given text.
        text: String,
    },
    /// Figures that are worse than those of the baseline.
    #[error("worse than the baseline: {}", .figures.join("; "))]
    Worse {
        /// In a clause each.
        figures: Vec<String>,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// A benchmark's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

faulty! {
    Error passes on File;
    Self::Start { program, source } => Fault::of_io(source),
        format!("install {program}, or leave it out with --skip");
    Self::Wan { source, .. } => Fault::of_io(source),
        "emulated links need Linux, root, /dev/net/tun and the `ip` program; --links loopback needs none of them";
    Self::Program { .. } | Self::Unreadable { .. } | Self::Differs { .. } => Fault::Retry,
        "leave the tool out with --skip, or run what it was asked to do by hand (docs/BENCHMARKS.md)";
    Self::Undelivered { .. } | Self::Plot { .. } => Fault::Retry;
    Self::Socket { source, .. } => Fault::of_io(source);
    Self::Worse { .. } => Fault::Retry,
        "measure again on a quiet machine with --rounds 3; if it is meant to be so, make this run's --json the baseline";
    Self::Baseline { .. } => Fault::Input, "make one with --json, of the same OLD and NEW";
    Self::Share { .. } => Fault::Input, "write a number from 0 with %";
    Self::Kind { .. } => Fault::Input, "take it out of the release";
    Self::Mixed { .. } => Fault::Input, "give two files or two directories";
    Self::Tool { known, .. } => Fault::Input, format!("known are {}", known.join(", "));
    Self::Link { .. } => Fault::Input, "write `loopback`, or rate, round trip time, loss: 100mbit/50ms/0.5%";
    Self::Report { .. } => Fault::Input;
    Self::Interrupted => Fault::Interrupted, "nothing was left behind; run the command again";
}
