//! Encodes executables against older versions by the functions that changed, where that is shorter (docs/EXECUTABLES.md).

use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::batcher::{Batch, ExecutableReference, OlderExecutable};
use super::encoder::{EncodedBatch, Encoder, encoded};
use super::explain::{Explained, Reason};
use crate::agent::pace::Method;
use crate::agent::scan::{Body, Error, Holder, Located};
use delta::compression::{self, Codec};
use delta::patch;
use delta::probe::{EXECUTABLE, Estimate, proportion};
use delta::relink::{self, Answer, MAGIC, Payload, Records, normalise, normalise_unproven};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::{EXECUTABLE_BASIS_RATIO_MAX, EXECUTABLE_BYTES_MAX, EXECUTABLE_BYTES_MIN};
use protocol::likeness::BaseFile;
use protocol::transfer::Encoding;
use protocol::wire::{Basis, Cut, RecordAnswer};

/// One in 16: where functions are less of a file, the names of its records are not worth their bytes.
const FUNCTIONS_SHARE: usize = 16;
/// 6 MiB: where no more is missing, a patch is made to compare with, as samples say little of short ones.
const PATCH_BYTES_MAX: usize = 6 * 1024 * 1024;

/// Returns whether a body looks like an executable of a size that is worth a closer look.
pub fn is_executable(body: &Body) -> bool {
    let is_usual = |place: &Range<u64>| {
        (EXECUTABLE_BYTES_MIN..=EXECUTABLE_BYTES_MAX as u64).contains(&(place.end - place.start))
    };
    if let Holder::Member { is_elf } = body.holder {
        return is_elf && is_usual(&body.place);
    }
    let looks = || {
        let Some((file, place)) = body.open().ok().flatten() else { return Ok(false) };
        if !is_usual(&place) {
            return Ok(false);
        }
        let mut begin = [0; 4];
        file.read_exact_at(&mut begin, place.start)?;
        Ok::<_, std::io::Error>(begin == *MAGIC)
    };
    looks().unwrap_or(false)
}

/// Returns the records of an executable; none for what is not understood or has few functions, as one that unpacks itself.
pub fn records_of(body: &Body) -> Option<Records> {
    let parts = normalise_unproven(body.read(EXECUTABLE_BYTES_MAX).ok()??)?;
    let functions = parts.function_ends.last().copied().unwrap_or(0);
    (functions * FUNCTIONS_SHARE >= parts.stream().len()).then(|| Records::new(&parts))
}

/// Returns where the chunks of an executable lie in it.
fn cuts(chunks: &[Located], new: &Body) -> Vec<Cut> {
    let (mut cuts, mut end): (Vec<Cut>, u64) = (Vec::new(), new.place.start);
    for located in chunks {
        let skipped = located.offset.saturating_sub(end);
        if let Some(cut) = cuts.last_mut().filter(|_| skipped == 0) {
            cut.chunks += 1;
        } else {
            let skipped = u32::try_from(skipped).expect("an executable is below 4 GiB");
            cuts.push(Cut { skipped, chunks: 1 });
        }
        end = located.offset + u64::from(located.chunk.bytes);
    }
    cuts
}

