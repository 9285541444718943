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
use crate::process::{self, Running};
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
        let proxy = Proxy::start(ground, &folder)?;
        let push = |release: &Release, state: &str| -> Result<Measurement> {
            let path = stage(ground, release, &source)?;
            let before = proxy.load();
            proxy.forget_peak();
            let push = Push { ground, folder: &folder, state, path: &path };
            let mut measured = push.run(&proxy, &EFFORT, Side::Near)?.measurement;
            measured.receiver = Some(proxy.load().since(before));
            Ok(measured)
        };
        let first = push(&ground.input.old, "state")?;
        let second = push(&ground.input.new, if state == State::Kept { "state" } else { "empty" })?;
        proxy.end()?;
        Ok(Self { first, second })
    }
}

/// Replaces `source` by a copy of a release; returns what is to be pushed.
///
/// # Errors
/// It cannot be read or written.
pub fn stage(ground: &Ground<'_>, release: &Release, source: &Path) -> Result<PathBuf> {
    files::remove(source)?;
    copy_tree(&release.folder, source, ground.stop)?;
    Ok(ground.input.file.as_ref().map_or_else(|| source.to_owned(), |file| source.join(file)))
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
    /// Starts a proxy at the far host, with all files below `folder` and the destination [`DESTINATION`] there.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(ground: &Ground<'_>, folder: &Path) -> Result<Self> {
        let (data, settings) = (folder.join("data"), folder.join("whit.toml"));
        let text = format!(
            "[destinations.{DESTINATION}]\nkind = \"dir\"\npath = '{}/{{app}}'\n",
            folder.join(DESTINATION).display()
        );
        fs::write(&settings, text).on("write", &settings)?;
        let mut serve = program(ground.whit, folder);
        serve.args(["--json", "--quiet", "serve", "--config"]).arg(&settings).arg("--data").arg(&data);
        serve.args(["--listen", &SocketAddr::new(ground.hosts.far_address(), 0).to_string()]);
        let mut serve = ground.hosts.far(serve);
        let (running, line) =
            Running::start(ground.stop, serve.stdin(std::process::Stdio::null()))?.first_line()?;
        let served: Served = serde_json::from_str(&line)
            .map_err(|_| Error::Unreadable { program: "whit serve", expected: "address" })?;
        let mut create = program(ground.whit, folder);
        create.args(["--quiet", "token", "create", "--user", "bench", "--data"]).arg(&data);
        let token = process::run(ground.stop, &mut create)?.out.trim().to_owned();
        Ok(Self { running, url: served.url, token })
    }

    /// Returns whit's command for an agent of this proxy, with all the agent's files below `folder`.
    pub fn agent(&self, ground: &Ground<'_>, folder: &Path, state: &str) -> Command {
        let mut command = program(ground.whit, folder);
        command.env("WHIT_STATE", folder.join(state)).env("WHIT_TOKEN", &self.token);
        command.env("WHIT_PROXY", &self.url).args(["--json", "--quiet"]);
        command
    }

    /// Returns the processor time so far, in steps of the kernel's clock (10 ms), and the peak since
    /// [`Proxy::forget_peak`].
    pub fn load(&self) -> Load {
        let read = |name: &str| fs::read_to_string(of_process(self.running.pid(), name)).unwrap_or_default();
        Load {
            cpu_seconds: cpu_seconds(&read("stat")).unwrap_or_default(),
            peak_bytes: peak_bytes(&read("status")).unwrap_or_default(),
        }
    }

    /// Resets the kernel's peak of memory.
    pub fn forget_peak(&self) {
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
    /// The releases and hosts.
    pub ground: &'a Ground<'a>,
    /// The folder of all the agent's files.
    pub folder: &'a Path,
    /// The name of the agent's state folder in it.
    pub state: &'a str,
    /// The release.
    pub path: &'a Path,
}

/// Where an agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// At the near host.
    Near,
    /// Beside the proxy, so that nothing crosses the link.
    Far,
}

/// A push that has ended.
#[derive(Debug)]
pub struct Pushed {
    /// The agent's figures.
    pub measurement: Measurement,
    /// The release's id.
    pub release: String,
}

/// The used fields of a receipt (docs/RECEIPT.md).
#[derive(Deserialize)]
struct Receipt {
    release: String,
    wire: Wire,
    round_trips: u32,
    peak_rss: u64,
}

/// The field `wire` of a receipt.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Wire {
    /// UDP payload that the agent sent.
    pub up: u64,
    /// UDP payload that it received.
    pub down: u64,
}

impl Push<'_> {
    /// Pushes with these flags, and measures the agent.
    ///
    /// # Errors
    /// The push fails, or its receipt cannot be read.
    pub fn run(&self, proxy: &Proxy, flags: &[&str], side: Side) -> Result<Pushed> {
        let Ground { hosts, stop, .. } = *self.ground;
        let mut push = proxy.agent(self.ground, self.folder, self.state);
        push.args(["push", APP]).arg(self.path).args(flags);
        let mut push = if side == Side::Near { hosts.near(push) } else { hosts.far(push) };
        let ended = process::run(stop, &mut push)?;
        let receipt: Receipt = serde_json::from_str(ended.out.trim())
            .map_err(|_| Error::Unreadable { program: "whit push", expected: "receipt" })?;
        let peak_bytes = if receipt.peak_rss > 0 { receipt.peak_rss } else { ended.load.peak_bytes };
        let measurement = Measurement {
            up_bytes: receipt.wire.up,
            down_bytes: receipt.wire.down,
            round_trips: Some(receipt.round_trips),
            wall_seconds: ended.wall_seconds,
            sender: Load { peak_bytes, ..ended.load },
            receiver: None,
        };
        Ok(Pushed { measurement, release: receipt.release })
    }
}

/// The application to which releases are pushed.
pub const APP: &str = "bench";
/// The destination of every proxy, and the folder of its copies.
pub const DESTINATION: &str = "copies";

/// The effort of pushes whose bytes are counted: how hard they compress then depends neither on this machine nor on what
/// else it does.
const EFFORT: [&str; 2] = ["--effort", "bytes"];

/// Returns whit's command, isolated from the user's login, state and proxy.
fn program(whit: &Path, folder: &Path) -> Command {
    let mut command = Command::new(whit);
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
