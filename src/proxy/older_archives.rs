//! Finds, among the archives of an earlier release, the one that has most of a new one, with its packed bytes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;

use crate::agent::memory::{KnownMember, StreamMemory, UnpackedStream};
use crate::restore::{Archive, ChunkSource as _, Error, Items, Older, PackedBytes, known_streams};
use crate::store::{Store, StoreReader};
use format::manifest::{EntryPath, Item, Root};
use format::recipe::{ChunkRef, Container, ContentHasher, Recipe};
use ground::ids::{AppName, ReleaseId, ShortId};
use recode::archive::{KnownStream, KnownStreams, StreamName};

/// 512 Ki chunk references, of all archives of a release: 35 MB. Archives beyond them are not found.
const CHUNKS_MAX: usize = 512 * 1024;
/// Releases of an application among which one is looked for.
const RECENT_MAX: usize = 4;
/// 256 KiB: bytes that are hashed at once.
const HASH_BYTES: usize = 256 * 1024;
/// An eighth: an older archive of which another has less is not worth reading.
const COMMON_RATIO_MIN: u64 = 8;

/// The unpacked archives of a release.
#[derive(Default)]
pub(super) struct OlderArchives {
    /// What decides what each is rebuilt to.
    fingerprints: HashSet<blake3::Hash>,
    archives: Vec<OlderArchive>,
    /// The archive that has a chunk.
    having: HashMap<ShortId, usize>,
    chunks: usize,
}

/// An archive of an earlier release.
struct OlderArchive {
    path: EntryPath,
    size: u64,
    container: Container,
    /// The chunks of its stream.
    chunks: Vec<ChunkRef>,
    /// Those of its packed bytes, where the store has them.
    packed: Vec<ChunkRef>,
}

/// An archive whose packed bytes are at hand, and are right.
pub(super) struct Found<'a> {
    archive: &'a OlderArchive,
    /// The packed bytes, where they are no chunks of the store.
    file: Option<File>,
}

impl OlderArchives {
    /// Reads the manifests of a release, each as far as it can be read.
    ///
    /// Memory: 32 B for each archive; 70 B for each chunk, within a bound; one archive's chunks.
    pub(super) fn of(store: &Store, release: &ReleaseId) -> Self {
        let roots = store.records().roots(release).unwrap_or_default();
        let roots: Vec<Root> = roots.iter().filter_map(|root| store.root_at(root).ok()).collect();
        let (mut found, mut reader) = (Self::default(), StoreReader::new(store));
        for root in &roots {
            let each = &mut |path, size, recipe: Recipe, chunks| {
                if let Some(container) = recipe.container() {
                    found.add((path, size, container, chunks));
                }
            };
            if let Err(error) = each_stored(root, &mut reader, each) {
                tracing::debug!(%error, "a manifest of the release before cannot be read");
            }
        }
        let places: HashMap<EntryPath, usize> =
            found.archives.iter().enumerate().map(|(place, archive)| (archive.path.clone(), place)).collect();
        for root in roots.iter().filter(|_| !places.is_empty()) {
            let each = &mut |path, _, recipe, chunks: Vec<ChunkRef>| {
                if recipe == Recipe::Packed
                    && let Some(place) = places.get(&path)
                    && found.chunks + chunks.len() <= CHUNKS_MAX
                    && found.archives[*place].container.content == Some(ContentHasher::of(&chunks))
                {
                    found.chunks += chunks.len();
                    found.archives[*place].packed = chunks;
                }
            };
            // As far as it can be read.
            drop(each_stored(root, &mut reader, each));
        }
        found
    }

    /// Reads the newest release of an application beside `release` that has unpacked archives, among the latest.
    pub(super) fn before(store: &Store, app: &AppName, release: &ReleaseId) -> Self {
        let recent = store.records().recent(app, RECENT_MAX).into_iter().filter(|recent| recent != release);
        let found = recent.map(|recent| Self::of(store, &recent)).find(|found| !found.archives.is_empty());
        found.unwrap_or_default()
    }

    fn add(&mut self, (path, size, container, chunks): (EntryPath, u64, Container, Vec<ChunkRef>)) {
        let archive = OlderArchive { path, size, container, chunks, packed: Vec::new() };
        self.fingerprints.insert(fingerprint(archive.unpacked()));
        let sum = self.chunks + archive.chunks.len();
        if sum <= CHUNKS_MAX {
            self.chunks = sum;
            let place = self.archives.len();
            self.having.extend(archive.chunks.iter().map(|chunk| (chunk.id.into(), place)));
            self.archives.push(archive);
        }
    }

    /// Notes an archive; returns whether the release, or who noted it before, has it with the same chunks.
    pub(super) fn has(&mut self, archive: Archive<'_>) -> bool {
        !self.fingerprints.insert(fingerprint(archive))
    }

