//! Record queries: an agent without the older file asks which code records of an executable the proxy has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use crate::likeness::{BaseFile, Edge, Edges, Likeness, Release, Target};
use crate::transfer::{Answered, read_chunks};
use crate::wire::{PushReply, RecordAnswer, RecordQuery, Span};
use crate::{ContentView, Error, SpaceView};
use delta::relink::{RecordIndex, RecordNames, Records, normalise_unproven};
use format::manifest::{NodeRef, RefAt, SegmentIndex};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::{EXECUTABLE_CHUNKS_MAX, RECORD_QUERIES_MAX, RECORD_QUERY_BYTES_MAX};
use ground::poison::Unpoisoned as _;

/// 2 GiB: older executables that one push may read; some 10 s.
const BASIS_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// 4 KiB: what each chunk of an older executable counts as at least, so that there are half a million of them.
const CHUNK_BYTES_COUNTED: u64 = 4 * 1024;
/// 64 Ki: segments that are read to find these older executables, 4 for each file and those that list 2 GiB; some 5 s.
const SEGMENTS_READ_MAX: usize = 64 * 1024;
/// A chunk of an archive's plan counts as this many segments, for the cost of reading the plan.
const SEGMENTS_OF_CHUNK: usize = 16;
/// In percent: with fewer known records, deltas of what lies between are as good.
const KNOWN_MIN: usize = 20;

/// The queries of one push. Memory: 8 MiB of names, and 36 B for each of half a million chunks of the older files.
#[derive(Debug)]
pub(super) struct RecordQueries {
    /// The files that were queried.
    files: HashSet<u32>,
    /// Names of files whose queries are not answered yet.
    names: HashMap<u32, Vec<u8>>,
    answered: HashMap<u32, Answered>,
    /// The chunks that the next segments list of queried files.
    next: Vec<RecordQuery>,
    names_left: usize,
    basis_left: u64,
    segments_left: usize,
}

impl Default for RecordQueries {
    fn default() -> Self {
        Self {
            files: HashSet::new(),
            names: HashMap::new(),
            answered: HashMap::new(),
            next: Vec::new(),
            names_left: RECORD_QUERY_BYTES_MAX,
            basis_left: BASIS_BYTES_MAX,
            segments_left: SEGMENTS_READ_MAX,
        }
    }
}