impl Encoder<'_> {
    /// Encodes an executable against its older version. Returns `None` if that is not smaller or the link is fast.
    ///
    /// Memory: up to 4 times the file, and 6 times an older one below 32 MiB where little is missing; for one file at a time.
    ///
    /// # Errors
    /// The file cannot be read, or has changed.
    pub fn encode_executable(&mut self, batch: &Batch) -> Result<Option<EncodedBatch>, Error> {
        let Encoding::Parcels { level } = batch.encoding else { return Ok(None) };
        let Some(OlderExecutable { new, reference }) = &batch.executable else { return Ok(None) };
        let missing = plain_bytes(&batch.chunks);
        if !self.pace.pays(Method::Executables, missing as u64) {
            return Ok(None);
        }
        let budget = self.budget;
        let _alone = budget.alone();
        let Some(file) = read_verified(&batch.chunks, new)? else { return Ok(None) };
        if !relink::is_linked_anew(missing, file.len()) {
            return Ok(None);
        }
        let cuts = cuts(&batch.chunks, new);
        let found = match reference {
            ExecutableReference::Cached(whole) => {
                let payload = self.by_cached(batch, file, whole, level);
                payload.map(|payload| (Basis::Executable(vec![whole.span], cuts), payload))
            }
            ExecutableReference::AtProxy(answer) => {
                let payload = by_records(batch, file, answer, level);
                payload.map(|payload| (Basis::Records(answer.file, cuts), payload))
            }
        };
        let Some((basis, payload)) = found else { return Ok(None) };
        self.keep_chunks(&batch.chunks, new)?;
        let lengths = batch.chunks.iter().map(|located| located.chunk.bytes).collect();
        let explained = self.explain.then(|| Explained {
            path: ground::escape::json_path(new.path.as_os_str().as_encoded_bytes()),
            reason: Reason::MovedCode,
            older: match reference {
                ExecutableReference::Cached(whole) => Some(ground::escape::json_path(&whole.path)),
                ExecutableReference::AtProxy(_) => None,
            },
            regions: 1,
            plain: missing as u64,
            sent: payload.len() as u64,
            advice: None,
        });
        let explained = explained.into_iter().collect();
        let (message, payload) = encoded(lengths, basis, Codec::Raw, payload);
        Ok(Some(EncodedBatch { message, payload, plain: missing as u64, explained }))
    }

    /// Adds the encoded chunks to the cache. Reads them once more, as encoding consumes the file to save memory.
    fn keep_chunks(&self, mut chunks: &[Located], new: &Body) -> Result<(), Error> {
        let Some(cache) = self.cache else { return Ok(()) };
        let Some(file) = read_verified(chunks, new)? else {
            return Err(Error::Changed(new.path.to_path_buf()));
        };
        while !chunks.is_empty() {
            let (run, rest) = chunks.split_at(run_length(chunks));
            let refs: Vec<ChunkRef> = run.iter().map(|located| located.chunk).collect();
            cache.add(&refs, &file[place(&run[0])..]);
            chunks = rest;
        }
        Ok(())
    }

    fn by_cached(&mut self, batch: &Batch, file: Vec<u8>, whole: &BaseFile, level: i32) -> Option<Vec<u8>> {
        let older: u64 = whole.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        if older > plain_bytes(&batch.chunks).saturating_mul(EXECUTABLE_BASIS_RATIO_MAX) as u64 {
            return None;
        }
        let mut old = Vec::new();
        let cached = self.cached.as_mut()?;
        if !whole.chunks.iter().all(|chunk| cached.read(chunk, &mut old)) {
            return None;
        }
        let missing = plain_bytes(&batch.chunks);
        let by_patch =
            self.pace.would_pay(Method::Patches, missing as u64) && self.budget.would_allow_patch(missing);
        let otherwise = Otherwise::new(batch, &file, &old, level, by_patch);
        by_older(old, file, level, &otherwise)
    }
}

/// Encodes `file` by the records that the proxy has, after proving that its parts make the file.
fn by_records(batch: &Batch, file: Vec<u8>, answer: &RecordAnswer, level: i32) -> Option<Vec<u8>> {
    let otherwise = Otherwise::Bytes(compressed_bytes(batch, &file, level));
    let parts = normalise(file)?;
    let records = Records::new(&parts);
    let agreed = Answer::decode(&answer.answer)?.agreed(records.hashes())?;
    let payload = Payload::new(parts, &records, &agreed, level).encode();
    relink::pays(payload.len(), |bytes| otherwise.is_more_than(bytes)).then_some(payload)
}

/// Encodes `file` against `old` where that is shorter than `otherwise`; proves it by rebuilding the file.
fn by_older(old: Vec<u8>, file: Vec<u8>, level: i32, otherwise: &Otherwise) -> Option<Vec<u8>> {
    let hash = blake3::hash(&file);
    let new_parts = normalise_unproven(file)?;
    let old_parts = normalise_unproven(old)?;
    let cached = relink::Encoded::new(&old_parts, &new_parts, level);
    let payload = cached.encode();
    if !relink::pays(payload.len(), |bytes| otherwise.is_more_than(bytes)) {
        return None;
    }
    let made = cached.rebuild_own(new_parts, old_parts, EXECUTABLE_BYTES_MAX).ok()?;
    (blake3::hash(&made) == hash).then_some(payload)
}

/// The bytes that the missing chunks take otherwise.
enum Otherwise {
    /// Estimated by samples.
    Bytes(usize),
    /// The length of a patch of `new` against `old`.
    Patch { new: Vec<u8>, old: Vec<u8> },
}

