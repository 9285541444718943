//! Compares two releases file by file.

mod unseen;

use std::collections::VecDeque;

use crate::restore::{ChunkSource, Error, Items};
use format::manifest::{EntryPath, Item, Root};
use format::recipe::{ChunkRef, ContentHasher, Recipe};
use ground::ids::ContentId;
use protocol::wire::{Change, ChangeKind};

use self::unseen::Pending;

/// Chunks of changed files to look for at a time: 24 MiB.
const CHUNKS_MAX: usize = 1024 * 1024;

/// Hands each path that differs between the releases to `take`, in order, until it returns false.
///
/// Reads both releases from `source`, segment by segment. Memory: 32 MiB at most, whatever they hold. Time: O(entries
/// and chunk references of both), and the earlier release is read again for each million of distinct chunks in changed
/// files. A chunk that one file repeats more than a million chunks later counts as unseen again.
///
/// # Errors
/// A release cannot be read.
pub fn compare(
    before: &Root,
    after: &Root,
    source: &dyn ChunkSource,
    take: &mut dyn FnMut(Change) -> bool,
) -> Result<(), Error> {
    compare_by(CHUNKS_MAX, before, after, source, take)
}

/// Compares, looking for `chunks_max` chunks at a time.
fn compare_by(
    chunks_max: usize,
    before: &Root,
    after: &Root,
    source: &dyn ChunkSource,
    take: &mut dyn FnMut(Change) -> bool,
) -> Result<(), Error> {
    let (mut before_reader, mut after_reader) = (source.reader(), source.reader());
    let mut olds = Entries::begin(Items::new(before, before_reader.as_mut()))?;
    let mut news = Entries::begin(Items::new(after, after_reader.as_mut()))?;
    let mut pending = Pending::new(chunks_max, before, source, take);
    loop {
        let goes_on = match (&olds.entry, &news.entry) {
            (None, None) => break,
            (Some(gone), other) if other.as_ref().is_none_or(|other| path(gone) < path(other)) => {
                let goes_on = pending.row(change(ChangeKind::Removed, gone))?;
                olds.skip()?;
                goes_on
            }
            (other, Some(added)) if other.as_ref().is_none_or(|other| path(added) < path(other)) => {
                let goes_on = pending.row(change(ChangeKind::Added, added))?;
                while let Some(chunk) = news.chunk()? {
                    pending.chunk(&chunk)?;
                }
                news.skip()?;
                goes_on
            }
            (Some(earlier), Some(later)) => {
                let row = change(ChangeKind::Changed, later);
                // Archives may be stored otherwise, and be the same.
                let are_archives = is_archive(earlier) && is_archive(later);
                let differs =
                    if are_archives { as_packed(earlier) != as_packed(later) } else { earlier != later };
                if are_archives && !differs && olds.content()? == news.content()? {
                    olds.skip()?;
                    news.skip()?;
                    true
                } else {
                    both(&mut olds, &mut news, &mut pending, row, differs)?
                }
            }
            (Some(_), None) | (None, Some(_)) => unreachable!("the guards above take these"),
        };
        if !goes_on {
            return Ok(());
        }
    }
    pending.flush().map(drop)
}

/// Compares the chunks of a path that both releases have, side by side.
fn both(
    olds: &mut Entries<'_>,
    news: &mut Entries<'_>,
    pending: &mut Pending<'_>,
    row: Change,
    differs: bool,
) -> Result<bool, Error> {
    let mut row = Some(row);
    let mut goes_on = true;
    if differs && let Some(row) = row.take() {
        goes_on = pending.row(row)?;
    }
    // While the chunks are the same, the earlier release has them.
    loop {
        let (old, new) = (olds.chunk()?, news.chunk()?);
        if old != new
            && let Some(row) = row.take()
        {
            goes_on = pending.row(row)?;
        }
        match new {
            Some(chunk) if row.is_none() && old != new => pending.chunk(&chunk)?,
            None if old.is_none() => break,
            _ => {}
        }
    }
    olds.skip()?;
    news.skip()?;
    Ok(goes_on)
}

fn change(kind: ChangeKind, entry: &Item) -> Change {
    let bytes = if let Item::File { size, .. } = entry { *size } else { 0 };
    Change { kind, path: path(entry).as_bytes().to_vec(), bytes, unseen_bytes: 0 }
}

fn is_archive(entry: &Item) -> bool {
    matches!(entry, Item::File { recipe: Recipe::Packed | Recipe::Container(_), .. })
}

/// Returns the entry of an archive as it would be if it were stored as it is.
fn as_packed(entry: &Item) -> Item {
    match entry.clone() {
        Item::File { path, mode, size, .. } => Item::File { path, mode, size, recipe: Recipe::Packed },
        other => other,
    }
}

fn path(entry: &Item) -> &EntryPath {
    entry.path().expect("an entry has a path")
}

/// Walks a release: one entry at a time, and its chunks one at a time.
struct Entries<'a> {
    items: Items<'a>,
    /// The present entry.
    entry: Option<Item>,
    /// Its chunks that were read ahead.
    ahead: VecDeque<ChunkRef>,
    /// The item after its last chunk.
    next: Option<Item>,
}

impl<'a> Entries<'a> {
    fn begin(items: Items<'a>) -> Result<Self, Error> {
        let mut entries = Self { items, entry: None, ahead: VecDeque::new(), next: None };
        entries.skip()?;
        Ok(entries)
    }

