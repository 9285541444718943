//! What new chunks of a release resemble in the release that it builds on.
//!
//! Looks only at segments that changed, and at one that stays on either side of them: what a push learns of
//! a release of a million files is then as small as the change.

use std::collections::HashMap;
use std::ops::Range;

use super::listing::{Edges, Listings, number_of};
use crate::wire::Span;
use delta::similar::{self, Chunk, Rule};
use format::manifest::{self, Gap, NodeRef, RefAt, SegmentIndex, Thin};
use format::recipe::ChunkRef;

/// Segments of the base that are read: 16 MiB of manifest; a release that differs in more is mostly new.
const SEGMENTS_MAX: usize = 8 * 1024;
/// 32 MiB: bytes of these segments, twice what they usually have.
const SEGMENTS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// 6 MiB: a region with more new bytes is cut.
const PIECE_BYTES_MAX: u64 = 6 * 1024 * 1024;
/// 32 KiB: what lies between two edits of a piece, for all that is known.
const BYTES_OF_EDIT: u64 = 32 * 1024;
/// 2 MiB: new bytes of one piece.
const PIECE_BYTES: u64 = 2 * 1024 * 1024;

/// Target chunks, and the older ones that they resemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Likeness {
    /// The new chunks.
    pub new: Vec<RefAt>,
    /// A run of the base's chunks.
    pub basis: Span,
    /// The same, in full.
    pub chunks: Vec<ChunkRef>,
    /// Why these.
    pub rule: Rule,
    /// The older file, where its path is known.
    pub base_path: Option<Vec<u8>>,
    /// The first chunk of the older file, where it is known.
    pub base_begin: Option<ChunkRef>,
    /// How many edits there probably are.
    pub edits: u64,
}

/// The changed part of the base.
#[derive(Debug, Default)]
pub struct ChangedBase {
    gaps: Vec<Gap>,
    listings: Listings,
}

/// One that stays on either side of a gap: chunks that both releases have are what changes are found between.
fn with_neighbours(range: &Range<usize>, count: usize) -> Range<usize> {
    range.start.saturating_sub(1)..(range.end + 1).min(count)
}

impl ChangedBase {
    /// Which of the base's `count` segments are looked at for these gaps: runs, in order.
    pub fn ranges(count: usize, gaps: &[Gap]) -> Vec<Range<usize>> {
        if gaps.iter().map(|gap| gap.base.len() + 2).sum::<usize>() > SEGMENTS_MAX {
            return Vec::new();
        }
        gaps.iter().map(|gap| with_neighbours(&gap.base, count)).collect()
    }

