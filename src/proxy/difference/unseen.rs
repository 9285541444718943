//! Counts the bytes of changed files that the earlier release does not have.

use crate::restore::{ChunkSource, Error, walk};
use format::manifest::{Item, Root};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use protocol::wire::Change;

/// The most rows that wait for their chunks to be looked for: with long paths 4 MiB.
const ROWS_MAX: usize = 1024;

/// Rows whose unseen bytes are not known yet, and their distinct chunks.
pub(super) struct Pending<'a> {
    before: &'a Root,
    source: &'a dyn ChunkSource,
    take: &'a mut dyn FnMut(Change) -> bool,
    rows: Vec<Change>,
    chunks: Vec<Wanted>,
    chunks_max: usize,
    listening: bool,
}

/// A chunk of a row. Sorted by chunk first, so that the earlier release's can be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    chunk: u64,
    row: u32,
    bytes: u32,
    is_known: bool,
}

impl<'a> Pending<'a> {
    /// Looks for `chunks_max` chunks at a time.
    pub fn new(
        chunks_max: usize,
        before: &'a Root,
        source: &'a dyn ChunkSource,
        take: &'a mut dyn FnMut(Change) -> bool,
    ) -> Self {
        Self { before, source, take, rows: Vec::new(), chunks: Vec::new(), chunks_max, listening: true }
    }

    /// Adds a row, whose chunks follow; false where the receiver has ended.
    pub fn row(&mut self, row: Change) -> Result<bool, Error> {
        if self.rows.len() == ROWS_MAX {
            self.flush()?;
        }
        self.rows.push(row);
        Ok(self.listening)
    }

    /// Adds a chunk of the last row.
    pub fn chunk(&mut self, chunk: &ChunkRef) -> Result<(), Error> {
        let row = u32::try_from(self.rows.len() - 1).expect("rows are bounded");
        let wanted = Wanted { chunk: prefix(&chunk.id), row, bytes: chunk.bytes, is_known: false };
        // A run of one chunk, as of zeros, counts once.
        if self.chunks.last() == Some(&wanted) {
            return Ok(());
        }
        self.chunks.push(wanted);
        if self.chunks.len() == self.chunks_max {
            self.sort();
            if self.chunks.len() > self.chunks_max / 2 {
                self.look_up()?;
            }
        }
        Ok(())
    }

    /// Hands on all rows.
    pub fn flush(&mut self) -> Result<bool, Error> {
        self.sort();
        self.look_up()?;
        for row in self.rows.drain(..) {
            self.listening = self.listening && (self.take)(row);
        }
        Ok(self.listening)
    }

    fn sort(&mut self) {
        self.chunks.sort_unstable();
        self.chunks.dedup();
    }

    /// Reads the earlier release and adds the bytes that it lacks to each row.
    fn look_up(&mut self) -> Result<(), Error> {
        if self.chunks.is_empty() || !self.listening {
            self.chunks.clear();
            return Ok(());
        }
        let chunks = &mut self.chunks;
        let mut last = None;
        walk::<Error>(self.before, self.source.reader().as_mut(), &mut |item| {
            if let Item::Chunk(chunk) = item {
                let chunk = prefix(&chunk.id);
                if last != Some(chunk) {
                    let first = chunks.partition_point(|wanted| wanted.chunk < chunk);
                    let same = chunks[first..].iter_mut().take_while(|wanted| wanted.chunk == chunk);
                    // Many rows may name the chunk, and the earlier release may repeat it.
                    for wanted in same.take_while(|wanted| !wanted.is_known) {
                        wanted.is_known = true;
                    }
                }
                last = Some(chunk);
            }
            Ok(())
        })?;
        for wanted in self.chunks.drain(..).filter(|wanted| !wanted.is_known) {
            self.rows[wanted.row as usize].unseen_bytes += u64::from(wanted.bytes);
        }
        Ok(())
    }
}

fn prefix(id: &ChunkId) -> u64 {
    id.prefix()
}
