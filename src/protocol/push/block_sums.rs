//! Makes block sums of older content that missing chunks resemble, for an agent that does not have it.

use std::collections::HashMap;
use std::ops::Range;

use crate::likeness::{BaseRelease, Edges, Likeness, NewSegment};
use crate::transfer::{Region, Regions, read_segment};
use crate::wire::{BlockSums, PushReply, Sketches};
use crate::{Error, SpaceView};
use delta::probe;
use delta::rsync::{self, Geometry, Signature};
use delta::similar::{Rule, Sketch};
use format::manifest::{NodeRef, Outline, RefAt, Reference, SegmentIndex};
use format::pack::split;
use format::recipe::ChunkRef;
use ground::limits::{ANSWER_SIGNED_MAX, PARCEL_SPANS_MAX, PUSH_CHUNKS_IN_FLIGHT, SKETCHES_MAX};

/// 8 MiB: older content in one region; its block sums take some 100 KB.
const REGION_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Expected edits of a chunk, by the number of super-features shared with another: resemblance of some 0.6, 0.8 and
/// 0.95.
const EDITS_BY_SHARED: [u64; 4] = [12, 12, 6, 2];
/// Chunks that one reference found by sketches may serve.
const RUN_CHUNKS_MAX: usize = 64;

/// How files begin that are one compressed stream: gzip, xz, zstd.
const STREAM_MAGICS: [&[u8]; 3] = [b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];

/// Older content that some chunks resemble.
struct Alike {
    basis: Vec<ChunkRef>,
    rule: Rule,
    edits: u64,
}

/// The room left for block sums in one answer: the agent holds as much for each step under way.
struct AnswerRoom {
    signatures: usize,
    bytes: usize,
}

impl Default for AnswerRoom {
    fn default() -> Self {
        Self { signatures: PARCEL_SPANS_MAX, bytes: ANSWER_SIGNED_MAX }
    }
}

/// Returns the block sums of a reference; `None` if they would cost about as much as they could save.
fn signature_of(basis: &[u8], edits: u64) -> Option<Signature> {
    let percent = probe::compressed_percent(basis);
    let basis_bytes = basis.len() as u64;
    let block_bytes = rsync::block_bytes(basis_bytes, edits, percent);
    let geometry = Geometry::new(basis_bytes, block_bytes).ok()?;
    let bits = rsync::checksum_bits(&geometry, basis_bytes, rsync::ODDS_DEFAULT);
    let costs = u64::from(geometry.blocks()) * u64::from(bits) / 8;
    let pays = costs * 2 < basis_bytes * percent / 100;
    pays.then(|| Signature::new([basis], block_bytes, bits).ok()).flatten()
}

/// Gives the view sketches of the parts of `plain` that are wanted.
pub(super) fn keep_sketches(
    plain: &[u8],
    lengths: &[u32],
    arrived: &[Option<ChunkRef>],
    view: &mut impl SpaceView,
) {
    let sketched = arrived
        .iter()
        .zip(split(plain, lengths))
        .filter_map(|(chunk, part)| Some(((*chunk)?.id.into(), Sketch::of(part)?)));
    view.sketch(sketched.collect());
}

/// Makes the block sums of one push. Memory: the changed part of the base's manifest, and 40 B for each chunk
/// with block sums, which are bounded.
#[derive(Debug, Default)]
pub(super) struct BlockSumMaker {
    /// The release that the push builds on, read at the first use.
    base: Option<BaseRelease>,
    regions: Regions,
    /// Chunks of all regions.
    chunks: usize,
    /// True if the agent knows that the space has sketches.
    said_sketches: bool,
    /// Sketches that were looked for.
    sketches: usize,
    /// The first chunk of the file that was looked at last, and whether it is of one compressed stream.
    begin: Option<(ChunkRef, bool)>,
}

