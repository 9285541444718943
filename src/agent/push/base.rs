//! The base of a push: the release that the proxy confirmed last time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::earlier::Earlier;
use super::encode::batcher::{DeltaReference, ExecutableReference, Match, OlderExecutable};
use super::encode::relinked::is_executable;
use crate::agent::chunk_cache::{CacheReader, ChunkCache};
use crate::agent::scan::{Body, Holder, LastOpened, Located, Spool};
use crate::agent::{Error, Result};
use delta::probe::{self, SAME_PATH};
use delta::similar::Rule;
use format::manifest::{self, NodeRef, Outline, RefAt, SegmentIndex, Thin};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use protocol::likeness::{
    BaseFile, BaseRelease, ChangedBase, Edge, Edges, NewSegment, Release, Target, prefix_of,
};
use protocol::wire::Marks;

/// Chunks of the base held in memory: some 80 MB. Further ones count as unseen, which costs bytes.
const CHUNKS_MAX: usize = 1024 * 1024;

/// 256 KiB: new content of some segments that resembles nothing and is sent eagerly all the same. Sending more takes longer
/// than waiting for an answer.
const UNLIKE_BYTES_MAX: u64 = 256 * 1024;

/// Chunks that are looked for to judge how much of the base is cached.
const SAMPLE: usize = 256;

/// The release that the proxy confirmed last time, compared with the new manifest. Memory: 40 B for each chunk of segments that changed.
#[derive(Debug)]
pub struct Base {
    earlier: Earlier,
    /// The chunks of segments that the new manifest does not have, and those that were returned as unseen.
    chunks: HashSet<ChunkId>,
    /// The new manifest's segments.
    new: Vec<NodeRef>,
    /// The base's chunks, as far as they are cached here.
    cache: Option<Arc<ChunkCache>>,
    /// What new chunks are compared with; read on first use.
    compared: Option<BaseRelease>,
    /// The chunks of `chunks` that the base does not have itself.
    eager: HashSet<ChunkId>,
    /// Prefixes of the ids of all chunks in segments that stay, sorted; read on first use.
    staying: Option<Vec<u64>>,
}

impl Base {
    /// Compares an earlier release with the segments of a new manifest; returns none if the earlier one cannot be read.
    pub fn new(earlier: Earlier, new: &[NodeRef], cache: Option<Arc<ChunkCache>>) -> Option<Self> {
        let stay: HashSet<&NodeRef> = new.iter().collect();
        let mut chunks = HashSet::new();
        for (index, node) in SegmentIndex::enumerate(earlier.segments()) {
            if stay.contains(node) || chunks.len() >= CHUNKS_MAX {
                continue;
            }
            let bytes = earlier.segment(index).ok()?;
            chunks.extend(manifest::segment_chunks(&bytes).ok()?.into_iter().map(|chunk| chunk.id));
        }
        Some(Self {
            earlier,
            chunks,
            new: new.to_vec(),
            cache,
            compared: None,
            eager: HashSet::new(),
            staying: None,
        })
    }

    /// Returns whether most of what changed since is cached here. If not, the proxy finds more that resembles it.
    ///
    /// Looks at a few hundred chunks.
    pub fn is_cached(&self) -> bool {
        let sample = self.chunks.iter().take(SAMPLE);
        let cached = |cache: &Arc<ChunkCache>| sample.clone().filter(|id| cache.knows(id)).count();
        self.cache.as_ref().map_or(0, cached) * 2 >= sample.clone().count()
    }

    /// Returns the root of its manifest.
    pub fn root(&self) -> ChunkId {
        self.earlier.root()
    }

    /// Returns its segments.
    pub fn segments(&self) -> &[NodeRef] {
        self.earlier.segments()
    }

