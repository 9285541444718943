//! Runs a push: the state machine on one side, the link and the pipeline on the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::base::Base;
use super::content::{Content, ToSend};
use super::encode::explain::Explanation;
use super::encode::pipeline::{Job, Output};
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::receipt::ReceiptBytes;
use super::source::{Source, SourceEvent};
use super::watchdog::Watchdog;
use crate::agent::delivery_progress::DeliveryProgress;
use crate::agent::link_speed::LinkSpeed;
use crate::agent::{Error, Result, blocking};
use crate::net::link::Receiver;
use format::record::{DeliveryEvent, Record};
use ground::faults::Faulty;
use ground::limits::{ANSWER_TIME_LONG_MAX, LIST_MAX, PEER_PAUSE_MAX};
use ground::monitor::{Monitor, Phase};
use ground::threads;
use protocol::push::{Action, Agent, Chunks, Segments};
use protocol::wire::{FromAgent, PushReply};

/// How long a proxy that stopped reading may take to say why.
const REASON_TIME_MAX: Duration = Duration::from_secs(1);

/// Does what the state machine asks for, and tells it what came of it.
pub struct Driver<'a> {
    /// The state machine.
    pub machine: Agent,
    /// The agent's half of the stream.
    pub outbox: Outbox,
    /// The pushed content; `None` while a blocking task uses it.
    pub content: Option<Content>,
    /// Leads to the pipeline; none when no more chunks will be asked for.
    pub jobs: Option<SyncSender<Job>>,
    /// How fast the link is.
    pub speed: LinkSpeed,
    /// Shows progress.
    pub monitor: Arc<dyn Monitor>,
    /// True if nothing is to be stored.
    pub is_dry_run: bool,
    /// Notices that the push no longer makes progress.
    pub watchdog: Watchdog<'a>,
    /// The result of the push so far.
    pub outcome: Outcome,
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
            explained: explains.then(Explanation::default),
            round_trips: 0,
        }
    }
}

