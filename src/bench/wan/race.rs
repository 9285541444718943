//! whit and rsync over the same emulated link, one after the other.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::namespace::Namespace;
use super::relay::Relay;
use crate::error::{Error, Result};
use crate::input::{Input, Release, copy_tree};
use crate::measurement::Measurement;
use crate::prediction::LinkSpec;
use crate::process::{self, Running, Stop};
use crate::report::Leg;
use crate::tools::{Daemon, Proxy, Push};
use disk::files::{self, OnPath};

/// The time for a daemon in a namespace to listen.
const PATIENCE: Duration = Duration::from_secs(30);
/// The interval between checks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The addresses of proxy and daemon, and of the agent.
const FAR: [u8; 4] = [10, 77, 0, 2];

/// The runs over the link.
struct Track<'a> {
    stop: &'a Stop,
    input: &'a Input,
    work: &'a Path,
    whit: &'a Path,
    near: Namespace,
    far: Namespace,
    relay: Relay,
}

/// Runs whit (fresh, kept) and `rsync -az` over an emulated link, each with OLD first and then NEW.
///
/// # Errors
/// The link cannot be built, or either tool fails.
pub fn race(link: LinkSpec, stop: &Stop, input: &Input, work: &Path, whit: &Path) -> Result<Vec<Leg>> {
    let tag = std::process::id() % 1_000_000;
    let (near, near_device) = Namespace::create(&format!("whita{tag}"), "10.77.0.1/24", stop)?;
    let (far, far_device) = Namespace::create(&format!("whitb{tag}"), "10.77.0.2/24", stop)?;
    let relay = Relay::start(link, near_device, far_device);
    let track = Track { stop, input, work, whit, near, far, relay };
    let mut legs = Vec::new();
    legs.extend(track.whit("whit, fresh", "fresh", "empty")?);
    legs.extend(track.whit("whit, kept", "kept", "state")?);
    legs.extend(track.rsync()?);
    Ok(legs)
}

impl Track<'_> {
    fn whit(&self, name: &str, folder: &str, second_state: &str) -> Result<[Leg; 2]> {
        let folder = self.work.join(folder);
        fs::create_dir(&folder).on("create", &folder)?;
        let source = folder.join("source");
        let listen = SocketAddr::from((FAR, 9448));
        let proxy = Proxy::start(self.stop, self.whit, &folder, listen, &self.far.prefix())?;
        let push = |release: &Release, name: String, state: &str| {
            files::remove(&source)?;
            copy_tree(&release.folder, &source, self.stop)?;
            let path = self.input.file.as_ref().map_or_else(|| source.clone(), |file| source.join(file));
            let command = Push { whit: self.whit, folder: &folder, state, path: &path };
            self.leg(name, || command.run(self.stop, &proxy, &self.near.prefix()))
        };
        let first = push(&self.input.old, format!("{name}: OLD first"), "state")?;
        let second = push(&self.input.new, name.to_owned(), second_state)?;
        proxy.end()?;
        Ok([first, second])
    }

    fn rsync(&self) -> Result<[Leg; 2]> {
        let folder = self.work.join("rsync");
        fs::create_dir(&folder).on("create", &folder)?;
        let daemon = Daemon::create(&folder)?;
        let address = SocketAddr::from((FAR, 873));
        let mut serve = self.far.within(daemon.command().arg("--port=873"));
        let serving = Running::spawn(self.stop, serve.stdout(Stdio::null()))?;
        let client = |release: &Release| {
            let mut client = crate::tools::rsync_client(&["-a", "-z", "--zc=zstd"], &release.folder, address);
            client.args(["--contimeout", "10"]);
            self.near.within(&client)
        };
        let ready = Instant::now() + PATIENCE;
        // Until the daemon answers.
        let mut list = std::process::Command::new("rsync");
        list.args(["--contimeout", "5", "--port", "873", &format!("{}::", address.ip())]);
        while process::run(self.stop, &mut self.near.within(&list)).is_err() {
            self.stop.check()?;
            if Instant::now() > ready {
                return Err(Error::Unreadable { program: "rsync --daemon", expected: "answer" });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let bring = |release: &Release, name: &str| {
            self.leg(name.to_owned(), || {
                let ended = process::run(self.stop, &mut client(release))?;
                crate::tools::rsync_transferred(&ended.out, ended.wall_seconds, ended.load)
            })
        };
        let first = bring(&self.input.old, "rsync -az: OLD first")?;
        let second = bring(&self.input.new, "rsync -az")?;
        drop(serving);
        self.input.expect_new("rsync-az", daemon.module())?;
        Ok([first, second])
    }

    /// Runs one tool and counts the traffic meanwhile.
    fn leg(&self, name: String, run: impl FnOnce() -> Result<Measurement>) -> Result<Leg> {
        let before = self.relay.counts();
        let measured = run()?;
        let after = self.relay.counts();
        Ok(Leg {
            name,
            seconds: measured.wall_seconds,
            up: after[0].since(before[0]),
            down: after[1].since(before[1]),
            round_trips: measured.round_trips,
        })
    }
}
