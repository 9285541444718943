//! Encodes relinked executables against the older ones that a pulling agent has (docs/EXECUTABLES.md).

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::base::Base;
use super::patch_cache::{CACHE_BYTES_MAX, PatchMaker, name_of};
use super::read_segment;
use crate::restore::{self, ChunkReader};
use crate::store::{Store, StoreReader};
use delta::compression::{self, Codec, LEVEL_DEFAULT};
use delta::probe::{EXECUTABLE, Estimate};
use delta::relink::{self, Encoded, MAGIC, normalise_unproven};
use format::manifest::{self, Item, NodeRef, RefAt, SegmentIndex, Thin};
use format::recipe::{ChunkRef, Recipe};
use ground::limits::{
    EXECUTABLE_BASIS_RATIO_MAX, EXECUTABLE_BYTES_MAX, EXECUTABLE_BYTES_MIN, EXECUTABLE_CHUNKS_MAX,
};
use protocol::likeness::{BaseFile, Edges, Release, Target};
use protocol::wire::{Basis, Cut, Parcel, Span};

/// zstd's level for the payload of an executable: made once for all machines that pull it.
const LEVEL: i32 = 9;
/// Files of one pull that are looked at.
const FILES_MAX: usize = 256;
/// The longest wait of an agent for a payload: far less than its deadline.
const TIME_MAX: Duration = Duration::from_secs(60);

/// An executable of which the agent has an older version: a parcel of all its chunks, and the payload.
pub(super) type ExecutableParcel = (Parcel, Arc<Vec<u8>>);

/// A file of the pulled release.
struct File {
    size: u64,
    /// The place of its first chunk in the manifest.
    at: RefAt,
    chunks: Vec<ChunkRef>,
}

/// Chooses the new executables to send by their functions, for an agent that has all of `base`.
///
/// Memory: 4 times the largest, one at a time in the process, and the payloads. Stops after a minute, at [`FILES_MAX`]
/// files or half of [`CACHE_BYTES_MAX`], and once it no longer `goes_on`, which is called before each file. Files that
/// are not encoded this way are pulled as other files are.
pub(super) fn encode(
    base: &Base,
    leaves: &[NodeRef],
    reader: &mut StoreReader<&Store>,
    maker: &PatchMaker<'_>,
    mut goes_on: impl FnMut() -> bool,
) -> Vec<ExecutableParcel> {
    let (deadline, mut encoded, mut bytes) = (Instant::now() + TIME_MAX, Vec::new(), 0);
    for file in new_executables(base, leaves, reader).unwrap_or_default().iter().take(FILES_MAX) {
        if !goes_on() || Instant::now() >= deadline || bytes > CACHE_BYTES_MAX / 2 {
            break;
        }
        if let Some((parcel, payload)) = encode_one(file, base, leaves, reader, maker, deadline) {
            bytes += payload.len();
            encoded.push((parcel, payload));
        }
    }
    encoded
}

/// Files that new segments list, and that begin as executables do.
fn new_executables(
    base: &Base,
    leaves: &[NodeRef],
    reader: &mut StoreReader<&Store>,
) -> Result<Vec<File>, restore::Error> {
    let mut files = Vec::new();
    for gap in base.gaps() {
        let mut file: Option<File> = None;
        for (segment, node) in SegmentIndex::enumerate(leaves).skip(gap.new.start) {
            if usize::from(segment) >= gap.new.end && file.is_none() {
                break;
            }
            let mut number = 0;
            for item in manifest::decode_segment(&read_segment(reader, node)?)? {
                match item {
                    Item::Chunk(chunk) => {
                        if let Some(file) = &mut file
                            && file.chunks.len() <= EXECUTABLE_CHUNKS_MAX
                        {
                            if file.chunks.is_empty() {
                                file.at = RefAt { segment, reference: number };
                            }
                            file.chunks.push(chunk);
                        }
                        number += 1;
                    }
                    item => {
                        files.extend(file.take());
                        let begins = usize::from(segment) < gap.new.end;
                        if let Item::File { size, recipe: Recipe::Chunks, .. } = item
                            && begins
                            && (EXECUTABLE_BYTES_MIN..=EXECUTABLE_BYTES_MAX as u64).contains(&size)
                        {
                            let at = RefAt { segment, reference: 0 };
                            file = Some(File { size, at, chunks: Vec::new() });
                        }
                    }
                }
            }
        }
        files.extend(file);
    }
    let mut begin = Vec::new();
    files.retain(|file| {
        begin.clear();
        let is_whole = file.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum::<u64>() == file.size;
        let first = file.chunks.first().filter(|_| is_whole);
        first.is_some_and(|chunk| reader.read(chunk, &mut begin).is_ok()) && begin.starts_with(MAGIC)
    });
    Ok(files)
}

