//! A TUN device: a network interface whose packets this process reads and writes.

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

/// More than any packet: the devices' MTU is far below.
pub const PACKET_BYTES_MAX: usize = 65_536;

/// An open device; dropping it removes it.
pub struct Device(SyncDevice);

impl Device {
    /// Creates a device with this name, which has at most 15 bytes.
    ///
    /// # Errors
    /// The system has no TUN devices, or does not let this user have one.
    pub fn create(name: &str) -> io::Result<Self> {
        // It is brought up in the namespace to which it is moved.
        let device = DeviceBuilder::new().name(name).enable(false).build_sync()?;
        device.set_nonblocking(true)?;
        Ok(Self(device))
    }

    /// Reads one packet; `None` where there is none within `patience`.
    ///
    /// # Errors
    /// The device is gone.
    pub fn read(&self, packet: &mut [u8], patience: Timespec) -> io::Result<Option<usize>> {
        match self.0.recv(packet) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other.map(Some),
        }
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&patience))?;
        match self.0.recv(packet) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some),
        }
    }

    /// Passes one packet to the system, which drops it where it has no room, as on any interface.
    ///
    /// # Errors
    /// The packet was lost.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        self.0.send(packet).map(drop)
    }
}
