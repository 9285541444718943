//! The link between an agent and a proxy: messages on QUIC streams, and what they cost in datagrams.
//!
//! [`Listener`] and [`connect`] make [`Connection`]s; a connection opens and accepts bidirectional
//! streams, each a [`Sender`] and a [`Receiver`] of MessagePack messages. Every wait has a deadline,
//! except the two in which silence is no fault: [`Listener::accept`] and [`Connection::accept`].
//!
//! The proxy proves its key (TLS 1.3 with a raw public key, RFC 7250) and the agent compares it with
//! the fingerprint that it pinned; no authority, no certificate. The agent is identified by its token
//! inside a message: this module knows nothing of it.
//!
//! No type of `quinn` or `rustls` leaves this folder.

mod backlog;
mod congestion;
mod connecting;
mod connection;
mod error;
mod listener;
mod strangers;
mod stream;
#[cfg(feature = "testing")]
mod tap;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

pub use backlog::{Backlog, Pulse, Replies, replies};
pub use connecting::connect;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use connecting::connect_over;
pub use connection::{Connection, Counters};
pub use error::{Error, Result};
pub use listener::Listener;
pub use stream::{Receiver, Sender, Traffic};
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use tap::Datagrams;
pub use tls::use_our_cryptography;

use std::time::Duration;

use ground::limits;

/// Options of a link; the same on both sides unless stated otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The longest silence of a peer inside a message.
    pub silence_max: Duration,
    /// The longest silence of a peer between two messages; the connection itself finds out whether the peer is there.
    pub pause_max: Duration,
    /// The shortest time without any packet after which an agent that retries for less takes the peer for gone.
    pub unheard_min: Duration,
    /// The longest time of a request without progress, even if its peer sends messages.
    pub progress_max: Duration,
    /// The longest time to establish a connection.
    pub connect_time_max: Duration,
    /// The time after which an agent without a request identifies itself.
    pub introduction_time: Duration,
    /// Connections that a listener holds at a time, those that are ending included; more are refused.
    pub connections_max: usize,
    /// Connections whose agent has not shown a good token yet ([`Connection::prove`]); beyond that, the oldest of the
    /// address with the most of them ends.
    pub strangers_max: usize,
    /// The most bytes that a peer may send on one stream before they are read, unless its address has a smaller window;
    /// a connection takes twice as many. Tests make it small, to show that nothing waits for ever.
    pub window_max: u32,
    /// The UDP payload to a loopback address, bytes, from 1,200. It is the same on both sides, so that
    /// each accepts what the other sends; more than 6,500 does not work (ten datagrams a send must stay
    /// below 64 KiB). Set it to 1,200 to measure as on a far link.
    pub loopback_datagram_bytes: u16,
    /// True to find out if a path that is not loopback carries 1,452-byte datagrams instead of 1,200.
    ///
    /// Costs each side that does so one such datagram per connection (three where they do not pass):
    /// measured, 2,929 B for both. Saves a sixth of the datagrams of a long transfer, and 0.4 % of its bytes.
    pub datagram_search: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            silence_max: limits::PEER_SILENCE_MAX,
            pause_max: limits::PEER_PAUSE_MAX,
            unheard_min: limits::UNHEARD_TIME_MIN,
            progress_max: limits::PROGRESS_TIME_MAX,
            connect_time_max: limits::CONNECT_TIME_MAX,
            introduction_time: limits::INTRODUCTION_TIME,
            connections_max: limits::CONNECTIONS_HELD_MAX,
            strangers_max: limits::STRANGERS_MAX,
            window_max: u32::MAX,
            loopback_datagram_bytes: 6400,
            datagram_search: true,
        }
    }
}
