//! The proxy's end: one socket that takes connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, Incoming, ServerConfig, VarInt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::strangers::{Origin, Strangers};
#[cfg(feature = "testing")]
use super::tap::Datagrams;
use super::transport::{self, Serving, Side};
use super::{Connection, Error, Options, Result, tls};
use crate::net::identity::Identity;
use ground::faults::Fault;
use ground::limits::STRANGER_DRAIN_MAX;

/// The longest wait for the last datagrams of a stopping proxy to leave.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(200);
/// 64 KiB: the most bytes buffered for an agent that sends before its connection is accepted, which happens at once.
const INCOMING_BYTES_MAX: u64 = 64 * 1024;
/// 8 MiB: the same for all agents together.
const INCOMING_BYTES_TOTAL: u64 = 8 * 1024 * 1024;
/// Connections that wait to be accepted.
const INCOMING_MAX: usize = 4096;
/// The reason that agents are given when the listener stops.
const STOPPING: &str = "the proxy is stopping";

/// Takes connections on one UDP socket.
///
/// Handshakes run side by side in tasks that the listener owns: a slow agent delays no other.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    near: Arc<ServerConfig>,
    far: Arc<ServerConfig>,
    handshakes: JoinSet<Option<Connection>>,
    strangers: Arc<Strangers>,
    options: Options,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub fn bind(address: SocketAddr, identity: &Identity, options: &Options) -> Result<Self> {
        Self::bind_for(address, identity, options, tls::PROTOCOL)
    }

    /// Listens on a simulated network.
    ///
    /// # Errors
    /// [`Error::Bind`].
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn bind_over(network: Arc<dyn Datagrams>, identity: &Identity, options: &Options) -> Result<Self> {
        let address = network.local_address();
        Self::start(address, identity, options, tls::PROTOCOL, |serving| {
            transport::endpoint_over(network, Some(serving), options)
        })
    }

    pub(super) fn bind_for(
        address: SocketAddr,
        identity: &Identity,
        options: &Options,
        protocol: &[u8],
    ) -> Result<Self> {
        Self::start(address, identity, options, protocol, |serving| {
            transport::endpoint(address, Some(serving), options)
        })
    }

    fn start(
        address: SocketAddr,
        identity: &Identity,
        options: &Options,
        protocol: &[u8],
        endpoint: impl FnOnce(Serving<'_>) -> io::Result<Endpoint>,
    ) -> Result<Self> {
        let mut far = ServerConfig::with_crypto(Arc::new(tls::server(identity, protocol)));
        far.incoming_buffer_size(INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL)
            .max_incoming(INCOMING_MAX);
        let (mut near, mut far) = (far.clone(), far);
        near.transport_config(transport::transport(Side::Proxy, [127, 0, 0, 1].into(), options));
        far.transport_config(transport::transport(Side::Proxy, [0, 0, 0, 0].into(), options));
        let serving = Serving { config: far.clone(), identity };
        let endpoint = endpoint(serving).map_err(|source| Error::Bind { address, source })?;
        let (near, far) = (Arc::new(near), Arc::new(far));
        let strangers = Strangers::new(options.strangers_max);
        Ok(Self { endpoint, near, far, handshakes: JoinSet::new(), strangers, options: options.clone() })
    }

    /// Returns where it listens, with the port that was taken.
    ///
    /// # Errors
    /// [`Error::Lost`] where the system no longer knows the socket.
    pub fn local_address(&self) -> Result<SocketAddr> {
        self.endpoint.local_addr().map_err(|error| Error::Lost { reason: error.to_string() })
    }

    /// Returns the next connection whose handshake is done; none once the socket is closed. Its agent is a stranger
    /// until [`Connection::prove`].
    ///
    /// Waits without a deadline. May be cancelled: nothing is lost. Above a quarter of [`Options::strangers_max`], or
    /// half of [`Options::connections_max`], agents must prove their address first.
    pub async fn accept(&mut self) -> Option<Connection> {
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => self.begin(incoming?),
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return Some(connection);
                    }
                }
            }
        }
    }

    fn begin(&mut self, incoming: Incoming) {
        let address = incoming.remote_address();
        let (open, strangers) = (self.endpoint.open_connections(), self.strangers.count());
        if open >= self.options.connections_max {
            tracing::warn!(peer = %address, open, "refused a connection: the limit is reached");
            return incoming.refuse();
        }
        let is_loaded =
            4 * strangers >= self.options.strangers_max || 2 * open >= self.options.connections_max;
        if is_loaded && incoming.may_retry() {
            // The sender of a forged address never sees the answer, and takes no place.
            drop(incoming.retry());
            return;
        }
        let config = if transport::is_loopback(address.ip()) { &self.near } else { &self.far };
        let options = self.options.clone();
        let connecting = match incoming.accept_with(config.clone()) {
            Ok(connecting) => connecting,
            Err(error) => return tracing::debug!(peer = %address, %error, "no connection"),
        };
        let place = Arc::new(self.strangers.come(Origin::of(address.ip())));
        let for_task = Arc::clone(&place);
        let task = self.handshakes.spawn(async move {
            match timeout(options.connect_time_max, connecting).await {
                Ok(Ok(connection)) => {
                    for_task.is_connected(&connection);
                    return Some(Connection::accepted(connection, for_task, &options));
                }
                Ok(Err(error)) => tracing::debug!(peer = %address, %error, "no connection"),
                Err(_) => tracing::debug!(peer = %address, "no connection: the handshake took too long"),
            }
            None
        });
        place.shakes_hands(task);
    }

    /// Stops: refuses new connections, waits at most `patience` for those under way to end, closes the rest. For
    /// strangers it waits a second at most: one of them may be about to show its token.
    ///
    /// Callers first ask their connections to end; waits for one that its agent keeps open.
    pub async fn drain(mut self, patience: Duration) {
        self.handshakes.shutdown().await;
        let deadline = Instant::now() + patience;
        let refuse = async {
            while let Some(incoming) = self.endpoint.accept().await {
                incoming.refuse();
            }
        };
        let send_strangers_off = async {
            sleep(patience.min(STRANGER_DRAIN_MAX)).await;
            self.strangers.end_all(Fault::Retry, STOPPING);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = timeout_at(deadline, self.endpoint.wait_idle()) => {}
            () = refuse => {}
            () = send_strangers_off => {}
        }
        self.close(Fault::Retry, STOPPING).await;
    }

    /// Ends all connections at once and says why, then closes the socket.
    pub async fn close(self, fault: Fault, text: &str) {
        self.endpoint.close(VarInt::from_u32(fault.code()), text.as_bytes());
        // Past this time the agents notice by themselves, only later.
        drop(timeout(CLOSE_TIME_MAX, self.endpoint.wait_idle()).await);
    }
}
