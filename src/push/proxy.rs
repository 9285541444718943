//! The proxy's half of a push.

use std::collections::{HashMap, VecDeque};

use super::Error;
use crate::compression::Decompressor;
use crate::ids::ChunkId;
use crate::limits::{LIST_MAX, MANIFEST_SEGMENTS_MAX, PUSH_CHUNKS_IN_FLIGHT};
use crate::manifest::{self, NodeRef};
use crate::pack::{Frame, FrameKind};
use crate::recipe::ChunkRef;
use crate::record::{Cost, Record};
use crate::wire::{Batch, FromAgent, Marks, Open, PushReply, Refusal, unpack_names};

/// What the proxy's half needs of the space it pushes into. Errors come as what the agent is told.
pub trait Shelf {
    /// Where the space has the release already: the record for this push, written unless it is
    /// a dry run, and whether the application's latest release was this one already.
    ///
    /// # Errors
    /// The space cannot be read or written.
    fn recognize(&mut self, open: &Open) -> Result<Option<(Record, bool)>, Refusal>;

    /// For each name, the segment that it names, where the space holds it and all chunks it lists.
    ///
    /// # Errors
    /// The space cannot be read.
    fn resolve(&mut self, names: &[u64]) -> Result<Vec<Option<NodeRef>>, Refusal>;

    /// Which of the chunks the space holds in that length, or will hold once what it was given to keep is
    /// stored.
    ///
    /// # Errors
    /// The space cannot be read.
    fn holds(&mut self, chunks: &[ChunkRef]) -> Result<Vec<bool>, Refusal>;

    /// Takes a frame over, to be stored soon.
    ///
    /// # Errors
    /// There is no room, or the disk failed.
    fn keep(&mut self, frame: Frame) -> Result<(), Refusal>;

    /// Stores all that was kept, checks the manifest whole, and records the release.
    ///
    /// # Errors
    /// The manifest is not what its root says, or the disk failed.
    fn commit(&mut self, proposal: Proposal) -> Result<(Record, bool), Refusal>;
}

/// A complete push, to be recorded.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// How it began.
    pub open: Open,
    /// All segments of its manifest, in order.
    pub segments: Vec<NodeRef>,
    /// What it cost.
    pub cost: Cost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The names of the segments are coming.
    Naming,
    /// Segments and chunks are coming.
    Receiving,
    /// Committed, or a dry run that has been answered.
    Finished,
}

/// The proxy's half: what the agent says in, replies out.
///
/// Memory: 44 B for each segment of the manifest and each chunk asked for and not yet received, both bounded.
#[derive(Debug)]
pub struct Proxy {
    open: Open,
    state: State,
    names: Vec<u64>,
    segments: Vec<Option<NodeRef>>,
    wanted: VecDeque<u32>,
    asked: HashMap<ChunkId, u32>,
    cost: Cost,
    zstd: Decompressor,
    plain: Vec<u8>,
}

impl Proxy {
    /// Begins with what the agent opened; gives the first replies.
    ///
    /// # Errors
    /// A request out of bounds, or a shelf that fails.
    pub fn open(open: Open, shelf: &mut impl Shelf) -> Result<(Self, Vec<PushReply>), Error> {
        let limit = |what, found: usize, max: usize| {
            if found > max { Err(Error::Limit { what, max }) } else { Ok(()) }
        };
        limit("labels", open.labels.len(), LIST_MAX)?;
        limit("destinations", open.destinations.len(), LIST_MAX)?;
        limit("segments", open.segments as usize, MANIFEST_SEGMENTS_MAX)?;
        open.profile.check().map_err(Error::Profile)?;
        let names = unpack_names(&open.names)?;
        let mut proxy = Self {
            state: State::Naming,
            names,
            segments: Vec::new(),
            wanted: VecDeque::new(),
            asked: HashMap::new(),
            cost: Cost::default(),
            zstd: Decompressor::new(),
            plain: Vec::new(),
            open,
        };
        if let Some((record, existing)) = shelf.recognize(&proxy.open).map_err(Error::Shelf)? {
            proxy.state = State::Finished;
            return Ok((proxy, vec![PushReply::Committed { record, existing }]));
        }
        let replies = if proxy.names.is_empty() && proxy.open.segments > 0 {
            vec![PushReply::WantNames]
        } else {
            proxy.named(shelf)?
        };
        Ok((proxy, replies))
    }

