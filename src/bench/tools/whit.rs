//! whit itself, as the program that is running: a proxy with empty data, and agents that push to it.
//!
//! OLD is pushed from a folder whose content is then replaced by NEW, at the same path. *kept* is an agent
//! with the state that the push of OLD left, *fresh* one whose state folder is empty; each meets a proxy of
//! its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Pid;
use serde::Deserialize;

use super::ground::Ground;
use crate::error::{Error, Result};
use crate::input::{Release, copy_tree};
use crate::measurement::{Load, Measurement, Situations};
use crate::process::{self, Running, Stop};
use disk::files::{self, OnPath};

/// Measures both situations, each from an empty proxy.
pub fn measure(ground: &Ground<'_>) -> Result<Situations> {
    let kept = Series::run(ground, "kept", State::Kept)?;
    let fresh = Series::run(ground, "fresh", State::Fresh)?;
    Ok(Situations { first: Some(kept.first), fresh: Some(fresh.second), kept: Some(kept.second), note: None })
}

/// The agent's state when it pushes NEW.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Kept,
    Fresh,
}

struct Series {
    first: Measurement,
    second: Measurement,
}

impl Series {
    fn run(ground: &Ground<'_>, name: &str, state: State) -> Result<Self> {
        let folder = ground.path(name);
        fs::create_dir(&folder).on("create", &folder)?;
        let source = folder.join("source");
        let proxy = Proxy::start(ground.stop, ground.whit, &folder, ([127, 0, 0, 1], 0).into(), &[])?;
        let push = |release: &Release, state: &str| -> Result<Measurement> {
            files::remove(&source)?;
            copy_tree(&release.folder, &source, ground.stop)?;
            let path = ground.input.file.as_ref().map_or_else(|| source.clone(), |file| source.join(file));
            let before = proxy.load();
            proxy.forget_peak();
            let command = Push { whit: ground.whit, folder: &folder, state, path: &path };
            let mut measured = command.run(ground.stop, &proxy, &[])?;
            let after = proxy.load();
            let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
            measured.receiver = Some(Load { cpu_seconds, peak_bytes: after.peak_bytes });
            Ok(measured)
        };
        let first = push(&ground.input.old, "state")?;
        let second = push(&ground.input.new, if state == State::Kept { "state" } else { "empty" })?;
        proxy.end()?;
        Ok(Self { first, second })
    }
}

/// A proxy of the program's own, with empty data.
#[derive(Debug)]
pub struct Proxy {
    running: Running,
    url: String,
    token: String,
}

/// The first line of `whit serve --json`.
#[derive(Deserialize)]
struct Served {
    url: String,
}

impl Proxy {
    /// Starts a proxy at `listen`, with all files below `folder`; `within` is a prefix of the command, like
    /// `ip netns exec NAME`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(
        stop: &Stop,
        whit: &Path,
        folder: &Path,
        listen: SocketAddr,
        within: &[String],
    ) -> Result<Self> {
        let data = folder.join("data");
        let mut serve = program(whit, folder, within);
        serve.args(["--json", "--quiet", "serve", "--data"]).arg(&data);
        serve.args(["--listen", &listen.to_string()]);
        let (running, line) = Running::start(stop, serve.stdin(std::process::Stdio::null()))?.first_line()?;
        let served: Served = serde_json::from_str(&line)
            .map_err(|_| Error::Unreadable { program: "whit serve", expected: "address" })?;
        let mut create = program(whit, folder, &[]);
        create.args(["--quiet", "token", "create", "--user", "bench", "--data"]).arg(&data);
        let token = process::run(stop, &mut create)?.out.trim().to_owned();
        Ok(Self { running, url: served.url, token })
    }

    /// Returns the processor time so far, in steps of the kernel's clock (10 ms), and the peak since
    /// [`Proxy::forget_peak`].
    fn load(&self) -> Load {
        let read = |name: &str| fs::read_to_string(of_process(self.running.pid(), name)).unwrap_or_default();
        Load {
            cpu_seconds: cpu_seconds(&read("stat")).unwrap_or_default(),
            peak_bytes: peak_bytes(&read("status")).unwrap_or_default(),
        }
    }

    /// Resets the kernel's peak of memory.
    fn forget_peak(&self) {
        // Without permission, the peak is that of both pushes.
        drop(fs::write(of_process(self.running.pid(), "clear_refs"), "5"));
    }

    /// Stops it in an orderly way.
    ///
    /// # Errors
    /// It failed.
    pub fn end(self) -> Result<()> {
        self.running.end().map(drop)
    }
}