impl RecordQueries {
    /// Takes part of a query: a file's next names, or that the next segments continue it.
    ///
    /// # Errors
    /// Too many of either, names after a file's last, or a file twice before the same segments.
    pub fn take(&mut self, mut query: RecordQuery) -> Result<(), Error> {
        let names = std::mem::take(&mut query.names);
        let limit = Error::Limit { what: "bytes of record names", max: RECORD_QUERY_BYTES_MAX };
        self.names_left = self.names_left.checked_sub(names.len()).ok_or(limit)?;
        if self.files.insert(query.file) {
            if self.files.len() > RECORD_QUERIES_MAX {
                return Err(Error::Limit { what: "executables with record names", max: RECORD_QUERIES_MAX });
            }
            self.names.insert(query.file, names);
        } else if let Some(before) = self.names.get_mut(&query.file) {
            before.extend_from_slice(&names);
        } else if !names.is_empty() {
            return Err(Error::OutOfTurn("more record names of an executable than announced"));
        }
        if query.complete {
            if self.next.iter().any(|next| next.file == query.file) {
                return Err(Error::OutOfTurn("the same executable twice"));
            }
            self.next.push(query);
        }
        Ok(())
    }

    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        let names: usize = self.names.values().map(Vec::len).sum();
        let answered = self.answered.values();
        names + answered.map(|one| one.names.len() + one.chunks.len() * size_of::<ChunkRef>()).sum::<usize>()
    }

    /// Returns the answered query of a file, once.
    pub fn answered(&mut self, file: u32) -> Option<Answered> {
        self.answered.remove(&file)
    }

    /// Returns where the queried files begin and end.
    pub fn edges(&self, listed: &Listed) -> Edges {
        let ranges = self.next.iter().filter_map(|query| listed.range(query));
        let ends = ranges.flat_map(|range| [range.start, range.end]);
        ends.filter_map(|number| Some((listed.at(number)?, Edge::Cut))).collect()
    }

    /// Answers the queries for what was just listed. What an answered file resembles is taken out of `likenesses`, as
    /// it needs no signature.
    pub fn answer(
        &mut self,
        likenesses: &mut Vec<Likeness>,
        listed: &Listed,
        base: &[NodeRef],
        view: &mut impl SpaceView,
    ) -> Vec<PushReply> {
        let mut replies = Vec::new();
        for query in std::mem::take(&mut self.next) {
            let names = self.names.remove(&query.file);
            let Some(range) = listed.range(&query) else { continue };
            let is_of = |likeness: &Likeness| {
                let first = likeness.new.first().and_then(|at| listed.number(*at));
                first.is_some_and(|first| range.contains(&first))
            };
            if let Some(names) = names.filter(|_| !self.answered.contains_key(&query.file)) {
                let alike: Vec<&Likeness> = likenesses.iter().filter(|likeness| is_of(likeness)).collect();
                let missing: usize = alike.iter().map(|likeness| likeness.new.len()).sum();
                // Where little is missing, the file was edited somewhere, not relinked.
                let best = alike.into_iter().max_by_key(|likeness| likeness.new.len());
                let best = best.filter(|_| missing * 4 > range.len()).map(|best| best.basis);
                let Some((answer, chunks)) =
                    best.and_then(|best| self.look_at(&best, &listed.about(&range), &names, base, view))
                else {
                    continue;
                };
                self.answered.insert(query.file, Answered { names, chunks });
                replies.push(PushReply::RecordAnswer(RecordAnswer { file: query.file, answer }));
            }
            if self.answered.contains_key(&query.file) {
                likenesses.retain(|likeness| !is_of(likeness));
            }
        }
        replies
    }

    /// Which of the named records the file has that `basis` is of, or the member of that archive that is most like the
    /// new one; its chunks.
    fn look_at(
        &mut self,
        basis: &Span,
        new: &Target,
        names: &[u8],
        base: &[NodeRef],
        view: &mut impl SpaceView,
    ) -> Option<(Vec<u8>, Vec<ChunkRef>)> {
        let offer = RecordNames::decode(names).filter(|offer| !offer.names().is_empty())?;
        let mut release = Base { segments: base, segments_left: &mut self.segments_left, view };
        let BaseFile { chunks, .. } = BaseFile::like(basis, new, &mut release).ok()??;
        let bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.bytes).max(CHUNK_BYTES_COUNTED)).sum();
        self.basis_left = self.basis_left.checked_sub(bytes)?;
        let heavy_work = view.heavy_work();
        let _alone = heavy_work.lock().unpoisoned();
        let old = read_chunks(&chunks, view)?;
        let parts = normalise_unproven(old)?;
        let records = Records::new(&parts);
        let (answer, places) = RecordIndex::new(parts, records).answer(&offer);
        let known = places.iter().flatten().count();
        (known * 100 >= places.len() * KNOWN_MIN).then(|| (answer.encode(), chunks))
    }
}

/// The references of some segments that stand together, numbered from 0.
#[derive(Debug)]
pub(super) struct Listed {
    /// The number of each segment's first reference.
    first: BTreeMap<SegmentIndex, usize>,
    /// The segments in their order, and the number after each one's last reference.
    ends: Vec<(SegmentIndex, usize)>,
    /// The chunk of each reference, where known.
    known: Vec<Option<ChunkId>>,
}

