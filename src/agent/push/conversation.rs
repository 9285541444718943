//! The conversation of a push, on a thread of its own: the state machine and the content; tasks move its messages.
//!
//! Where the thread waits, it waits for whatever comes first; where it works or sends, replies queue up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::base::Base;
use super::content::Content;
use super::encode::explain::Explanation;
use super::encode::pipeline::Output;
use super::receipt::ReceiptBytes;
use super::source::{Source, SourceEvent};
use super::stream::{Ending, Inbox, Outbox, Turn};
use super::watchdog::Watchdog;
use crate::agent::delivery_progress::DeliveryProgress;
use crate::agent::{Error, Result};
use crate::net::blocking;
use format::record::{DeliveryEvent, Record};
use ground::ids::RolloutId;
use ground::limits::{ANSWER_TIME_LONG_MAX, LIST_MAX, PEER_PAUSE_MAX};
use ground::monitor::{Monitor, Phase};
use ground::threads;
use protocol::push::{Action, Agent};
use protocol::wire::{FromAgent, PushReply};

/// How long a proxy that stopped reading may take to say why.
const REASON_TIME_MAX: Duration = Duration::from_secs(1);

/// One conversation: it does what the state machine asks for.
pub struct Conversation {
    /// The state machine.
    pub machine: Agent,
    /// The pushed content.
    pub content: Content,
    /// The pipeline's output.
    pub outputs: mpsc::Receiver<Output>,
    /// The proxy's half of the stream.
    pub inbox: Inbox,
    /// The agent's half of the stream.
    pub outbox: Outbox,
    /// Set, or closed, when nobody waits for the conversation any longer.
    pub ending: watch::Receiver<Option<Ending>>,
    /// Shows progress.
    pub monitor: Arc<dyn Monitor>,
    /// Notices that the push no longer makes progress.
    pub watchdog: Watchdog,
    /// The result of the push so far.
    pub outcome: Outcome,
    /// True if nothing is to be stored.
    pub is_dry_run: bool,
    /// Ends the conversation once this number of deliveries was heard of, where nobody waits for their ends.
    pub leaves_after: Option<usize>,
    /// True if the conversation is over.
    pub is_finished: bool,
}

/// The result of a push.
#[derive(Debug)]
pub struct Outcome {
    /// Bytes of content, and of what was sent.
    pub bytes: ReceiptBytes,
    /// Chunks that were sent, or are to be.
    pub unseen_chunks: u64,
    /// What the proxy recorded or keeps.
    pub committed: Option<Committed>,
    /// The last state of each delivery.
    pub deliveries: DeliveryProgress,
    /// The rollout that the push began.
    pub rollout: Option<RolloutId>,
    /// Why bytes crossed, file by file; none where nobody asked.
    pub explained: Option<Explanation>,
    /// Dependent exchanges, the handshake's aside.
    pub round_trips: u32,
}

/// What the proxy recorded or keeps.
#[derive(Debug)]
pub struct Committed {
    /// The record, or for how long the content is kept without one.
    pub kept: Kept,
    /// True if the application's latest release was this one already.
    pub existing: bool,
    /// When the agent heard of it.
    pub at: Instant,
}

/// How a proxy keeps what was pushed.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each push")]
pub enum Kept {
    /// As a release.
    Release(Record),
    /// In its cache, until then: seconds since 1970.
    Until(u64),
}

impl Outcome {
    /// Begins a push of `logical_bytes` of content, as far as that is known.
    pub fn new(logical_bytes: u64, explains: bool) -> Self {
        Self {
            bytes: ReceiptBytes { logical: logical_bytes, ..ReceiptBytes::default() },
            unseen_chunks: 0,
            committed: None,
            deliveries: DeliveryProgress::default(),
            rollout: None,
            explained: explains.then(Explanation::default),
            round_trips: 0,
        }
    }
}

/// What a conversation leaves.
pub struct Ended {
    /// The result of a push that went well, and its base.
    pub result: Result<(Outcome, Option<Base>)>,
    /// The input, for another try.
    pub source: Source,
    /// The agent's half of the stream, which is told how to end.
    pub outbox: Outbox,
}

