//! Compares two releases file by file.

use std::collections::HashSet;
use std::iter::Peekable;

use crate::manifest::{EntryPath, Item, Root};
use crate::reassembly::{ChunkSource, Error, Items, walk};
use crate::recipe::ChunkRef;
use crate::wire::{Change, ChangeKind};

/// An entry with what tells it from another of the same path.
struct Entry {
    path: EntryPath,
    /// The item itself, without its chunks.
    item: Item,
    chunks: Vec<ChunkRef>,
}

impl Entry {
    fn bytes(&self) -> u64 {
        if let Item::File { size, .. } = &self.item { *size } else { 0 }
    }
}

/// Hands each path that differs between the releases to `take`, in order, until it returns false.
///
/// Both releases are read from `source`. Memory: 16 B for each chunk of the earlier release, and the
/// chunk references of one file of each.
///
/// # Errors
/// A release cannot be read.
pub fn compare(
    before: &Root,
    after: &Root,
    source: &dyn ChunkSource,
    take: &mut dyn FnMut(Change) -> bool,
) -> Result<(), Error> {
    let mut had = HashSet::new();
    walk::<Error>(before, source.reader().as_mut(), &mut |item| {
        if let Item::Chunk(chunk) = item {
            had.insert(chunk.id.prefix());
        }
        Ok(())
    })?;
    let (mut before_reader, mut after_reader) = (source.reader(), source.reader());
    let mut olds = Entries(Items::new(before, before_reader.as_mut()).peekable());
    let mut news = Entries(Items::new(after, after_reader.as_mut()).peekable());
    let (mut old, mut new) = (olds.next()?, news.next()?);
    let unseen = |entry: &Entry| {
        let mut counted = HashSet::new();
        let unseen =
            entry.chunks.iter().filter(|chunk| !had.contains(&chunk.id.prefix()) && counted.insert(chunk.id));
        unseen.map(|chunk| u64::from(chunk.bytes)).sum()
    };
    let change = |kind, entry: &Entry, unseen_bytes| Change {
        kind,
        path: entry.path.as_bytes().to_vec(),
        bytes: entry.bytes(),
        unseen_bytes,
    };
    loop {
        let found = match (&old, &new) {
            (None, None) => return Ok(()),
            (Some(gone), other) if other.as_ref().is_none_or(|other| gone.path < other.path) => {
                let found = change(ChangeKind::Removed, gone, 0);
                old = olds.next()?;
                Some(found)
            }
            (other, Some(added)) if other.as_ref().is_none_or(|other| added.path < other.path) => {
                let found = change(ChangeKind::Added, added, unseen(added));
                new = news.next()?;
                Some(found)
            }
            (Some(earlier), Some(later)) => {
                let same = earlier.item == later.item && earlier.chunks == later.chunks;
                let found = (!same).then(|| change(ChangeKind::Changed, later, unseen(later)));
                (old, new) = (olds.next()?, news.next()?);
                found
            }
            (Some(_), None) | (None, Some(_)) => unreachable!("the guards above take these"),
        };
        if found.is_some_and(|found| !take(found)) {
            return Ok(());
        }
    }
}

/// Gathers each entry with its chunks.
struct Entries<'a>(Peekable<Items<'a>>);

impl Entries<'_> {
    fn next(&mut self) -> Result<Option<Entry>, Error> {
        let Some(item) = self.0.next().transpose()? else { return Ok(None) };
        let path = item.path().cloned();
        let path = path.expect("the reader gives what belongs to an entry after the entry alone");
        let mut chunks = Vec::new();
        while let Some(Ok(Item::Chunk(chunk))) = self.0.peek() {
            chunks.push(*chunk);
            self.0.next();
        }
        // A further name is a change of its own.
        self.0.next_if(|next| matches!(next, Ok(Item::Linked)));
        Ok(Some(Entry { path, item, chunks }))
    }
}