    /// Reads the part of the base that the gaps leave out; nothing where that is too much. `edges` are those in it.
    ///
    /// # Errors
    /// An error of `read`.
    pub fn read<E: From<manifest::Error>>(
        base: &[NodeRef],
        gaps: &[Gap],
        edges: &Edges,
        mut read: impl FnMut(SegmentIndex) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let ranges = Self::ranges(base.len(), gaps);
        let nodes = ranges.iter().flat_map(|range| &base[range.clone()]);
        let bytes: usize = nodes.map(|node| node.bytes as usize).sum();
        if ranges.len() < gaps.len() || bytes > SEGMENTS_BYTES_MAX {
            return Ok(Self::default());
        }
        let mut listings = Listings::default();
        let mut done = 0;
        for (number, range) in ranges.into_iter().enumerate() {
            if range.start >= done || range.end < done {
                listings.begin_run(number);
            }
            // Gaps that nearly touch share what stays between them.
            let begin = if range.end > done { range.start.max(done) } else { range.start };
            for index in SegmentIndex::range(begin..range.end) {
                let thin = Thin::decode(&read(index)?)?;
                listings.add(index, &thin, in_full(&thin), edges);
            }
            done = range.end;
        }
        Ok(Self { gaps: gaps.to_vec(), listings: listings.sorted() })
    }

    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        self.listings.memory_bytes()
    }

    /// Returns whether there is nothing to resemble.
    pub fn is_empty(&self) -> bool {
        self.listings.files.is_empty()
    }

    /// Finds what the missing chunks of some new segments resemble, in their order.
    ///
    /// `new` are segments by index, with what is known of their references; `stays` gives the segments around
    /// them that the base has too; `edges` are those in all of these.
    ///
    /// # Errors
    /// An error of `stays`.
    pub fn likenesses<E: From<manifest::Error>>(
        &self,
        new: &[(SegmentIndex, &Thin, &[Option<ChunkRef>])],
        edges: &Edges,
        mut stays: impl FnMut(SegmentIndex) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Vec<Likeness>, E> {
        let mut listings = Listings::default();
        // Each where it occurs first, as it is asked for there.
        let mut missing: HashMap<u64, RefAt> = HashMap::new();
        let mut last: Option<SegmentIndex> = None;
        for (index, thin, known) in new {
            if last.is_none_or(|last| last.next() != *index) {
                // What stood before the gap stands before the new segments too.
                let after = |gap: &&Gap| gap.new.contains(&usize::from(*index));
                let number = self.gaps.iter().position(|gap| after(&gap));
                listings.begin_run(number.unwrap_or(self.gaps.len() + usize::from(*index)));
                if let Some(before) = index.previous()
                    && let Some(bytes) = stays(before)?
                {
                    let thin = Thin::decode(&bytes)?;
                    listings.add(before, &thin, in_full(&thin), edges);
                }
            }
            for (number, reference) in (0u32..).zip(thin.references()) {
                if known.get(number as usize).is_some_and(Option::is_none) {
                    missing
                        .entry(number_of(reference.short()))
                        .or_insert(RefAt { segment: *index, reference: number });
                }
            }
            listings.add(*index, thin, known.iter().copied(), edges);
            last = Some(*index);
            let next = index.next();
            if !new.iter().any(|(other, ..)| *other == next)
                && let Some(bytes) = stays(next)?
            {
                let thin = Thin::decode(&bytes)?;
                listings.add(next, &thin, in_full(&thin), edges);
            }
        }
        let listings = listings.sorted();
        let regions = similar::choose(&self.listings.views(), &listings.views(), |chunk| {
            !missing.contains_key(&chunk.id)
        });
        let mut likenesses = Vec::new();
        for region in regions {
            let Some(place) = region.reference else { continue };
            let file = &listings.files[region.file];
            let chunks = region.runs.iter().flat_map(|run| &file.chunks[run.clone()]);
            let new: Vec<_> = chunks
                .filter_map(|chunk| Some((missing.get(&chunk.id).copied()?, u64::from(chunk.bytes))))
                .collect();
            let old = &self.listings.files[place.file];
            let path = old.path.split(|byte| *byte == 0).next().unwrap_or_default();
            let base_path = (!path.is_empty()).then(|| path.to_vec());
            let base_begin = if old.has_begin() { old.full.first().copied().flatten() } else { None };
            for (part, range) in pieces(&new, &old.chunks[place.chunks.clone()], edges) {
                let range = old.joined(place.chunks.start + range.start..place.chunks.start + range.end);
                let RefAt { segment, reference: first } = old.places[range.start];
                let count = u32::try_from(range.len()).expect("segments' references are bounded");
                // Of a piece little is known: where it was relinked, short blocks find no more than long ones.
                let is_whole = part.len() == new.len();
                let bytes: u64 = new[part.clone()].iter().map(|(_, bytes)| bytes).sum();
                let edits = if is_whole { region.edits } else { bytes / BYTES_OF_EDIT };
                likenesses.push(Likeness {
                    new: new[part].iter().map(|(at, _)| *at).collect(),
                    basis: Span { segment, first, count },
                    chunks: old.full[range].iter().copied().flatten().collect(),
                    rule: region.rule,
                    base_path: base_path.clone(),
                    base_begin,
                    edits: edits.max(1),
                });
            }
        }
        likenesses.sort_by_key(|likeness| likeness.new.first().copied());
        Ok(likenesses)
    }
}