impl Driver<'_> {
    /// Does the actions of `begin`, then what the proxy asks for, until the push is done. Announces more of `source` as
    /// it is read.
    pub async fn run(
        &mut self,
        begin: Vec<Action>,
        receiver: Receiver,
        mut outputs: mpsc::Receiver<Output>,
        source: &mut Source,
    ) -> Result<()> {
        let mut inbox = Inbox::open(receiver);
        let mut is_over = false;
        let mut begun = self.act_all(begin).await;
        let result = loop {
            if self.is_finished {
                break Ok(());
            }
            if let Err(error) = std::mem::replace(&mut begun, Ok(())) {
                break self.find_reason(error, &mut inbox).await;
            }
            let step = tokio::select! {
                biased;
                reply = inbox.next(), if !is_over => match reply {
                    Ok(Some(reply)) => self.reply(reply).await,
                    Err(error) => Err(error),
                    Ok(None) if self.machine.is_answered() => {
                        is_over = true;
                        Ok(())
                    }
                    Ok(None) => Err(Error::Ended),
                },
                Some(token) = self.outbox.next_token() => self.outbox.renew(token).await,
                output = outputs.recv(), if self.outcome.committed.is_none() => match output {
                    Some(output) => {
                        self.watchdog.progressed();
                        self.output(output).await
                    }
                    // Its jobs have not ended: it failed.
                    None => break Err(threads::Error::Panicked.into()),
                },
                event = source.next() => match event {
                    Ok(event) => {
                        self.watchdog.progressed();
                        self.grow(event, source).await
                    }
                    Err(error) => Err(error),
                },
                () = tokio::time::sleep(self.watchdog.check_interval()) => self.check(),
                else => Err(Error::Ended),
            };
            if let Err(error) = step {
                break self.find_reason(error, &mut inbox).await;
            }
        };
        outputs.close();
        result
    }

    /// Ends the pipeline's jobs and this side's half of the stream; returns what came of a push that went well.
    ///
    /// # Errors
    /// That of `result`; the link's.
    pub fn end(mut self, result: Result<()>) -> Result<(Outcome, Option<Base>)> {
        self.jobs = None;
        match result {
            Ok(()) => self.outbox.finish()?,
            Err(error) => {
                self.outbox.reset(error.fault());
                return Err(error);
            }
        }
        self.outcome.round_trips = self.machine.round_trips();
        Ok((self.outcome, self.content.and_then(Content::into_base)))
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
    async fn find_reason(&mut self, error: Error, inbox: &mut Inbox) -> Result<()> {
        if !matches!(error, Error::Link(_)) {
            return Err(error);
        }
        while !self.is_finished {
            let patience = if self.outcome.committed.is_some() { PEER_PAUSE_MAX } else { REASON_TIME_MAX };
            let Ok(Ok(Some(reply))) = tokio::time::timeout(patience, inbox.next()).await else {
                return Err(error);
            };
            if !self.watchdog.heard(&reply, self.outcome.deliveries.deliveries()) {
                self.check()?;
            }
            for action in self.machine.receive(reply)? {
                let sends =
                    matches!(action, Action::Send(_) | Action::SendSegments(_) | Action::Prove { .. });
                if !sends {
                    self.act(action).await?;
                }
            }
        }
        Ok(())
    }

    async fn reply(&mut self, reply: PushReply) -> Result<()> {
        if !self.watchdog.heard(&reply, self.outcome.deliveries.deliveries()) {
            self.check()?;
        }
        if reply == PushReply::WantNames {
            // The manifest is announced again: chunks that were sent eagerly are requested again.
            (self.outcome.unseen_chunks, self.outcome.bytes.unseen) = (0, 0);
        }
        let actions = self.machine.receive(reply)?;
        self.act_all(actions).await
    }

    /// Does the actions, and those that follow from them.
    async fn act_all(&mut self, actions: Vec<Action>) -> Result<()> {
        let mut actions: VecDeque<Action> = actions.into();
        while let Some(action) = actions.pop_front() {
            actions.extend(self.act(action).await?);
        }
        Ok(())
    }

    /// Announces more of a source that is still being read.
    async fn grow(&mut self, event: SourceEvent, source: &mut Source) -> Result<()> {
        let actions = match event {
            SourceEvent::Segments(segments) => self.machine.grow(segments),
            SourceEvent::End(scanned) => {
                let root = &scanned.root;
                self.outcome.bytes.logical = root.totals.bytes;
                let actions = self.machine.grown(root.release(), root.totals);
                *source = Source::Scanned(scanned);
                actions
            }
        };
        self.act_all(actions).await
    }

    /// Sends what the pipeline has made.
    async fn output(&mut self, output: Output) -> Result<()> {
        match output {
            Output::Batch(batch) => {
                if let Some(all) = &mut self.outcome.explained {
                    all.add(batch.explained);
                }
                self.outcome.bytes.sent += batch.encoded.bytes() as u64;
                if !self.is_dry_run {
                    self.watchdog.sent_content();
                    self.outbox.send_encoded(batch.encoded).await?;
                }
                self.monitor.advance(Phase::Transfer, batch.plain);
            }
            Output::JobDone => {
                let actions = self.machine.chunks_sent();
                self.act_all(actions).await?;
            }
            Output::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Does one action; returns those that follow from it.
    async fn act(&mut self, action: Action) -> Result<Vec<Action>> {
        match action {
            Action::Send(message) => self.outbox.send(&message).await?,
            Action::SendSegments(segments) => return self.send_segments(segments).await,
            Action::Sketch(chunks) => return self.sketch(chunks).await,
            Action::SendChunks(chunks) => self.send_chunks(chunks).await?,
            Action::Prove { segments, challenge } => {
                let proof = self.ask(move |content| content.prove(&segments, &challenge)).await?;
                self.outbox.send(&FromAgent::Proof(proof)).await?;
            }
            Action::Stored(_) => {}
            Action::Committed { record, existing } => {
                self.committed(Kept::Release(record), existing);
            }
            Action::Cached(until) => self.committed(Kept::Until(until), false),
            Action::Delivery(event) => self.delivery(event)?,
            Action::Finish => self.is_finished = true,
        }
        Ok(Vec::new())
    }

    /// Notes that all is safe: whatever was still to be sent is not needed.
    fn committed(&mut self, kept: Kept, existing: bool) {
        self.outcome.committed = Some(Committed { kept, existing, at: Instant::now() });
        self.jobs = None;
    }

    /// Asks the content, which hashes, compresses and reads files, off the async threads.
    async fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut Content) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut content =
            self.content.take().expect("it is asked one thing at a time, and none after a failure");
        let work = move || question(&mut content).map(|answer| (content, answer));
        let (content, answer) = blocking(work).await?;
        self.content = Some(content);
        Ok(answer)
    }

    async fn send_segments(&mut self, segments: Segments) -> Result<Vec<Action>> {
        let is_eager = segments.eager;
        let queries = segments.executables && self.speed.is_slow();
        let (queries, batch) = self
            .ask(move |content| {
                let queries = if queries { content.record_queries(&segments.segments)? } else { Vec::new() };
                Ok((queries, content.segments(&segments)?))
            })
            .await?;
        for query in queries {
            self.outbox.wait_for_turn(query.names.len()).await?;
            self.outbox.send(&FromAgent::RecordQuery(query)).await?;
        }
        let marks = batch.eager.clone();
        self.outbox.send(&FromAgent::Segments(batch)).await?;
        Ok(if is_eager { self.machine.eager_marked(marks) } else { Vec::new() })
    }

    /// Sketches chunks that resemble nothing known, where the link is so slow that a round trip may pay.
    async fn sketch(&mut self, chunks: Chunks) -> Result<Vec<Action>> {
        if !self.speed.is_slow() {
            return Ok(self.machine.sketched(chunks, None));
        }
        let is_based = self.machine.is_based();
        let (chunks, sketches) = self
            .ask(move |content| {
                let sketches = content.sketch(&chunks, is_based)?;
                Ok((chunks, sketches))
            })
            .await?;
        if let Some(sketches) = &sketches {
            self.outbox.wait_for_turn(sketches.bytes()).await?;
        }
        Ok(self.machine.sketched(chunks, sketches))
    }

    /// Gives chunks to the pipeline.
    async fn send_chunks(&mut self, chunks: Chunks) -> Result<()> {
        let is_based = self.machine.is_based();
        let ToSend { job, chunks, bytes } = self.ask(move |content| content.job(chunks, is_based)).await?;
        self.outcome.unseen_chunks += chunks;
        self.outcome.bytes.unseen += bytes;
        self.monitor.begin(Phase::Transfer, Some(self.outcome.bytes.unseen));
        // The pipeline ends only after `jobs` is dropped, and takes as many jobs as the machine has under way.
        if let Some(jobs) = &self.jobs
            && let Err(TrySendError::Full(_)) = jobs.try_send(job)
        {
            return Err(protocol::Error::OutOfTurn("a request for more chunks than allowed at a time").into());
        }
        Ok(())
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
