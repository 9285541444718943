//! The agent's end: from an address to a connection.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, Endpoint};
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

#[cfg(feature = "testing")]
use super::tap::Datagrams;
use super::tls::{self, Pin};
use super::transport::{self, Side};
use super::{Connection, Error, Options, Result};
use protocol::address::{Fingerprint, ProxyUrl};

/// RFC 8305, section 5: how long an address has to answer before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;
/// The name in a handshake that names nobody; it never leaves this machine.
const NO_NAME: &str = "whit";

/// Connects to a proxy and proves that it has the pinned key.
///
/// Tries the host's addresses one after the other, each beside those that have not answered yet, and
/// keeps the first that does. Takes at most [`Options::connect_time_max`]. An address at which nobody
/// listens does not answer: that takes the whole time.
///
/// # Errors
/// [`Error::Resolve`], [`Error::Unreachable`], [`Error::WrongFingerprint`], [`Error::NoCommonVersion`],
/// [`Error::Refused`].
pub async fn connect(url: &ProxyUrl, options: &Options) -> Result<Connection> {
    connect_for(url, options, tls::PROTOCOL).await
}

pub(super) async fn connect_for(
    url: &ProxyUrl,
    options: &Options,
    protocol: &'static [u8],
) -> Result<Connection> {
    let mut first = None;
    let racing = race(url, options, protocol, &mut first);
    if let Ok(result) = timeout(options.connect_time_max, racing).await {
        return result;
    }
    Err(if let Some(address) = first {
        let reason = format!("no answer within {} s", options.connect_time_max.as_secs());
        Error::Unreachable { address, reason }
    } else {
        let source = io::Error::new(io::ErrorKind::TimedOut, "the name service did not answer");
        Error::Resolve { host: url.host().to_owned(), source }
    })
}

/// Tries the addresses, each with a head start over the next; sets `first` to the first of them.
async fn race(
    url: &ProxyUrl,
    options: &Options,
    protocol: &'static [u8],
    first: &mut Option<SocketAddr>,
) -> Result<Connection> {
    let resolve = |source| Error::Resolve { host: url.host().to_owned(), source };
    let found = lookup_host((url.host(), url.port())).await.map_err(resolve)?;
    let mut addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
    addresses.dedup();
    *first = addresses.first().copied();
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(attempt(address, url.fingerprint(), options.clone(), protocol));
        }
        tokio::select! {
            Some(done) = attempts.join_next() => match done {
                Ok(Ok(connection)) => return Ok(connection),
                // Never passed over: another address must not hide that someone shows a wrong key.
                Ok(Err(error @ Error::WrongFingerprint { .. })) => return Err(error),
                Ok(Err(error)) => drop(failure.get_or_insert(error)),
                Err(_) => {}
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {}
            else => break,
        }
    }
    let none = || resolve(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    Err(failure.unwrap_or_else(none))
}

async fn attempt(
    address: SocketAddr,
    fingerprint: Fingerprint,
    options: Options,
    protocol: &'static [u8],
) -> Result<Connection> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = transport::endpoint(local, None, &options);
    shake_hands(endpoint, address, fingerprint, &options, protocol).await
}

/// Connects over a simulated network.
///
/// # Errors
/// Those of [`connect`], except that the time is not limited.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub async fn connect_over(
    network: Arc<dyn Datagrams>,
    address: SocketAddr,
    fingerprint: Fingerprint,
    options: &Options,
) -> Result<Connection> {
    let endpoint = transport::endpoint_over(network, None, options);
    shake_hands(endpoint, address, fingerprint, options, tls::PROTOCOL).await
}

async fn shake_hands(
    endpoint: io::Result<Endpoint>,
    address: SocketAddr,
    fingerprint: Fingerprint,
    options: &Options,
    protocol: &'static [u8],
) -> Result<Connection> {
    let unreachable = |reason: String| Error::Unreachable { address, reason };
    let endpoint = endpoint.map_err(|error| unreachable(error.to_string()))?;
    let pin = Arc::new(Pin::new(fingerprint));
    let mut config = ClientConfig::new(Arc::new(tls::client(pin.clone(), protocol)));
    config.transport_config(transport::transport(Side::Agent, address.ip(), options));
    let connecting = endpoint.connect_with(config, address, NO_NAME);
    let connecting = connecting.map_err(|error| unreachable(error.to_string()))?;
    match (connecting.await, pin.other()) {
        (Ok(connection), _) => Ok(Connection::connected(connection, endpoint, options)),
        (Err(_), Some(found)) => Err(Error::WrongFingerprint { expected: fingerprint, found }),
        (Err(error), None) => Err(Error::of_handshake(&error, address)),
    }
}