    /// Returns the next chunk of the entry; none at its end.
    fn chunk(&mut self) -> Result<Option<ChunkRef>, Error> {
        if let Some(chunk) = self.ahead.pop_front() {
            return Ok(Some(chunk));
        }
        if self.next.is_some() {
            return Ok(None);
        }
        // Further names of a file do not change it: each is an entry of its own.
        let next = self.items.find(|item| !matches!(item, Ok(Item::Linked))).transpose()?;
        match next {
            Some(Item::Chunk(chunk)) => Ok(Some(chunk)),
            other => {
                self.next = other;
                Ok(None)
            }
        }
    }

    /// Names the content of the present entry, an archive; its chunks come all the same. None where an earlier version pushed it.
    fn content(&mut self) -> Result<Option<ContentId>, Error> {
        let Some(Item::File { recipe, .. }) = &self.entry else { return Ok(None) };
        if let Some(container) = recipe.container() {
            return Ok(container.content);
        }
        let mut ahead = VecDeque::new();
        while let Some(chunk) = self.chunk()? {
            ahead.push_back(chunk);
        }
        let content = ContentHasher::of(&ahead);
        self.ahead = ahead;
        Ok(Some(content))
    }

    /// Advances to the next entry.
    fn skip(&mut self) -> Result<(), Error> {
        while self.chunk()?.is_some() {}
        self.entry = self.next.take();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::restore::MemorySource;
    use format::manifest::Shape;
    use ground::ids::ChunkId;

    /// Files by name, each of chunks by number.
    type Files = Vec<(String, Vec<u32>)>;

    fn chunk(number: u32) -> ChunkRef {
        ChunkRef { id: ChunkId::of(&number.to_le_bytes()), bytes: 1000 + number % 7 }
    }

    fn release(source: &mut MemorySource, files: &Files) -> Root {
        let mut items = Vec::new();
        for (name, chunks) in files {
            let path = EntryPath::new(name.as_bytes()).expect("a path");
            let size = chunks.iter().map(|number| u64::from(chunk(*number).bytes)).sum();
            items.push(Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks });
            items.extend(chunks.iter().map(|number| Item::Chunk(chunk(*number))));
        }
        source.manifest(Shape::Tree, &items)
    }

    fn found(chunks_max: usize, before: &Files, after: &Files) -> Vec<(ChangeKind, String, u64)> {
        let mut source = MemorySource::default();
        let (before, after) = (release(&mut source, before), release(&mut source, after));
        let mut rows = Vec::new();
        let mut take = |row: Change| {
            rows.push((row.kind, String::from_utf8(row.path).expect("a name"), row.unseen_bytes));
            true
        };
        compare_by(chunks_max, &before, &after, &source, &mut take).expect("compared");
        rows
    }

    /// The same by what it means.
    fn expected(before: &Files, after: &Files) -> Vec<(ChangeKind, String, u64)> {
        let had: HashSet<u32> = before.iter().flat_map(|(_, chunks)| chunks).copied().collect();
        let unseen = |chunks: &[u32]| {
            let unseen: HashSet<u32> =
                chunks.iter().copied().filter(|number| !had.contains(number)).collect();
            unseen.into_iter().map(|number| u64::from(chunk(number).bytes)).sum()
        };
        let mut rows = Vec::new();
        for (name, chunks) in after {
            match before.iter().find(|(other, _)| other == name) {
                None => rows.push((ChangeKind::Added, name.clone(), unseen(chunks))),
                Some((_, old)) if old != chunks => {
                    rows.push((ChangeKind::Changed, name.clone(), unseen(chunks)));
                }
                Some(_) => {}
            }
        }
        for (name, _) in before.iter().filter(|(name, _)| after.iter().all(|(other, _)| other != name)) {
            rows.push((ChangeKind::Removed, name.clone(), 0));
        }
        rows.sort_by(|one, other| one.1.cmp(&other.1));
        rows
    }

    /// Some files of a few chunks each, by a plain generator.
    fn random(state: &mut u64) -> Files {
        let mut draw = |below: u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (*state >> 33) % below
        };
        let mut files = Files::new();
        for name in 0..20 {
            if draw(3) > 0 {
                let first = u32::try_from(draw(40)).expect("small");
                let chunks = (first..first + u32::try_from(draw(6)).expect("small")).collect();
                files.push((format!("f{name:02}"), chunks));
            }
        }
        files
    }

    #[test]
    fn changes_are_found_whatever_is_looked_for_at_a_time() {
        let mut state = 7;
        for round in 0..50 {
            let (before, after) = (random(&mut state), random(&mut state));
            for chunks_max in [2, 3, 10, 1000] {
                assert_eq!(
                    found(chunks_max, &before, &after),
                    expected(&before, &after),
                    "round {round}, {chunks_max} at a time"
                );
            }
        }
    }

    #[test]
    fn a_chunk_that_a_file_names_again_counts_once() {
        let before = vec![("a".to_owned(), vec![1, 2]), ("b".to_owned(), vec![3])];
        let after = vec![("a".to_owned(), vec![1, 9, 9, 2, 9, 3]), ("b".to_owned(), vec![9; 5000])];
        assert_eq!(found(1000, &before, &after), expected(&before, &after));
        // Of thousands of equal chunks, only a few are remembered.
        assert_eq!(found(4, &before, &vec![("a".to_owned(), vec![1, 2]), after[1].clone()]).len(), 1);
    }
}
