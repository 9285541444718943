//! The messages of a push on their way from its reader to its thread.
//!
//! With the first chunks a thread of its own begins to decode, hash and sketch what comes, so that this and storing take two
//! processors. It keeps the order, and ends with the reader or with the push.

use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;

use tokio::sync::mpsc::Receiver;

use ground::threads;
use protocol::push::{OpenedBatch, Opener};
use protocol::wire::{Batch, FromAgent, Refusal};

/// Opened messages that wait for the push: at most 1.3 MB.
const OPENED_AHEAD: usize = 4;

/// A message, as the state machine takes it.
#[derive(Debug)]
pub(super) enum Incoming {
    Message(FromAgent),
    Chunks(OpenedBatch),
}

type Read = Receiver<Result<FromAgent, Refusal>>;
type Opened = Result<Incoming, Refusal>;

/// The end that the push takes its messages from.
#[derive(Debug)]
pub(super) enum Inbox {
    /// No chunks came so far.
    Read(Read),
    Opened(mpsc::Receiver<Opened>, JoinHandle<()>),
    /// All was taken.
    Ended,
}

impl Inbox {
    /// Returns the next message or why the push ends; none where the reader has ended. Blocks.
    pub fn next(&mut self) -> Option<Opened> {
        match std::mem::replace(self, Self::Ended) {
            Self::Read(mut read) => match read.blocking_recv()? {
                Ok(FromAgent::Chunks(first)) => match opening(first, read) {
                    Ok((opened, thread)) => {
                        *self = Self::Opened(opened, thread);
                        self.next()
                    }
                    Err(error) => Some(Err(Refusal::of(&error))),
                },
                message => {
                    *self = Self::Read(read);
                    Some(message.map(Incoming::Message))
                }
            },
            Self::Opened(opened, thread) => match opened.recv() {
                Ok(next) => {
                    *self = Self::Opened(opened, thread);
                    Some(next)
                }
                Err(_) => thread.join().is_err().then(|| Err(Refusal::of(&threads::Error::Panicked))),
            },
            Self::Ended => None,
        }
    }
}

/// Starts the thread that opens chunks, with the first ones.
fn opening(first: Batch, mut read: Read) -> Result<(mpsc::Receiver<Opened>, JoinHandle<()>), threads::Error> {
    let (out, opened) = mpsc::sync_channel(OPENED_AHEAD);
    let work = move || {
        let mut opener = Opener::default();
        let mut next = Some(Ok(FromAgent::Chunks(first)));
        while let Some(message) = next {
            if !give(&out, message, &mut opener) {
                break;
            }
            next = read.blocking_recv();
        }
    };
    let thread = std::thread::Builder::new().name("whit-opener".to_owned()).spawn(work);
    Ok((opened, thread.map_err(threads::Error::Start)?))
}

/// Opens a message; returns whether more is wanted.
fn give(out: &SyncSender<Opened>, message: Result<FromAgent, Refusal>, opener: &mut Opener) -> bool {
    let opened = match message {
        Ok(FromAgent::Chunks(batch)) => {
            opener.open(batch).map(Incoming::Chunks).map_err(|error| Refusal::of(&error))
        }
        other => other.map(Incoming::Message),
    };
    let goes_on = opened.is_ok();
    out.send(opened).is_ok() && goes_on
}
