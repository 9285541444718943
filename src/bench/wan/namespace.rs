//! A network namespace with one end of the link in it, made and removed by the `ip` program.

use std::process::{Command, Stdio};

use super::device::Device;
use crate::error::{Error, Result};
use crate::process::{self, Stop};

/// The MTU of most paths.
const MTU: &str = "1500";
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

    /// Returns the words before a command that run it here.
    pub fn prefix(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }

    /// Returns the command that runs `command` here.
    pub fn within(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        inside.stdin(Stdio::null());
        inside
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