fn encode_one(
    file: &File,
    base: &Base,
    leaves: &[NodeRef],
    reader: &mut StoreReader<&Store>,
    maker: &PatchMaker<'_>,
    deadline: Instant,
) -> Option<ExecutableParcel> {
    let span = alike(file, base, leaves, reader)?;
    let new = Target { chunks: file.chunks.len(), ..Target::default() };
    let mut release = BaseRelease { segments: base.segments(), reader };
    let whole = BaseFile::like(&span, &new, &mut release).ok()??;
    // No more than the agent will read for it.
    let bytes_max =
        file.size.saturating_mul(EXECUTABLE_BASIS_RATIO_MAX as u64).min(EXECUTABLE_BYTES_MAX as u64);
    if whole.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum::<u64>() > bytes_max {
        return None;
    }
    let there: HashSet<&ChunkRef> = whole.chunks.iter().collect();
    let missing = file.chunks.iter().filter(|chunk| !there.contains(chunk)).count();
    if !relink::is_linked_anew(missing, file.chunks.len()) {
        return None;
    }
    let name = name_of("whit pull executable", &whole.chunks, &file.chunks);
    let payload = maker.payload(name, deadline, || {
        let mut read = |chunks: &[ChunkRef]| {
            let mut bytes = Vec::new();
            chunks.iter().try_for_each(|chunk| reader.read(chunk, &mut bytes)).ok().map(|()| bytes)
        };
        let (old, new) = (read(&whole.chunks)?, read(&file.chunks)?);
        let otherwise = otherwise_bytes(&old, &new);
        let (new, old) = (normalise_unproven(new)?, normalise_unproven(old)?);
        let payload = Encoded::new(&old, &new, LEVEL).encode();
        relink::pays(payload.len(), |bytes| otherwise > bytes).then_some(payload)
    })?;
    if payload.is_empty() {
        return None;
    }
    let count = |value: usize| u32::try_from(value).expect("an executable is bounded");
    let basis =
        Basis::Executable(vec![whole.span], vec![Cut { skipped: 0, chunks: count(file.chunks.len()) }]);
    let lengths = file.chunks.iter().map(|chunk| chunk.bytes).collect();
    let parcel = Parcel { lengths, basis, codec: Codec::Raw, payload_bytes: count(payload.len()) };
    parcel.plain_bytes().is_ok().then_some((parcel, payload))
}

/// Returns the older chunks that most of the file resembles.
fn alike(file: &File, base: &Base, leaves: &[NodeRef], reader: &mut StoreReader<&Store>) -> Option<Span> {
    let (mut left, mut segments) = (file.chunks.len(), Vec::new());
    let RefAt { mut segment, reference: mut first } = file.at;
    while left > 0 {
        let thin = Thin::decode(&read_segment(reader, leaves.get(usize::from(segment))?).ok()?).ok()?;
        let known: Vec<Option<ChunkRef>> = (0..)
            .zip(thin.references())
            .map(|(number, one)| if number < first { one.full() } else { None })
            .collect();
        left = left.saturating_sub(known.len().saturating_sub(first as usize));
        segments.push((segment, thin, known));
        (segment, first) = (segment.next(), 0);
    }
    let new: Vec<_> = segments.iter().map(|(index, thin, known)| (*index, thin, known.as_slice())).collect();
    let likenesses = base.changed.likenesses(&new, &Edges::new(), |_| Ok::<_, manifest::Error>(None)).ok()?;
    let of = likenesses
        .into_iter()
        .filter(|likeness| likeness.new.first().copied().unwrap_or_default() >= file.at);
    of.max_by_key(|likeness| likeness.new.len()).map(|likeness| likeness.basis)
}

/// Estimates by samples what the file takes otherwise.
fn otherwise_bytes(old: &[u8], new: &[u8]) -> usize {
    // Rounded down to whole strides.
    let starts = EXECUTABLE.starts(new.len() / EXECUTABLE.samples * EXECUTABLE.samples);
    let samples = starts.map(|begin| begin..(begin + EXECUTABLE.sample_bytes).min(new.len()));
    let compressed = |place: Range<usize>| {
        let there = place.start.min(old.len());
        let reference = EXECUTABLE.reference(old, there..there);
        compression::compress_against(reference, &new[place], LEVEL_DEFAULT).len()
    };
    Estimate::of(samples, compressed).repeated(new.len())
}

/// The release that the agent has, for the search of a whole file in it.
struct BaseRelease<'a, 'b> {
    segments: &'a [NodeRef],
    reader: &'a mut StoreReader<&'b Store>,
}

impl Release for BaseRelease<'_, '_> {
    type Error = restore::Error;

    fn segment(&mut self, index: SegmentIndex) -> Result<Option<Vec<u8>>, Self::Error> {
        self.segments.get(usize::from(index)).map(|node| read_segment(self.reader, node)).transpose()
    }

    fn chunk(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> bool {
        self.reader.read(chunk, out).is_ok()
    }
}
