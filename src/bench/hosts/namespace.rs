//! A network namespace with one end of the link in it, made and removed by the `ip` program.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::device::Device;
use crate::error::{Error, Result};
use crate::process::{self, Stop};

/// The MTU of most paths.
const MTU: &str = "1500";
/// Where `ip` keeps the entrances of namespaces.
const NAMESPACES: &str = "/run/netns";
/// Packets that may wait for the relay, whose own queue is the link's.
const TRANSMIT_QUEUE: &str = "1000";

/// A namespace; dropping it removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates the namespace, and a device in it with an address like `10.77.0.1/24`.
    ///
    /// # Errors
    /// The user is not root, or the system lacks namespaces, TUN devices or `ip`.
    pub fn create(name: &str, address: &str, stop: &Stop) -> Result<(Self, Device)> {
        if !rustix::process::geteuid().is_root() {
            let source = std::io::ErrorKind::PermissionDenied.into();
            return Err(Error::Wan { action: "create a namespace", source });
        }
        ip(stop, &["netns", "add", name])?;
        let namespace = Self { name: name.to_owned() };
        let device =
            Device::create(name).map_err(|source| Error::Wan { action: "create a TUN device", source })?;
        ip(stop, &["link", "set", name, "netns", name])?;
        // Without IPv6 addresses the system sends no packets of its own.
        ip(stop, &["-n", name, "link", "set", name, "addrgenmode", "none"])?;
        ip(stop, &["-n", name, "addr", "add", address, "dev", name])?;
        ip(stop, &["-n", name, "link", "set", name, "mtu", MTU, "txqueuelen", TRANSMIT_QUEUE, "up"])?;
        ip(stop, &["-n", name, "link", "set", "lo", "up"])?;
        Ok((namespace, device))
    }

    /// Returns the command that runs `command` here, with its environment and folder.
    pub fn within(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        inside
    }

    /// Runs `work` on a thread in this namespace. Sockets that it opens stay in the namespace.
    ///
    /// # Errors
    /// The thread cannot enter, or the error of `work`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let entrance = File::open(Path::new(NAMESPACES).join(&self.name))?;
        let entered = || {
            move_into_link_name_space(entrance.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        let ended = std::thread::scope(|scope| scope.spawn(entered).join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Without `Stop`, which lets nothing start after an interruption.
        let mut remove = Command::new("ip");
        remove.args(["netns", "del", &self.name]).stdin(Stdio::null());
        drop(remove.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

fn ip(stop: &Stop, words: &[&str]) -> Result<()> {
    process::run(stop, Command::new("ip").args(words)).map(drop)
}
