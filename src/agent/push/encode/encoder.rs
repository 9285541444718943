//! Encodes a batch: as a frame, as a parcel, or as a parcel against the content that it resembles.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::batcher::{Batch, DeltaReference, Match};
use super::explain::{self, Explained};
use crate::agent::chunk_cache::{CacheReader, ChunkCache};
use crate::agent::pace::{Method, Pace};
use crate::agent::scan::{Error, LastOpened};
use delta::compression::{self, Codec, Compressor};
use delta::patch;
use delta::probe;
use delta::rsync::{Matcher, Signature};
use format::pack::{Frame, FrameKind};
use format::recipe::ChunkRef;
use ground::limits::PARCEL_BASIS_MAX;
use ground::poison::Unpoisoned as _;
use protocol::transfer::Encoding;
use protocol::wire::{Basis, FromAgent, Parcel, Section};

/// A batch, encoded.
#[derive(Debug)]
pub struct EncodedBatch {
    /// `Chunks`, or a `Parcel`.
    pub message: FromAgent,
    /// The payload of a parcel, which follows in pieces.
    pub payload: Vec<u8>,
    /// Plain bytes of its chunks.
    pub plain: u64,
    /// Why each of its files crosses; empty where nobody asks.
    pub explained: Vec<Explained>,
}

impl EncodedBatch {
    /// Returns the encoded bytes.
    pub fn bytes(&self) -> usize {
        match &self.message {
            FromAgent::Chunks(batch) => batch.payload.len(),
            FromAgent::Parcel(Parcel { basis: Basis::BlockSums(sections), .. }) => {
                self.payload.len() + sections.iter().map(|section| section.delta.len()).sum::<usize>()
            }
            _ => self.payload.len(),
        }
    }
}

/// Encodes the batches of one worker; holds its working memory.
pub struct Encoder<'a> {
    pub cache: Option<&'a ChunkCache>,
    pub cached: Option<CacheReader>,
    compressor: Option<(i32, Compressor)>,
    last: LastOpened,
    plain: Vec<u8>,
    pub explain: bool,
    pub budget: &'a PatchBudget,
    pub pace: &'a Pace,
}

/// The message of a batch, and the payload that follows it in pieces.
type Message = (FromAgent, Vec<u8>);

/// The bytes that a push may still send as patches, which take a second for some 10 MB.
#[derive(Debug)]
pub struct PatchBudget {
    patch_bytes_left: AtomicUsize,
    /// One patch or executable at a time: each takes 100 MB and more.
    patching: Mutex<()>,
}

/// 16 MiB: new bytes sent as patches in one push.
const PATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// In percent: by how much samples of dense content may shrink.
const SLACK: usize = 3;
/// zstd's level from which on compressing harder against little older content delays no link.
const SLOW_LEVEL: i32 = 6;

impl PatchBudget {
    /// Returns whether a patch of `bytes` would be allowed now.
    pub fn would_allow_patch(&self, bytes: usize) -> bool {
        self.patch_bytes_left.load(Ordering::Relaxed) >= bytes
    }

