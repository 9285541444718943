//! The standard input of a command: a pipe that never keeps its writer waiting for a command that has ended.

use std::io::{self, Write};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// 50 ms: how soon the writer notices that the command is ended.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// What became of a command's input.
#[derive(Debug)]
pub enum Input<E> {
    /// All of it was written to the command.
    Whole,
    /// The command closed it, or ended, before all of it was written.
    Cut,
    /// It could not be produced; the command was stopped.
    Failed(E),
}

/// What the writer of the input and the supervisor tell each other.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The command is being ended, or has ended: it takes no more input.
    is_over: AtomicBool,
    /// The input cannot be produced: the command is to be ended.
    is_abandoned: AtomicBool,
}

impl State {
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}

/// The proxy's end of the pipe.
pub(super) struct PipeInput<'a> {
    pipe: ChildStdin,
    state: &'a State,
    is_cut: bool,
}

/// An input that was taken or failed. The pipe of one that failed stays open while this lives.
pub(super) struct Taken<E> {
    result: Input<E>,
    _pipe: Option<ChildStdin>,
}

impl<E> Taken<E> {
    /// Closes the pipe.
    pub fn end(self) -> Input<E> {
        self.result
    }
}

impl<'a> PipeInput<'a> {
    pub fn new(pipe: ChildStdin, state: &'a State) -> Self {
        Self { pipe, state, is_cut: false }
    }

    /// Writes what `write` writes, and closes the pipe if that was all.
    pub fn take<E>(mut self, write: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Taken<E> {
        // The command has another description of the pipe, whose flags this does not change.
        let flags = rustix::fs::fcntl_getfl(&self.pipe);
        let set =
            flags.and_then(|flags| rustix::fs::fcntl_setfl(&self.pipe, flags | rustix::fs::OFlags::NONBLOCK));
        set.expect("an open pipe takes the flag");
        let written = write(&mut self);
        let result = match written {
            // Somebody else's mistake after the pipe broke is no failure of the input.
            Ok(()) | Err(_) if self.is_cut => Input::Cut,
            Ok(()) => Input::Whole,
            Err(error) => {
                self.state.abandon();
                Input::Failed(error)
            }
        };
        let pipe = (!matches!(result, Input::Whole)).then_some(self.pipe);
        Taken { result, _pipe: pipe }
    }

    fn cut(&mut self) -> io::Error {
        self.is_cut = true;
        io::ErrorKind::BrokenPipe.into()
    }
}

impl Write for PipeInput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.state.is_over.load(Ordering::Relaxed) {
                return Err(self.cut());
            }
            match self.pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(&self.pipe, PollFlags::OUT)];
                    match poll(&mut fds, Some(&LOOK)) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(self.cut()),
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
