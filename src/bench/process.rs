//! Programs that are measured: started in process groups of their own, and ended with the benchmark.
//!
//! Processor time and peak memory are those that the kernel adds up for a process and the children it
//! waited for (`wait4`). The peak can be no less than what this process held when it started the other,
//! some 10 MiB: the kernel counts the moment before the program's own image is in place.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use wait4::Wait4;

use super::error::{Error, Result};
use super::measurement::Load;
use ground::poison::Unpoisoned as _;

/// The time for a program to report that it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// Two hours, after which a program counts as hanging and is killed.
const SECONDS_MAX: i64 = 7200;
/// Bytes of a program's standard error that an error quotes.
const TOLD_BYTES: usize = 400;

/// The user's request to stop, and the programs that it ends.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    running: BTreeSet<i32>,
}

impl Stop {
    /// Kills the running programs and lets no other start.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        for pid in &state.running {
            kill_group(*pid, Signal::KILL);
        }
    }

    /// Returns an error once the user has stopped the benchmark.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn check(&self) -> Result<()> {
        if self.state().stopped { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unpoisoned()
    }
}

/// Sends a signal to a process and those that it started; ignores one that has ended.
fn kill_group(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _gone = rustix::process::kill_process_group(pid, signal);
    }
}

/// The output and the cost of a program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The time from its start to its end.
    pub wall_seconds: f64,
    /// Its processor time and memory.
    pub load: Load,
    /// Its standard output.
    pub out: String,
}

/// A running program. Dropping it before its end kills it.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: Child,
    started: Instant,
    stop: Stop,
    first_line: Receiver<String>,
    out: Option<JoinHandle<String>>,
    err: Option<JoinHandle<String>>,
    waited: bool,
}

/// Runs a program to its end.
///
/// # Errors
/// It does not start, or fails.
pub fn run(stop: &Stop, command: &mut Command) -> Result<Ended> {
    Running::start(stop, command.stdin(Stdio::null()))?.wait()
}

/// Runs `first | second`; adds the costs, except memory, which is that of the larger.
///
/// # Errors
/// As [`run`]; if the second program fails, the first one's broken pipe is not reported.
pub fn run_pipe(stop: &Stop, first: &mut Command, second: &mut Command) -> Result<Ended> {
    let started = Instant::now();
    let (first, pipe) = Running::start_piped(stop, first.stdin(Stdio::null()))?;
    let second = Running::start(stop, second.stdin(pipe))?;
    let second = second.wait();
    let first = first.wait();
    let (mut ended, first) = (second?, first?);
    ended.load.add(first.load);
    ended.wall_seconds = started.elapsed().as_secs_f64();
    Ok(ended)
}

impl Running {
    /// Starts a program; keeps both its outputs.
    ///
    /// # Errors
    /// It cannot be started, or the user stopped it.
    pub fn start(stop: &Stop, command: &mut Command) -> Result<Self> {
        let mut running = Self::spawn(stop, command.stdout(Stdio::piped()))?;
        if let Some(pipe) = running.child.stdout.take() {
            running.keep_output(pipe);
        }
        Ok(running)
    }