/// One push.
#[derive(Debug)]
pub struct Push<'a> {
    /// The program.
    pub whit: &'a Path,
    /// The folder of all the agent's files.
    pub folder: &'a Path,
    /// The name of the agent's state folder in it.
    pub state: &'a str,
    /// The release.
    pub path: &'a Path,
}

/// The used fields of a receipt (docs/RECEIPT.md).
#[derive(Deserialize)]
struct Receipt {
    wire: Wire,
    round_trips: u32,
    peak_rss: u64,
}

#[derive(Deserialize)]
struct Wire {
    up: u64,
    down: u64,
}

impl Push<'_> {
    /// Pushes, and measures the agent; `within` as for [`Proxy::start`].
    ///
    /// # Errors
    /// The push fails, or its receipt cannot be read.
    pub fn run(&self, stop: &Stop, proxy: &Proxy, within: &[String]) -> Result<Measurement> {
        let mut push = program(self.whit, self.folder, within);
        push.env("WHIT_STATE", self.folder.join(self.state)).env("WHIT_TOKEN", &proxy.token);
        push.args(["--json", "--quiet", "push", "bench"]).arg(self.path).args(["--proxy", &proxy.url]);
        if within.is_empty() {
            push.args(["--link", ASSUMED_LINK]);
        }
        let ended = process::run(stop, &mut push)?;
        let receipt: Receipt = serde_json::from_str(ended.out.trim())
            .map_err(|_| Error::Unreadable { program: "whit push", expected: "receipt" })?;
        let peak_bytes = if receipt.peak_rss > 0 { receipt.peak_rss } else { ended.load.peak_bytes };
        Ok(Measurement {
            up_bytes: receipt.wire.up,
            down_bytes: receipt.wire.down,
            round_trips: Some(receipt.round_trips),
            wall_seconds: ended.wall_seconds,
            sender: Load { peak_bytes, ..ended.load },
            receiver: None,
        })
    }
}

/// The link that pushes over loopback assume: how hard they compress, and so their bytes, then depend neither
/// on this machine nor on what else it does.
const ASSUMED_LINK: &str = "20mbit";

/// Returns the command, isolated from the user's login, state and proxy.
fn program(whit: &Path, folder: &Path, within: &[String]) -> Command {
    let mut words = within.iter().map(std::ffi::OsString::from).chain([whit.as_os_str().to_owned()]);
    let mut command = Command::new(words.next().expect("there is whit itself"));
    command.args(words);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("WHIT_") || text.starts_with("XDG_") {
            command.env_remove(&name);
        }
    }
    command.env("HOME", folder.join("home"));
    command
}

fn of_process(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()))
}

/// Returns the user and system time in `/proc/PID/stat` (proc(5): fields 14 and 15, in clock ticks).
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name, field 2, may hold anything, but ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<u32>().ok();
    #[expect(clippy::cast_precision_loss, reason = "a number of ticks a second is small")]
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    Some(f64::from(ticks(11)? + ticks(12)?) / ticks_per_second)
}

/// Returns the peak of resident memory in `/proc/PID/status`.
fn peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::{cpu_seconds, peak_bytes};

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 9 0 0 0 150 50 7 7 20 0 1 0 5 1000 10";
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).expect("it is small");
        assert_eq!(cpu_seconds(stat), Some(200.0 / f64::from(ticks)));
        assert_eq!(cpu_seconds("42 (a) S 1"), None);
    }

    #[test]
    fn the_peak_is_read_in_bytes() {
        assert_eq!(peak_bytes("VmPeak:\t  9 kB\nVmHWM:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(peak_bytes("VmPeak:\t  9 kB\n"), None);
    }
}
