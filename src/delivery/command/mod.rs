//! A command of the admin's, run with limits: time, output, and an end that reaches what it started.
//!
//! The command runs in a process group of its own, with an environment that is given and nothing else of the proxy's but
//! PATH, HOME and LANG. Its two outputs are one stream, of which the end is kept and the rest counted and thrown away. When
//! its time is over, or the caller cancels, the group gets TERM, and KILL after a grace. A child that keeps the output open
//! after the command has ended is waited for [`LEFT_OPEN_WAIT`], then killed. A process that leaves the group (`setsid`) is
//! left alone.
//!
//! No shell reads the command: an admin who wants one names it.

mod definition;
mod input;
mod supervisor;

pub use definition::{CommandLine, Mistake, Variables, check_names};
pub use input::Input;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use self::input::{PipeInput, State};
use self::supervisor::Supervisor;
use disk::files::{self, OnPath as _};
use ground::escape;
use ground::faults::{Fault, faulty};
use ground::threads;

/// The wait for a child that keeps the output open after the command has ended.
const LEFT_OPEN_WAIT: Duration = Duration::from_secs(2);
/// 8 KiB: the end of the output that is kept, some hundred lines.
const OUTPUT_KEPT_BYTES: usize = 8 * 1024;
/// What a command keeps of the proxy's own environment.
const KEPT_VARIABLES: [&str; 3] = ["PATH", "HOME", "LANG"];

/// Why a command did not run to an end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("the command `{}` could not be started: {source}", .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It runs, but cannot be watched; it was killed.
    #[error("the command `{}` could not be watched: {source}", .program.display())]
    Watch {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The working folder.
    #[error(transparent)]
    Folder(#[from] files::Error),
    /// The thread that watches it.
    #[error(transparent)]
    Thread(#[from] threads::Error),
}

faulty! {
    Error passes on Folder, Thread;
    Self::Start { program, source } => Fault::of_io(source),
        format!("check that `{}` is on the proxy's host, and that the proxy's user may run it", program.display());
    Self::Watch { source, .. } => Fault::of_io(source);
}

/// A command to run, and its limits.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The program, by its absolute path or by a name that PATH finds.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The variables that are set besides PATH, HOME and LANG.
    pub environment: Vec<(OsString, OsString)>,
    /// The working folder.
    pub folder: PathBuf,
    /// The time it may take.
    pub time: Duration,
    /// The time from TERM to KILL.
    pub grace: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with a status.
    Exited(i32),
    /// By a signal that the proxy did not send.
    Signalled(i32),
    /// Its time was over.
    TimedOut,
    /// The caller cancelled it, or could not produce its input.
    Stopped,
    /// Not at all: it outlived KILL, as a process in a broken file system does.
    Stuck,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "ended with status {status}"),
            Self::Signalled(signal) => write!(f, "was ended by signal {signal}"),
            Self::TimedOut => f.write_str("took longer than its `seconds` allow, and was ended"),
            Self::Stopped => f.write_str("was stopped"),
            Self::Stuck => f.write_str("does not end, even by KILL"),
        }
    }
}

/// The result of a command that was started.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub ended: Ended,
    /// Bytes that it wrote to standard output and standard error.
    pub output_bytes: u64,
    /// The last of them, at most [`OUTPUT_KEPT_BYTES`].
    pub output: Vec<u8>,
    /// True if a child kept the output open after the command had ended, and was killed for it.
    pub left_open: bool,
}

impl Ran {
    /// Returns the last lines of the output, at most `bytes` bytes of them, safe to show; empty if there was none.
    pub fn last_lines(&self, bytes: usize) -> String {
        let text = self.output.trim_ascii_end();
        let mut begin = text.len().saturating_sub(bytes);
        if begin > 0 {
            // Whole lines, where one ends within the bytes.
            let end = text[begin..].iter().position(|byte| *byte == b'\n');
            begin = end.map_or(begin, |end| begin + end + 1);
        }
        let lines = text[begin..].split(|byte| *byte == b'\n');
        lines.map(|line| escape::bytes(line.trim_ascii_end())).collect::<Vec<_>>().join("\n")
    }
}

impl Command {
    /// Runs the command with an empty standard input.
    ///
    /// # Errors
    /// It could not be started or watched. How it ended is part of the result.
    pub fn run(&self, cancelled: &AtomicBool) -> Result<Ran, Error> {
        let (child, supervisor) = self.start(Stdio::null())?;
        supervisor.watch(child, &State::default(), cancelled).map_err(|source| self.watch_error(source))
    }

    /// Runs the command, with what `write` writes as its standard input.
    ///
    /// The input ends only where `write` has succeeded: a command never takes a part for the whole. If `write` fails, the
    /// command is stopped first.
    ///
    /// # Errors
    /// It could not be started or watched. How it ended, and what became of the input, is part of the result.
    pub fn run_with_input<E>(
        &self,
        cancelled: &AtomicBool,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(Ran, Input<E>), Error> {
        let (mut child, supervisor) = self.start(Stdio::piped())?;
        let pipe: ChildStdin = child.stdin.take().expect("it was asked for");
        let state = State::default();
        std::thread::scope(|scope| {
            let guard = KillOnDrop(&state);
            let watch = threads::start(scope, || supervisor.watch(child, &state, cancelled))?;
            let input = PipeInput::new(pipe, &state).take(write);
            drop(guard);
            let ran = watch.join().map_err(|_| threads::Error::Panicked)?;
            let ran = ran.map_err(|source| self.watch_error(source))?;
            Ok((ran, input.end()))
        })
    }

    fn start(&self, input: Stdio) -> Result<(Child, Supervisor), Error> {
        let failed = |source| Error::Start { program: self.program.clone(), source };
        // A missing folder would look like a missing program.
        std::fs::metadata(&self.folder).on("look at", &self.folder)?;
        let (output, out) = io::pipe().map_err(failed)?;
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.folder).process_group(0).env_clear();
        let kept = KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.envs(kept).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(input).stderr(out.try_clone().map_err(failed)?).stdout(out);
        let child = command.spawn().map_err(failed)?;
        Ok((child, Supervisor { output: output.into(), time: self.time, grace: self.grace }))
    }

    fn watch_error(&self, source: io::Error) -> Error {
        Error::Watch { program: self.program.clone(), source }
    }

    /// Returns the file that would run; none if it is not there, or nobody may execute it.
    pub fn find(&self) -> Option<PathBuf> {
        let may_run =
            |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
        if self.program.components().count() > 1 {
            return Some(self.program.clone()).filter(may_run);
        }
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders).map(|folder| folder.join(&self.program)).find(may_run)
    }
}

/// The environment may hold secrets.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("program", &self.program).finish_non_exhaustive()
    }
}

/// Ends the command where its input ends in a panic.
struct KillOnDrop<'a>(&'a State);

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandon();
        }
    }
}

#[cfg(test)]
mod tests;