    /// Marks the chunks that the base does not have and no earlier call has marked.
    pub fn unseen(&mut self, references: &[ChunkRef]) -> Marks {
        let mut mark = |chunk: &ChunkRef| {
            let is_unseen = self.chunks.insert(chunk.id);
            if is_unseen {
                self.eager.insert(chunk.id);
            }
            is_unseen
        };
        let marks: Vec<bool> = references.iter().map(&mut mark).collect();
        if !marks.contains(&true) {
            return marks.into_iter().collect();
        }
        // Content that was copied or moved is in segments that stay.
        let staying = self.staying.take().unwrap_or_else(|| self.staying());
        let is_new = |chunk: &ChunkRef| staying.binary_search(&chunk.id.prefix()).is_err();
        let marks = references.iter().zip(marks).map(|(chunk, mark)| mark && is_new(chunk)).collect();
        self.staying = Some(staying);
        marks
    }

    /// Marks the unseen chunks of some segments that are worth sending before the proxy asks for them.
    ///
    /// Leaves out chunks that were pushed from here before, which the proxy most likely has. Leaves out much content that
    /// resembles nothing: the proxy may have it, or something like it, from elsewhere, and asking costs less.
    pub fn worth_sending(
        &mut self,
        spool: &Spool,
        segments: &[SegmentIndex],
        references: &[ChunkRef],
        unseen: &Marks,
    ) -> Result<Marks> {
        let cache = self.cache.clone();
        let was_pushed = |chunk: &ChunkRef| cache.as_ref().is_some_and(|cache| cache.was_pushed(chunk));
        let new = references.iter().zip(unseen.iter()).map(|(chunk, mark)| mark && !was_pushed(chunk));
        let new: Marks = new.collect();
        let marked = || references.iter().zip(new.iter()).filter(|(_, mark)| *mark).map(|(chunk, _)| chunk);
        let bytes = |chunk: &ChunkRef| u64::from(chunk.bytes);
        if marked().map(bytes).sum::<u64>() <= UNLIKE_BYTES_MAX {
            return Ok(new);
        }
        let is_like = self.resembles(spool, segments, &new)?;
        let unlike = marked().zip(&is_like).filter(|(_, is_like)| !**is_like).map(|(chunk, _)| bytes(chunk));
        if unlike.sum::<u64>() <= UNLIKE_BYTES_MAX {
            return Ok(new);
        }
        let mut is_like = is_like.into_iter();
        Ok(new.iter().map(|mark| mark && is_like.next() == Some(true)).collect())
    }

    /// Returns for each marked chunk whether the base has similar content, by more than its path.
    pub fn resembles(
        &mut self,
        spool: &Spool,
        segments: &[SegmentIndex],
        marks: &Marks,
    ) -> Result<Vec<bool>> {
        let mut is_like = vec![false; marks.marked()];
        let matches = self.matches(spool, segments, marks)?;
        let mut located = Vec::new();
        let mut marked = marks.iter();
        for segment in segments {
            located.extend(spool.chunks(*segment)?.into_iter().filter(|_| marked.next() == Some(true)));
        }
        for Match { first, count, older, rule, .. } in &matches {
            let new = &located[(*first).min(located.len())..(first + count).min(located.len())];
            if *rule == Rule::Neighbours || self.is_like(new, older) {
                is_like.iter_mut().skip(*first).take(*count).for_each(|is_like| *is_like = true);
            }
        }
        Ok(is_like)
    }

    /// Returns whether a sample of new content shrinks by a quarter against older content that a path alone has found; true
    /// for executables, which are encoded otherwise.
    fn is_like(&self, new: &[Located], older: &DeltaReference) -> bool {
        let (Some(cache), DeltaReference::Cached(_, chunks)) = (&self.cache, older) else { return false };
        if new.first().is_some_and(|located| is_executable(&located.body())) {
            return true;
        }
        let (mut reader, mut last) = (cache.reader(), LastOpened::default());
        let (mut old, mut sample) = (Vec::new(), Vec::new());
        for located in new {
            if sample.len() < SAME_PATH.sample_bytes && located.read_verified(&mut last, &mut sample).is_err()
            {
                return true;
            }
        }
        for chunk in chunks {
            if old.len() < SAME_PATH.reference_bytes {
                reader.read(chunk, &mut old);
            }
        }
        probe::resembles(&sample, &old)
    }

