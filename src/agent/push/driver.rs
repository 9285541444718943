//! Runs a push: the state machine on one side, the link and the feeder on the other.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{self as std_mpsc, TrySendError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::base::Base;
use super::encode::batcher::{Match, merge};
use super::encode::encoder::{Encoded, EncodedBatch};
use super::encode::explain::Explanation;
use super::encode::pipeline::{Job, Output};
use super::encode::relinked::{ExecutableReference, OlderExecutable};
use super::inbox::Inbox;
use super::rate_limit::RateLimit;
use super::receipt::ReceiptBytes;
use super::record_queries::RecordQueries;
use super::sketches::Sketcher;
use super::source::{self, Source};
use super::watchdog::Watchdog;
use crate::agent::link_speed::LinkSpeed;
use crate::agent::scan::Spool;
use crate::agent::{Error, Result};
use crate::net::link::{Receiver, Sender};
use format::manifest::{self, SegmentIndex};
use format::record::{DeliveryEvent, DeliveryState, Record};
use ground::limits::{ANSWER_TIME_LONG_MAX, LIST_MAX, PARCEL_PIECE_BYTES, PEER_PAUSE_MAX};
use ground::monitor::{Monitor, Phase};
use ground::threads;
use protocol::push::{Action, Agent, Chunks, Segments};
use protocol::wire::{BlockSums, FromAgent, Marks, PushReply, RecordAnswer, SegmentBatch, Sketches};

/// How long the proxy may take to say why it no longer listens.
const HEAR_OUT: Duration = Duration::from_secs(1);

/// Runs the state machine over the link.
pub struct Driver<'a> {
    /// The state machine.
    pub machine: Agent,
    /// The agent's half of the stream.
    pub sender: Sender,
    /// The scanned manifest.
    pub spool: Spool,
    /// What the proxy confirmed last time.
    pub base: Option<Base>,
    /// Gone when no more chunks will be asked for.
    pub jobs: Option<std_mpsc::SyncSender<Job>>,
    /// Who is told.
    pub monitor: Arc<dyn Monitor>,
    /// What was sent so far.
    pub bytes: ReceiptBytes,
    /// Chunks that were sent, or are to be.
    pub unseen_chunks: u64,
    /// What the proxy wrote, and when that was known.
    pub committed: Option<(Record, bool, Instant)>,
    /// The last state of each delivery.
    pub deliveries: Vec<DeliveryEvent>,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
    /// Why bytes crossed, file by file, where somebody wants to know.
    pub explained: Option<Explanation>,
    /// Holds what is sent below a rate.
    pub rate_limit: RateLimit,
    /// How fast the link is.
    pub speed: LinkSpeed,
    /// What was offered.
    pub record_queries: RecordQueries,
    /// Sketches what nothing is known to be like.
    pub sketcher: Sketcher,
    /// Whether executables are told as other files are.
    pub raw: bool,
    /// New tokens, as they come.
    pub renewals: mpsc::Receiver<String>,
    /// Whether the conversation is over.
    pub finished: bool,
    /// Notices when the push no longer gets on.
    pub watchdog: Watchdog<'a>,
}

