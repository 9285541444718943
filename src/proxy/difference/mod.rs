//! Compares two releases file by file.

mod unseen;

use std::collections::VecDeque;

use crate::restore::{ChunkSource, Error, Items};
use format::manifest::{EntryPath, Item, Root};
use format::recipe::{ChunkRef, Container, ContentHasher, Recipe};
use ground::ids::ContentId;
use protocol::wire::{Change, ChangeKind};

use self::unseen::Pending;

/// Chunks of changed files to look for at a time: 24 MiB.
const CHUNKS_MAX: usize = 1024 * 1024;
/// Chunks of an archive that are read ahead: 512 Ki, as many as 2 GiB have at 4 KiB each, and 18 MiB. One of more that is stored
/// otherwise counts as changed.
const ARCHIVE_CHUNKS_MAX: usize = 512 * 1024;

/// Hands each path that differs between the releases to `take`, in order, until it returns false.
///
/// Reads both releases from `source`, segment by segment. Memory: 50 MiB at most, whatever they hold. Time: O(entries
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
                let (earlier, later) = (Form::of(earlier), Form::of(later));
                match earlier.compare(&later, &mut olds, &mut news)? {
                    Compared::Same => {
                        olds.skip()?;
                        news.skip()?;
                        true
                    }
                    other => both(&mut olds, &mut news, &mut pending, row, other == Compared::Other)?,
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

/// How an entry is compared with another: equal archives may be stored in several ways.
#[derive(Debug, PartialEq)]
struct Form {
    /// The entry, of a file without its recipe.
    entry: Item,
    /// The recipe of an unpacked archive. The chunks of other files are their content.
    container: Option<Container>,
}

/// What entries say of each other before their chunks are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    Same,
    Other,
    /// They are the same if their chunks are.
    ByChunks,
}

impl Form {
    fn of(entry: &Item) -> Self {
        match entry.clone() {
            Item::File { path, mode, size, recipe } => Self {
                entry: Item::File { path, mode, size, recipe: Recipe::Chunks },
                container: recipe.container(),
            },
            entry => Self { entry, container: None },
        }
    }

    /// Compares the present entries of both releases.
    fn compare(
        &self,
        later: &Self,
        olds: &mut Entries<'_>,
        news: &mut Entries<'_>,
    ) -> Result<Compared, Error> {
        let known = |same| if same { Compared::Same } else { Compared::Other };
        if self.entry != later.entry {
            return Ok(Compared::Other);
        }
        Ok(match (self.container, later.container) {
            (None, None) => Compared::ByChunks,
            (Some(old), Some(new)) => known(old.artifact == new.artifact),
            (Some(old), None) => known(old.content.is_some() && old.content == news.content()?),
            (None, Some(new)) => known(new.content.is_some() && new.content == olds.content()?),
        })
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

    /// Names the content of the present entry, whose chunks it is and come all the same. None beyond [`ARCHIVE_CHUNKS_MAX`].
    fn content(&mut self) -> Result<Option<ContentId>, Error> {
        let mut ahead = VecDeque::new();
        while ahead.len() <= ARCHIVE_CHUNKS_MAX
            && let Some(chunk) = self.chunk()?
        {
            ahead.push_back(chunk);
        }
        let content = (ahead.len() <= ARCHIVE_CHUNKS_MAX).then(|| ContentHasher::of(&ahead));
        self.ahead = ahead;
        Ok(content)
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
    use ground::ids::{ArtifactId, ChunkId};

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

    /// Makes the recipe of an archive of the one that it has unpacked.
    type Stored = fn(Container) -> Recipe;

    /// A release of one archive `a`, in some form: its content in chunks, the chunks of its stream where it is unpacked, and whether
    /// the manifest names its content.
    fn archive(
        source: &mut MemorySource,
        recipe: Stored,
        names: bool,
        (content, stream): (&[u32], u32),
    ) -> Root {
        let path = EntryPath::new(b"a".to_vec()).expect("a path");
        let packed: Vec<ChunkRef> = content.iter().map(|number| chunk(*number)).collect();
        let size = packed.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        let stream = chunk(stream);
        let artifact = content.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let recipe = recipe(Container {
            stream_bytes: stream.bytes.into(),
            artifact: ArtifactId::of(&artifact),
            content: names.then(|| ContentHasher::of(&packed)),
        });
        let chunks = if recipe.container().is_some() { vec![stream] } else { packed };
        let mut items = vec![Item::File { path, mode: 0o644, size, recipe }];
        items.extend(chunks.into_iter().map(Item::Chunk));
        source.manifest(Shape::Tree, &items)
    }

    #[test]
    fn archives_are_the_same_or_not_however_they_are_stored() {
        let forms: [(Stored, bool); 4] = [
            (|_| Recipe::Chunks, true),
            (|_| Recipe::Packed, true),
            (Recipe::Container, true),
            // Of an earlier version.
            (Recipe::Container, false),
        ];
        // Two encoders may leave other streams of the same archive; chunks 7 and 14 are of one size.
        let contents: [(&[u32], u32); 3] = [(&[1, 7], 100), (&[1, 7], 200), (&[1, 14], 100)];
        for (one, other) in (0..12).flat_map(|one| (0..12).map(move |other| (one, other))) {
            let mut source = MemorySource::default();
            let mut make =
                |at: usize| archive(&mut source, forms[at / 3].0, forms[at / 3].1, contents[at % 3]);
            let (before, after) = (make(one), make(other));
            let mut rows = 0;
            let mut take = |_| {
                rows += 1;
                true
            };
            compare(&before, &after, &source, &mut take).expect("compared");
            let is_unnamed = |at: usize| at >= 9;
            // Without its content's name, an unpacked archive is compared with unpacked ones alone.
            let is_known = !(is_unnamed(one) && other < 6 || is_unnamed(other) && one < 6);
            let is_same = contents[one % 3].0 == contents[other % 3].0 && is_known;
            assert_eq!(rows == 0, is_same, "{one} and {other}");
        }
    }

    #[test]
    fn an_archive_of_too_many_chunks_is_compared_in_bounded_memory() {
        let mut source = MemorySource::default();
        let many = vec![1; ARCHIVE_CHUNKS_MAX + 2];
        let packed = archive(&mut source, |_| Recipe::Packed, true, (&many, 100));
        let unpacked = archive(&mut source, Recipe::Container, true, (&many, 100));
        for (before, after, changed) in
            [(&packed, &unpacked, 1), (&unpacked, &packed, 1), (&packed, &packed, 0)]
        {
            let mut rows = 0;
            let mut take = |_| {
                rows += 1;
                true
            };
            compare(before, after, &source, &mut take).expect("compared");
            assert_eq!(rows, changed);
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
