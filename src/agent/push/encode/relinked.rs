//! Encodes executables against older versions by the functions that changed, where that is shorter (docs/EXECUTABLES.md).

use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::batcher::{Batch, Batcher, Match};
use super::encoder::{Encoded, EncodedBatch, Encoder, PatchBudget};
use super::explain::{Explained, Reason};
use crate::agent::link_speed::{Encoding, LinkSpeed, SLOW_LEVEL};
use crate::agent::scan::{Body, Error, Located};
use delta::compression::{self, Codec};
use delta::patch;
use delta::probe::{EXECUTABLE, Estimate, proportion};
use delta::relink::{self, Answer, MAGIC, Payload, Records, normalise, normalise_unproven};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::{EXECUTABLE_BASIS_RATIO_MAX, EXECUTABLE_BYTES_MAX, EXECUTABLE_BYTES_MIN};
use protocol::likeness::BaseFile;
use protocol::wire::{Basis, Cut, Parcel, RecordAnswer};

/// One in 16: where functions are less of a file, the names of its records are not worth their bytes.
const FUNCTIONS_SHARE: usize = 16;
/// 6 MiB: where no more is missing, a patch is made to compare with, as samples say little of short ones.
const PATCH_BYTES_MAX: usize = 6 * 1024 * 1024;