/// What a conversation waits for.
enum Event {
    /// A reply; none at the end of the proxy's half of the stream.
    Reply(Result<Option<PushReply>>),
    /// The pipeline's output, and the turn to send it; none if it failed.
    Output(Option<Output>, Turn),
    More(Result<SourceEvent>),
    /// No more can be sent.
    Unsent(Error),
    /// Nobody waits for the conversation any longer.
    Left,
}

impl Conversation {
    /// Talks until the push is done or fails; announces more of `source` as it is read. Blocks; for a thread of its own.
    pub fn run(mut self, mut source: Source) -> Ended {
        let mut step = self.begin();
        let result = loop {
            match step {
                _ if self.is_finished => break Ok(()),
                Ok(()) => step = self.step(&mut source),
                Err(error) => break self.find_reason(error),
            }
        };
        self.outcome.round_trips = self.machine.round_trips();
        let (unseen_chunks, unseen_bytes) = self.content.unseen();
        self.outcome.unseen_chunks = unseen_chunks;
        self.outcome.bytes.unseen = unseen_bytes;
        let (outcome, base) = (self.outcome, self.content.into_base());
        Ended { result: result.map(|()| (outcome, base)), source, outbox: self.outbox }
    }

    /// Does what is to be done right after the request.
    fn begin(&mut self) -> Result<()> {
        let actions = self.machine.begin(&mut self.content)?;
        self.act_all(actions)
    }

    /// Waits for the next event, and does what follows from it.
    fn step(&mut self, source: &mut Source) -> Result<()> {
        match self.next_event(source) {
            Some(Event::Reply(reply)) => match reply? {
                Some(reply) => {
                    let actions = self.hear(reply)?;
                    self.act_all(actions)
                }
                None if self.machine.is_answered() => Ok(()),
                None => Err(Error::Ended),
            },
            Some(Event::Output(Some(output), turn)) => {
                self.watchdog.progressed();
                self.output(output, turn)
            }
            // Its jobs have not ended: it failed.
            Some(Event::Output(None, _)) => Err(threads::Error::Panicked.into()),
            Some(Event::More(event)) => {
                self.watchdog.progressed();
                self.grow(event?, source)
            }
            Some(Event::Unsent(error)) => Err(error),
            Some(Event::Left) => Err(Error::Ended),
            None => self.check(),
        }
    }

    /// Waits for the next event; none after a time without any.
    fn next_event(&mut self, source: &mut Source) -> Option<Event> {
        let is_sending = self.outcome.committed.is_none();
        let Self { ending, inbox, outbox, outputs, watchdog, .. } = self;
        let is_over = inbox.is_over();
        // Replies come first: they are what the proxy waits for.
        let event = async {
            let turn = outbox.turn();
            tokio::select! {
                biased;
                _ = ending.wait_for(Option::is_some) => Event::Left,
                reply = inbox.next(), if !is_over => Event::Reply(reply),
                error = outbox.failure() => Event::Unsent(error),
                (turn, output) = async { (turn.await, outputs.recv().await) }, if is_sending => {
                    Event::Output(output, turn)
                }
                event = source.next() => Event::More(event),
            }
        };
        blocking::wait(event, watchdog.check_interval())
    }

    /// Checks that the proxy makes progress, where it is its turn.
    fn check(&mut self) -> Result<()> {
        if !self.machine.awaits_reply() || self.machine.is_sending() {
            self.watchdog.progressed();
        }
        self.watchdog.check(self.outbox.sent_bytes())
    }

    /// Where sending broke off, reads what the proxy says: why it refuses, or that it needs no more.
    ///
    /// A peer that refuses closes its half first: what it said before is the better reason.
    fn find_reason(&mut self, error: Error) -> Result<()> {
        if !matches!(error, Error::Link(_)) {
            return Err(error);
        }
        while !self.is_finished {
            let patience = if self.outcome.committed.is_some() { PEER_PAUSE_MAX } else { REASON_TIME_MAX };
            let Self { ending, inbox, .. } = self;
            let reply = async {
                tokio::select! {
                    biased;
                    _ = ending.wait_for(Option::is_some) => None,
                    reply = inbox.next() => reply.ok().flatten(),
                }
            };
            let Some(reply) = blocking::wait(reply, patience).flatten() else { return Err(error) };
            let actions = self.hear(reply)?;
            for action in actions.into_iter().filter(|action| !matches!(action, Action::Send(_))) {
                self.act(action)?;
            }
        }
        Ok(())
    }

