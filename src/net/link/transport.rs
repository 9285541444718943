//! The settings of QUIC, and the sockets below it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustix::net::sockopt;

use super::Options;
use super::congestion::Tolerant;
#[cfg(feature = "testing")]
use super::tap::{Datagrams, Tap};
use crate::net::identity::Identity;
use ground::limits::{REQUESTS_PER_CONNECTION, STRANGER_WINDOW};

/// RFC 9000, section 14: what every path carries.
const DATAGRAM_BYTES_MIN: u16 = 1200;
/// The payload of an Ethernet of 1,500 bytes without the headers of IPv6 and UDP.
const DATAGRAM_BYTES_FAR: u16 = 1452;
/// 8 MiB: 640 Mbit/s at 100 ms on one stream.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
/// 16 MiB: bounds what one connection makes either side hold.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// 256 KiB: as fast as any more on loopback, where a wider window only overflows the receiver's socket
/// (measured: 16 MiB of window retransmitted a tenth of a transfer, this none of it).
const STREAM_WINDOW_NEAR: u32 = 256 * 1024;
/// 1 MiB: several streams, so that one which nobody reads stops no other.
const CONNECTION_WINDOW_NEAR: u32 = 1024 * 1024;
/// Below what any address translation forgets.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A peer that neither answers nor keeps alive for this long is gone. Twice the longest outage that a connection
/// outlives for certain: the pauses between probes of a link that is silent double (RFC 9002, section 6.2).
const IDLE_MILLISECONDS: u32 = 60_000;
/// 2 MiB: bursts of a fast link while the process does not run; the system may allow less.
const SOCKET_BYTES: usize = 2 * 1024 * 1024;

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Agent,
    Proxy,
}

/// Tunes a connection to `peer`.
pub(super) fn transport(side: Side, peer: IpAddr, options: &Options) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW.min(options.window_max)))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW.min(options.window_max.saturating_mul(2))))
        .send_window(u64::from(CONNECTION_WINDOW.min(options.window_max.saturating_mul(2))))
        .max_concurrent_bidi_streams(VarInt::from_u32(REQUESTS_PER_CONNECTION))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .congestion_controller_factory(Arc::new(Tolerant::new()))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MILLISECONDS).into()));
    if side == Side::Agent {
        // One side is enough: the answer shows the agent, and the ping the proxy, that the peer is there.
        transport.keep_alive_interval(Some(KEEP_ALIVE));
    }
    if side == Side::Proxy {
        // Connection::prove widens these.
        transport
            .receive_window(VarInt::from_u32(STRANGER_WINDOW))
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .crypto_buffer_size(STRANGER_WINDOW as usize);
    }
    let mut search = MtuDiscoveryConfig::default();
    if is_loopback(peer) {
        transport.stream_receive_window(VarInt::from_u32(STREAM_WINDOW_NEAR.min(options.window_max)));
        if side == Side::Agent {
            let window = CONNECTION_WINDOW_NEAR.min(options.window_max.saturating_mul(2));
            transport.receive_window(VarInt::from_u32(window));
        }
        // Starting at the bound, the search sends nothing unless a loss makes the path smaller.
        transport.initial_mtu(loopback_bytes(options));
        search.upper_bound(loopback_bytes(options)).black_hole_cooldown(Duration::from_secs(5));
        transport.mtu_discovery_config(Some(search));
    } else if options.datagram_search {
        // With steps this large the first probe is the upper bound, and the only one.
        search.upper_bound(DATAGRAM_BYTES_FAR).minimum_change(DATAGRAM_BYTES_FAR - DATAGRAM_BYTES_MIN - 50);
        transport.mtu_discovery_config(Some(search));
    } else {
        transport.mtu_discovery_config(None);
    }
    Arc::new(transport)
}

/// Returns the widest window of a connection to `peer`, bytes.
pub(super) fn window(peer: IpAddr) -> u32 {
    if is_loopback(peer) { CONNECTION_WINDOW_NEAR } else { CONNECTION_WINDOW }
}

/// The server part of a proxy's endpoint.
pub(super) struct Serving<'a> {
    pub config: ServerConfig,
    pub identity: &'a Identity,
}

/// Opens a socket at `address` and starts QUIC on it: an agent's, unless it serves.
pub(super) fn endpoint(
    address: SocketAddr,
    serving: Option<Serving<'_>>,
    options: &Options,
) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind(address)?;
    sockopt::set_socket_send_buffer_size(&socket, SOCKET_BYTES)?;
    // Past the system's bound only with privilege; without it, up to the bound.
    if sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES)?;
    }
    let settings = settings(serving.as_ref(), options);
    Endpoint::new(settings, serving.map(|serving| serving.config), socket, Arc::new(TokioRuntime))
}

/// Starts QUIC on a simulated network.
#[cfg(feature = "testing")]
pub(super) fn endpoint_over(
    network: Arc<dyn Datagrams>,
    serving: Option<Serving<'_>>,
    options: &Options,
) -> io::Result<Endpoint> {
    let mut settings = settings(serving.as_ref(), options);
    settings.rng_seed(Some(network.seed()));
    let socket = Arc::new(Tap(network));
    let config = serving.map(|serving| serving.config);
    Endpoint::new_with_abstract_socket(settings, config, socket, Arc::new(TokioRuntime))
}

fn settings(serving: Option<&Serving<'_>>, options: &Options) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    let accepted = loopback_bytes(options).max(DATAGRAM_BYTES_FAR);
    config.max_udp_payload_size(accepted).expect("QUIC allows 1,200 to 65,527");
    match serving {
        Some(Serving { identity, .. }) => keep_names(&mut config, identity),
        None => drop(config.cid_generator(|| Box::new(NoName))),
    }
    config
}

/// A restarted proxy knows the names of connections that it had before, and says at once that they are
/// gone (a stateless reset, RFC 9000, section 10.3): their agents need not wait until they count as idle.
fn keep_names(config: &mut EndpointConfig, identity: &Identity) {
    let reset =
        blake3::derive_key("whit 2026-11-25 stateless resets of QUIC connections", identity.tls_key());
    let name = blake3::derive_key("whit 2026-11-25 names of QUIC connections", identity.tls_key());
    let name = u64::from_le_bytes(*name.first_chunk().expect("32 bytes"));
    config
        .reset_key(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)))
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(name)));
}

/// Names no connection: an agent's socket has only one, and each datagram to it is 8 B shorter.
#[derive(Debug)]
struct NoName;

impl ConnectionIdGenerator for NoName {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&[])
    }

    fn cid_len(&self) -> usize {
        0
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Returns whether the address is this machine's own, also when IPv4 is written as IPv6.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn loopback_bytes(options: &Options) -> u16 {
    options.loopback_datagram_bytes.max(DATAGRAM_BYTES_MIN)
}
