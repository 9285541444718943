//! The content of a push, as the agent's half of it asks: the scanned input, and the base.
//!
//! Every answer reads files, hashes or compresses.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use super::base::Base;
use super::encode::batcher::{ExecutableReference, Match, OlderExecutable, merge};
use super::encode::pipeline::Job;
use super::record_queries::RecordQueries;
use crate::agent::pace::{Method, Pace};
use crate::agent::scan::{Body, LastOpened, Located, Spool};
use crate::agent::{Error, Result};
use delta::similar::Sketch;
use format::manifest::{self, SegmentIndex};
use ground::limits::{PUSH_CHUNKS_IN_FLIGHT, SKETCHES_MAX};
use ground::monitor::{Monitor, Phase};
use protocol::wire::{
    BlockSums, Challenge, Marks, Possession, RecordAnswer, RecordQuery, SegmentBatch, Sketches,
};
use protocol::{Chunks, InputView, Segments};

/// 32 KiB: to sketch fewer bytes is not worth the round trip.
const SKETCHED_BYTES_MIN: u64 = 32 * 1024;
/// 1 GiB: among so many bytes a round trip does not count.
const SKETCHED_BYTES_MUCH: u64 = 1024 * 1024 * 1024;
/// 4 MiB: a usual executable.
const EXECUTABLE_BYTES_USUAL: u64 = 4 * 1024 * 1024;

/// The scanned input of one push, the base, and what the proxy was asked of them.
pub struct Content {
    spool: Spool,
    base: Option<Base>,
    record_queries: RecordQueries,
    /// How many more sketches the proxy takes in this push.
    sketches_left: usize,
    /// Chooses what saves time on this link.
    pace: Pace,
    /// Leads to the pipeline; none when no more chunks will be asked for.
    jobs: Option<SyncSender<Job>>,
    monitor: Arc<dyn Monitor>,
    /// Chunks that were sent, or are to be, and their plain bytes.
    unseen: (u64, u64),
    /// True if executables are sent as other files are.
    is_raw: bool,
    /// True if somebody asked why bytes cross.
    explains: bool,
}

impl Content {
    /// Begins a push of what was scanned, or is being scanned, into `spool`; `jobs` leads to the pipeline, which takes as many
    /// as the machine has under way.
    pub fn new(
        spool: Spool,
        base: Option<Base>,
        pace: Pace,
        jobs: SyncSender<Job>,
        monitor: Arc<dyn Monitor>,
    ) -> Self {
        Self {
            spool,
            base,
            record_queries: RecordQueries::default(),
            sketches_left: PUSH_CHUNKS_IN_FLIGHT,
            pace,
            jobs: Some(jobs),
            monitor,
            unseen: (0, 0),
            is_raw: false,
            explains: false,
        }
    }

    /// Sends executables as other files are, if `is_raw` says so.
    #[must_use]
    pub fn raw(self, is_raw: bool) -> Self {
        Self { is_raw, ..self }
    }

    /// Finds out why bytes cross, if `explains` says so.
    #[must_use]
    pub fn explaining(self, explains: bool) -> Self {
        Self { explains, ..self }
    }

    /// Returns how the push is paced.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Returns how many chunks were sent or are to be, and their plain bytes.
    pub fn unseen(&self) -> (u64, u64) {
        self.unseen
    }

    /// Counts from the beginning what is sent.
    pub fn start_over(&mut self) {
        self.unseen = (0, 0);
    }

    /// Encodes nothing more.
    pub fn stop(&mut self) {
        self.jobs = None;
    }

    /// Returns the base.
    pub fn into_base(self) -> Option<Base> {
        self.base
    }

    /// Finds what the chunks resemble, and makes a job of them.
    fn job(&mut self, chunks: Chunks) -> Result<Job> {
        let Chunks { segments, marks, block_sums, answers, is_based, goes_on } = chunks;
        let mut wanted = marks.iter();
        let (mut missing, mut present) = (Vec::new(), Vec::new());
        for segment in &segments {
            for located in self.spool.chunks(*segment)? {
                let list = if wanted.next() == Some(true) { &mut missing } else { &mut present };
                list.push(located);
            }
        }
        drop(wanted);
        let older = |answer: RecordAnswer| {
            let new = self.record_queries.body(answer.file)?.clone();
            Some(OlderExecutable { new, reference: ExecutableReference::AtProxy(answer) })
        };
        let mut older: Vec<OlderExecutable> = answers.into_iter().filter_map(older).collect();
        let mut matches = block_sums.iter().map(Match::at_proxy).collect::<Result<Vec<_>, _>>()?;
        if let Some(base) = self.base.as_mut().filter(|_| is_based) {
            matches = merge(matches, base.matches(&self.spool, &segments, &marks)?);
            if !self.is_raw {
                older = base.executables(&missing, &present, &matches)?;
            }
        }
        let mut evicted = HashSet::new();
        if let Some(base) = self.base.as_mut().filter(|_| self.explains) {
            evicted = base.evicted(missing.iter().map(|located| &located.chunk));
        }
        self.unseen.0 += missing.len() as u64;
        self.unseen.1 += missing.iter().map(|located| u64::from(located.chunk.bytes)).sum::<u64>();
        Ok(Job { segments, marks, matches, older, evicted: Arc::new(evicted), goes_on })
    }