    /// Starts a program whose output another reads.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub fn start_piped(stop: &Stop, command: &mut Command) -> Result<(Self, Stdio)> {
        let (running, pipe) = Self::start_reading(stop, command)?;
        Ok((running, pipe.into()))
    }

    /// Starts a program whose output the caller reads.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub fn start_reading(stop: &Stop, command: &mut Command) -> Result<(Self, ChildStdout)> {
        let mut running = Self::spawn(stop, command.stdout(Stdio::piped()))?;
        let pipe = running.child.stdout.take().expect("it was asked for");
        Ok((running, pipe))
    }

    /// Starts a program whose standard output is the caller's choice already.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub fn spawn(stop: &Stop, command: &mut Command) -> Result<Self> {
        let program = name_of(command);
        let mut state = stop.state();
        if state.stopped {
            return Err(Error::Interrupted);
        }
        let started = Instant::now();
        let spawned = command.stderr(Stdio::piped()).process_group(0).spawn();
        let mut child = spawned.map_err(|source| Error::Start { program: program.clone(), source })?;
        state.running.insert(Pid::from_child(&child).as_raw_nonzero().get());
        drop(state);
        let err = child.stderr.take().map(reading);
        let (_, first_line) = mpsc::channel();
        let stop = stop.clone();
        Ok(Self { program, child, started, stop, first_line, out: None, err, waited: false })
    }

    fn keep_output(&mut self, pipe: ChildStdout) {
        let (tell, first_line) = mpsc::channel();
        self.first_line = first_line;
        self.out = Some(std::thread::spawn(move || {
            let mut lines = BufReader::new(pipe);
            let mut text = String::new();
            if lines.read_line(&mut text).is_ok() && !text.is_empty() {
                // There may be no receiver.
                drop(tell.send(text.clone()));
            }
            let mut rest = Vec::new();
            drop(lines.read_to_end(&mut rest));
            text.push_str(&String::from_utf8_lossy(&rest));
            text
        }));
    }

    /// Waits for the first line on standard output and returns it.
    ///
    /// # Errors
    /// The program ended without one, or printed nothing for a minute.
    pub fn first_line(self) -> Result<(Self, String)> {
        match self.first_line.recv_timeout(READY_PATIENCE) {
            Ok(line) => Ok((self, line)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self.wait().err().unwrap_or(SILENT)),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(SILENT),
        }
    }

    /// Returns the process's id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Asks the program to end (SIGINT) and waits for it.
    ///
    /// # Errors
    /// As [`run`].
    pub fn end(self) -> Result<Ended> {
        let _gone = rustix::process::kill_process(self.pid(), Signal::INT);
        self.wait()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The program failed, or the user stopped it.
    pub fn wait(self) -> Result<Ended> {
        let program = self.program.clone();
        let (ended, used, err) = self.outlast()?;
        if !used.status.success() {
            let output = end_of(if err.trim().is_empty() { &ended.out } else { &err });
            return Err(Error::Program { program, status: used.status.to_string(), output });
        }
        Ok(ended)
    }

    /// Waits for the end of a server that may call a client's goodbye a failure.
    ///
    /// # Errors
    /// The user stopped it.
    pub fn wait_for_server(self) -> Result<Ended> {
        self.outlast().map(|(ended, ..)| ended)
    }

    /// Waits for the end, good or bad; returns the figures, the end, and standard error.
    fn outlast(mut self) -> Result<(Ended, wait4::ResUse, String)> {
        let used = self.reap().map_err(|source| Error::Start { program: self.program.clone(), source })?;
        let wall_seconds = self.started.elapsed().as_secs_f64();
        let text = |thread: Option<JoinHandle<String>>| {
            thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
        };
        let (out, err) = (text(self.out.take()), text(self.err.take()));
        self.stop.check()?;
        let cpu_seconds = (used.rusage.utime + used.rusage.stime).as_secs_f64();
        let load = Load { cpu_seconds, peak_bytes: used.rusage.maxrss };
        Ok((Ended { wall_seconds, load, out }, used, err))
    }

    /// Waits, and takes the process off the list before its id can be another's.
    fn reap(&mut self) -> io::Result<wait4::ResUse> {
        let pid = self.pid();
        // Waits first for its end without freeing its id.
        let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let patience = Timespec { tv_sec: SECONDS_MAX, tv_nsec: 0 };
        loop {
            match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&patience)) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(0) => kill_group(pid.as_raw_nonzero().get(), Signal::KILL),
                Ok(_) => break,
            }
        }
        let mut state = self.stop.state();
        // Processes that it started and left.
        kill_group(pid.as_raw_nonzero().get(), Signal::KILL);
        state.running.remove(&pid.as_raw_nonzero().get());
        self.waited = true;
        self.child.wait4()
    }
}

const SILENT: Error = Error::Unreadable { program: "the program", expected: "line when it was ready" };

impl Drop for Running {
    fn drop(&mut self) {
        if !self.waited {
            kill_group(self.pid().as_raw_nonzero().get(), Signal::KILL);
            drop(self.reap());
        }
    }
}

/// Reads on another thread, so that no pipe fills up.
fn reading(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn name_of(command: &Command) -> String {
    let name = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Returns the last line of a text, shortened.
fn end_of(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let begin = text.len().saturating_sub(TOLD_BYTES);
    let begin = (begin..=text.len()).find(|place| text.is_char_boundary(*place)).unwrap_or(0);
    text[begin..].to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Running, Stop, run, run_pipe};
    use crate::Error;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_is_measured_and_its_output_kept() {
        let ended = run(&Stop::default(), &mut sh("echo one; echo two")).expect("it runs");
        assert_eq!(ended.out, "one\ntwo\n");
        assert!(ended.load.peak_bytes > 100_000 && ended.wall_seconds > 0.0, "{ended:?}");
    }

    #[test]
    fn a_pipe_brings_the_first_programs_output_to_the_second() {
        let ended = run_pipe(&Stop::default(), &mut sh("echo word"), &mut sh("tr a-z A-Z")).expect("it runs");
        assert_eq!(ended.out, "WORD\n");
    }

    #[test]
    fn a_bad_end_tells_the_programs_words() {
        let error = run(&Stop::default(), &mut sh("echo no such thing >&2; exit 3")).expect_err("it fails");
        assert!(matches!(&error, Error::Program { output, .. } if output == "no such thing"), "{error}");
    }

    #[test]
    fn stopping_ends_what_runs_and_what_it_started_and_lets_nothing_start() {
        let stop = Stop::default();
        let (running, line) = Running::start(&stop, &mut sh("echo ready; sleep 1000 & wait"))
            .and_then(Running::first_line)
            .expect("it starts");
        assert_eq!(line, "ready\n");
        stop.stop();
        // Its output ends only when the last holder of the pipe has gone.
        assert!(matches!(running.wait(), Err(Error::Interrupted)));
        assert!(matches!(run(&stop, &mut sh("true")), Err(Error::Interrupted)));
    }
}