impl Otherwise {
    fn new(batch: &Batch, file: &[u8], old: &[u8], level: i32, by_patch: bool) -> Self {
        let missing = plain_bytes(&batch.chunks);
        if by_patch && missing <= PATCH_BYTES_MAX && old.len() <= patch::REFERENCE_BYTES_MAX {
            let mut new = Vec::with_capacity(missing);
            for located in &batch.chunks {
                let begin = place(located);
                new.extend_from_slice(&file[begin..begin + located.chunk.bytes as usize]);
            }
            return Self::Patch { new, old: old.to_vec() };
        }
        Self::Bytes(sampled_bytes(batch, file, old, level, by_patch))
    }

    fn is_more_than(&self, bytes: usize) -> bool {
        match self {
            Self::Bytes(otherwise) => *otherwise > bytes,
            Self::Patch { new, old } => matches!(patch::compress_within(new, old, bytes), Ok(None)),
        }
    }
}

/// Estimates by samples what the missing chunks take against the older file.
fn sampled_bytes(batch: &Batch, file: &[u8], old: &[u8], level: i32, by_patch: bool) -> usize {
    let (mut alike, mut alone) = (Vec::new(), Vec::new());
    let mut regions = batch.matches.iter().peekable();
    let mut region_end = 0;
    for (number, located) in batch.chunks.iter().enumerate() {
        if let Some(region) = regions.next_if(|region| region.first <= number) {
            region_end = region.first + region.count;
        }
        if number < region_end { alike.push(located.clone()) } else { alone.push(located.clone()) }
    }
    let alone = by_samples(&alone, |place| compression::compress_against(&[], &file[place], level).len());
    alone
        + by_samples(&alike, |place| {
            let new = &file[place.clone()];
            let there = proportion(place.start, old.len(), file.len());
            let basis = EXECUTABLE.reference(old, there..there + new.len());
            match by_patch.then(|| patch::compress(new, basis)) {
                Some(Ok(patch)) => patch.len(),
                _ => compression::compress_against(basis, new, level).len(),
            }
        })
}

/// Estimates by samples what the missing chunks take compressed.
fn compressed_bytes(batch: &Batch, file: &[u8], level: i32) -> usize {
    by_samples(&batch.chunks, |place| compression::compress_against(&[], &file[place], level).len())
}

/// Estimates what all of these chunks take; `encoded` returns what a sample takes, given by its range in the file.
fn by_samples(chunks: &[Located], encoded: impl Fn(Range<usize>) -> usize) -> usize {
    let sample = |start: usize| {
        let chunks = &chunks[start..];
        let begin = place(chunks.first()?);
        let mut end = begin;
        for located in &chunks[..run_length(chunks)] {
            if end - begin < EXECUTABLE.sample_bytes {
                end += located.chunk.bytes as usize;
            }
        }
        Some(begin..end)
    };
    let samples = EXECUTABLE.starts(chunks.len()).filter_map(sample);
    Estimate::of(samples, encoded).scaled(plain_bytes(chunks))
}

fn plain_bytes(chunks: &[Located]) -> usize {
    chunks.iter().map(|located| located.chunk.bytes as usize).sum()
}

/// Returns how many of the first chunks follow one another.
fn run_length(chunks: &[Located]) -> usize {
    let pairs = chunks.windows(2);
    let joined =
        pairs.take_while(|pair| pair[0].offset + u64::from(pair[0].chunk.bytes) == pair[1].offset).count();
    (joined + 1).min(chunks.len())
}

/// Returns the chunk's offset in the executable.
fn place(located: &Located) -> usize {
    usize::try_from(located.offset - located.body.start).expect("an executable is below 4 GiB")
}

/// Reads a whole executable and verifies its missing chunks. Returns none where it has become too large.
fn read_verified(chunks: &[Located], new: &Body) -> Result<Option<Vec<u8>>, Error> {
    let Some(bytes) = new.read(EXECUTABLE_BYTES_MAX)? else { return Ok(None) };
    for located in chunks {
        let begin = place(located);
        let chunk = bytes.get(begin..begin + located.chunk.bytes as usize);
        if chunk.map(ChunkId::of) != Some(located.chunk.id) {
            return Err(Error::Changed(new.path.to_path_buf()));
        }
    }
    Ok(Some(bytes))
}