    /// Waits until no other worker makes a patch or an executable.
    pub fn alone(&self) -> MutexGuard<'_, ()> {
        self.patching.lock().unpoisoned()
    }

    /// Creates the budget for one push.
    pub fn new() -> Self {
        Self { patch_bytes_left: AtomicUsize::new(PATCH_BYTES_MAX), patching: Mutex::new(()) }
    }

    /// Returns whether `bytes` may be sent as a patch instead of by zstd; spends them if so.
    fn allows_patch(&self, bytes: usize) -> bool {
        let spend = |left: usize| left.checked_sub(bytes);
        self.patch_bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

impl<'a> Encoder<'a> {
    /// Starts; encoded chunks are added to `cache`.
    pub fn new(
        cache: Option<&'a ChunkCache>,
        explain: bool,
        budget: &'a PatchBudget,
        pace: &'a Pace,
    ) -> Self {
        let cached = cache.map(ChunkCache::reader);
        Self {
            cache,
            cached,
            compressor: None,
            last: LastOpened::default(),
            plain: Vec::new(),
            explain,
            budget,
            pace,
        }
    }

    /// Reads, verifies and encodes a batch.
    ///
    /// # Errors
    /// A file cannot be read, or has changed.
    pub fn encode(&mut self, batch: Batch) -> Result<EncodedBatch, Error> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        batch.chunks.iter().try_for_each(|located| located.read_verified(&mut self.last, &mut plain))?;
        let chunks: Vec<ChunkRef> = batch.chunks.iter().map(|located| located.chunk).collect();
        let mut explained =
            if self.explain { explain::of_batch(&batch, &plain, self.cached.as_mut()) } else { Vec::new() };
        let (message, payload) = match batch.encoding {
            Encoding::Frames { level } => (self.frame(chunks, &plain, level), Vec::new()),
            Encoding::Parcels { level } => {
                let lengths = chunks.iter().map(|chunk| chunk.bytes).collect();
                let message = self.parcel(lengths, &plain, batch.matches, level);
                if let Some(cache) = self.cache {
                    cache.add(&chunks, &plain);
                }
                message
            }
        };
        let mut encoded = EncodedBatch { message, payload, plain: plain.len() as u64, explained: Vec::new() };
        explain::settle(&mut explained, encoded.bytes() as u64);
        encoded.explained = explained;
        self.plain = plain;
        Ok(encoded)
    }

    /// Makes the frame that the proxy will store; the cache takes it as it is.
    fn frame(&mut self, chunks: Vec<ChunkRef>, plain: &[u8], level: i32) -> FromAgent {
        if self.compressor.as_ref().is_none_or(|(made, _)| *made != level) {
            self.compressor = Some((level, Compressor::new(level)));
        }
        let (_, compressor) = self.compressor.as_mut().expect("just made");
        let (codec, payload) = compressor.compress(plain);
        let frame = Frame { kind: FrameKind::Content, codec, chunks, payload };
        if let Some(cache) = self.cache {
            cache.add_frame(&frame);
        }
        FromAgent::Chunks(frame.into())
    }

    fn parcel(&mut self, lengths: Vec<u32>, plain: &[u8], matches: Vec<Match>, level: i32) -> Message {
        let (mut spans, mut prefix, mut signed) = (Vec::new(), Vec::new(), Vec::new());
        for Match { first, count, older, .. } in matches {
            match older {
                DeltaReference::Cached(span, chunks) => {
                    let begin = prefix.len();
                    let cached = self.cached.as_mut();
                    let read = cached
                        .is_some_and(|cached| chunks.iter().all(|chunk| cached.read(chunk, &mut prefix)));
                    if read && !spans.contains(&span) {
                        spans.push(span);
                    } else {
                        prefix.truncate(begin);
                    }
                }
                DeltaReference::BlockSums(region, signature) => {
                    signed.push((first, count, region, signature));
                }
            }
        }
        if !signed.is_empty() {
            return by_deltas(lengths, plain, &signed, level);
        }
        // A sample shows whether dense content consists of copies. Searching all of it, or predicting its bytes, takes seconds.
        let dense = probe::is_dense(plain, SLACK);
        if !spans.is_empty() && dense && !probe::shares_copies(plain, &prefix) {
            spans.clear();
            prefix.clear();
        }
        if !spans.is_empty()
            && !dense
            && self.pace.pays(Method::Patches, plain.len() as u64)
            && self.budget.allows_patch(plain.len())
        {
            let _alone = self.budget.alone();
            let payload = patch::compress(plain, &prefix).expect("a parcel's basis is within a patch's");
            return encoded(lengths, Basis::Patch(spans), Codec::Raw, payload);
        }
        let basis = if spans.is_empty() { Basis::None } else { Basis::Prefix(spans) };
        if basis == Basis::None && dense && probe::is_dense(plain, 0) {
            return encoded(lengths, basis, Codec::Raw, plain.to_vec());
        }
        if prefix.is_empty() {
            let predicted = Encoding::Parcels { level }.seconds(plain.len());
            let compress = || compression::compress_against(&[], plain, level);
            // Dense content takes a fraction of the usual seconds, which says nothing of the processor.
            let payload = if dense { compress() } else { self.pace.processor().measure(predicted, compress) };
            return encoded(lengths, basis, Codec::Zstd, payload);
        }
        let level =
            if dense { level.min(DENSE_LEVEL) } else { level_against(prefix.len() + plain.len(), level) };
        encoded(lengths, basis, Codec::Zstd, compression::compress_against(&prefix, plain, level))
    }
}

