//! The stream of a pull.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::agent::{Error, Result};
use crate::net::link::{self, Receiver, Sender};
use ground::limits::PULL_PROGRESS_TIME_MAX;
use ground::stall::Watch;
use protocol::transfer::Parcels;
use protocol::wire::{Parcel, PullReply, PullRequest};

/// How long to wait for the reason of a proxy that has refused: it is on its way.
const HEAR_OUT: Duration = Duration::from_secs(5);

/// Both halves of the stream.
pub(super) struct PullStream {
    /// What the agent says.
    pub sender: Sender,
    /// What the proxy says.
    pub receiver: Receiver,
    /// New tokens, as they come.
    renewals: mpsc::Receiver<String>,
    watch: Watch,
    /// Watches the progress of the proxy.
    heard: Instant,
}

impl PullStream {
    /// Begins once the request was sent.
    pub fn new((sender, receiver): (Sender, Receiver), renewals: mpsc::Receiver<String>) -> Self {
        let now = Instant::now();
        Self { sender, receiver, renewals, watch: Watch::new(now, PULL_PROGRESS_TIME_MAX), heard: now }
    }

    /// Returns the proxy's next message.
    ///
    /// The release and the requests bound what the proxy may send. A proxy that sends too slowly ends the pull.
    pub async fn reply(&mut self) -> Result<PullReply> {
        self.watch.hear(self.receiver.received_bytes(), self.heard, Instant::now());
        let reply = {
            let receive = self.receiver.receive::<PullReply>();
            tokio::pin!(receive);
            loop {
                tokio::select! {
                    received = &mut receive => break received?,
                    Some(token) = self.renewals.recv() => {
                        // Where sending fails, the reply says why.
                        drop(self.sender.send(&PullRequest::Renew(token)).await);
                    }
                }
            }
        };
        self.heard = Instant::now();
        self.watch.hear(self.receiver.received_bytes(), self.heard, self.heard);
        if self.watch.left(self.heard).is_none() {
            return Err(Error::Stalled(PULL_PROGRESS_TIME_MAX.as_secs()));
        }
        match reply {
            Some(PullReply::Refused(refusal)) => Err(Error::Refused(refusal)),
            Some(reply) => Ok(reply),
            None => Err(Error::Ended),
        }
    }

    /// Sends a request.
    pub async fn ask(&mut self, request: &PullRequest) -> Result<()> {
        match self.sender.send(request).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.hear_out(error).await),
        }
    }

    /// Prefers the proxy's refusal to an error of sending: a proxy that refuses closes its half first.
    async fn hear_out(&mut self, error: link::Error) -> Error {
        let heard = async {
            loop {
                match self.receiver.receive::<PullReply>().await {
                    Ok(Some(PullReply::Refused(refusal))) => return Some(refusal),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return None,
                }
            }
        };
        match tokio::time::timeout(HEAR_OUT, heard).await {
            Ok(Some(refusal)) => Error::Refused(refusal),
            _ => error.into(),
        }
    }

    /// Receives the pieces of a parcel; returns it with its payload.
    pub async fn payload(&mut self, parcel: Parcel) -> Result<(Parcel, Vec<u8>)> {
        let mut parcels = Parcels::default();
        parcels.begin(parcel)?;
        loop {
            let PullReply::Piece(piece) = self.reply().await? else {
                return Err(Error::OutOfTurn("another message inside a parcel"));
            };
            if let Some(whole) = parcels.piece(&piece)? {
                return Ok(whole);
            }
        }
    }
}
