//! Finds the files that an earlier release shares, by reading both manifests side by side.

use std::iter::Peekable;

use crate::restore::{ChunkSource, Error, Items};
use format::manifest::{EntryPath, Item, Root};
use format::recipe::{ChunkRef, Container, ContentHasher, Recipe};
use ground::ids::ContentId;
use ground::monitor::Monitor;

/// 64 Mi files, 8 MiB of memory; files after these are simply rebuilt.
const FILES_MAX: usize = 64 * 1024 * 1024;

/// One bit for each file of the new release, in its order: whether the earlier one has it with the same bytes.
#[derive(Debug, Default)]
pub(super) struct SameFiles {
    bits: Vec<u64>,
    files: usize,
}

impl SameFiles {
    /// Compares `root` with `previous`. Time and reads: both manifests once.
    ///
    /// # Errors
    /// The new manifest is damaged. Damage in the earlier one is noted in `monitor`, and its rest is not used.
    pub(super) fn find(
        root: &Root,
        previous: &Root,
        source: &dyn ChunkSource,
        monitor: &dyn Monitor,
    ) -> Result<Self, Error> {
        let (mut new_reader, mut old_reader) = (source.reader(), source.reader());
        let mut old = Earlier { items: Items::new(previous, &mut *old_reader).peekable(), failed: None };
        let mut found = Self::default();
        let mut open = None;
        for item in Items::new(root, &mut *new_reader) {
            match item? {
                Item::Chunk(chunk) => {
                    if let Some(open) = &mut open {
                        Open::chunk(open, &chunk, &mut old);
                    }
                }
                Item::File { path, size, recipe, .. } => {
                    found.push(open.take().as_ref());
                    open = Some(old.has_file(&path, size, recipe));
                }
                // Its chunks all came.
                Item::Linked => {}
                _ => found.push(open.take().as_ref()),
            }
        }
        found.push(open.as_ref());
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

    fn push(&mut self, file: Option<&Open>) {
        let Some(same) = file.map(Open::is_same) else { return };
        if self.files == FILES_MAX {
            return;
        }
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
        let Some(old) = self.recipe(path, size) else { return Open::Settled(false) };
        // Archives may be stored otherwise, and be the same.
        match (old.container(), recipe.container()) {
            (None, None) => Open::Chunks(true),
            (Some(old), Some(new)) => Open::Settled(old.artifact == new.artifact),
            (Some(Container { content: Some(old), .. }), None) => Open::Packed(old, Box::default()),
            (None, Some(Container { content: Some(new), .. })) => Open::Settled(self.content() == new),
            // An earlier version did not name the content.
            (Some(_), None) | (None, Some(_)) => Open::Settled(false),
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

    /// Names the content of the file whose chunks come.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::MemorySource;
    use format::manifest::Shape;
    use ground::ids::{ArtifactId, ChunkId};
    use ground::monitor::Silent;

    /// An archive of two chunks, the second by number, and a file after it.
    fn release(source: &mut MemorySource, form: usize, second: u32) -> Root {
        let chunk = |number: u32| ChunkRef { id: ChunkId::of(&number.to_le_bytes()), bytes: 1000 };
        let (packed, stream) = ([chunk(1), chunk(second)], chunk(100 + second));
        let container = |content| {
            let artifact = ArtifactId::of(&second.to_le_bytes());
            Recipe::Container(Container { stream_bytes: 1000, artifact, content })
        };
        let content = ContentHasher::of(&packed);
        let recipe = [Recipe::Chunks, Recipe::Packed, container(Some(content)), container(None)][form];
        let chunks = if form < 2 { packed.to_vec() } else { vec![stream] };
        let path = |name: &[u8]| EntryPath::new(name).expect("a path");
        let file = |name, size, recipe| Item::File { path: path(name), mode: 0o644, size, recipe };
        let mut items = vec![file(b"a", 2000, recipe)];
        items.extend(chunks.into_iter().map(Item::Chunk));
        items.extend([file(b"b", 1000, Recipe::Chunks), Item::Chunk(chunk(9))]);
        source.manifest(Shape::Tree, &items)
    }

    #[test]
    fn an_equal_archive_is_found_however_both_are_stored() {
        for (old, new) in (0..4).flat_map(|old| (0..4).map(move |new| (old, new))) {
            for second in [7, 8] {
                let mut source = MemorySource::default();
                let (before, after) = (release(&mut source, old, 7), release(&mut source, new, second));
                let same = SameFiles::find(&after, &before, &source, &Silent).expect("compared");
                // An earlier version did not name the content of what it unpacked.
                let is_known = (old < 3 || new >= 2) && (new < 3 || old >= 2);
                assert_eq!((same.has(0), same.has(1)), (second == 7 && is_known, true), "{old} and {new}");
            }
        }
    }
}
