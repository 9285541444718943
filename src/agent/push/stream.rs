//! The two halves of a push's stream: tasks that move messages between the link and the thread of the conversation.
//!
//! The reader never waits for that thread: an agent that did not read while it sends would wait for a proxy that waits for
//! it. The queue of replies is bounded by what the agent asked for (PROTOCOL 3, *Credit*). The writer's queue is short: when
//! the link takes nothing, the thread waits for it, and replies are read all the while. So no queue fills because the other
//! one is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::encode::encoder::EncodedBatch;
use crate::agent::{Error, Result};
use crate::net::blocking;
use crate::net::link::{Backlog, Receiver, Sender, Traffic, replies};
use ground::faults::Fault;
use ground::limits::{PARCEL_PIECE_BYTES, WORK_TIME_MAX};
use ground::monitor::{Monitor, Phase};
use protocol::wire::{FromAgent, PushReply};

/// Messages that wait for the link: segments, sketches and queries of some steps. Of chunks one batch at a time is with the
/// writer; the others wait in the pipeline.
const MESSAGES_AHEAD: usize = 8;
/// How long a writer that takes no more messages may take to say why.
const REASON_TIME_MAX: Duration = Duration::from_secs(10);

/// How a conversation ends. Where nobody is left to say how, it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The proxy has all that it wants.
    Well,
    /// With this fault, which the proxy is told.
    Failed(Fault),
}

/// The proxy's half of a push.
#[derive(Debug)]
pub struct Inbox {
    backlog: Backlog,
    /// None once the end was reported.
    reader: Option<JoinHandle<Result<()>>>,
}

impl Inbox {
    /// Starts to read.
    pub fn open(receiver: Receiver) -> Self {
        // The watchdog knows when a reply is due.
        let mut receiver = receiver.with_pause(WORK_TIME_MAX);
        let (said, backlog) = replies();
        let reader = tokio::spawn(async move {
            while let Some(reply) = receiver.receive::<PushReply>().await? {
                said.say(reply).map_err(|_| Error::OutOfTurn("more replies than requested"))?;
            }
            Ok(())
        });
        Self { backlog, reader: Some(reader) }
    }

    /// Returns whether the end was reported.
    pub fn is_over(&self) -> bool {
        self.reader.is_none()
    }

    /// Returns the next reply; none at the end. May be cancelled.
    ///
    /// # Errors
    /// An error of the link, once all earlier replies are taken; a proxy that says more than it was asked.
    pub async fn next(&mut self) -> Result<Option<PushReply>> {
        if let Some(reply) = self.backlog.next().await {
            return Ok(Some(reply));
        }
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let end = reader.await;
        self.reader = None;
        end.map_err(|_| Error::Ended)?.map(|()| None)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

/// What the writer is given.
#[derive(Debug)]
enum Outgoing {
    Message(FromAgent),
    /// Chunks, and the turn that is over when they are sent.
    Batch(EncodedBatch, Turn),
}

/// The agent's half of a push, as the conversation's thread sees it.
#[derive(Debug)]
pub struct Outbox {
    messages: mpsc::Sender<Outgoing>,
    /// One batch of chunks at a time.
    turns: Arc<Semaphore>,
    /// Set once the proxy needs nothing more.
    is_safe: Arc<AtomicBool>,
    failure: oneshot::Receiver<Error>,
    traffic: Traffic,
    writer: JoinHandle<Result<()>>,
}

/// The turn to give a batch of chunks to the writer, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Outbox {
    /// Starts to write after the request, until `ending` says how the conversation ends. Content is sent at most at `rate_max`
    /// bytes a second, and `tokens` as they come.
    pub fn open(
        sender: Sender,
        rate_max: Option<f64>,
        tokens: mpsc::Receiver<String>,
        monitor: Arc<dyn Monitor>,
        ending: watch::Receiver<Option<Ending>>,
    ) -> Self {
        let (messages, queue) = mpsc::channel(MESSAGES_AHEAD);
        let (failed, failure) = oneshot::channel();
        let (traffic, is_safe) = (sender.traffic(), Arc::new(AtomicBool::new(false)));
        let rate_limit = RateLimit::new(rate_max);
        let writer =
            Writer { sender, is_cut: false, is_safe: Arc::clone(&is_safe), rate_limit, tokens, monitor };
        let writer = tokio::spawn(writer.run(queue, failed, ending));
        Self { messages, turns: Arc::new(Semaphore::new(1)), is_safe, failure, traffic, writer }
    }

    /// Sends a message; waits while too many wait already. Blocks.
    ///
    /// # Errors
    /// Why the writer has ended.
    pub fn send(&mut self, message: FromAgent) -> Result<()> {
        self.give(Outgoing::Message(message))
    }

    /// Sends encoded chunks.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub fn send_chunks(&mut self, batch: EncodedBatch, turn: Turn) -> Result<()> {
        self.give(Outgoing::Batch(batch, turn))
    }

    fn give(&mut self, outgoing: Outgoing) -> Result<()> {
        if self.messages.blocking_send(outgoing).is_ok() {
            return Ok(());
        }
        Err(blocking::wait(self.failure(), REASON_TIME_MAX).unwrap_or(Error::Ended))
    }

    /// Waits until the writer has sent all chunks that it was given. May be cancelled.
    pub fn turn(&self) -> impl Future<Output = Turn> + use<> {
        let turns = Arc::clone(&self.turns);
        async move { Turn { _permit: turns.acquire_owned().await.expect("nobody closes it") } }
    }

    /// Waits for the reason why no more can be sent. May be cancelled; not to be called again after it.
    pub async fn failure(&mut self) -> Error {
        (&mut self.failure).await.unwrap_or(Error::Ended)
    }