impl BlockSumMaker {
    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        self.base.as_ref().map_or(0, BaseRelease::memory_bytes) + self.chunks * size_of::<ChunkRef>()
    }

    /// Returns the regions with block sums.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// Returns what missing chunks of `new` segments resemble in `base`; `segments` are all of the manifest, as far as
    /// known, `edges` those in `new`.
    pub fn likenesses(
        &mut self,
        base: &[NodeRef],
        segments: &[Option<NodeRef>],
        new: &[NewSegment],
        edges: &Edges,
        view: &mut impl SpaceView,
    ) -> Result<Vec<Likeness>, Error> {
        if base.is_empty() {
            return Ok(Vec::new());
        }
        let base = match &mut self.base {
            Some(base) => base,
            unread => {
                let gaps = Outline::of(base, segments.iter().copied()).gaps(base.len());
                let read = |_: SegmentIndex, node: &NodeRef| read_segment(node, view);
                unread.insert(BaseRelease::read(base.to_vec(), &gaps, &Edges::new(), read)?)
            }
        };
        let node = |index: SegmentIndex| segments.get(usize::from(index)).copied().flatten();
        base.likenesses(new, edges, node, |_, node| read_segment(node, view))
    }

    /// Signs the older content that chunks resemble which were asked for; `asked` numbers these, by the places of
    /// their segments and references.
    pub fn make(
        &mut self,
        likenesses: Vec<Likeness>,
        asked: &HashMap<RefAt, usize>,
        view: &mut impl SpaceView,
    ) -> Vec<BlockSums> {
        let (mut signed, mut room) = (Vec::new(), AnswerRoom::default());
        for likeness in likenesses {
            let places: Vec<usize> = likeness.new.iter().filter_map(|at| asked.get(at).copied()).collect();
            let Some(first) = places.first().copied() else { continue };
            let chunks = places.iter().zip(first..).take_while(|(place, next)| *place == next).count();
            if likeness.base_begin.is_some_and(|begin| self.is_in_vain(&begin, view)) {
                continue;
            }
            let Likeness { chunks: basis, rule, edits, .. } = likeness;
            let alike = Alike { basis, rule, edits };
            signed.extend(self.make_one(first..first + chunks, alike, &mut room, view));
        }
        signed
    }

    /// Returns whether block sums of a file that begins with this chunk hardly ever find anything, and the link is fast: of one
    /// compressed stream, in which all that follows a change differs. Over a slow link some 4 % of it are worth the look.
    fn is_in_vain(&mut self, begin: &ChunkRef, view: &mut impl SpaceView) -> bool {
        if !view.is_fast() {
            return false;
        }
        if let Some((known, is_stream)) = self.begin
            && known == *begin
        {
            return is_stream;
        }
        let mut bytes = Vec::new();
        let is_stream = view.read(begin, &mut bytes).is_ok()
            && STREAM_MAGICS.iter().any(|magic| bytes.starts_with(magic));
        self.begin = Some((*begin, is_stream));
        is_stream
    }

    /// Says, once, that content can be found by sketches, where there are any.
    pub fn want_sketches(&mut self, view: &mut impl SpaceView) -> Option<PushReply> {
        if self.said_sketches || !view.has_sketches() {
            return None;
        }
        self.said_sketches = true;
        Some(PushReply::WantSketches)
    }

    /// Makes block sums of content that resembles requested chunks without any so far.
    pub fn alike(&mut self, sketches: &Sketches, view: &mut impl SpaceView) -> Result<Vec<PushReply>, Error> {
        let limit = Error::Limit { what: "sketches", max: SKETCHES_MAX };
        let left = SKETCHES_MAX.min(PUSH_CHUNKS_IN_FLIGHT - self.sketches);
        let sketches = sketches.open(left).ok_or(limit)?;
        self.sketches += sketches.len();
        let (mut replies, mut room) = (Vec::new(), AnswerRoom::default());
        let mut run: Option<(Range<usize>, Alike)> = None;
        for (place, sketch) in sketches {
            let Some((short, shared)) = view.most_similar(&sketch) else { continue };
            let [Some(chunk)] = view.find(&[Reference::Short(short)]).map_err(Error::Space)?[..] else {
                continue;
            };
            // A signature reveals something of what it signs.
            if !view.may_read(&chunk).map_err(Error::Space)? {
                continue;
            }
            let place = place as usize;
            let edits = EDITS_BY_SHARED[shared.min(EDITS_BY_SHARED.len() - 1)];
            match &mut run {
                // One between two that are found most likely lies between what they were found by.
                Some((places, alike)) if place - places.end <= 1 && places.len() < RUN_CHUNKS_MAX => {
                    places.end = place + 1;
                    alike.edits += edits;
                    if !alike.basis.contains(&chunk) {
                        alike.basis.push(chunk);
                    }
                }
                _ => {
                    let alike = Alike { basis: vec![chunk], rule: Rule::Content, edits };
                    if let Some((places, alike)) = run.replace((place..place + 1, alike)) {
                        let signed = self.make_one(places, alike, &mut room, view);
                        replies.extend(signed.map(PushReply::BlockSums));
                    }
                }
            }
        }
        if let Some((places, alike)) = run {
            replies.extend(self.make_one(places, alike, &mut room, view).map(PushReply::BlockSums));
        }
        replies.push(PushReply::Alike);
        Ok(replies)
    }

    /// Signs the basis of the chunks at these places among those asked for, while the answer has room; chunks without a
    /// signature cross whole.
    fn make_one(
        &mut self,
        places: Range<usize>,
        alike: Alike,
        room: &mut AnswerRoom,
        view: &mut impl SpaceView,
    ) -> Option<BlockSums> {
        if room.signatures == 0 {
            return None;
        }
        let bytes: usize = alike.basis.iter().map(|chunk| chunk.bytes as usize).sum();
        if bytes > REGION_BYTES_MAX || self.chunks + alike.basis.len() > PUSH_CHUNKS_IN_FLIGHT {
            return None;
        }
        // Counted whatever becomes of it, as it is read.
        self.chunks += alike.basis.len();
        let mut basis = Vec::with_capacity(bytes);
        // A damaged basis costs the delta, not the push.
        if alike.basis.iter().any(|chunk| view.read(chunk, &mut basis).is_err()) {
            return None;
        }
        let signature = signature_of(&basis, alike.edits)?;
        let region = u32::try_from(self.regions.len()).expect("regions are bounded");
        let mut encoded = Vec::new();
        signature.encode(&mut encoded);
        room.bytes = room.bytes.checked_sub(encoded.len())?;
        room.signatures -= 1;
        self.regions.insert(region, Region { chunks: alike.basis, geometry: signature.geometry() });
        let number = |value: usize| u32::try_from(value).expect("chunks of one batch are bounded");
        Some(BlockSums {
            region,
            first: number(places.start),
            chunks: number(places.len()),
            rule: alike.rule.number(),
            signature: encoded,
        })
    }
}
