//! The proxy's end: one socket that takes connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, Incoming, ServerConfig, VarInt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::tap::Datagrams;
use super::transport::{self, Serving, Side};
use super::{Connection, Error, Options, Result, tls};
use crate::faults::Fault;
use crate::identity::Identity;

/// How long the last datagrams of a stopping proxy may take to leave.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(200);

/// Takes connections on one UDP socket.
///
/// Handshakes run side by side in tasks that the listener owns: a slow agent delays no other.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    near: Arc<ServerConfig>,
    far: Arc<ServerConfig>,
    handshakes: JoinSet<Option<Connection>>,
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
        let far = ServerConfig::with_crypto(Arc::new(tls::server(identity, protocol)));
        let (mut near, mut far) = (far.clone(), far);
        near.transport_config(transport::transport(Side::Proxy, [127, 0, 0, 1].into(), options));
        far.transport_config(transport::transport(Side::Proxy, [0, 0, 0, 0].into(), options));
        let serving = Serving { config: far.clone(), identity };
        let endpoint = endpoint(serving).map_err(|source| Error::Bind { address, source })?;
        let (near, far) = (Arc::new(near), Arc::new(far));
        Ok(Self { endpoint, near, far, handshakes: JoinSet::new(), options: options.clone() })
    }

    /// Where it listens, with the port that was taken.
    ///
    /// # Errors
    /// [`Error::Lost`] where the system no longer knows the socket.
    pub fn local_address(&self) -> Result<SocketAddr> {
        self.endpoint.local_addr().map_err(|error| Error::Lost { reason: error.to_string() })
    }

    /// The next connection whose handshake is done; none once the socket is closed.
    ///
    /// Waits without a deadline. May be cancelled: nothing is lost. Connections beyond
    /// [`Options::connections_max`] are refused; above half of it, agents must prove their address first.
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
        let open = self.endpoint.open_connections();
        if open >= self.options.connections_max {
            tracing::warn!(%address, open, "refused a connection: there are as many as allowed");
            return incoming.refuse();
        }
        if 2 * open >= self.options.connections_max && incoming.may_retry() {
            // Whoever writes a false sender's address never sees the answer, and takes no place.
            drop(incoming.retry());
            return;
        }
        let config = if transport::is_loopback(address.ip()) { &self.near } else { &self.far };
        let options = self.options.clone();
        match incoming.accept_with(config.clone()) {
            Err(error) => tracing::debug!(%address, %error, "no connection"),
            Ok(connecting) => drop(self.handshakes.spawn(async move {
                match timeout(options.connect_time_max, connecting).await {
                    Ok(Ok(connection)) => return Some(Connection::accepted(connection, &options)),
                    Ok(Err(error)) => tracing::debug!(%address, %error, "no connection"),
                    Err(_) => tracing::debug!(%address, "no connection: the handshake took too long"),
                }
                None
            })),
        }
    }

    /// Stops: refuses new connections, waits at most `patience` for those under way to end, closes the rest.
    ///
    /// Callers first tell their connections to end; one that its agent keeps open is waited for.
    pub async fn drain(mut self, patience: Duration) {
        self.handshakes.shutdown().await;
        let deadline = Instant::now() + patience;
        let refuse = async {
            while let Some(incoming) = self.endpoint.accept().await {
                incoming.refuse();
            }
        };
        tokio::select! {
            _ = timeout_at(deadline, self.endpoint.wait_idle()) => {}
            () = refuse => {}
        }
        self.close(Fault::Retry, "the proxy is stopping").await;
    }

    /// Ends all connections at once and says why, then closes the socket.
    pub async fn close(self, fault: Fault, text: &str) {
        self.endpoint.close(VarInt::from_u32(fault.code()), text.as_bytes());
        // Past this time the agents notice by themselves, only later.
        drop(timeout(CLOSE_TIME_MAX, self.endpoint.wait_idle()).await);
    }
}
