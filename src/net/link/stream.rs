//! Messages on a stream: a length (u32, little-endian) and that many bytes of MessagePack each.
//!
//! Structures are arrays of their fields, in order. Layout: PROTOCOL 2.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::VarInt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Error, Result};
use ground::faults::Fault;
use ground::limits::{MESSAGE_BYTES_MAX, WORK_TIME_MAX};

/// Bytes of the length before each message.
const HEADER_BYTES: usize = 4;
/// 16 KiB: a peer that sends or takes this much is not silent, however long its message takes. Signs of life are half
/// of it in the longest pause.
const PROGRESS_BYTES: usize = 16 * 1024;
/// 384 KiB: what a receiver may keep between messages. It holds a frame's message: given back after each, its pages are
/// cleared anew for the next.
const KEPT_BYTES: usize = 384 * 1024;

/// The deadlines of a stream, each as [`Options`](super::Options) documents it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    pub silence: Duration,
    pub pause: Duration,
    pub progress: Duration,
}

impl Deadlines {
    pub fn of(options: &super::Options) -> Self {
        let &super::Options { silence_max, pause_max, progress_max, .. } = options;
        Self { silence: silence_max, pause: pause_max, progress: progress_max }
    }
}

/// The bytes that a connection has sent in all its streams. The count stands still where the peer takes no more.
#[derive(Clone)]
pub struct Traffic(quinn::Connection);

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Traffic({} B)", self.sent_bytes())
    }
}

impl Traffic {
    pub(super) fn of(connection: &quinn::Connection) -> Self {
        Self(connection.clone())
    }

    /// Returns the bytes of UDP payload that the connection has sent so far. Bytes handed to a stream may leave much
    /// later.
    pub fn sent_bytes(&self) -> u64 {
        self.0.stats().udp_tx.bytes
    }
}

/// Counts the bytes that came on a stream, for the half that sends on it.
///
/// Only the side that opened a stream counts: its peer works on what it sends, and may say so instead of reading on.
#[derive(Debug, Clone)]
pub(super) struct Heard(Option<Arc<AtomicU64>>);

impl Heard {
    /// Counts on a stream that this side opened.
    pub fn opened() -> Self {
        Self(Some(Arc::default()))
    }

    /// Counts nothing, on a stream that the peer opened.
    pub fn accepted() -> Self {
        Self(None)
    }

