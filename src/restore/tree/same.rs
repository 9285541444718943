//! Finds the files that an earlier release shares, by reading both manifests side by side.

use std::iter::Peekable;

use crate::restore::{ChunkSource, Error, Items};
use format::manifest::{EntryPath, Item, Root};
use format::recipe::{ChunkRef, ContentHasher, Recipe};
use ground::ids::ContentId;
use ground::monitor::Monitor;

use super::Previous;

/// 64 Mi files, 8 MiB of memory; files after these are simply rebuilt.
const FILES_MAX: usize = 64 * 1024 * 1024;

/// One bit for each file of the new release, in its order: whether the earlier one has it with an equal recipe.
#[derive(Debug, Default)]
pub(super) struct SameFiles {
    bits: Vec<u64>,
    files: usize,
    bytes: u64,
}

impl SameFiles {
    /// Compares `root` with `previous`. Time and reads: both manifests once.
    ///
    /// # Errors
    /// The new manifest is damaged. Damage in the earlier one is noted in `monitor`, and its rest is not used.
    pub(super) fn find(
        root: &Root,
        previous: &Previous<'_>,
        source: &dyn ChunkSource,
        monitor: &dyn Monitor,
    ) -> Result<Self, Error> {
        let (mut new_reader, mut old_reader) = (source.reader(), source.reader());
        let mut old = Earlier { items: Items::new(previous.root, &mut *old_reader).peekable(), failed: None };
        let mut found = Self::default();
        let (mut open, mut open_bytes) = (None, 0);
        for item in Items::new(root, &mut *new_reader) {
            match item? {
                Item::Chunk(chunk) => {
                    if let Some(open) = &mut open {
                        Open::chunk(open, &chunk, &mut old);
                    }
                }
                Item::File { path, size, recipe, .. } => {
                    found.push(open.take().as_ref(), open_bytes);
                    (open, open_bytes) = (Some(old.has_file(&path, size, recipe)), size);
                }
                // Its chunks all came.
                Item::Linked => {}
                _ => found.push(open.take().as_ref(), open_bytes),
            }
        }
        found.push(open.as_ref(), open_bytes);
        if let Some(error) = old.failed {
            monitor.note(&format!("the rest of the earlier copy is not used: {error}"));
        }
        Ok(found)
    }

    /// Returns whether the new release's file number `index` is in the earlier one.
    pub(super) fn has(&self, index: u64) -> bool {
        let Ok(index) = usize::try_from(index) else { return false };
        self.bits.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Bytes of all such files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn push(&mut self, file: Option<&Open>, bytes: u64) {
        let Some(same) = file.map(Open::is_same) else { return };
        if self.files == FILES_MAX {
            return;
        }
        self.bytes = self.bytes.saturating_add(if same { bytes } else { 0 });
        if self.files.is_multiple_of(64) {
            self.bits.push(0);
        }
        if let Some(word) = self.bits.last_mut() {
            *word |= u64::from(same) << (self.files % 64);
        }
        self.files += 1;
    }
}

/// The new release's file whose chunks come.
enum Open {
    /// Whether the earlier one has them so far. Sizes are equal, so equal chunks to the end of one file are all chunks of the
    /// other.
    Chunks(bool),
    /// The earlier one has an archive that is stored otherwise, with this content; and the new one's, as far as it came.
    Packed(ContentId, Box<ContentHasher>),
    /// It is known whether they are the same.
    Settled(bool),
}

impl Open {
    fn chunk(&mut self, chunk: &ChunkRef, old: &mut Earlier<'_>) {
        match self {
            Self::Chunks(same) => *same = *same && old.has_chunk(chunk),
            Self::Packed(_, content) => content.push(chunk),
            Self::Settled(_) => {}
        }
    }

    fn is_same(&self) -> bool {
        match self {
            Self::Chunks(same) | Self::Settled(same) => *same,
            Self::Packed(old, content) => content.finish() == *old,
        }
    }
}

/// The earlier release's items, never read further than asked for.
struct Earlier<'a> {
    items: Peekable<Items<'a>>,
    failed: Option<Error>,
}

impl Earlier<'_> {
    /// Advances to `path`, and compares a file of this size there with one that is made by `recipe`.
    fn has_file(&mut self, path: &EntryPath, size: u64, recipe: Recipe) -> Open {
        let named = |recipe: Recipe| recipe.container().and_then(|container| container.content);
        let Some(old) = self.recipe(path, size) else { return Open::Settled(false) };
        if old == recipe {
            return Open::Chunks(true);
        }
        // Archives may be stored otherwise, and be the same.
        match (old, recipe) {
            (_, Recipe::Packed) => {
                named(old).map_or(Open::Settled(false), |old| Open::Packed(old, Box::default()))
            }
            (Recipe::Packed, _) => Open::Settled(named(recipe) == Some(self.content())),
            _ => Open::Settled(named(old).is_some() && named(old) == named(recipe)),
        }
    }

    /// Advances to `path`; returns how a file of this size there is made.
    fn recipe(&mut self, path: &EntryPath, size: u64) -> Option<Recipe> {
        loop {
            let there = match self.items.peek() {
                None => return None,
                Some(Err(_)) => {
                    self.failed = self.items.next().and_then(Result::err);
                    return None;
                }
                Some(Ok(Item::File { path, size, recipe, .. })) => Some((path, Some((*size, *recipe)))),
                Some(Ok(item)) => item.path().map(|path| (path, None)),
            };
            match there {
                Some((at, _)) if at > path => return None,
                Some((at, file)) if at == path => {
                    let recipe = file.filter(|(old, _)| *old == size).map(|(_, recipe)| recipe);
                    self.items.next();
                    return recipe;
                }
                _ => drop(self.items.next()),
            }
        }
    }

    /// Names the content of the packed archive whose chunks come.
    fn content(&mut self) -> ContentId {
        let mut content = ContentHasher::default();
        while let Some(Ok(Item::Chunk(chunk))) = self.items.peek() {
            content.push(chunk);
            self.items.next();
        }
        content.finish()
    }

    fn has_chunk(&mut self, chunk: &ChunkRef) -> bool {
        let same = matches!(self.items.peek(), Some(Ok(Item::Chunk(old))) if old == chunk);
        if same {
            self.items.next();
        }
        same
    }
}