    /// Returns the missing chunks that the base release contains, i.e. that the proxy has since evicted.
    pub fn evicted<'a>(&mut self, missing: impl Iterator<Item = &'a ChunkRef>) -> HashSet<ChunkId> {
        let staying = self.staying.take().unwrap_or_else(|| self.staying());
        let had = |chunk: &&ChunkRef| {
            (self.chunks.contains(&chunk.id) && !self.eager.contains(&chunk.id))
                || staying.binary_search(&chunk.id.prefix()).is_ok()
        };
        let evicted = missing.filter(had).map(|chunk| chunk.id).collect();
        self.staying = Some(staying);
        evicted
    }

    /// Returns the prefixes of the ids of chunks in segments that stay, sorted, as far as they can be read. Memory: 8 B a chunk.
    fn staying(&self) -> Vec<u64> {
        let new: HashSet<&NodeRef> = self.new.iter().collect();
        let mut staying = Vec::new();
        let stay = SegmentIndex::enumerate(self.earlier.segments()).filter(|(_, node)| new.contains(node));
        for (index, _) in stay {
            let Ok(bytes) = self.earlier.segment(index) else { continue };
            let chunks = manifest::segment_chunks(&bytes).unwrap_or_default();
            staying.extend(chunks.iter().map(|chunk| chunk.id.prefix()));
            if staying.len() >= CHUNKS_MAX {
                break;
            }
        }
        staying.sort_unstable();
        staying
    }

    /// Returns what missing chunks of some new segments resemble in the base; only content that is cached here counts.
    ///
    /// `marks` marks the missing ones among the segments' references, in order.
    pub fn matches(&mut self, spool: &Spool, segments: &[SegmentIndex], marks: &Marks) -> Result<Vec<Match>> {
        let Some(cache) = &self.cache else { return Ok(Vec::new()) };
        let compared = match &mut self.compared {
            Some(compared) => compared,
            unread => unread.insert(compare(&self.earlier, &self.new, cache)?),
        };
        if compared.is_unlike() {
            return Ok(Vec::new());
        }
        let (mut new, mut places): (Vec<NewSegment>, _) = (Vec::new(), HashMap::new());
        let mut marks = marks.iter();
        let (mut bodies, mut edges) = (Bodies::default(), Edges::new());
        for segment in segments {
            let thin = Thin::decode(&spool.segment(*segment)?)?;
            edges.extend(bodies.edges(spool, *segment)?);
            let mut known_here = Vec::new();
            for (number, reference) in (0..).zip(thin.references()) {
                let missing = marks.next() == Some(true);
                if missing {
                    places.insert(RefAt { segment: *segment, reference: number }, places.len());
                }
                known_here.push(if missing { None } else { reference.full() });
            }
            new.push((*segment, thin, known_here));
        }
        let node = |index: SegmentIndex| self.new.get(usize::from(index)).copied();
        let likenesses =
            compared.likenesses(&new, &edges, node, |index, _| Ok::<_, Error>(spool.segment(index)?))?;
        let mut matches = Vec::new();
        for likeness in likenesses {
            let new: Vec<usize> = likeness.new.iter().filter_map(|at| places.get(at).copied()).collect();
            let Some(first) = new.first().copied() else { continue };
            if likeness.chunks.iter().all(|chunk| cache.has(chunk)) {
                let count = new.iter().zip(first..).take_while(|(place, next)| *place == next).count();
                let older = DeltaReference::Cached(likeness.basis, likeness.chunks);
                let path = likeness.base_path.map(|path| ground::escape::json_path(&path));
                matches.push(Match { first, count, older, rule: likeness.rule, path });
            }
        }
        Ok(matches)
    }

    /// Returns the older executables, whole both here and at the proxy, of files of which some chunks are `missing` there
    /// and others `present`.
    ///
    /// `matches` is the result of [`Base::matches`] for the same chunks.
    pub fn executables(
        &self,
        missing: &[Located],
        present: &[Located],
        matches: &[Match],
    ) -> Result<Vec<OlderExecutable>> {
        let Some(cache) = &self.cache else { return Ok(Vec::new()) };
        let mut found: Vec<OlderExecutable> = Vec::new();
        let mut release = CachedRelease { earlier: &self.earlier, reader: cache.reader() };
        // The longest match of a file decides.
        let mut matches: Vec<&Match> = matches.iter().collect();
        matches.sort_by_key(|matches| std::cmp::Reverse(matches.count));
        for matches in matches {
            let DeltaReference::Cached(span, _) = &matches.older else { continue };
            let Some(located) = missing.get(matches.first) else { continue };
            if found.iter().any(|older| located.is_of(&older.new)) || !is_executable(&located.body()) {
                continue;
            }
            let of = located.body();
            let lacks = missing.iter().filter(|located| located.is_of(&of)).count();
            let known = present.iter().filter(|located| located.is_of(&of));
            let known: HashSet<ChunkId> = known.map(|located| located.chunk.id).collect();
            let new = Target { chunks: lacks + known.len(), known };
            let Some(whole) = BaseFile::like(span, &new, &mut release)? else { continue };
            if whole.chunks.iter().all(|chunk| cache.has(chunk)) {
                found.push(OlderExecutable { new: of, reference: ExecutableReference::Cached(whole) });
            }
        }
        Ok(found)
    }

    /// Returns the reference for a batch of segments that replace these.
    pub fn prefix(&self, segments: &[SegmentIndex]) -> Result<Vec<u8>> {
        Ok(prefix_of(segments.iter().map(|index| self.earlier.segment(*index)))??)
    }
}