    /// Drops what the writer has not sent: the proxy needs nothing more.
    pub fn settle(&self) {
        self.is_safe.store(true, Ordering::Relaxed);
    }

    /// Returns the bytes of UDP payload that the connection has sent.
    pub fn sent_bytes(&self) -> u64 {
        self.traffic.sent_bytes()
    }

    /// Waits until the writer has ended this side's half of the stream, which it does when it is told how.
    ///
    /// # Errors
    /// The stream or the connection has ended before.
    pub async fn finish(self) -> Result<()> {
        self.writer.await.map_err(|_| Error::Ended)?
    }
}

/// Sends the agent's messages, below a rate.
struct Writer {
    sender: Sender,
    /// True while a message or a parcel is sent in part.
    is_cut: bool,
    is_safe: Arc<AtomicBool>,
    rate_limit: RateLimit,
    /// New tokens, as they come.
    tokens: mpsc::Receiver<String>,
    monitor: Arc<dyn Monitor>,
}

impl Writer {
    /// Writes until it is said how the conversation ends, or until nobody is left to say so.
    async fn run(
        mut self,
        queue: mpsc::Receiver<Outgoing>,
        failed: oneshot::Sender<Error>,
        mut ending: watch::Receiver<Option<Ending>>,
    ) -> Result<()> {
        let write = async {
            if let Err(error) = self.write_all(queue).await {
                // Nobody may listen any more.
                drop(failed.send(error));
            }
            std::future::pending::<()>().await;
        };
        let ending = tokio::select! {
            biased;
            ending = ending.wait_for(Option::is_some) => ending.ok().and_then(|ending| *ending),
            () = write => None,
        };
        match ending {
            Some(Ending::Well) if !self.is_cut => Ok(self.sender.finish()?),
            Some(Ending::Failed(fault)) => {
                self.sender.reset(fault);
                Ok(())
            }
            // A stream that is dropped is reset.
            Some(Ending::Well) | None => Ok(()),
        }
    }

    async fn write_all(&mut self, mut queue: mpsc::Receiver<Outgoing>) -> Result<()> {
        loop {
            let outgoing = tokio::select! {
                biased;
                Some(token) = self.tokens.recv() => Outgoing::Message(FromAgent::Renew(token)),
                Some(outgoing) = queue.recv() => outgoing,
                else => return Ok(()),
            };
            let is_renewal = matches!(outgoing, Outgoing::Message(FromAgent::Renew(_)));
            if self.is_safe.load(Ordering::Relaxed) && !is_renewal {
                continue;
            }
            self.is_cut = true;
            match outgoing {
                Outgoing::Message(message) => self.send(&message).await?,
                Outgoing::Batch(EncodedBatch { message, payload, plain, .. }, _turn) => {
                    self.send(&message).await?;
                    for piece in payload.chunks(self.rate_limit.piece_bytes(PARCEL_PIECE_BYTES)) {
                        self.send(&FromAgent::Piece(piece.to_vec())).await?;
                    }
                    self.monitor.advance(Phase::Transfer, plain);
                }
            }
            self.is_cut = false;
        }
    }

    /// Sends a message when the rate allows.
    async fn send(&mut self, message: &FromAgent) -> Result<()> {
        self.wait_for_turn(limited_bytes(message)).await?;
        Ok(self.sender.send(message).await?)
    }

    /// Waits until `bytes` may be sent; a new token is sent meanwhile.
    async fn wait_for_turn(&mut self, bytes: usize) -> Result<()> {
        let Self { sender, rate_limit, tokens, .. } = self;
        let mut turn = std::pin::pin!(rate_limit.take(bytes));
        loop {
            tokio::select! {
                biased;
                Some(token) = tokens.recv() => sender.send(&FromAgent::Renew(token)).await?,
                () = &mut turn => return Ok(()),
            }
        }
    }
}

/// Returns the bytes of a message that count against the rate.
fn limited_bytes(message: &FromAgent) -> usize {
    match message {
        FromAgent::Chunks(batch) => batch.payload.len(),
        FromAgent::Piece(piece) => piece.len(),
        FromAgent::RecordQuery(query) => query.names.len(),
        FromAgent::Sketches(sketches) => sketches.bytes(),
        _ => 0,
    }
}

/// Pieces in which a second's bytes are sent: none delays other messages for long.
const PIECES_PER_SECOND: f64 = 20.0;

/// Spreads bytes over time; without a rate it does nothing.
#[derive(Debug)]
struct RateLimit {
    /// Bytes a second.
    rate: Option<f64>,
    next: Instant,
}

impl RateLimit {
    /// Starts; the first bytes need not wait.
    fn new(rate: Option<f64>) -> Self {
        Self { rate, next: Instant::now() }
    }

    /// Returns how many bytes to send at a time, at most `most`.
    fn piece_bytes(&self, most: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a bounded size")]
        let piece = self.rate.map_or(most, |rate| (rate / PIECES_PER_SECOND) as usize);
        piece.clamp(1024, most)
    }

    /// Waits until `bytes` may be sent.
    async fn take(&mut self, bytes: usize) {
        let Some(rate) = self.rate.filter(|_| bytes > 0) else { return };
        sleep_until(self.next).await;
        #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
        let time = Duration::from_secs_f64(bytes as f64 / rate);
        self.next = self.next.max(Instant::now()) + time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_spread_over_the_time_that_they_take() {
        let begin = Instant::now();
        let mut rate_limit = RateLimit::new(Some(100_000.0));
        assert_eq!(rate_limit.piece_bytes(256 * 1024), 5000);
        for _ in 0..21 {
            rate_limit.take(5000).await;
        }
        assert_eq!(begin.elapsed().as_millis(), 1000);
        RateLimit::new(None).take(usize::MAX).await;
    }
}