    fn add(&self, bytes: usize) {
        if let Some(count) = &self.0 {
            count.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// The sending half of a stream.
///
/// Dropped without [`Sender::finish`] it resets the stream with [`Fault::Retry`], so that the peer never takes what an
/// interrupted task had sent for all there is.
pub struct Sender {
    pub(super) stream: quinn::SendStream,
    traffic: Traffic,
    heard: Heard,
    silence_max: Duration,
    ended: bool,
}

impl Sender {
    pub(super) fn new(
        stream: quinn::SendStream,
        traffic: Traffic,
        heard: Heard,
        silence_max: Duration,
    ) -> Self {
        Self { stream, traffic, heard, silence_max, ended: false }
    }

    /// Sends one message; returns when the connection has taken it over, not when it has arrived.
    ///
    /// Not to be cancelled: a message sent in part leaves the stream useless. The sender is then to be
    /// dropped.
    ///
    /// # Errors
    /// [`Error::TooLarge`] sends nothing; [`Error::Silent`] where the peer does not read, that is, neither takes this
    /// message over nor lets 16 KiB of what was sent before leave within `silence_max`. While something is received on
    /// a stream that this side opened, the peer may take [`WORK_TIME_MAX`]: it works on an earlier message, and says
    /// so. Else the end of the stream or the connection.
    pub async fn send<T: Serialize + ?Sized>(&mut self, message: &T) -> Result<()> {
        let mut bytes = vec![0; HEADER_BYTES];
        rmp_serde::encode::write(&mut bytes, message).expect("a Vec takes every write");
        let length = bytes.len() - HEADER_BYTES;
        let header = u32::try_from(length).ok().filter(|_| length <= MESSAGE_BYTES_MAX);
        let header = header.ok_or(Error::TooLarge { bytes: length })?;
        bytes[..HEADER_BYTES].copy_from_slice(&header.to_le_bytes());
        let mut writing = pin!(self.stream.write_chunk(bytes.into()));
        let mut progress = Instant::now();
        loop {
            let (sent, heard) = (self.traffic.sent_bytes(), self.heard.bytes());
            match timeout(self.silence_max, &mut writing).await {
                // A slow link is busy with what was sent before, which the peer takes.
                Err(_) if self.traffic.sent_bytes() >= sent + PROGRESS_BYTES as u64 => {
                    progress = Instant::now();
                }
                // The peer reports that it still works on earlier messages.
                Err(_) if self.heard.bytes() > heard && progress.elapsed() < WORK_TIME_MAX => {}
                Err(_) => return Err(Error::silent(self.silence_max)),
                Ok(result) => return result.map_err(|error| Error::of_write(&error)),
            }
        }
    }

    /// Returns the count of what the connection has sent, for one who watches while another sends.
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    /// Returns once the peer wants to hear nothing more, or the connection has ended. May be cancelled.
    pub async fn unwanted(&mut self) {
        drop(self.stream.stopped().await);
    }

    /// Ends the stream after the last message; does not wait for the peer.
    ///
    /// # Errors
    /// The stream or the connection has ended before.
    pub fn finish(mut self) -> Result<()> {
        self.ended = true;
        self.stream.finish().map_err(|_| Error::Ended)
    }

    /// Gives the stream up: the peer's next [`Receiver::receive`] fails with `fault`.
    pub fn reset(mut self, fault: Fault) {
        self.give_up(fault);
    }

    fn give_up(&mut self, fault: Fault) {
        if !self.ended {
            self.ended = true;
            // It fails only where the stream has ended already.
            drop(self.stream.reset(VarInt::from_u32(fault.code())));
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.give_up(Fault::Retry);
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({})", self.stream.id())
    }
}

/// The receiving half of a stream.
///
/// Dropped before the stream's end, it asks the peer to stop sending, with [`Fault::Retry`].
pub struct Receiver {
    stream: quinn::RecvStream,
    traffic: Traffic,
    heard: Heard,
    deadlines: Deadlines,
    message_max: usize,
    /// The received part of the current message, its header included.
    pub(super) arrived: Vec<u8>,
    received_bytes: u64,
}

impl Receiver {
    pub(super) fn new(
        stream: quinn::RecvStream,
        traffic: Traffic,
        heard: Heard,
        deadlines: Deadlines,
    ) -> Self {
        let (message_max, arrived) = (MESSAGE_BYTES_MAX, Vec::new());
        Self { stream, traffic, heard, deadlines, message_max, arrived, received_bytes: 0 }
    }

    /// Takes only messages of up to `bytes` from now on.
    #[must_use]
    pub fn with_message_max(self, bytes: usize) -> Self {
        Self { message_max: bytes, ..self }
    }

    /// Changes how long to wait for a message to begin, for an owner that knows when one is due.
    #[must_use]
    pub fn with_pause(mut self, pause_max: Duration) -> Self {
        self.deadlines.pause = pause_max;
        self
    }

    /// Receives one message; none at the stream's end.
    ///
    /// Memory grows with what arrives, not with what is announced. May be cancelled: the next call goes
    /// on where this one stopped.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`] and [`Error::Cut`] for what no honest peer sends; [`Error::Silent`]
    /// where no message begins within [`Options::pause_max`](super::Options), and the link is not busy with what this
    /// side has sent, or fewer than 16 KiB of one arrive within `silence_max`; [`Error::Closed`] where the peer gave
    /// up; the connection's end.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(bytes) = self.announced().await? else { return Ok(None) };
        if !self.fill(HEADER_BYTES + bytes).await? {
            return Err(Error::Cut { expected: bytes, found: self.arrived.len() - HEADER_BYTES });
        }
        self.received_bytes += self.arrived.len() as u64;
        let message = rmp_serde::from_slice(&self.arrived[HEADER_BYTES..]);
        self.arrived.clear();
        self.arrived.shrink_to(KEPT_BYTES);
        message.map(Some).map_err(|_| Error::Malformed { bytes })
    }

    /// Reads the next message until `read` finds in its beginning what it looks for; the message is then still to be
    /// [received](Self::receive). None at the stream's end.
    ///
    /// Takes `bytes_max` of memory at most, however long the message is. May be cancelled, as a receive.
    ///
    /// # Errors
    /// [`Error::Malformed`] where `read` finds nothing in `bytes_max` bytes or in the whole message; else as a receive.
    pub async fn peek<T>(
        &mut self,
        bytes_max: usize,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(bytes) = self.announced().await? else { return Ok(None) };
        let most = HEADER_BYTES + bytes.min(bytes_max);
        loop {
            if let Some(found) = read(&self.arrived[HEADER_BYTES..]) {
                return Ok(Some(found));
            }
            let found = self.arrived.len();
            if found >= most {
                return Err(Error::Malformed { bytes });
            }
            if !self.fill_some(found + 1, most).await? {
                return Err(Error::Cut { expected: bytes, found: found - HEADER_BYTES });
            }
        }
    }

    /// Returns how long the request may go on without progress.
    pub fn progress_max(&self) -> Duration {
        self.deadlines.progress
    }

    /// Returns the bytes of the messages that were received.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Returns the bytes of UDP payload that the connection has sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.traffic.sent_bytes()
    }

    /// Returns the length of the next message; none at the stream's end.
    async fn announced(&mut self) -> Result<Option<usize>> {
        if !self.fill(HEADER_BYTES).await? {
            return match self.arrived.len() {
                0 => Ok(None),
                found => Err(Error::Cut { expected: HEADER_BYTES, found }),
            };
        }
        let header = self.arrived.first_chunk().expect("it was just filled");
        let bytes = usize::try_from(u32::from_le_bytes(*header)).expect("usize holds 32 bits");
        if bytes > self.message_max { Err(Error::TooLarge { bytes }) } else { Ok(Some(bytes)) }
    }

    /// Reads until `arrived` has `wanted` bytes; false where the stream ends before.
    async fn fill(&mut self, wanted: usize) -> Result<bool> {
        self.fill_some(wanted, wanted).await
    }

    /// Reads until `arrived` has at least `wanted` bytes, and no more than `most`; false where the stream ends before.
    async fn fill_some(&mut self, wanted: usize, most: usize) -> Result<bool> {
        // Before a message's first byte the peer may be at work; once a message has begun, it must keep sending.
        let patience = if self.arrived.is_empty() { self.deadlines.pause } else { self.deadlines.silence };
        let mut deadline = Instant::now() + patience;
        let mut progress = self.arrived.len();
        let mut sent = self.traffic.sent_bytes();
        while self.arrived.len() < wanted {
            let room = most - self.arrived.len();
            match timeout_at(deadline, self.stream.read_chunk(room, true)).await {
                // The peer cannot answer a message that has not reached it yet.
                Err(_)
                    if self.arrived.is_empty()
                        && self.traffic.sent_bytes() >= sent + PROGRESS_BYTES as u64 =>
                {
                    sent = self.traffic.sent_bytes();
                    deadline = Instant::now() + patience;
                }
                Err(_) => return Err(Error::silent(patience)),
                Ok(Err(error)) => return Err(Error::of_read(&error)),
                Ok(Ok(None)) => return Ok(false),
                Ok(Ok(Some(chunk))) => {
                    self.arrived.extend_from_slice(&chunk.bytes);
                    self.heard.add(chunk.bytes.len());
                    self.received_bytes += chunk.bytes.len() as u64;
                }
            }
            if progress == 0 || self.arrived.len() - progress >= PROGRESS_BYTES {
                progress = self.arrived.len();
                deadline = Instant::now() + self.deadlines.silence;
            }
        }
        Ok(true)
    }

    /// Discards up to `bytes_max` more bytes for at most `patience`, so that the peer comes to read this side's last
    /// message; then gives the stream up with `fault`, unless it has ended.
    pub async fn discard(mut self, bytes_max: usize, patience: Duration, fault: Fault) {
        let discarded = async {
            let mut left = bytes_max;
            while left > 0 {
                match self.stream.read_chunk(left, true).await {
                    Ok(Some(chunk)) => left -= chunk.bytes.len(),
                    Ok(None) | Err(_) => break,
                }
            }
        };
        drop(timeout(patience, discarded).await);
        self.stop(fault);
    }

    /// Gives the stream up: the peer's next [`Sender::send`] fails with `fault`.
    pub fn stop(mut self, fault: Fault) {
        // It fails only where the stream has ended already.
        drop(self.stream.stop(VarInt::from_u32(fault.code())));
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({})", self.stream.id())
    }
}