impl Listed {
    /// Numbers the references of segments, which come by index, each with the chunks that are known.
    pub fn of<'a>(segments: impl Iterator<Item = (SegmentIndex, &'a [Option<ChunkRef>])>) -> Self {
        let (mut first, mut ends, mut all) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (place, known) in segments {
            first.insert(place, all.len());
            all.extend(known.iter().map(|known| known.map(|chunk| chunk.id)));
            ends.push((place, all.len()));
        }
        Self { first, ends, known: all }
    }

    /// Returns the chunks of a range of them, where known.
    fn about(&self, range: &Range<usize>) -> Target {
        let known = self.known.get(range.start..range.end.min(self.known.len())).unwrap_or_default();
        Target { chunks: range.len(), known: known.iter().flatten().copied().collect() }
    }

    fn number(&self, at: RefAt) -> Option<usize> {
        Some(self.first.get(&at.segment)? + at.reference as usize)
    }

    /// Returns the numbers of a queried file's references.
    fn range(&self, query: &RecordQuery) -> Option<Range<usize>> {
        let begin = self.number(RefAt { segment: query.segment, reference: query.first })?;
        Some(begin..begin + (query.chunks as usize).min(EXECUTABLE_CHUNKS_MAX))
    }

    /// Returns the segment and place of the reference of that number.
    fn at(&self, number: usize) -> Option<RefAt> {
        let (segment, _) = self.ends[self.ends.partition_point(|(_, end)| *end <= number)..].first()?;
        let within = number - self.first[segment];
        let reference = u32::try_from(within).expect("segments' references are bounded");
        Some(RefAt { segment: *segment, reference })
    }
}

/// The release that a push builds on, as far as it may still be read.
struct Base<'a, S> {
    segments: &'a [NodeRef],
    segments_left: &'a mut usize,
    view: &'a mut S,
}