/// Encodes chunks as deltas against regions whose block sums the proxy sent, where that is shorter.
fn by_deltas(
    lengths: Vec<u32>,
    plain: &[u8],
    signed: &[(usize, usize, u32, Signature)],
    level: i32,
) -> Message {
    let (mut sections, mut literals, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    let mut done_chunks = 0;
    let mut rest = plain;
    let bytes_of = |lengths: &[u32]| lengths.iter().map(|length| *length as usize).sum::<usize>();
    for (first, count, region, signature) in signed {
        let Some(before) = lengths.get(done_chunks..*first) else { continue };
        let Some(chunks) = lengths.get(*first..first + count) else { continue };
        let (whole, after) = rest.split_at(bytes_of(before));
        let (new, after) = after.split_at(bytes_of(chunks));
        let begin = literals.len();
        literals.extend_from_slice(whole);
        let delta = Matcher::new(signature).delta(new, &mut literals);
        if delta.insert_bytes() * 10 > new.len() as u64 * 9 {
            // It is sent whole, together with what is before it.
            literals.truncate(begin);
            continue;
        }
        for (range, _) in delta.copies() {
            let at = |offset: u64| usize::try_from(offset).expect("a region is some MiB");
            let bytes = &new[at(range.start)..at(range.end)];
            copied.extend_from_slice(&bytes[..bytes.len().min(PARCEL_BASIS_MAX - copied.len())]);
        }
        let mut encoded = Vec::new();
        delta.encode(&mut encoded);
        let number = |value: usize| u32::try_from(value).expect("chunks of a parcel are bounded");
        sections.push(Section {
            whole: number(before.len()),
            region: *region,
            chunks: number(*count),
            delta: encoded,
        });
        done_chunks = first + count;
        rest = after;
    }
    literals.extend_from_slice(rest);
    if sections.is_empty() {
        return encoded(lengths, Basis::None, Codec::Zstd, compression::compress_against(&[], plain, level));
    }
    let level = level_against(copied.len() + literals.len(), level);
    let payload = compression::compress_against(&copied, &literals, level);
    encoded(lengths, Basis::BlockSums(sections), Codec::Zstd, payload)
}

/// zstd's level for dense content with a prefix: its search for far copies finds what there is. At level 9 and above, without that
/// search, a changed wheel of 12.5 MB takes 4.13 MB instead of 0.28.
const DENSE_LEVEL: i32 = 6;

/// zstd's level where there is a prefix: its cost grows with the prefix, its gain with the effort.
fn level_against(bytes: usize, level: i32) -> i32 {
    match bytes {
        _ if level < SLOW_LEVEL => level,
        0..0x10_0000 => level.max(19),
        0x10_0000..0x40_0000 => level.max(12),
        _ => level.min(9),
    }
}

/// Returns a parcel and its payload.
pub fn encoded(lengths: Vec<u32>, basis: Basis, codec: Codec, payload: Vec<u8>) -> Message {
    let payload_bytes = u32::try_from(payload.len()).expect("a parcel is some MiB");
    (FromAgent::Parcel(Parcel { lengths, basis, codec, payload_bytes }), payload)
}