/// Returns whether a body looks like an executable of a size that is worth a closer look.
pub fn is_executable(body: &Body) -> bool {
    let looks = || {
        let Some((file, place)) = body.open().ok().flatten() else { return Ok(false) };
        if !(EXECUTABLE_BYTES_MIN..=EXECUTABLE_BYTES_MAX as u64).contains(&(place.end - place.start)) {
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

/// An older executable, and the new one that resembles it.
#[derive(Debug)]
pub struct OlderExecutable {
    /// The new one.
    pub new: Body,
    /// The older one.
    pub reference: ExecutableReference,
}

/// An older executable, as a reference.
#[derive(Debug)]
pub enum ExecutableReference {
    /// It is cached here, and at the proxy.
    Cached(BaseFile),
    /// It is at the proxy, which answered the query for the new one.
    AtProxy(RecordAnswer),
}

/// The missing chunks of an executable.
#[derive(Debug)]
pub struct Executable {
    older: OlderExecutable,
    chunks: Vec<Located>,
    /// What they resemble, for encoding them as other chunks; `first` counts in `chunks`.
    matches: Vec<Match>,
    encoding: Encoding,
}

impl Executable {
    /// Begins one without chunks.
    pub fn new(older: OlderExecutable, encoding: Encoding) -> Self {
        Self { older, chunks: Vec::new(), matches: Vec::new(), encoding }
    }

    /// Returns the new executable.
    pub fn body(&self) -> &Body {
        &self.older.new
    }

    /// Adds the next missing chunk, and the match starting there, if any.
    pub fn push(&mut self, located: Located, matches: Option<Match>) {
        let first = self.chunks.len();
        self.matches.extend(matches.map(|matches| Match { first, ..matches }));
        self.chunks.push(located);
    }

    /// Cuts the chunks into batches as those of other files; ends when `take` returns false.
    pub fn batches(self, speed: &LinkSpeed, mut take: impl FnMut(Batch) -> bool) -> bool {
        let mut batcher = Batcher::new(speed, self.matches);
        for located in self.chunks {
            if let Some(batch) = batcher.push(located)
                && !take(batch)
            {
                return false;
            }
        }
        batcher.finish().is_none_or(take)
    }

    fn missing_bytes(&self) -> usize {
        plain_bytes(&self.chunks)
    }

    /// Returns where the missing chunks lie in the file.
    fn cuts(&self) -> Vec<Cut> {
        let (mut cuts, mut end): (Vec<Cut>, u64) = (Vec::new(), self.body().place.start);
        for located in &self.chunks {
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
}

impl Encoder<'_> {
    /// Encodes an executable against its older version. Returns `None` if that is not smaller or the link is fast.
    ///
    /// Memory: up to 4 times the file, and 6 times an older one below 32 MiB where little is missing; for one file at a time.
    ///
    /// # Errors
    /// The file cannot be read, or has changed.
    pub fn encode_executable(&mut self, executable: &Executable) -> Result<Option<EncodedBatch>, Error> {
        let Encoding::Parcels { level } = executable.encoding else { return Ok(None) };
        if level < SLOW_LEVEL {
            return Ok(None);
        }
        let missing = executable.missing_bytes();
        let budget = self.budget;
        let _alone = budget.alone();
        let Some(file) = read_verified(executable)? else { return Ok(None) };
        if !relink::is_linked_anew(missing, file.len()) {
            return Ok(None);
        }
        let encoded = match &executable.older.reference {
            ExecutableReference::Cached(whole) => self.by_cached(executable, file, whole, level),
            ExecutableReference::AtProxy(answer) => by_records(executable, file, answer, level),
        };
        let Some((basis, payload)) = encoded else { return Ok(None) };
        self.keep_chunks(executable)?;
        let lengths = executable.chunks.iter().map(|located| located.chunk.bytes).collect();
        let payload_bytes = u32::try_from(payload.len()).expect("it is bounded");
        let parcel = Parcel { lengths, basis, codec: Codec::Raw, payload_bytes };
        let explained = self.explain.then(|| Explained {
            path: ground::escape::json_path(executable.body().path.as_os_str().as_encoded_bytes()),
            reason: Reason::MovedCode,
            older: match &executable.older.reference {
                ExecutableReference::Cached(whole) => Some(ground::escape::json_path(&whole.path)),
                ExecutableReference::AtProxy(_) => None,
            },
            regions: 1,
            plain: missing as u64,
            sent: payload.len() as u64,
            advice: None,
        });
        let explained = explained.into_iter().collect();
        Ok(Some(EncodedBatch { encoded: Encoded::Parcel(parcel, payload), plain: missing as u64, explained }))
    }

    /// Adds the encoded chunks to the cache. Reads them once more, as encoding consumes the file to save memory.
    fn keep_chunks(&self, executable: &Executable) -> Result<(), Error> {
        let Some(cache) = self.cache else { return Ok(()) };
        let Some(file) = read_verified(executable)? else {
            return Err(Error::Changed(executable.body().path.to_path_buf()));
        };
        let mut chunks = executable.chunks.as_slice();
        while !chunks.is_empty() {
            let (run, rest) = chunks.split_at(run_length(chunks));
            let refs: Vec<ChunkRef> = run.iter().map(|located| located.chunk).collect();
            cache.add(&refs, &file[place(&run[0])..]);
            chunks = rest;
        }
        Ok(())
    }

    fn by_cached(
        &mut self,
        executable: &Executable,
        file: Vec<u8>,
        whole: &BaseFile,
        level: i32,
    ) -> Option<(Basis, Vec<u8>)> {
        let older: u64 = whole.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        if older > executable.missing_bytes().saturating_mul(EXECUTABLE_BASIS_RATIO_MAX) as u64 {
            return None;
        }
        let mut old = Vec::new();
        let cached = self.cached.as_mut()?;
        if !whole.chunks.iter().all(|chunk| cached.read(chunk, &mut old)) {
            return None;
        }
        let otherwise = Otherwise::new(executable, &file, &old, level, self.budget);
        let payload = by_older(old, file, level, &otherwise)?;
        Some((Basis::Executable(vec![whole.span], executable.cuts()), payload))
    }
}

/// Encodes `file` by the records that the proxy has, after proving that its parts make the file.
fn by_records(
    executable: &Executable,
    file: Vec<u8>,
    answer: &RecordAnswer,
    level: i32,
) -> Option<(Basis, Vec<u8>)> {
    let otherwise = Otherwise::Bytes(compressed_bytes(executable, &file, level));
    let parts = normalise(file)?;
    let records = Records::new(&parts);
    let agreed = Answer::decode(&answer.answer)?.agreed(records.hashes())?;
    let payload = Payload::new(parts, &records, &agreed, level).encode();
    relink::pays(payload.len(), |bytes| otherwise.is_more_than(bytes))
        .then(|| (Basis::Records(answer.file, executable.cuts()), payload))
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
    fn new(executable: &Executable, file: &[u8], old: &[u8], level: i32, budget: &PatchBudget) -> Self {
        let missing = executable.missing_bytes();
        let by_patch = budget.would_allow_patch(level, missing);
        if by_patch && missing <= PATCH_BYTES_MAX && old.len() <= patch::REFERENCE_BYTES_MAX {
            let mut new = Vec::with_capacity(missing);
            for located in &executable.chunks {
                let begin = place(located);
                new.extend_from_slice(&file[begin..begin + located.chunk.bytes as usize]);
            }
            return Self::Patch { new, old: old.to_vec() };
        }
        Self::Bytes(sampled_bytes(executable, file, old, level, by_patch))
    }

    fn is_more_than(&self, bytes: usize) -> bool {
        match self {
            Self::Bytes(otherwise) => *otherwise > bytes,
            Self::Patch { new, old } => matches!(patch::compress_within(new, old, bytes), Ok(None)),
        }
    }
}

/// Estimates by samples what the missing chunks take against the older file.
fn sampled_bytes(executable: &Executable, file: &[u8], old: &[u8], level: i32, by_patch: bool) -> usize {
    let (mut alike, mut alone) = (Vec::new(), Vec::new());
    let mut regions = executable.matches.iter().peekable();
    let mut region_end = 0;
    for (number, located) in executable.chunks.iter().enumerate() {
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
fn compressed_bytes(executable: &Executable, file: &[u8], level: i32) -> usize {
    by_samples(&executable.chunks, |place| compression::compress_against(&[], &file[place], level).len())
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
fn read_verified(executable: &Executable) -> Result<Option<Vec<u8>>, Error> {
    let Some(bytes) = executable.body().read(EXECUTABLE_BYTES_MAX)? else { return Ok(None) };
    for located in &executable.chunks {
        let begin = place(located);
        let chunk = bytes.get(begin..begin + located.chunk.bytes as usize);
        if chunk.map(ChunkId::of) != Some(located.chunk.id) {
            return Err(Error::Changed(executable.body().path.to_path_buf()));
        }
    }
    Ok(Some(bytes))
}
