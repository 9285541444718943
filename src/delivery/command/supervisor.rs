//! Watches a command that runs: reads its output, ends it and what it started when its time is over.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::input::State;
use super::{Ended, LEFT_OPEN_WAIT, OUTPUT_KEPT_BYTES, Ran};

/// How often the flag that cancels is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The wait for a process that was killed.
const KILLED_WAIT: Duration = Duration::from_secs(10);
/// Bytes of output that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// The proxy's end of a command's output, and its limits.
pub(super) struct Supervisor {
    pub output: OwnedFd,
    pub time: Duration,
    pub grace: Duration,
}

/// What is being done to a command.
enum Phase {
    Running {
        until: Instant,
    },
    /// It got TERM.
    Ending {
        why: Ended,
        until: Instant,
    },
    /// Its group got KILL.
    Killed {
        why: Ended,
        until: Instant,
    },
}

impl Supervisor {
    /// Watches `child`, the leader of its group, to its end. The group's members are told apart from a later group with
    /// the same number by the leader, which is waited for last.
    pub fn watch(self, mut child: Child, state: &State, cancelled: &AtomicBool) -> io::Result<Ran> {
        let pid = Pid::from_child(&child);
        let watched = self.watch_group(pid, state, cancelled);
        state.end();
        match watched {
            Ok((Some(Ended::Stuck), output)) => Ok(output.ran(Ended::Stuck)),
            Ok((why, output)) => {
                let status = child.wait()?;
                let by_itself = || match (status.code(), status.signal()) {
                    (Some(code), _) => Ended::Exited(code),
                    (None, signal) => Ended::Signalled(signal.unwrap_or_default()),
                };
                Ok(output.ran(why.unwrap_or_else(by_itself)))
            }
            Err(error) => {
                signal(pid, Signal::KILL);
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Returns why the command was ended, none if it ended by itself.
    fn watch_group(
        self,
        pid: Pid,
        state: &State,
        cancelled: &AtomicBool,
    ) -> io::Result<(Option<Ended>, Output)> {
        let leader = pidfd_open(pid, PidfdFlags::empty())?;
        let mut output = Output::new(self.output)?;
        let now = Instant::now();
        let mut phase = Phase::Running { until: now.checked_add(self.time).unwrap_or(now + DAY) };
        while !output.wait(Some(&leader), LOOK)? {
            let now = Instant::now();
            phase = match phase {
                Phase::Running { until } => {
                    let is_stopped = cancelled.load(Ordering::Relaxed) || state.is_abandoned();
                    let why = if is_stopped { Ended::Stopped } else { Ended::TimedOut };
                    if is_stopped || now >= until {
                        state.end();
                        signal(pid, Signal::TERM);
                        Phase::Ending { why, until: now + self.grace }
                    } else {
                        Phase::Running { until }
                    }
                }
                Phase::Ending { why, until } if now >= until => {
                    signal(pid, Signal::KILL);
                    Phase::Killed { why, until: now + KILLED_WAIT }
                }
                Phase::Killed { until, .. } if now >= until => return Ok((Some(Ended::Stuck), output)),
                other => other,
            };
        }
        let why = match phase {
            Phase::Running { .. } => None,
            Phase::Ending { why, .. } | Phase::Killed { why, .. } => Some(why),
        };
        state.end();
        if why.is_some() {
            signal(pid, Signal::KILL);
        }
        output.drain(LEFT_OPEN_WAIT)?;
        if output.is_open() {
            output.left_open = true;
            signal(pid, Signal::KILL);
            output.drain(LEFT_OPEN_WAIT)?;
        }
        Ok((why, output))
    }
}

/// What a time limit beyond all clocks counts as.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Sends a signal to a group; one that has ended is no mistake.
fn signal(group: Pid, signal: Signal) {
    let _gone = kill_process_group(group, signal);
}

/// The output of a group: both streams in one pipe.
struct Output {
    /// None once every process has closed it.
    pipe: Option<File>,
    bytes: u64,
    /// The last bytes, up to twice as many as are kept.
    tail: Vec<u8>,
    left_open: bool,
    buffer: Vec<u8>,
}

impl Output {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&pipe)?;
        rustix::fs::fcntl_setfl(&pipe, flags | rustix::fs::OFlags::NONBLOCK)?;
        let (pipe, buffer) = (Some(File::from(pipe)), vec![0; READ_BYTES]);
        Ok(Self { pipe, bytes: 0, tail: Vec::new(), left_open: false, buffer })
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Waits for output or the leader's end, for at most `time`; reads some output. Returns whether the leader has ended.
    fn wait(&mut self, leader: Option<&OwnedFd>, time: Duration) -> io::Result<bool> {
        let (mut has_output, mut has_ended) = (false, false);
        let mut fds = Vec::with_capacity(2);
        fds.extend(leader.map(|leader| PollFd::new(leader, PollFlags::IN)));
        fds.extend(self.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(1),
            tv_nsec: time.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&time)) {
            Ok(_) => {
                let is_ready = |place: usize| fds.get(place).is_some_and(|fd| !fd.revents().is_empty());
                has_ended = leader.is_some() && is_ready(0);
                has_output = is_ready(usize::from(leader.is_some()));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        drop(fds);
        if has_output {
            self.read()?;
        }
        Ok(has_ended)
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        match pipe.read(&mut self.buffer) {
            Ok(0) => self.pipe = None,
            Ok(read) => {
                self.bytes += read as u64;
                self.tail.extend_from_slice(&self.buffer[..read]);
                let over = self.tail.len().saturating_sub(OUTPUT_KEPT_BYTES);
                self.tail.drain(..over);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads until every process has closed the output, for at most `time`.
    fn drain(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        while self.is_open() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.wait(None, left)?;
        }
        Ok(())
    }

    fn ran(self, ended: Ended) -> Ran {
        Ran { ended, output_bytes: self.bytes, output: self.tail, left_open: self.left_open }
    }
}
