//! The frames that a reader decoded last.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use format::recipe::ChunkRef;
use ground::ids::ChunkId;

/// Decoded frames cached by one reader: some 2 MiB; the next chunk is mostly in the same frame as the last.
const FRAMES_KEPT: usize = 8;

/// A few decoded frames, and where in them each chunk is.
#[derive(Debug, Default)]
pub struct DecodedFrames {
    frames: VecDeque<Decoded>,
    /// The frame of each chunk, counted since the start, and the chunk's range in it.
    chunks: HashMap<ChunkId, (u64, Range<usize>)>,
    /// The number of frames dropped from the front.
    dropped: u64,
}

#[derive(Debug)]
struct Decoded {
    plain: Vec<u8>,
    ids: Vec<ChunkId>,
}

impl DecodedFrames {
    /// Adds a frame: its plain bytes, which are those of `chunks` in order. The oldest one goes if there are too many.
    pub fn push(&mut self, plain: Vec<u8>, chunks: impl IntoIterator<Item = ChunkRef>) {
        if self.frames.len() == FRAMES_KEPT {
            self.drop_oldest();
        }
        let number = self.dropped + self.frames.len() as u64;
        let (mut ids, mut offset) = (Vec::new(), 0);
        for chunk in chunks {
            let end = offset + chunk.bytes as usize;
            ids.push(chunk.id);
            self.chunks.insert(chunk.id, (number, offset..end));
            offset = end;
        }
        self.frames.push_back(Decoded { plain, ids });
    }

    /// Appends the chunk if a frame has it and it is what its name says.
    pub fn copy(&self, chunk: &ChunkRef, out: &mut Vec<u8>) -> bool {
        let Some((number, range)) = self.chunks.get(&chunk.id) else { return false };
        let slot = usize::try_from(number - self.dropped).unwrap_or(usize::MAX);
        let bytes = self.frames.get(slot).and_then(|frame| frame.plain.get(range.clone()));
        let Some(bytes) = bytes.filter(|bytes| bytes.len() == chunk.bytes as usize) else { return false };
        if ChunkId::of(bytes) != chunk.id {
            return false;
        }
        out.extend_from_slice(bytes);
        true
    }

    fn drop_oldest(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            for id in frame.ids {
                // The same chunk may be in a later frame as well.
                if self.chunks.get(&id).is_some_and(|(number, _)| *number == self.dropped) {
                    self.chunks.remove(&id);
                }
            }
            self.dropped += 1;
        }
    }
}