/// Cuts a region that is long, or in which something new begins, into pieces, each with the part of the basis that lies
/// where it should, and a margin.
///
/// Relinked code and databases keep their order: what moved, moved little beside the margin.
fn pieces(new: &[(RefAt, u64)], old: &[Chunk], edges: &Edges) -> Vec<(Range<usize>, Range<usize>)> {
    let new_bytes: u64 = new.iter().map(|(_, bytes)| bytes).sum();
    let old_bytes: u64 = old.iter().map(|chunk| u64::from(chunk.bytes)).sum();
    let is_short = new_bytes <= PIECE_BYTES_MAX && old_bytes <= PIECE_BYTES_MAX * 4 / 3;
    let is_begin = |at: usize| new.get(at).is_some_and(|(place, _)| edges.contains_key(place));
    if is_short && !(1..new.len()).any(is_begin) {
        return vec![(0..new.len(), 0..old.len())];
    }
    let mut pieces = Vec::new();
    let (mut begin, mut begin_bytes, mut end_bytes) = (0, 0, 0);
    for (at, (_, bytes)) in new.iter().enumerate() {
        end_bytes += bytes;
        let is_full = !is_short && end_bytes - begin_bytes >= PIECE_BYTES;
        if !is_full && !is_begin(at + 1) && at + 1 < new.len() {
            continue;
        }
        // Where the same share of the old bytes lies, with half a piece on either side.
        let place = |bytes: u64| {
            let share = u128::from(bytes) * u128::from(old_bytes) / u128::from(new_bytes.max(1));
            u64::try_from(share).expect("no more than all old bytes")
        };
        let from = place(begin_bytes).saturating_sub(PIECE_BYTES / 2);
        let to = place(end_bytes) + PIECE_BYTES / 2;
        let mut offset = 0;
        let mut range = old.len()..old.len();
        for (number, chunk) in old.iter().enumerate() {
            if offset >= from && range.start == old.len() {
                range.start = number;
            }
            offset += u64::from(chunk.bytes);
            if offset >= to {
                range.end = number + 1;
                break;
            }
        }
        if range.start < range.end {
            pieces.push((begin..at + 1, range));
        }
        (begin, begin_bytes) = (at + 1, end_bytes);
    }
    pieces
}

