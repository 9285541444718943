//! What whit tells the service manager that started it: systemd's protocol of notifications.
//!
//! A datagram of `NAME=VALUE` lines to the socket that `NOTIFY_SOCKET` names (`sd_notify(3)`). These few lines need no library.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use super::access::variable;

/// The service manager, if one wants to be told.
#[derive(Debug, Clone)]
pub struct Service(Option<Arc<(UnixDatagram, SocketAddr)>>);

impl Service {
    /// Finds the manager in the environment.
    pub fn of_environment() -> Self {
        Self(open().map(Arc::new))
    }

    /// The service does its work.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The service ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Says in one line what the service does.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// Says again and again that the program is alive, if the manager watches that. Never ends. As a task it shows that tasks run.
    pub async fn keep_alive(&self) {
        let micros = variable("WATCHDOG_USEC").and_then(|text| text.to_str()?.parse().ok());
        let is_ours = variable("WATCHDOG_PID")
            .is_none_or(|pid| pid.to_str() == Some(std::process::id().to_string().as_str()));
        let Some(limit) = micros.filter(|micros| *micros > 0 && is_ours).map(Duration::from_micros) else {
            return std::future::pending().await;
        };
        loop {
            self.send("WATCHDOG=1");
            tokio::time::sleep(limit / 3).await;
        }
    }

    /// A manager that does not listen misses it.
    fn send(&self, text: &str) {
        if let Some((socket, manager)) = self.0.as_deref() {
            drop(socket.send_to_addr(text.as_bytes(), manager));
        }
    }
}

fn open() -> Option<(UnixDatagram, SocketAddr)> {
    let name = variable("NOTIFY_SOCKET")?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}