    /// Whether the push has come to its end.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// What the push has cost so far.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// What to reply to what the agent said.
    ///
    /// # Errors
    /// Something that does not belong here, breaks a bound, or is not what its name says; a failing shelf.
    pub fn receive(&mut self, message: FromAgent, shelf: &mut impl Shelf) -> Result<Vec<PushReply>, Error> {
        match (self.state, message) {
            (State::Naming, FromAgent::Names(names)) => {
                self.names.extend(unpack_names(&names)?);
                self.named(shelf)
            }
            (State::Receiving, FromAgent::Segments(batch)) => self.segments(&batch, shelf),
            (State::Receiving, FromAgent::Chunks(batch)) if !self.open.dry_run => self.chunks(batch, shelf),
            (State::Receiving, FromAgent::Commit) if !self.open.dry_run => self.commit(shelf),
            (_, FromAgent::Names(_)) => Err(Error::OutOfTurn("Names")),
            (_, FromAgent::Segments(_)) => Err(Error::OutOfTurn("Segments")),
            (_, FromAgent::Chunks(_)) => Err(Error::OutOfTurn("Chunks")),
            (_, FromAgent::Commit) => Err(Error::OutOfTurn("Commit")),
        }
    }

    /// Answers once all names are there.
    fn named(&mut self, shelf: &mut impl Shelf) -> Result<Vec<PushReply>, Error> {
        let expected = self.open.segments as usize;
        if self.names.len() > expected {
            return Err(Error::OutOfTurn("Names"));
        }
        if self.names.len() < expected {
            return Ok(Vec::new());
        }
        self.segments = shelf.resolve(&self.names).map_err(Error::Shelf)?;
        self.state = State::Receiving;
        let marks: Marks = self.segments.iter().map(Option::is_none).collect();
        self.wanted = marks.places().collect();
        Ok(vec![PushReply::WantSegments(marks)])
    }

