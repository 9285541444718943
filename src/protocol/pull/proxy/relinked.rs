//! Encodes relinked executables against the older ones that a pulling agent has (docs/EXECUTABLES.md).

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::base::Base;
use crate::likeness::{BaseFile, Edges, NewSegment, Release, Target};
use crate::pull::{Method, ReleaseView};
use crate::transfer::read_segment;
use crate::wire::{Basis, Cut, Parcel, Span};
use crate::{ContentView, Error};
use delta::compression::{self, Codec, LEVEL_DEFAULT};
use delta::probe::{EXECUTABLE, Estimate};
use delta::relink::{self, Encoded, MAGIC, normalise_unproven};
use format::manifest::{self, Item, NodeRef, RefAt, SegmentIndex, Thin};
use format::recipe::{ChunkRef, Recipe};
use ground::limits::{
    EXECUTABLE_BASIS_RATIO_MAX, EXECUTABLE_BYTES_MAX, EXECUTABLE_BYTES_MIN, EXECUTABLE_CHUNKS_MAX,
};

/// zstd's level for the payload of an executable: made once for all machines that pull it.
const LEVEL: i32 = 9;
/// Files of one pull that are looked at.
const FILES_MAX: usize = 256;
/// 32 MiB: the payloads of one pull together.
const PAYLOAD_BYTES_MAX: usize = 32 * 1024 * 1024;

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
/// Memory: 4 times the largest, one at a time in the process, and the payloads. Stops at [`FILES_MAX`] files or
/// [`PAYLOAD_BYTES_MAX`], and where the view no longer goes on, which is asked before each file. Files that are not encoded
/// this way are pulled as other files are.
pub(super) fn encode(base: &Base, leaves: &[NodeRef], view: &mut impl ReleaseView) -> Vec<ExecutableParcel> {
    let (mut encoded, mut bytes) = (Vec::new(), 0);
    for file in new_executables(base, leaves, view).unwrap_or_default().iter().take(FILES_MAX) {
        if !view.goes_on() || bytes > PAYLOAD_BYTES_MAX {
            break;
        }
        if let Some((parcel, payload)) = encode_one(file, base, leaves, view) {
            bytes += payload.len();
            encoded.push((parcel, payload));
        }
    }
    encoded
}

/// Files that new segments list, and that begin as executables do.
fn new_executables(base: &Base, leaves: &[NodeRef], view: &mut impl ContentView) -> Result<Vec<File>, Error> {
    let mut files = Vec::new();
    for gap in base.gaps() {
        let mut file: Option<File> = None;
        for (segment, node) in SegmentIndex::enumerate(leaves).skip(gap.new.start) {
            if usize::from(segment) >= gap.new.end && file.is_none() {
                break;
            }
            let mut number = 0;
            for item in manifest::decode_segment(&read_segment(node, view)?)? {
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
        first.is_some_and(|chunk| view.read(chunk, &mut begin).is_ok()) && begin.starts_with(MAGIC)
    });
    Ok(files)
}

fn encode_one(
    file: &File,
    base: &Base,
    leaves: &[NodeRef],
    view: &mut impl ReleaseView,
) -> Option<ExecutableParcel> {
    let span = alike(file, base, leaves, view)?;
    let new = Target { chunks: file.chunks.len(), ..Target::default() };
    let mut release = InBase { segments: base.release.segments(), view };
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
    let payload = view.payload(Method::Relinked, &whole.chunks, &file.chunks, |view| {
        let mut read = |chunks: &[ChunkRef]| {
            let mut bytes = Vec::new();
            chunks.iter().try_for_each(|chunk| view.read(chunk, &mut bytes)).ok().map(|()| bytes)
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
fn alike(file: &File, base: &Base, leaves: &[NodeRef], view: &mut impl ContentView) -> Option<Span> {
    let (mut left, mut segments) = (file.chunks.len(), Vec::<NewSegment>::new());
    let RefAt { mut segment, reference: mut first } = file.at;
    while left > 0 {
        let thin = Thin::decode(&read_segment(leaves.get(usize::from(segment))?, view).ok()?).ok()?;
        let known: Vec<Option<ChunkRef>> = (0..)
            .zip(thin.references())
            .map(|(number, one)| if number < first { one.full() } else { None })
            .collect();
        left = left.saturating_sub(known.len().saturating_sub(first as usize));
        segments.push((segment, thin, known));
        (segment, first) = (segment.next(), 0);
    }
    let stays = |_: SegmentIndex| None;
    let likenesses =
        base.release.likenesses(&segments, &Edges::new(), stays, |_, node| read_segment(node, view)).ok()?;
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
struct InBase<'a, V> {
    segments: &'a [NodeRef],
    view: &'a mut V,
}

impl<V: ContentView> Release for InBase<'_, V> {
    type Error = Error;

    fn segment(&mut self, index: SegmentIndex) -> Result<Option<Vec<u8>>, Error> {
        self.segments.get(usize::from(index)).map(|node| read_segment(node, self.view)).transpose()
    }

    fn chunk(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> bool {
        self.view.read(chunk, out).is_ok()
    }
}