/// Returns the chunks that a segment names in full.
fn in_full(thin: &Thin) -> impl Iterator<Item = Option<ChunkRef>> + '_ {
    thin.references().map(|reference| reference.full())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use format::manifest::{EntryPath, Item};
    use format::recipe::Recipe;
    use ground::ids::ChunkId;

    fn chunk(n: u8) -> ChunkRef {
        ChunkRef { id: ChunkId::of(&[n]), bytes: 9000 }
    }

    /// A segment of one file with these chunks; without a path it continues the file before it.
    fn segment(path: Option<&str>, chunks: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x11];
        if let Some(path) = path {
            let path = EntryPath::new(path).expect("a path");
            let size = chunks.len() as u64 * 9000;
            Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks }.encode(&mut bytes);
        }
        for n in chunks {
            Item::Chunk(chunk(*n)).encode(&mut bytes);
        }
        bytes
    }

    fn node(bytes: &[u8]) -> NodeRef {
        NodeRef { id: ChunkId::of(bytes), bytes: u32::try_from(bytes.len()).expect("small") }
    }

    #[test]
    fn a_base_made_to_take_much_memory_takes_little() {
        let gaps = |count: usize| [Gap { base: 0..count, new: 0..1 }];
        let mut files = vec![0x11];
        for number in 0..500u16 {
            let path = EntryPath::new(format!("{number:04x}")).expect("a path");
            Item::File { path, mode: 0o644, size: 0, recipe: Recipe::Chunks }.encode(&mut files);
        }
        let read = |_| Ok::<_, manifest::Error>(files.clone());
        let older = ChangedBase::read(&[node(&files); 100], &gaps(100), &Edges::new(), read).expect("read");
        assert!(older.is_empty() && older.memory_bytes() < 1000, "{} B", older.memory_bytes());
        let large = NodeRef { bytes: 17 * 1024, ..node(&files) };
        let read = |_| -> Result<Vec<u8>, manifest::Error> { panic!("it is too much") };
        let older =
            ChangedBase::read(&vec![large; 3000], &gaps(3000), &Edges::new(), read).expect("not read");
        assert!(older.is_empty());
    }

    /// Finds what those chunks of `new` resemble that `old` does not have.
    fn found(old: &[Vec<u8>], new: &[Vec<u8>]) -> Vec<Likeness> {
        let (base, nodes): (Vec<NodeRef>, Vec<NodeRef>) =
            (old.iter().map(|bytes| node(bytes)).collect(), new.iter().map(|bytes| node(bytes)).collect());
        let outline = manifest::Outline::of(&base, nodes.iter().copied().map(Some));
        let read = |index: SegmentIndex| Ok::<_, manifest::Error>(old[usize::from(index)].clone());
        let older =
            ChangedBase::read(&base, &outline.gaps(base.len()), &Edges::new(), read).expect("segments");
        let known: HashSet<ChunkId> = old
            .iter()
            .flat_map(|bytes| manifest::segment_chunks(bytes).expect("a segment"))
            .map(|c| c.id)
            .collect();
        let thins: Vec<Thin> = new.iter().map(|bytes| Thin::decode(bytes).expect("a segment")).collect();
        let known: Vec<Vec<Option<ChunkRef>>> = thins
            .iter()
            .map(|thin| {
                thin.references().map(|one| one.full().filter(|chunk| known.contains(&chunk.id))).collect()
            })
            .collect();
        let changed: Vec<_> = SegmentIndex::enumerate(thins.iter().zip(&known))
            .filter(|(index, _)| !base.contains(&nodes[usize::from(*index)]))
            .map(|(index, (thin, known))| (index, thin, known.as_slice()))
            .collect();
        let stays = |index: SegmentIndex| {
            let bytes = new.get(usize::from(index)).filter(|bytes| base.contains(&node(bytes)));
            Ok::<_, manifest::Error>(bytes.cloned())
        };
        older.likenesses(&changed, &Edges::new(), stays).expect("segments")
    }

    #[test]
    fn a_changed_chunk_resembles_what_stood_between_its_neighbours() {
        let old = [segment(Some("a"), &[1, 2, 3]), segment(Some("b"), &[4, 5, 6]), segment(Some("c"), &[7])];
        let new = [old[0].clone(), segment(Some("b"), &[4, 50, 6]), old[2].clone()];
        let likenesses = found(&old, &new);
        assert_eq!(likenesses.len(), 1);
        let segment = SegmentIndex::new(1);
        assert_eq!(likenesses[0].new, [RefAt { segment, reference: 1 }]);
        assert_eq!(likenesses[0].basis, Span { segment, first: 1, count: 1 });
        assert_eq!(likenesses[0].chunks, [chunk(5)]);
        assert_eq!(likenesses[0].rule, Rule::Neighbours);
    }

    #[test]
    fn neighbours_are_found_across_segments_that_stay() {
        let old = [segment(Some("a"), &[1, 2]), segment(None, &[3, 4]), segment(None, &[5, 6])];
        let new = [old[0].clone(), segment(None, &[30, 40]), old[2].clone()];
        let likenesses = found(&old, &new);
        let chunks: Vec<ChunkRef> = likenesses.iter().flat_map(|likeness| likeness.chunks.clone()).collect();
        assert_eq!(chunks, [chunk(3), chunk(4)], "{likenesses:?}");
    }

    #[test]
    fn where_nothing_is_like_it_there_is_no_basis() {
        assert_eq!(found(&[], &[segment(Some("a"), &[1])]), []);
        let same = [segment(Some("a"), &[1])];
        assert_eq!(found(&same, &same), []);
    }

    #[test]
    fn a_base_in_which_all_changed_is_not_looked_at() {
        let nodes: Vec<NodeRef> = (0..=SEGMENTS_MAX).map(|n| node(&n.to_le_bytes())).collect();
        let gaps = [Gap { new: 0..1, base: 0..nodes.len() }];
        let read = |_| -> Result<Vec<u8>, manifest::Error> { panic!("it is too much") };
        assert!(ChangedBase::read(&nodes, &gaps, &Edges::new(), read).expect("nothing is read").is_empty());
    }
}
