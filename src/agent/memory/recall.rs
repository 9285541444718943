//! Reads remembered files in the manifest's order, in step with a walk in the same order.

use std::cmp::Ordering;
use std::path::Path;

use super::block::Decoder;
use super::stat::STAT_BYTES;
use super::{Memory, Stat};
use format::chunking::Profile;
use format::manifest::{self, EntryPath, Item, SegmentIndex};
use format::recipe::{ChunkRef, Recipe};

/// Chunk references handed over at a time.
const PART_CHUNKS: usize = 512;

/// Reads once through a remembered release. Memory: two blocks and one segment, some 600 KB.
///
/// A part that cannot be read ends it: the files from there on are not recalled.
#[derive(Debug)]
pub struct Recall<'a> {
    memory: &'a Memory,
    segments: Decoder,
    next_segment: SegmentIndex,
    items: std::vec::IntoIter<Item>,
    stats: Decoder,
    next_stat: u32,
    /// The file whose chunks come next.
    file: Option<File>,
    /// True if the file's chunks are wanted.
    found: bool,
}

#[derive(Debug)]
struct File {
    path: EntryPath,
    size: u64,
    recipe: Recipe,
    stat: Stat,
}

impl<'a> Recall<'a> {
    pub(super) fn new(memory: &'a Memory) -> Self {
        let mut recall = Self {
            memory,
            segments: Decoder::default(),
            next_segment: SegmentIndex::default(),
            items: Vec::new().into_iter(),
            stats: Decoder::default(),
            next_stat: 0,
            file: None,
            found: false,
        };
        recall.advance();
        recall
    }

    /// Returns whether the memory is of a scan of `source` with `profile`.
    pub fn fits(&self, source: &Path, profile: Profile) -> bool {
        self.memory.source == source && self.memory.root.profile == profile
    }

    /// Returns whether the file looks as remembered and need not be read; its chunks are then next.
    ///
    /// Paths must be asked for in the manifest's order; files between are skipped.
    pub fn find(&mut self, path: &EntryPath, size: u64, stat: &Stat) -> bool {
        self.found = false;
        while let Some(file) = &self.file {
            let order = if file.path == *path { Ordering::Equal } else { file.path.cmp(path) };
            match order {
                Ordering::Less => self.advance(),
                Ordering::Greater => return false,
                Ordering::Equal => {
                    self.found =
                        file.size == size && file.stat == *stat && stat.is_settled(self.memory.began);
                    return self.found;
                }
            }
        }
        false
    }

    /// Returns how the file that was found is rebuilt.
    pub fn recipe(&self) -> Option<Recipe> {
        self.file.as_ref().filter(|_| self.found).map(|file| file.recipe)
    }

    /// Returns the next of the chunks of the file that was found, in order; none after the last.
    pub fn chunks(&mut self) -> Option<Vec<ChunkRef>> {
        let mut chunks = Vec::new();
        while self.found && chunks.len() < PART_CHUNKS {
            match self.item() {
                Some(Item::Chunk(chunk)) => chunks.push(chunk),
                next => {
                    self.found = false;
                    self.file = None;
                    match next {
                        Some(item) if self.begin(&item) => {}
                        Some(_) => self.advance(),
                        None => {}
                    }
                }
            }
        }
        (!chunks.is_empty()).then_some(chunks)
    }

    /// Goes to the next file.
    fn advance(&mut self) {
        self.file = None;
        while let Some(item) = self.item() {
            if self.begin(&item) {
                return;
            }
        }
    }

    /// Takes a file's entry; returns whether the item was one.
    fn begin(&mut self, item: &Item) -> bool {
        let Item::File { path, size, recipe, .. } = item else { return false };
        self.file = self.stat().map(|stat| File { path: path.clone(), size: *size, recipe: *recipe, stat });
        true
    }

    fn item(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.items.next() {
                return Some(item);
            }
            if usize::from(self.next_segment) >= self.memory.segments.len() {
                return None;
            }
            let index = std::mem::replace(&mut self.next_segment, SegmentIndex::new(u32::MAX));
            let bytes = self.memory.decode_segment(index, &mut self.segments).ok()?;
            self.items = manifest::decode_segment(bytes).ok()?.into_iter();
            self.next_segment = index.next();
        }
    }

    fn stat(&mut self) -> Option<Stat> {
        let blocks = &self.memory.stat_blocks;
        let block = blocks.get(blocks.partition_point(|block| block.end <= self.next_stat))?;
        let bytes = self.stats.block(&self.memory.file, block).ok()??;
        let begin = (self.next_stat - block.begin) as usize * STAT_BYTES;
        let stat = bytes.get(begin..)?.first_chunk::<STAT_BYTES>().map(Stat::decode)?;
        self.next_stat += 1;
        Some(stat)
    }
}