impl Driver<'_> {
    /// Talks until all is said: does what `begin` says, then what the proxy asks for; tells of `input` as it grows.
    pub async fn run(
        &mut self,
        begin: Vec<Action>,
        receiver: Receiver,
        mut fed: mpsc::Receiver<Output>,
        input: &mut Source,
    ) -> Result<()> {
        let mut inbox = Inbox::open(receiver);
        let mut heard_all = false;
        let mut begun = self.act_all(begin).await;
        let result = loop {
            if self.finished {
                break Ok(());
            }
            if let Err(error) = std::mem::replace(&mut begun, Ok(())) {
                break self.hear_out(error, &mut inbox).await;
            }
            let step = tokio::select! {
                biased;
                reply = inbox.next(), if !heard_all => match reply {
                    Ok(Some(reply)) => self.reply(reply).await,
                    Err(error) => Err(error),
                    Ok(None) if self.machine.is_answered() => {
                        heard_all = true;
                        Ok(())
                    }
                    Ok(None) => Err(Error::Ended),
                },
                Some(token) = self.renewals.recv() => {
                    self.sender.send(&FromAgent::Renew(token)).await.map_err(Error::from)
                }
                next = fed.recv(), if self.committed.is_none() => match next {
                    Some(next) => {
                        self.watchdog.progressed();
                        self.fed(next).await
                    }
                    // The feeder ends before its jobs do where it failed.
                    None => break Err(threads::Error::Panicked.into()),
                },
                heard = input.hear() => match heard {
                    Ok(heard) => {
                        self.watchdog.progressed();
                        self.grow(heard, input).await
                    }
                    Err(error) => Err(error),
                },
                () = tokio::time::sleep(self.watchdog.check_interval()) => self.look(),
                else => Err(Error::Ended),
            };
            // A peer that refuses closes its half first: what it said before is the better reason.
            if let Err(error) = step {
                break self.hear_out(error, &mut inbox).await;
            }
        };
        fed.close();
        result
    }

    /// Checks that the push gets on, where it is the proxy's turn.
    fn look(&mut self) -> Result<()> {
        if !self.machine.awaits_reply() || self.machine.is_sending() {
            self.watchdog.progressed();
        }
        self.watchdog.check(self.sender.sent_bytes())
    }

    /// Where sending broke off, what the proxy says: why it refuses, or that it needs no more.
    async fn hear_out(&mut self, error: Error, inbox: &mut Inbox) -> Result<()> {
        if !matches!(error, Error::Link(_)) {
            return Err(error);
        }
        while !self.finished {
            let patience = if self.committed.is_some() { PEER_PAUSE_MAX } else { HEAR_OUT };
            let Ok(Ok(Some(reply))) = tokio::time::timeout(patience, inbox.next()).await else {
                return Err(error);
            };
            if !self.watchdog.heard(&reply, &self.deliveries) {
                self.look()?;
            }
            for action in self.machine.receive(reply)? {
                let speaks =
                    matches!(action, Action::Send(_) | Action::SendSegments(_) | Action::Prove { .. });
                if !speaks {
                    self.act(action).await?;
                }
            }
        }
        Ok(())
    }

    async fn reply(&mut self, reply: PushReply) -> Result<()> {
        if !self.watchdog.heard(&reply, &self.deliveries) {
            self.look()?;
        }
        if reply == PushReply::WantNames {
            // All begins anew: what was offered is asked for again.
            (self.unseen_chunks, self.bytes.unseen) = (0, 0);
        }
        let actions = self.machine.receive(reply)?;
        self.act_all(actions).await
    }

    /// Does what is to be done, and what follows from it.
    async fn act_all(&mut self, actions: Vec<Action>) -> Result<()> {
        let mut actions: VecDeque<Action> = actions.into();
        while let Some(action) = actions.pop_front() {
            actions.extend(self.act(action).await?);
        }
        Ok(())
    }

    /// Tells of more of an input that is still being read.
    async fn grow(&mut self, heard: source::SourceEvent, input: &mut Source) -> Result<()> {
        let actions = match heard {
            source::SourceEvent::Segments(segments) => self.machine.grow(segments),
            source::SourceEvent::All(scanned) => {
                let root = &scanned.root;
                self.bytes.logical = root.totals.bytes;
                let actions = self.machine.grown(root.release(), root.totals);
                *input = Source::Scanned(scanned);
                actions
            }
        };
        self.act_all(actions).await
    }

    async fn fed(&mut self, next: Output) -> Result<()> {
        match next {
            Output::Batch(EncodedBatch { encoded, plain, explained }) => {
                if let Some(all) = &mut self.explained {
                    all.add(explained);
                }
                self.bytes.sent += encoded.bytes() as u64;
                if !self.dry_run {
                    self.send(encoded).await?;
                }
                self.monitor.advance(Phase::Transfer, plain);
            }
            Output::JobDone => {
                let actions = self.machine.chunks_sent();
                self.act_all(actions).await?;
            }
            Output::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn send(&mut self, encoded: Encoded) -> Result<()> {
        self.watchdog.sent_content();
        match encoded {
            Encoded::Batch(batch) => {
                self.wait_for_turn(batch.payload.len()).await?;
                self.sender.send(&FromAgent::Chunks(batch)).await?;
            }
            Encoded::Parcel(parcel, payload) => {
                self.sender.send(&FromAgent::Parcel(parcel)).await?;
                for piece in payload.chunks(self.rate_limit.piece_bytes(PARCEL_PIECE_BYTES)) {
                    self.wait_for_turn(piece.len()).await?;
                    self.sender.send(&FromAgent::Piece(piece.to_vec())).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits until `bytes` may be sent; a new token goes first.
    async fn wait_for_turn(&mut self, bytes: usize) -> Result<()> {
        let turn = self.rate_limit.take(bytes);
        tokio::pin!(turn);
        loop {
            tokio::select! {
                biased;
                Some(token) = self.renewals.recv() => {
                    self.sender.send(&FromAgent::Renew(token)).await?;
                }
                () = &mut turn => return Ok(()),
            }
        }
    }

    /// Does one thing; gives what is to be done next.
    async fn act(&mut self, action: Action) -> Result<Vec<Action>> {
        match action {
            Action::Send(message) => self.sender.send(&message).await?,
            Action::SendSegments(segments) => {
                let offer = segments.offer;
                if segments.executables && !self.raw && self.speed.is_slow() {
                    self.offer_executables(&segments.segments).await?;
                }
                let batch = self.segments(&segments).await?;
                let offered = batch.offered.clone();
                self.sender.send(&FromAgent::Segments(batch)).await?;
                if offer {
                    return Ok(self.machine.offered(offered));
                }
            }
            Action::Sketch(chunks) => {
                let sketches = self.sketch(&chunks).await?;
                return Ok(self.machine.sketched(chunks, sketches));
            }
            Action::SendChunks(chunks) => self.send_chunks(chunks)?,
            Action::Prove { segments, challenge } => {
                let spool = self.spool.clone();
                let proof =
                    crate::agent::blocking(move || super::possession::prove(&spool, &segments, &challenge))
                        .await?;
                self.sender.send(&FromAgent::Proof(proof)).await?;
            }
            Action::Stored(_) => {}
            Action::Committed { record, existing } => {
                self.committed = Some((record, existing, Instant::now()));
                // Whatever was still to be sent is not needed.
                self.jobs = None;
            }
            Action::Delivery(event) => self.delivery(event)?,
            Action::Finish => self.finished = true,
        }
        Ok(Vec::new())
    }

    /// Queries what the proxy may have older executables of.
    async fn offer_executables(&mut self, segments: &[SegmentIndex]) -> Result<()> {
        let (spool, segments) = (self.spool.clone(), segments.to_vec());
        let mut offers = std::mem::take(&mut self.record_queries);
        let work = move || {
            let made = offers.of(&spool, &segments);
            made.map(|made| (offers, made))
        };
        let (offers, made) = crate::agent::blocking(work).await?;
        self.record_queries = offers;
        for offer in made {
            self.rate_limit.take(offer.names.len()).await;
            self.sender.send(&FromAgent::RecordQuery(offer)).await?;
        }
        Ok(())
    }

    async fn segments(&mut self, wanted: &Segments) -> Result<SegmentBatch> {
        let mut parts = Vec::with_capacity(wanted.segments.len());
        for index in &wanted.segments {
            parts.push(self.spool.segment(*index)?);
        }
        let mut offered = Marks::default();
        if wanted.offer && self.base.is_some() {
            let references = parts.iter().map(|bytes| manifest::segment_chunks(bytes));
            let references = references.collect::<Result<Vec<_>, _>>()?.concat();
            let segments = wanted.segments.clone();
            let offer = move |base: &mut Base, spool: &Spool| {
                let unseen = base.unseen(&references);
                base.worth_offering(spool, &segments, &references, &unseen)
            };
            offered = self.ask_base(offer).await?.unwrap_or_default();
        }
        let against = match (&wanted.against, &self.base) {
            (Some(segments), Some(base)) => Some(base.prefix(segments)?),
            _ => None,
        };
        if !wanted.full {
            parts = parts.iter().map(|bytes| manifest::shorten(bytes)).collect::<Result<_, _>>()?;
        }
        Ok(SegmentBatch::new(&parts, against.as_deref(), offered))
    }

    /// Asks the base, which reads and compresses, where it may block.
    async fn ask_base<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Base, &Spool) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let Some(mut base) = self.base.take() else { return Ok(None) };
        let spool = self.spool.clone();
        let work = move || work(&mut base, &spool).map(|answer| (base, answer));
        let (base, answer) = crate::agent::blocking(work).await?;
        self.base = Some(base);
        Ok(Some(answer))
    }

    /// Sketches the chunks that the proxy knows nothing like, where the link is so slow that to find it may pay.
    async fn sketch(&mut self, chunks: &Chunks) -> Result<Option<Sketches>> {
        if !self.speed.is_slow() {
            return Ok(None);
        }
        let told = self.record_queries.answered(&chunks.answers);
        let mut is_like = None;
        if self.machine.is_based() {
            let (segments, marks) = (chunks.segments.clone(), chunks.marks.clone());
            is_like = self.ask_base(move |base, spool| base.alike(spool, &segments, &marks)).await?;
        }
        let mut is_like = is_like.unwrap_or_else(|| vec![false; chunks.marks.marked()]);
        for BlockSums { first, chunks, .. } in &chunks.signed {
            is_like
                .iter_mut()
                .skip(*first as usize)
                .take(*chunks as usize)
                .for_each(|is_like| *is_like = true);
        }
        let (spool, chunks, mut sketcher) = (self.spool.clone(), chunks.clone(), self.sketcher);
        let work =
            move || sketcher.sketch(&spool, &chunks, &is_like, &told).map(|sketches| (sketcher, sketches));
        let (sketcher, sketches) = crate::agent::blocking(work).await?;
        self.sketcher = sketcher;
        if let Some(sketches) = &sketches {
            self.rate_limit.take(sketches.bytes()).await;
        }
        Ok(sketches)
    }

    fn send_chunks(&mut self, chunks: Chunks) -> Result<()> {
        let Chunks { segments, marks, signed, answers, goes_on } = chunks;
        let mut wanted = marks.iter();
        let (mut missing, mut present) = (Vec::new(), Vec::new());
        for segment in &segments {
            for located in self.spool.chunks(*segment)? {
                let list = if wanted.next() == Some(true) { &mut missing } else { &mut present };
                list.push(located);
            }
        }
        drop(wanted);
        self.unseen_chunks += missing.len() as u64;
        self.bytes.unseen += missing.iter().map(|located| u64::from(located.chunk.bytes)).sum::<u64>();
        let of = |answer: RecordAnswer| {
            let of = self.record_queries.body(answer.file)?.clone();
            Some(OlderExecutable { of, known: ExecutableReference::AtProxy(answer) })
        };
        let mut older: Vec<OlderExecutable> = answers.into_iter().filter_map(of).collect();
        let mut matches = signed.iter().map(Match::at_proxy).collect::<Result<Vec<_>, _>>()?;
        if let (Some(base), true) = (&mut self.base, self.machine.is_based()) {
            matches = merge(matches, base.matches(&self.spool, &segments, &marks)?);
            if !self.raw {
                older = base.executables(&missing, &present, &matches)?;
            }
        }
        let mut evicted = HashSet::new();
        if let Some(base) = self.base.as_mut().filter(|_| self.explained.is_some()) {
            evicted = base.evicted(missing.iter().map(|located| &located.chunk));
        }
        self.monitor.begin(Phase::Transfer, Some(self.bytes.unseen));
        if let Some(jobs) = &self.jobs {
            let job = Job { segments, marks, matches, older, evicted: Arc::new(evicted), goes_on };
            // The feeder ends only after `jobs` is dropped, and takes as many as the machine has under way.
            if let Err(TrySendError::Full(_)) = jobs.try_send(job) {
                return Err(protocol::Error::OutOfTurn("more chunks than are wanted at a time").into());
            }
        }
        Ok(())
    }

    fn delivery(&mut self, event: DeliveryEvent) -> Result<()> {
        let late = self.committed.as_ref().is_some_and(|(_, _, at)| at.elapsed() > ANSWER_TIME_LONG_MAX);
        if late || self.deliveries.len() > LIST_MAX {
            return Err(Error::OutOfTurn("deliveries without end"));
        }
        match &event.state {
            DeliveryState::Running => {
                self.monitor.note(&format!("delivering to {}", event.destination));
            }
            DeliveryState::Retrying { reason, seconds, .. } => {
                let text =
                    format!("delivery to {} failed: {reason}; next try in {seconds} s", event.destination);
                self.monitor.note(&text);
            }
            DeliveryState::Queued | DeliveryState::Delivered(_) | DeliveryState::Failed { .. } => {}
        }
        // The receipt tells each delivery's last state.
        self.deliveries.retain(|earlier| earlier.destination != event.destination);
        self.deliveries.push(event);
        Ok(())
    }
}