    /// Returns what follows from a reply.
    fn hear(&mut self, reply: PushReply) -> Result<Vec<Action>> {
        if !self.watchdog.heard(&reply, self.outcome.deliveries.deliveries()) {
            self.check()?;
        }
        if reply == PushReply::WantNames {
            // The manifest is announced again: chunks that were sent eagerly are requested again.
            self.content.start_over();
        }
        self.machine.receive(reply, &mut self.content)
    }

    /// Announces more of a source that is still being read.
    fn grow(&mut self, event: SourceEvent, source: &mut Source) -> Result<()> {
        let actions = match event {
            SourceEvent::Segments(segments) => self.machine.grow(segments, &mut self.content)?,
            SourceEvent::End(scanned) => {
                let root = scanned.root.clone();
                self.outcome.bytes.logical = root.totals.bytes;
                *source = Source::Scanned(scanned);
                self.machine.grown(&root, &mut self.content)?
            }
        };
        self.act_all(actions)
    }

    /// Sends what the pipeline has made.
    fn output(&mut self, output: Output, turn: Turn) -> Result<()> {
        match output {
            Output::Batch(mut batch) => {
                if let Some(all) = &mut self.outcome.explained {
                    all.add(std::mem::take(&mut batch.explained));
                }
                self.outcome.bytes.sent += batch.bytes() as u64;
                if self.is_dry_run {
                    self.monitor.advance(Phase::Transfer, batch.plain);
                    return Ok(());
                }
                self.watchdog.sent_content();
                self.outbox.send_chunks(batch, turn)
            }
            Output::JobDone => {
                let actions = self.machine.chunks_sent(&mut self.content)?;
                self.act_all(actions)
            }
            Output::Failed(error) => Err(error.into()),
        }
    }

    fn act_all(&mut self, actions: Vec<Action>) -> Result<()> {
        actions.into_iter().try_for_each(|action| self.act(action))
    }

    fn act(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Send(message) => {
                if message == FromAgent::Commit
                    && let Some(seen) = self.content.pace().link().seen()
                {
                    self.outbox.send(FromAgent::LinkSeen(seen))?;
                }
                self.outbox.send(message)?;
            }
            Action::Stored(_) => {}
            Action::Committed { record, existing } => self.committed(Kept::Release(record), existing),
            Action::Cached(until) => self.committed(Kept::Until(until), false),
            Action::Delivery(event) => self.delivery(event)?,
            Action::RollsOut(rollout) => {
                self.outcome.rollout = Some(rollout);
                // It is named like a destination, and has no delivery of its own here.
                self.leaves_after = self.leaves_after.map(|places| places.saturating_sub(1));
                self.is_finished = self.leaves_after == Some(0);
            }
            Action::Finish => self.is_finished = true,
        }
        Ok(())
    }

    /// Notes that all is safe: whatever was still to be sent is not needed.
    fn committed(&mut self, kept: Kept, existing: bool) {
        self.outcome.committed = Some(Committed { kept, existing, at: Instant::now() });
        self.content.stop();
        self.outbox.settle();
    }

    fn delivery(&mut self, event: DeliveryEvent) -> Result<()> {
        let committed = self.outcome.committed.as_ref();
        let is_late = committed.is_some_and(|committed| committed.at.elapsed() > ANSWER_TIME_LONG_MAX);
        if is_late || self.outcome.deliveries.deliveries().len() > LIST_MAX {
            return Err(Error::OutOfTurn("more delivery reports than allowed"));
        }
        self.outcome.deliveries.take(event, &*self.monitor);
        // The receipt says that they are queued.
        self.is_finished = self.leaves_after == Some(self.outcome.deliveries.deliveries().len());
        Ok(())
    }
}
