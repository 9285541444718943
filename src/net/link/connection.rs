//! A connection between an agent and a proxy, and what it has cost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, Endpoint, VarInt};
use tokio::time::{Instant, sleep, timeout};

use super::strangers::Place;
use super::stream::{Deadlines, Heard, Traffic};
use super::{Error, Options, Receiver, Result, Sender, transport};
use ground::faults::Fault;
use ground::limits::REQUESTS_PER_CONNECTION;

/// The longest wait for an agent's last datagram to leave: it waits for the socket, not for the peer.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(50);
/// The bytes to which an agent's first datagram is padded (RFC 9000, section 14.1); quinn's proxy side does not count
/// it.
const FIRST_BYTES: u64 = 1200;
/// The QUIC code that closes a connection without error.
const NO_FAULT: VarInt = VarInt::from_u32(0);

/// A connection; clones share it, and it is closed when the last is dropped.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: quinn::Connection,
    /// The socket of an agent: it lives as long as its one connection.
    endpoint: Option<Endpoint>,
    /// The place of a stranger, on the proxy's side.
    place: Option<Arc<Place>>,
    /// Bytes that came before quinn began to count: on the proxy's side, one datagram.
    uncounted_bytes: u64,
    deadlines: Deadlines,
    window_max: u32,
}

/// The cost of a connection since its first datagram, handshake and retransmissions included.
///
/// Datagrams that did not arrive are counted where they were sent. Where the proxy asked for a proof of
/// the address (see [`Listener::accept`](super::Listener::accept)), its side lacks that exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Datagrams sent.
    pub sent_datagrams: u64,
    /// Datagrams received.
    pub received_datagrams: u64,
    /// Packets of this side that were lost, as far as it knows.
    pub lost_packets: u64,
    /// How often the congestion window shrank.
    pub congestion_events: u64,
    /// The current estimate of the round trip.
    pub rtt: Duration,
    /// Bytes that may be under way unacknowledged.
    pub congestion_window: u64,
    /// The largest UDP payload in use, bytes.
    pub mtu: u16,
}

impl Counters {
    /// Returns the cost of this connection and those before it; the state is this one's.
    #[must_use]
    pub fn after(self, earlier: &Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes + earlier.sent_bytes,
            received_bytes: self.received_bytes + earlier.received_bytes,
            sent_datagrams: self.sent_datagrams + earlier.sent_datagrams,
            received_datagrams: self.received_datagrams + earlier.received_datagrams,
            lost_packets: self.lost_packets + earlier.lost_packets,
            ..self
        }
    }
}

impl Connection {
    pub(super) fn accepted(inner: quinn::Connection, place: Arc<Place>, options: &Options) -> Self {
        Self {
            inner,
            endpoint: None,
            place: Some(place),
            uncounted_bytes: FIRST_BYTES,
            deadlines: Deadlines::of(options),
            window_max: options.window_max,
        }
    }

    pub(super) fn connected(inner: quinn::Connection, endpoint: Endpoint, options: &Options) -> Self {
        Self {
            inner,
            endpoint: Some(endpoint),
            place: None,
            uncounted_bytes: 0,
            deadlines: Deadlines::of(options),
            window_max: options.window_max,
        }
    }