impl<S: ContentView> Release for Base<'_, S> {
    type Error = Error;

    fn segment(&mut self, index: SegmentIndex) -> Result<Option<Vec<u8>>, Error> {
        let Some(left) = self.segments_left.checked_sub(1) else { return Ok(None) };
        *self.segments_left = left;
        let Some(node) = self.segments.get(usize::from(index)) else { return Ok(None) };
        let mut bytes = Vec::new();
        self.view.read(&(*node).into(), &mut bytes).map_err(Error::Space)?;
        Ok(Some(bytes))
    }

    fn chunk(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> bool {
        let left = self.segments_left.checked_sub(SEGMENTS_OF_CHUNK);
        *self.segments_left = left.unwrap_or_default();
        left.is_some() && self.view.read(chunk, out).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Open, Refusal};
    use crate::{Proposal, StorageView};
    use delta::relink::linked;
    use delta::similar::Rule;
    use format::manifest::{EntryPath, Item, Reference, SegmentName};
    use format::pack::Frame;
    use format::recipe::Recipe;
    use format::record::Record;
    use ground::faults::Fault;
    use ground::ids::ChunkId;
    use ground::limits::EXECUTABLE_BYTES_MAX;

    /// A space that is only read, and counts how often.
    #[derive(Default)]
    struct Counting {
        held: HashMap<ChunkId, Vec<u8>>,
        reads: usize,
    }

    impl Counting {
        fn add(&mut self, bytes: Vec<u8>) -> ChunkRef {
            let chunk =
                ChunkRef { id: ChunkId::of(&bytes), bytes: u32::try_from(bytes.len()).expect("small") };
            self.held.insert(chunk.id, bytes);
            chunk
        }
    }

    impl ContentView for Counting {
        fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
            self.reads += 1;
            let missing = || Refusal { fault: Fault::Corrupt, text: "no such chunk".to_owned(), hint: None };
            out.extend_from_slice(self.held.get(&chunk.id).ok_or_else(missing)?);
            Ok(())
        }
    }

    impl StorageView for Counting {
        fn find(&mut self, _: &[Reference]) -> Result<Vec<Option<ChunkRef>>, Refusal> {
            unreachable!("it is only read")
        }

        fn keep(&mut self, _: Frame) -> Result<(), Refusal> {
            unreachable!("it is only read")
        }
    }

    impl SpaceView for Counting {
        fn recognize(&mut self, _: &Open) -> Result<Option<(Record, bool)>, Refusal> {
            unreachable!("it is only read")
        }

        fn base(&mut self, _: Option<&ChunkId>) -> Result<Option<Vec<NodeRef>>, Refusal> {
            unreachable!("it is only read")
        }

        fn resolve(&mut self, _: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal> {
            unreachable!("it is only read")
        }

        fn kept_message(&mut self) {}

        fn commit(&mut self, _: Proposal) -> Result<(Record, bool), Refusal> {
            unreachable!("it is only read")
        }
    }

    /// Returns the segments of one file, of `size` bytes by its entry, in chunks of `chunk_bytes`.
    fn base_of(bytes: &[u8], size: u64, chunk_bytes: usize, view: &mut Counting) -> Vec<NodeRef> {
        let path = EntryPath::new("program").expect("a path");
        let mut items = vec![Item::File { path, mode: 0o755, size, recipe: Recipe::Chunks }];
        items.extend(bytes.chunks(chunk_bytes).map(|chunk| Item::Chunk(view.add(chunk.to_vec()))));
        let segments = items.chunks(40).map(|items| {
            let mut bytes = vec![0x11];
            for item in items {
                item.encode(&mut bytes);
            }
            view.add(bytes).into()
        });
        segments.collect()
    }

    /// Queries the records of a file of one chunk again and again, each time under another number; the chunk resembles a chunk
    /// of the base's last segment. Gives how many were answered.
    fn offer(
        count: u32,
        names: &[u8],
        base: &[NodeRef],
        view: &mut Counting,
        queries: &mut RecordQueries,
    ) -> usize {
        let segment = SegmentIndex::of(base.len() - 1);
        let likeness = |number| Likeness {
            base_begin: None,
            new: vec![RefAt { reference: number, ..RefAt::default() }],
            basis: Span { segment, first: 0, count: 1 },
            chunks: Vec::new(),
            rule: Rule::Path,
            base_path: None,
            edits: 1,
        };
        let mut likenesses: Vec<Likeness> = (0..count).map(likeness).collect();
        for file in 0..count {
            let part = RecordQuery {
                file,
                segment: SegmentIndex::default(),
                first: file,
                chunks: 1,
                names: names.to_vec(),
                complete: true,
            };
            queries.take(part).expect("within bounds");
        }
        let listed = Listed::of(std::iter::once((SegmentIndex::default(), &vec![None; count as usize][..])));
        queries.answer(&mut likenesses, &listed, base, view).len()
    }

    #[test]
    fn older_files_of_many_small_chunks_are_answered_until_their_bound() {
        let mut view = Counting::default();
        let file = linked::link(&linked::Program { functions: 250, changed: None, shift: 0 });
        let base = base_of(&file, file.len() as u64, 4, &mut view);
        let parts = normalise_unproven(&file).expect("an executable");
        let names = RecordNames::new(Records::new(&parts).hashes()).encode();
        let mut queries = RecordQueries::default();
        let answered = offer(40, &names, &base, &mut view, &mut queries);
        let chunks: usize = queries.answered.values().map(|answered| answered.chunks.len()).sum();
        let most = usize::try_from(BASIS_BYTES_MAX / CHUNK_BYTES_COUNTED).expect("half a million");
        assert!(chunks <= most && answered > 0 && answered < 40, "{answered} of 40, {chunks} chunks");
    }

    #[test]
    fn segments_that_lead_to_no_file_are_read_until_their_bound() {
        let mut view = Counting::default();
        let bytes: Vec<u8> = (0..30_000u32).flat_map(u32::to_le_bytes).collect();
        let base = base_of(&bytes, EXECUTABLE_BYTES_MAX as u64 + 1, 4, &mut view);
        let names = RecordNames::new([&blake3::hash(b"a record")]).encode();
        let answered = offer(400, &names, &base, &mut view, &mut RecordQueries::default());
        assert_eq!(answered, 0);
        assert!(base.len() * 400 > SEGMENTS_READ_MAX, "or it shows nothing");
        assert!(view.reads <= SEGMENTS_READ_MAX, "{} segments read", view.reads);
    }
}