/// Reads what new chunks are compared with: the part of the base that the `new` manifest does not have.
fn compare(earlier: &Earlier, new: &[NodeRef], cache: &ChunkCache) -> Result<BaseRelease> {
    let segments = earlier.segments();
    let gaps = Outline::of(segments, new.iter().copied().map(Some)).gaps(segments.len());
    let mut release = CachedRelease { earlier, reader: cache.reader() };
    let edges = protocol::likeness::edges(&ChangedBase::ranges(segments.len(), &gaps), &mut release)?;
    BaseRelease::read(segments.to_vec(), &gaps, &edges, |index, _| earlier.segment(index))
}

/// The base release, as far as its chunks are cached here.
struct CachedRelease<'a> {
    earlier: &'a Earlier,
    reader: CacheReader,
}

impl Release for CachedRelease<'_> {
    type Error = Error;

    fn segment(&mut self, index: SegmentIndex) -> Result<Option<Vec<u8>>> {
        let is_there = usize::from(index) < self.earlier.segments().len();
        is_there.then(|| self.earlier.segment(index)).transpose()
    }

    fn chunk(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> bool {
        self.reader.read(chunk, out)
    }
}

/// Finds the first and last chunks of executables in archives.
#[derive(Default)]
struct Bodies {
    last: Option<(Body, bool)>,
}

impl Bodies {
    /// Returns those in a segment.
    fn edges(&mut self, spool: &Spool, segment: SegmentIndex) -> Result<Edges> {
        let mut edges = Edges::new();
        for (number, located) in (0..).zip(spool.chunks(segment)?) {
            if self.last.as_ref().is_some_and(|(last, _)| located.is_of(last)) {
                continue;
            }
            let body = located.body();
            let stands_alone = body.holder != Holder::File && is_executable(&body);
            let follows = |(last, was): &(Body, bool)| *was && last.path == body.path;
            let edge = match &self.last {
                _ if stands_alone => Some(Edge::Begin(body.place.end - body.place.start)),
                Some(last) if follows(last) => Some(Edge::End),
                _ => None,
            };
            edges.extend(edge.map(|edge| (RefAt { segment, reference: number }, edge)));
            self.last = Some((body, stands_alone));
        }
        Ok(edges)
    }
}