    /// Returns the archive that has most chunks of another, in bytes, if its packed bytes are at hand; none where they are less than an
    /// eighth of it. Hashes the packed bytes, unless they are chunks; `go_on` ends that by false.
    pub(super) fn most_like(
        &self,
        archive: Archive<'_>,
        store: &Store,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<Found<'_>> {
        let mut common: HashMap<usize, u64> = HashMap::new();
        for chunk in archive.chunks {
            if let Some(place) = self.having.get(&chunk.id.into()) {
                *common.entry(*place).or_default() += u64::from(chunk.bytes);
            }
        }
        let (place, bytes) = common.into_iter().max_by_key(|(place, bytes)| (*bytes, *place))?;
        let older = &self.archives[place];
        if bytes < older.container.stream_bytes / COMMON_RATIO_MIN {
            return None;
        }
        older.at_hand(store, go_on)
    }

    /// Returns what is known of the streams of the archive whose path is most like this one: the same, or that of another version.
    /// `go_on` ends reading it by false.
    pub(super) fn known_streams(
        &self,
        path: &EntryPath,
        store: &Store,
        go_on: &mut dyn FnMut() -> bool,
    ) -> StoredStreams {
        let alike = |other: &EntryPath| {
            let (one, other) = (path.as_bytes(), other.as_bytes());
            let same = |(one, other): &(&u8, &u8)| one == other;
            let begin = one.iter().zip(other).take_while(same).count();
            begin + one.iter().rev().zip(other.iter().rev()).take_while(same).count()
        };
        let nearest = self.archives.iter().max_by_key(|archive| alike(&archive.path));
        let found = nearest.and_then(|archive| archive.at_hand(store, go_on));
        let streams = found.map(|found| known_streams(found.older(), &mut StoreReader::new(store), go_on));
        StoredStreams(streams.unwrap_or_default())
    }
}

impl OlderArchive {
    fn unpacked(&self) -> Archive<'_> {
        Archive { path: &self.path, size: self.size, container: self.container, chunks: &self.chunks }
    }

    /// Finds its packed bytes; none where `go_on` returns false.
    fn at_hand(&self, store: &Store, go_on: &mut dyn FnMut() -> bool) -> Option<Found<'_>> {
        let archive = self;
        if !archive.packed.is_empty() {
            return Some(Found { archive, file: None });
        }
        let (artifact, size) = (&archive.container.artifact, archive.size);
        let file = store.rebuilt()?.get(artifact, size)?;
        let (mut hasher, mut buffer, mut left) =
            (blake3::Hasher::new(), vec![0; HASH_BYTES], (&file).take(size));
        while let Ok(bytes @ 1..) = left.read(&mut buffer) {
            if !go_on() {
                return None;
            }
            hasher.update(&buffer[..bytes]);
        }
        let is_right = hasher.finalize().as_bytes() == artifact.as_bytes();
        is_right.then_some(Found { archive, file: Some(file) })
    }
}

impl Found<'_> {
    /// Returns it for who rebuilds another archive.
    pub(super) fn older(&self) -> Older<'_> {
        let packed = match &self.file {
            Some(file) => PackedBytes::File(file),
            None => PackedBytes::Chunks(&self.archive.packed),
        };
        Older { archive: self.archive.unpacked(), packed }
    }
}

/// How streams of an older archive were made.
#[derive(Debug)]
pub(super) struct StoredStreams(HashMap<StreamName, KnownStream>);

impl KnownStreams for StoredStreams {
    fn find(&self, name: &StreamName) -> Option<KnownStream> {
        self.0.find(name)
    }
}

impl StreamMemory for StoredStreams {
    /// Content is read and cut: the store may lack some of it.
    fn member(&self, _: &StreamName) -> Option<KnownMember> {
        None
    }

    fn remember(&self, _: Vec<UnpackedStream>) {}
}

/// Hashes the inputs that decide what an archive is rebuilt to.
fn fingerprint(archive: Archive<'_>) -> blake3::Hash {
    let Archive { size, container, chunks, .. } = archive;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    hasher.update(&container.stream_bytes.to_le_bytes());
    hasher.update(container.artifact.as_bytes());
    if let Some(content) = container.content {
        hasher.update(content.as_bytes());
    }
    for chunk in chunks {
        hasher.update(chunk.id.as_bytes());
    }
    hasher.finalize()
}

/// Passes each archive of a release to `each`, unpacked or not, with its chunks.
fn each_stored(
    root: &Root,
    reader: &mut StoreReader<&Store>,
    each: &mut dyn FnMut(EntryPath, u64, Recipe, Vec<ChunkRef>),
) -> Result<(), Error> {
    let mut open: Option<(EntryPath, u64, Recipe)> = None;
    let mut chunks = Vec::new();
    for item in Items::new(root, reader) {
        match item? {
            Item::Chunk(chunk) if open.is_some() => chunks.push(chunk),
            Item::Chunk(_) => {}
            item => {
                if let Some((path, size, recipe)) = open.take() {
                    each(path, size, recipe, std::mem::take(&mut chunks));
                }
                if let Item::File { path, size, recipe, .. } = item
                    && recipe != Recipe::Chunks
                {
                    open = Some((path, size, recipe));
                }
            }
        }
    }
    if let Some((path, size, recipe)) = open {
        each(path, size, recipe, chunks);
    }
    Ok(())
}