    /// Returns the marked chunks of some segments that resemble nothing known; none in the place of each other one.
    fn unlike(&mut self, chunks: &Chunks) -> Result<Vec<Option<Located>>> {
        let answered: Vec<Body> = self.record_queries.answered(&chunks.answers);
        let mut is_like = match &mut self.base {
            Some(base) if chunks.is_based => base.resembles(&self.spool, &chunks.segments, &chunks.marks)?,
            _ => vec![false; chunks.marks.marked()],
        };
        for BlockSums { first, chunks, .. } in &chunks.block_sums {
            let signed = is_like.iter_mut().skip(*first as usize).take(*chunks as usize);
            signed.for_each(|is_like| *is_like = true);
        }
        let (mut marks, mut is_like) = (chunks.marks.iter(), is_like.into_iter());
        let mut unlike = Vec::new();
        for segment in &chunks.segments {
            for located in self.spool.chunks(*segment)? {
                if marks.next() == Some(true) {
                    let is_known =
                        is_like.next() == Some(true) || answered.iter().any(|body| located.is_of(body));
                    unlike.push((!is_known).then_some(located));
                }
            }
        }
        Ok(unlike)
    }
}

impl InputView for Content {
    type Error = Error;

    fn record_queries(&mut self, segments: &[SegmentIndex]) -> Result<Vec<RecordQuery>> {
        if self.is_raw || !self.pace.would_pay(Method::Executables, EXECUTABLE_BYTES_USUAL) {
            return Ok(Vec::new());
        }
        self.record_queries.of(&self.spool, segments)
    }

    fn segments(&mut self, wanted: &Segments) -> Result<SegmentBatch> {
        let parts = wanted.segments.iter().map(|index| self.spool.segment(*index));
        let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
        let mut eager = Marks::default();
        if let Some(base) = self.base.as_mut().filter(|_| wanted.eager) {
            let references = parts.iter().map(|bytes| manifest::segment_chunks(bytes));
            let references = references.collect::<Result<Vec<_>, _>>()?.concat();
            let unseen = base.unseen(&references);
            eager = base.worth_sending(&self.spool, &wanted.segments, &references, &unseen)?;
        }
        let against = match (&wanted.against, &self.base) {
            (Some(segments), Some(base)) => Some(base.prefix(segments)?),
            _ => None,
        };
        if !wanted.full {
            parts = parts.iter().map(|bytes| manifest::shorten(bytes)).collect::<Result<_, _>>()?;
        }
        Ok(SegmentBatch::new(&parts, against.as_deref(), eager))
    }

    /// Reads the chunks again. Memory: one chunk.
    fn prove(&mut self, segments: &[SegmentIndex], challenge: &Challenge) -> Result<[u8; 32]> {
        let mut marks = challenge.marks.iter();
        let mut possession = Possession::new(&challenge.nonce);
        let (mut last, mut plain, mut references) = (LastOpened::default(), Vec::new(), 0);
        for segment in segments {
            for located in self.spool.chunks(*segment)? {
                references += 1;
                if marks.next() == Some(true) {
                    plain.clear();
                    located.read_verified(&mut last, &mut plain)?;
                    possession.add(&plain);
                }
            }
        }
        if challenge.marks.fits(references) {
            Ok(possession.proof().into_array())
        } else {
            Err(protocol::Error::OutOfTurn("a challenge about other segments").into())
        }
    }

    /// Reads the chunks. One that cannot be read is not sketched, and fails the push when it is sent.
    fn sketch(&mut self, chunks: &Chunks) -> Result<Option<Sketches>> {
        // A link on which not even much would pay.
        if !self.pace.would_pay(Method::Sketches, SKETCHED_BYTES_MUCH) {
            return Ok(None);
        }
        let unlike = self.unlike(chunks)?;
        let bytes: u64 = unlike.iter().flatten().map(|located| u64::from(located.chunk.bytes)).sum();
        if bytes < SKETCHED_BYTES_MIN || !self.pace.pays(Method::Sketches, bytes) {
            return Ok(None);
        }
        let (mut last, mut plain) = (LastOpened::default(), Vec::new());
        let sketch = |located: Option<Located>| {
            plain.clear();
            located?.read_verified(&mut last, &mut plain).ok()?;
            Sketch::of(&plain)
        };
        let sketches: Vec<Option<Sketch>> = unlike.into_iter().map(sketch).collect();
        let count = sketches.iter().flatten().count();
        if count == 0 || count > self.sketches_left.min(SKETCHES_MAX) {
            return Ok(None);
        }
        self.sketches_left -= count;
        Ok(Some(Sketches::new(&sketches)))
    }

    fn encode(&mut self, chunks: Chunks) -> Result<()> {
        let job = self.job(chunks)?;
        self.monitor.begin(Phase::Transfer, Some(self.unseen.1));
        // The pipeline ends only after `jobs` is dropped.
        if let Some(jobs) = &self.jobs
            && let Err(TrySendError::Full(_)) = jobs.try_send(job)
        {
            return Err(protocol::Error::OutOfTurn("a request for more chunks than allowed at a time").into());
        }
        Ok(())
    }
}
