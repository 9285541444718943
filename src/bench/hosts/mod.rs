//! The two hosts of a measurement: programs at the near one, which has NEW or wants it, and at the far one.
//!
//! Over loopback both are this machine. For an emulated link each is a network namespace with a TUN device, and
//! a relay carries packets between them, so that real stacks of TCP and QUIC run over it. Kernels without netem
//! can do it too; needed are Linux, root, `/dev/net/tun` and the `ip` program. The relay counts IP packets as the
//! link's owner pays for them, headers and retransmissions included.

mod device;
mod namespace;
mod relay;

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::namespace::Namespace;
use self::relay::Relay;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::measurement::Counts;
use crate::process::Stop;

/// The far host's address at the other end of an emulated link.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The time in which a program that was started connects.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// Both hosts, and the link between them; dropping them takes it down.
#[derive(Debug)]
pub struct Hosts(Option<Emulation>);

#[derive(Debug)]
struct Emulation {
    near: Namespace,
    far: Namespace,
    relay: Relay,
}

impl Hosts {
    /// Opens the link.
    ///
    /// # Errors
    /// An emulated one cannot be built.
    pub fn open(link: Link, stop: &Stop) -> Result<Self> {
        let Link::Emulated(spec) = link else { return Ok(Self(None)) };
        let tag = std::process::id() % 1_000_000;
        let (near, near_device) = Namespace::create(&format!("whita{tag}"), "10.77.0.1/24", stop)?;
        let (far, far_device) = Namespace::create(&format!("whitb{tag}"), &format!("{FAR}/24"), stop)?;
        let relay = Relay::start(spec, near_device, far_device);
        Ok(Self(Some(Emulation { near, far, relay })))
    }

    /// Returns the command that runs `command` at the near host.
    pub fn near(&self, command: Command) -> Command {
        match &self.0 {
            Some(emulation) => emulation.near.within(&command),
            None => command,
        }
    }

    /// Returns the command that runs `command` at the far host.
    pub fn far(&self, command: Command) -> Command {
        match &self.0 {
            Some(emulation) => emulation.far.within(&command),
            None => command,
        }
    }

    /// Returns the far host's address.
    pub fn far_address(&self) -> IpAddr {
        if self.0.is_some() { FAR.into() } else { Ipv4Addr::LOCALHOST.into() }
    }

    /// Listens at a free port of the far host.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(&self) -> Result<TcpListener> {
        let address = (self.far_address(), 0);
        let listening = match &self.0 {
            Some(emulation) => emulation.far.enter(|| TcpListener::bind(address)),
            None => TcpListener::bind(address),
        };
        listening.map_err(|source| Error::Socket { action: "listen", source })
    }

    /// Connects the near host to a port of the far one.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(&self, port: u16) -> Result<TcpStream> {
        let address = (self.far_address(), port);
        let connected = match &self.0 {
            Some(emulation) => emulation.near.enter(|| TcpStream::connect(address)),
            None => TcpStream::connect(address),
        };
        connected.map_err(|source| Error::Socket { action: "connect", source })
    }

    /// Returns the packets so far from near to far, and back; `None` over loopback.
    pub fn counts(&self) -> Option<[Counts; 2]> {
        self.0.as_ref().map(|emulation| emulation.relay.counts())
    }
}

/// Accepts a connection of a program that was just started, which may have failed instead.
///
/// # Errors
/// Nobody connects within half a minute.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let wait = || -> io::Result<TcpStream> {
        let patience = Timespec::try_from(CONNECT_PATIENCE).expect("half a minute");
        match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(listener.accept()?.0),
        }
    };
    wait().map_err(|source| Error::Socket { action: "accept a connection", source })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::Command;

    use super::{Hosts, accept};
    use crate::{Link, Stop};

    #[test]
    fn over_loopback_both_hosts_are_this_machine() {
        let hosts = Hosts::open(Link::Loopback, &Stop::default()).expect("opened");
        assert_eq!(hosts.near(Command::new("true")).get_program(), "true");
        assert!(hosts.counts().is_none());
        let listener = hosts.listen().expect("it listens");
        let port = listener.local_addr().expect("an address").port();
        let mut near = hosts.connect(port).expect("connected");
        near.write_all(b"word").expect("written");
        drop(near);
        let mut text = String::new();
        accept(&listener).expect("accepted").read_to_string(&mut text).expect("read");
        assert_eq!(text, "word");
    }
}