    /// Takes the next wanted segments and says which of their chunks are missing.
    fn segments(&mut self, batch: &Batch, shelf: &mut impl Shelf) -> Result<Vec<PushReply>, Error> {
        let parts = batch.open(&mut self.zstd, &mut self.plain)?;
        let mut references = Vec::new();
        let mut nodes = Vec::with_capacity(parts.len());
        for part in parts {
            let bytes = &self.plain[part];
            let node =
                NodeRef { id: ChunkId::of(bytes), bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX) };
            let place = self.wanted.pop_front().ok_or(Error::OutOfTurn("Segments"))? as usize;
            if node.id.prefix() != self.names[place] {
                return Err(Error::OtherSegment(node.id));
            }
            self.segments[place] = Some(node);
            nodes.push(ChunkRef { id: node.id, bytes: node.bytes });
            references.extend(manifest::segment_chunks(bytes)?);
        }
        let held = shelf.holds(&references).map_err(Error::Shelf)?;
        let mut marks = Vec::with_capacity(references.len());
        for (chunk, held) in references.iter().zip(held) {
            // A length that is not the chunk's would be found only when the release is rebuilt.
            let asked = self.asked.get(&chunk.id).copied();
            if let Some(expected) = asked.filter(|expected| *expected != chunk.bytes) {
                return Err(Error::Length { id: chunk.id, expected, found: chunk.bytes });
            }
            let missing = !held && asked.is_none();
            if missing {
                self.asked.insert(chunk.id, chunk.bytes);
                self.cost.unseen_chunks += 1;
                self.cost.unseen_bytes += u64::from(chunk.bytes);
            }
            marks.push(missing);
        }
        if self.open.dry_run {
            // Nothing will come; what is forgotten here is at worst counted twice.
            if self.asked.len() > PUSH_CHUNKS_IN_FLIGHT {
                self.asked.clear();
            }
            if self.wanted.is_empty() {
                self.state = State::Finished;
            }
        } else {
            if self.asked.len() > PUSH_CHUNKS_IN_FLIGHT {
                return Err(Error::Limit { what: "chunks in flight", max: PUSH_CHUNKS_IN_FLIGHT });
            }
            let (codec, payload) = (batch.codec, batch.payload.clone());
            let frame = Frame { kind: FrameKind::Manifest, codec, chunks: nodes, payload };
            shelf.keep(frame).map_err(Error::Shelf)?;
        }
        Ok(vec![PushReply::Missing(marks.into_iter().collect())])
    }

    /// Takes chunks that were asked for.
    fn chunks(&mut self, batch: Batch, shelf: &mut impl Shelf) -> Result<Vec<PushReply>, Error> {
        let parts = batch.open(&mut self.zstd, &mut self.plain)?;
        let mut chunks = Vec::with_capacity(parts.len());
        for (part, bytes) in parts.into_iter().zip(&batch.lengths) {
            let id = ChunkId::of(&self.plain[part]);
            if self.asked.remove(&id) != Some(*bytes) {
                return Err(Error::Unasked(id));
            }
            chunks.push(ChunkRef { id, bytes: *bytes });
        }
        self.cost.sent_bytes += batch.payload.len() as u64;
        let frame = Frame { kind: FrameKind::Content, codec: batch.codec, chunks, payload: batch.payload };
        shelf.keep(frame).map_err(Error::Shelf)?;
        Ok(Vec::new())
    }

    fn commit(&mut self, shelf: &mut impl Shelf) -> Result<Vec<PushReply>, Error> {
        if !self.asked.is_empty() || !self.wanted.is_empty() {
            return Err(Error::Incomplete(self.asked.len() + self.wanted.len()));
        }
        let segments = std::mem::take(&mut self.segments);
        let proposal = Proposal {
            open: self.open.clone(),
            segments: segments.into_iter().flatten().collect(),
            cost: self.cost,
        };
        let (record, existing) = shelf.commit(proposal).map_err(Error::Shelf)?;
        self.state = State::Finished;
        Ok(vec![PushReply::Committed { record, existing }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::Codec;
    use crate::ids::ReleaseId;
    use crate::manifest::{EntryPath, Item, Profile, Shape, Totals};
    use crate::recipe::Recipe;

    /// A space that holds one chunk of 5 bytes.
    struct Holding(ChunkId);

    impl Shelf for Holding {
        fn recognize(&mut self, _: &Open) -> Result<Option<(Record, bool)>, Refusal> {
            Ok(None)
        }

        fn resolve(&mut self, names: &[u64]) -> Result<Vec<Option<NodeRef>>, Refusal> {
            Ok(vec![None; names.len()])
        }

        fn holds(&mut self, chunks: &[ChunkRef]) -> Result<Vec<bool>, Refusal> {
            Ok(chunks.iter().map(|chunk| chunk.id == self.0 && chunk.bytes == 5).collect())
        }

        fn keep(&mut self, _: Frame) -> Result<(), Refusal> {
            Ok(())
        }

        fn commit(&mut self, _: Proposal) -> Result<(Record, bool), Refusal> {
            panic!("nothing here may be committed")
        }
    }

    /// What comes of a push of one segment that lists `chunks`.
    fn push_of(chunks: &[ChunkRef]) -> Result<Vec<PushReply>, Error> {
        let mut shelf = Holding(ChunkId::of(b"held!"));
        let path = EntryPath::new("file").expect("a plain path");
        let size = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        let mut segment = vec![0x11];
        Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks }.encode(&mut segment);
        for chunk in chunks {
            Item::Chunk(*chunk).encode(&mut segment);
        }
        let open = Open {
            app: "web".parse().expect("a name"),
            labels: Vec::new(),
            destinations: Vec::new(),
            release: ReleaseId::of(b"a root"),
            profile: Profile::DEFAULT,
            shape: Shape::Tree,
            totals: Totals::default(),
            segments: 1,
            names: ChunkId::of(&segment).prefix().to_le_bytes().to_vec(),
            dry_run: false,
        };
        let (mut proxy, _) = Proxy::open(open, &mut shelf)?;
        let lengths = vec![u32::try_from(segment.len()).expect("a small segment")];
        let batch = Batch { codec: Codec::Raw, lengths, payload: segment };
        proxy.receive(FromAgent::Segments(batch), &mut shelf)
    }

    #[test]
    fn a_segment_that_gives_a_chunk_another_length_is_refused() {
        let chunk = |name: &[u8], bytes| ChunkRef { id: ChunkId::of(name), bytes };
        let replies = push_of(&[chunk(b"held!", 5), chunk(b"new", 3), chunk(b"new", 3)]).expect("the truth");
        assert_eq!(replies, [PushReply::Missing([false, true, false].into_iter().collect())]);
        let lie = push_of(&[chunk(b"new", 3), chunk(b"new", 2)]);
        assert!(matches!(lie, Err(Error::Length { .. })), "{lie:?}");
        // A held chunk under another length counts as unseen: no bytes will fit both name and length.
        let lie = push_of(&[chunk(b"held!", 6)]).expect("it is asked for");
        assert_eq!(lie, [PushReply::Missing([true].into_iter().collect())]);
    }
}
