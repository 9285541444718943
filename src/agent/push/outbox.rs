//! Sends the agent's messages of a push, below a rate.

use tokio::sync::mpsc;

use super::encode::encoder::Encoded;
use super::rate_limit::RateLimit;
use crate::agent::Result;
use crate::net::link::Sender;
use ground::faults::Fault;
use ground::limits::PARCEL_PIECE_BYTES;
use protocol::wire::FromAgent;

/// The agent's half of a push.
#[derive(Debug)]
pub struct Outbox {
    sender: Sender,
    rate_limit: RateLimit,
    /// New tokens, as they come.
    tokens: mpsc::Receiver<String>,
}

impl Outbox {
    /// Begins after the request; content is sent at most at `rate_max` bytes a second.
    pub fn new(sender: Sender, rate_max: Option<f64>, tokens: mpsc::Receiver<String>) -> Self {
        Self { sender, rate_limit: RateLimit::new(rate_max), tokens }
    }

    /// Sends a message. Not to be cancelled.
    pub async fn send(&mut self, message: &FromAgent) -> Result<()> {
        Ok(self.sender.send(message).await?)
    }

    /// Returns the next new token; none where no more will come. May be cancelled.
    pub async fn next_token(&mut self) -> Option<String> {
        self.tokens.recv().await
    }

    /// Continues with a new token.
    pub async fn renew(&mut self, token: String) -> Result<()> {
        self.send(&FromAgent::Renew(token)).await
    }

    /// Sends encoded chunks, a parcel in pieces.
    pub async fn send_encoded(&mut self, encoded: Encoded) -> Result<()> {
        match encoded {
            Encoded::Batch(batch) => {
                self.wait_for_turn(batch.payload.len()).await?;
                self.send(&FromAgent::Chunks(batch)).await
            }
            Encoded::Parcel(parcel, payload) => {
                self.send(&FromAgent::Parcel(parcel)).await?;
                for piece in payload.chunks(self.rate_limit.piece_bytes(PARCEL_PIECE_BYTES)) {
                    self.wait_for_turn(piece.len()).await?;
                    self.send(&FromAgent::Piece(piece.to_vec())).await?;
                }
                Ok(())
            }
        }
    }

    /// Waits until `bytes` may be sent; a new token is sent meanwhile.
    pub async fn wait_for_turn(&mut self, bytes: usize) -> Result<()> {
        let Self { sender, rate_limit, tokens } = self;
        let mut turn = std::pin::pin!(rate_limit.take(bytes));
        loop {
            tokio::select! {
                biased;
                Some(token) = tokens.recv() => sender.send(&FromAgent::Renew(token)).await?,
                () = &mut turn => return Ok(()),
            }
        }
    }

    /// Returns the bytes of UDP payload that the connection has sent.
    pub fn sent_bytes(&self) -> u64 {
        self.sender.sent_bytes()
    }

    /// Ends this side's half of the stream.
    pub fn finish(self) -> Result<()> {
        Ok(self.sender.finish()?)
    }

    /// Gives the stream up.
    pub fn reset(self, fault: Fault) {
        self.sender.reset(fault);
    }
}
