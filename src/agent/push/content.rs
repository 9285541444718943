//! The content of a push: the scanned input, the base, and what the proxy was asked of them.
//!
//! Every question reads files, hashes or compresses: none is for an async thread.

use std::collections::HashSet;
use std::sync::Arc;

use serde_bytes::ByteArray;

use super::base::Base;
use super::encode::batcher::{Match, merge};
use super::encode::pipeline::Job;
use super::encode::relinked::{ExecutableReference, OlderExecutable};
use super::possession::prove;
use super::record_queries::RecordQueries;
use super::sketches::Sketcher;
use crate::agent::Result;
use crate::agent::scan::Spool;
use format::manifest::{self, SegmentIndex};
use protocol::push::{Chunks, Segments};
use protocol::wire::{BlockSums, Challenge, Marks, RecordAnswer, RecordQuery, SegmentBatch, Sketches};

/// Answers the questions of one push about its content.
#[derive(Debug)]
pub struct Content {
    spool: Spool,
    base: Option<Base>,
    record_queries: RecordQueries,
    sketcher: Sketcher,
    /// True if executables are sent as other files are.
    is_raw: bool,
    /// True if somebody asked why bytes cross.
    explains: bool,
}

/// Chunks to send.
#[derive(Debug)]
pub struct ToSend {
    /// The pipeline's job.
    pub job: Job,
    /// How many chunks it sends.
    pub chunks: u64,
    /// Their plain bytes.
    pub bytes: u64,
}

impl Content {
    /// Begins a push of what was scanned, or is being scanned, into `spool`.
    pub fn new(spool: Spool, base: Option<Base>, is_raw: bool, explains: bool) -> Self {
        let (record_queries, sketcher) = (RecordQueries::default(), Sketcher::default());
        Self { spool, base, record_queries, sketcher, is_raw, explains }
    }

    /// Returns the base.
    pub fn into_base(self) -> Option<Base> {
        self.base
    }

    /// Returns queries for the records of executables in these segments.
    pub fn record_queries(&mut self, segments: &[SegmentIndex]) -> Result<Vec<RecordQuery>> {
        if self.is_raw { Ok(Vec::new()) } else { self.record_queries.of(&self.spool, segments) }
    }

    /// Encodes segments, and marks the chunks that are sent eagerly.
    pub fn segments(&mut self, wanted: &Segments) -> Result<SegmentBatch> {
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

    /// Sketches the chunks that resemble nothing known; none where that is not worth a round trip.
    ///
    /// `is_based` says whether the proxy has the base too.
    pub fn sketch(&mut self, chunks: &Chunks, is_based: bool) -> Result<Option<Sketches>> {
        let answered = self.record_queries.answered(&chunks.answers);
        let mut is_like = match &mut self.base {
            Some(base) if is_based => base.resembles(&self.spool, &chunks.segments, &chunks.marks)?,
            _ => vec![false; chunks.marks.marked()],
        };
        for BlockSums { first, chunks, .. } in &chunks.block_sums {
            is_like
                .iter_mut()
                .skip(*first as usize)
                .take(*chunks as usize)
                .for_each(|is_like| *is_like = true);
        }
        self.sketcher.sketch(&self.spool, chunks, &is_like, &answered)
    }

    /// Finds what the chunks resemble, and makes a job of them.
    pub fn job(&mut self, chunks: Chunks, is_based: bool) -> Result<ToSend> {
        let Chunks { segments, marks, block_sums, answers, goes_on } = chunks;
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
        let bytes = missing.iter().map(|located| u64::from(located.chunk.bytes)).sum();
        let job = Job { segments, marks, matches, older, evicted: Arc::new(evicted), goes_on };
        Ok(ToSend { job, chunks: missing.len() as u64, bytes })
    }

    /// Proves that the chunks of a challenge are here.
    pub fn prove(&self, segments: &[SegmentIndex], challenge: &Challenge) -> Result<ByteArray<32>> {
        prove(&self.spool, segments, challenge)
    }
}