    /// Marks the peer as one that has shown a good token: from now on it may open as many streams as any, and have
    /// `window` bytes under way, or [`Connection::window`] where that is less. Until then it has one stream and
    /// [`STRANGER_WINDOW`](ground::limits::STRANGER_WINDOW), and gives way to others.
    ///
    /// Does nothing on an agent's side.
    ///
    /// # Errors
    /// [`Error::Ended`] where it had to give way already.
    pub fn prove(&self, window: u32) -> Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        if !place.prove() {
            return Err(Error::Ended);
        }
        let window = window.min(self.window());
        self.inner.set_receive_window(VarInt::from_u32(window));
        self.inner.set_send_window(u64::from(window));
        self.inner.set_max_concurrent_bi_streams(VarInt::from_u32(REQUESTS_PER_CONNECTION));
        Ok(())
    }

    /// Returns the widest window that is of use on this path, in bytes.
    pub fn window(&self) -> u32 {
        transport::window(self.remote_address().ip()).min(self.window_max.saturating_mul(2))
    }

    /// Opens a stream. The peer learns of it with the first message.
    ///
    /// Waits while [`REQUESTS_PER_CONNECTION`](ground::limits::REQUESTS_PER_CONNECTION) are open.
    ///
    /// # Errors
    /// [`Error::Silent`] where none ends within [`Options::silence_max`]; the connection's end.
    pub async fn open(&self) -> Result<(Sender, Receiver)> {
        match timeout(self.deadlines.silence, self.inner.open_bi()).await {
            Err(_) => Err(Error::silent(self.deadlines.silence)),
            Ok(Err(error)) => Err(Error::of_connection(&error)),
            Ok(Ok(stream)) => Ok(self.halves(stream, &Heard::opened())),
        }
    }

    /// Returns the next stream that the peer opens; none once it has finished the connection.
    ///
    /// Waits without a deadline: a silent peer that is gone ends the connection within 60 s. May be
    /// cancelled: nothing is lost.
    ///
    /// # Errors
    /// The connection's end, where it is not the peer's [`Connection::finish`].
    pub async fn accept(&self) -> Result<Option<(Sender, Receiver)>> {
        match self.inner.accept_bi().await {
            Ok(stream) => Ok(Some(self.halves(stream, &Heard::accepted()))),
            Err(ConnectionError::ApplicationClosed(close)) if close.error_code == NO_FAULT => Ok(None),
            Err(error) => Err(Error::of_connection(&error)),
        }
    }

    fn halves(
        &self,
        (sender, receiver): (quinn::SendStream, quinn::RecvStream),
        heard: &Heard,
    ) -> (Sender, Receiver) {
        let traffic = Traffic::of(&self.inner);
        let sender = Sender::new(sender, traffic.clone(), heard.clone(), self.deadlines.silence);
        (sender, Receiver::new(receiver, traffic, heard.clone(), self.deadlines))
    }

    /// Returns the cost of the connection so far; also after its end.
    pub fn counters(&self) -> Counters {
        let stats = self.inner.stats();
        Counters {
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes + self.uncounted_bytes,
            sent_datagrams: stats.udp_tx.datagrams,
            received_datagrams: stats.udp_rx.datagrams + u64::from(self.uncounted_bytes > 0),
            lost_packets: stats.path.lost_packets,
            congestion_events: stats.path.congestion_events,
            rtt: stats.path.rtt,
            congestion_window: stats.path.cwnd,
            mtu: stats.path.current_mtu,
        }
    }

    /// Returns the peer's address; an agent's may change while it lives.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// Returns whether the peer is on this machine, by a loopback address.
    pub fn is_loopback(&self) -> bool {
        transport::is_loopback(self.remote_address().ip())
    }

    /// Waits for the connection's end and says why it ended; nothing where the peer finished it.
    ///
    /// # Errors
    /// Every other end: the peer's or this side's close, or a loss.
    pub async fn closed(&self) -> Result<()> {
        match self.inner.closed().await {
            ConnectionError::ApplicationClosed(close) if close.error_code == NO_FAULT => Ok(()),
            error => Err(Error::of_connection(&error)),
        }
    }

    /// Ends the connection and all its streams at once; the peer learns the fault and the text.
    ///
    /// Unacknowledged data may be lost.
    pub fn close(&self, fault: Fault, text: &str) {
        self.inner.close(VarInt::from_u32(fault.code()), text.as_bytes());
    }

    /// Ends the connection without fault and waits, at most 50 ms, until the peer's notice has left.
    ///
    /// Unacknowledged data may be lost: a side finishes once it has its answer.
    pub async fn finish(self) {
        let before = self.counters().sent_datagrams;
        self.inner.close(NO_FAULT, b"");
        if self.endpoint.is_none() {
            return;
        }
        // quinn can wait only for the end of three timeouts; that the one datagram left is enough here.
        let deadline = Instant::now() + CLOSE_TIME_MAX;
        while self.counters().sent_datagrams == before && Instant::now() < deadline {
            sleep(Duration::from_millis(1)).await;
        }
    }
}
