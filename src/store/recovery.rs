//! Opening a space: packs that a crash left open are sealed, and the index is brought up to the packs.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::blobs::Blobs;
use super::index::Index;
use super::layout::INDEX_DAMAGED;
use super::pack_file::{PackFile, unsynced_mark};
use super::packs::{Pack, Packs, check_sealed};
use super::place::Place;
use super::unsealed::{self, Unsealed, places};
use super::{Error, Options, Result, shared};
use delta::compression::Decompressor;
use disk::crash_points;
use disk::files::{self, Durability};
use disk::mmap::Mapping;
use format::pack::{Footer, HEADER_BYTES, PackId, Scanner, begins_footer};
use format::recipe::ChunkRef;
use ground::faults::{Fault, Faulty};
use ground::ids::ChunkId;

/// Chunks of each pack that are looked up at every start, to notice an index that lost entries.
const SAMPLES: usize = 4;

/// An index that fits the packs.
#[derive(Debug)]
pub struct Opened {
    /// The index.
    pub index: Index,
    /// The number for the next pack.
    pub next_number: u32,
    /// True if a pack is damaged and left out, or gone.
    pub packs_lost: bool,
    /// Places of chunks that the disk has no room to index; a later start indexes them.
    pub unindexed: Vec<(ChunkId, Place)>,
}

/// The packs that an earlier process left open.
#[derive(Debug, Default)]
pub struct LeftOpen {
    /// The number of packs.
    pub packs: usize,
    /// True if bytes were cut off that may have been a frame: one being written or, if the file was damaged, an acknowledged
    /// one.
    pub cut: bool,
    /// Open packs that the disk had no room to seal: they are read as they are, and sealed by a later start.
    pub unsealed: Vec<Unsealed>,
}

/// Seals every pack that was left open, keeping the frames that are whole.
///
/// # Errors
/// The disk's error.
pub fn seal_open_packs(folder: &Path, blobs: &dyn Blobs) -> Result<LeftOpen> {
    let unsynced = unsynced_mark(folder);
    let is_unsynced = unsynced.exists();
    let mut left = LeftOpen::default();
    for (id, path) in PackFile::left_open(folder)? {
        left.packs += 1;
        let mut footer = Footer::default();
        let mut chunks = Vec::new();
        let valid = {
            let mapping = Mapping::open(&path)?;
            let map = mapping.readable();
            let is_unreadable = matches!(map, Cow::Owned(_));
            let mut scanner = match Scanner::new(&map) {
                Ok(scanner) => Some(scanner),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a pack was cut short before its first frame");
                    None
                }
            };
            for (offset, frame) in scanner.iter_mut().flatten() {
                let bytes = u32::try_from(frame.bytes().len()).map_err(|_| Error::WriteFailed)?;
                footer.add(offset, bytes, frame.kind(), frame.chunks());
                chunks.extend(places(offset, frame.chunks()));
            }
            let valid = scanner.map_or(0, |scanner| scanner.valid_bytes());
            let after = Scanner::behind(&map, valid);
            let is_damaged = after.is_some() || is_unreadable;
            if is_damaged || is_unsynced {
                left.cut |= is_damaged;
                match salvage(folder, blobs, &map, valid, after) {
                    Err(error) if error.fault() == Fault::Full => {
                        left.unsealed.push(Unsealed::new(id, &path, chunks, &error)?);
                        continue;
                    }
                    salvaged => salvaged?,
                }
                if !is_damaged {
                    files::remove(&path)?;
                    continue;
                }
                tracing::error!(path = %path.display(), offset = valid, "an open pack is damaged in its middle");
                PackFile::set_aside(folder, &path)?;
                continue;
            }
            let rest = &map[usize::try_from(valid).unwrap_or(usize::MAX).min(map.len())..];
            // A file without its header never had an acknowledged frame, unless it was damaged.
            left.cut |= map.len() > HEADER_BYTES && !rest.is_empty() && !begins_footer(rest);
            valid
        };
        if footer.chunk_count() == 0 {
            files::remove(&path)?;
            continue;
        }
        // The map above is gone.
        let mut file = PackFile::open(id, &path)?;
        file.cut(valid)?;
        crash_points::point("recovery.cut");
        match file.seal(blobs, footer, valid) {
            Err(error) if error.fault() == Fault::Full => {
                file.cut(valid)?;
                left.unsealed.push(Unsealed::new(id, &path, chunks, &error)?);
            }
            sealed => sealed?,
        }
        crash_points::point("recovery.sealed");
    }
    if is_unsynced && left.unsealed.is_empty() {
        files::remove(&unsynced)?;
    }
    Ok(left)
}

/// Copies the whole frames of an open pack into a new one: those before `valid`, and those `after` damage.
///
/// After damage, bytes of an artifact may look like a frame, so every chunk is hashed.
fn salvage<'a>(
    folder: &Path,
    blobs: &dyn Blobs,
    map: &'a [u8],
    valid: u64,
    after: Option<Scanner<'a>>,
) -> Result<()> {
    let mut copy = PackFile::create(folder, Durability::Synced)?;
    let copied = copy_whole(map, valid, after, &mut copy, blobs);
    // The next start copies the same pack again.
    copied.inspect_err(|_| drop(fs::remove_file(&copy.path)))
}

fn copy_whole<'a>(
    map: &'a [u8],
    valid: u64,
    after: Option<Scanner<'a>>,
    to: &mut PackFile,
    blobs: &dyn Blobs,
) -> Result<()> {
    let mut footer = Footer::default();
    let mut end = HEADER_BYTES as u64;
    let before = Scanner::new(map).into_iter().flatten().take_while(|(offset, _)| *offset < valid);
    let mut scanner = after;
    let after = std::iter::from_fn(|| {
        loop {
            let current = scanner.as_mut()?;
            if let Some(frame) = current.next() {
                return Some(frame);
            }
            scanner = Scanner::behind(map, current.valid_bytes());
        }
    });
    let (mut zstd, mut plain) = (Decompressor::new(), Vec::new());
    for (_, frame) in before.chain(after) {
        plain.clear();
        let decoded = zstd.decompress(frame.codec(), frame.payload(), frame.plain_bytes(), &mut plain);
        let mut rest = plain.as_slice();
        let is_right = |chunk: ChunkRef| {
            let content = rest.split_off(..chunk.bytes as usize);
            content.is_some_and(|content| ChunkId::of(content) == chunk.id)
        };
        if decoded.is_err() || !frame.chunks().all(is_right) {
            continue;
        }
        let bytes = u32::try_from(frame.bytes().len()).map_err(|_| Error::WriteFailed)?;
        to.copy_frame(frame.bytes())?;
        footer.add(end, bytes, frame.kind(), frame.chunks());
        end += u64::from(bytes);
    }
    if footer.chunk_count() == 0 {
        return Ok(files::remove(&to.path)?);
    }
    to.seal(blobs, footer, end)
}

/// Opens the index and brings it up to the sealed packs; rebuilds it where it does not fit them.
///
/// Packs whose header or footer is damaged are left where they are; their chunks count as missing.
///
/// # Errors
/// The packs cannot be listed, or a new index cannot be made.
pub fn open_index(
    index_folder: &Path,
    blobs: &Arc<dyn Blobs>,
    packs: &Packs,
    options: &Options,
) -> Result<Opened> {
    let open = || Index::open(index_folder, options.durability);
    let mut sealed = blobs.list()?;
    sealed.sort_unstable();
    let catch_up = |index| catch_up(index, blobs, &sealed, packs, options.unindexed_chunks);
    let packs_lost;
    if fs::symlink_metadata(index_folder).is_ok() && !index_folder.is_dir() {
        tracing::warn!(path = %index_folder.display(), "the index's path is not a folder: it is set aside");
        set_aside(index_folder)?;
    }
    match open().map_err(Error::from).and_then(catch_up) {
        Ok(opened) => return Ok(opened),
        Err(Error::Index(error @ super::index::Error::Older)) => {
            tracing::info!(%error, "the index is rebuilt from the packs");
            files::remove(index_folder)?;
            return catch_up(open()?);
        }
        Err(Error::Index(error @ super::index::Error::File(_))) => return Err(Error::Index(error)),
        Err(error) => {
            packs_lost = matches!(error, Error::PackGone { .. });
            tracing::warn!(%error, "the index is set aside and rebuilt from the packs");
        }
    }
    set_aside(index_folder)?;
    // Their numbers were those of the old index. A pack known by two would be collected under one of them.
    packs.clear();
    let opened = catch_up(open()?)?;
    Ok(Opened { packs_lost: opened.packs_lost || packs_lost, ..opened })
}

/// Compares the catalogue with the sealed packs, takes in what is new, if that is more than `unindexed_max` chunks, and samples
/// what should be there.
fn catch_up(
    index: Index,
    blobs: &Arc<dyn Blobs>,
    ids: &[PackId],
    packs: &Packs,
    unindexed_max: usize,
) -> Result<Opened> {
    let known: HashMap<PackId, (u32, u32)> =
        index.packs().into_iter().map(|(number, id, count)| (id, (number, count))).collect();
    let there: HashSet<PackId> = ids.iter().copied().collect();
    if let Some(gone) = known.keys().find(|id| !there.contains(id)) {
        return Err(Error::PackGone { pack: *gone });
    }
    let mut packs_lost = false;
    let mut next = known.values().map(|(number, _)| number + 1).max().unwrap_or(0).max(index.next_number());
    let mut unknown = Vec::new();
    for id in ids {
        let sealed = Pack::sealed(*id, blobs);
        let footer = match check_sealed(&sealed) {
            Ok(footer) => footer,
            Err(error) => {
                tracing::error!(path = %sealed.location().display(), %error, "a damaged pack is left out");
                packs_lost = true;
                continue;
            }
        };
        let number = if let Some((number, count)) = known.get(id) {
            let step = (footer.chunk_count() / SAMPLES).max(1);
            let complete = *count as usize == footer.chunk_count();
            for entry in footer.chunks().step_by(step) {
                if !complete || index.find(&entry.chunk.id)?.is_none() {
                    return Err(Error::Catalogue { pack: *id });
                }
            }
            *number
        } else {
            unknown.push(sealed);
            continue;
        };
        sealed.release(0, usize::MAX);
        packs.insert(number, sealed);
    }
    let numbered = || unknown.iter().zip(next..);
    let footers = numbered().map(|(pack, number)| Ok((number, pack.id, check_sealed(pack)?)));
    let footers = footers.collect::<Result<Vec<_>>>()?;
    let chunks: usize = footers.iter().map(|(_, _, footer)| footer.chunk_count()).sum();
    let unindexed = if chunks <= unindexed_max {
        unsealed::places_in(&footers)
    } else {
        match shared::take_in_new(&index, &footers) {
            Err(error) if error.fault() == Fault::Full => unsealed::places_of_all(&footers, error)?,
            taken => taken.map(|()| Vec::new())?,
        }
    };
    drop(footers);
    for sealed in unknown {
        sealed.release(0, usize::MAX);
        packs.insert(next, sealed);
        next += 1;
    }
    Ok(Opened { index, next_number: next, packs_lost, unindexed })
}

/// Moves a damaged index out of the way; the one from the time before is removed.
fn set_aside(index_folder: &Path) -> Result<()> {
    let aside = index_folder.with_file_name(INDEX_DAMAGED);
    files::remove(&aside)?;
    files::rename(index_folder, &aside)?;
    crash_points::point("recovery.index");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use std::fs::OpenOptions;
    use std::path::PathBuf;

    use super::*;
    use crate::restore::ChunkSource;
    use crate::store::blobs::LocalBlobs;
    use crate::store::{Options, Store};
    use delta::compression::Compressor;
    use format::pack::{Frame, FrameKind};

    /// A store as `kill -9` leaves it, with one frame for each content; the open pack is handed to `damage`.
    fn killed(contents: &[&[u8]], damage: impl FnOnce(&fs::File)) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = Options { reserve_bytes: 0, ..Options::default() };
        let (alive, dead) = (folder.path().join("alive"), folder.path().join("dead"));
        let store = Store::open(&alive, options).expect("a new store");
        for content in contents {
            let mut compressor = Compressor::new(1);
            store
                .append(&Frame::compress(FrameKind::Content, [*content], &mut compressor))
                .expect("appended");
        }
        let open = files::list(&alive.join("packs/open")).expect("a folder").remove(0);
        let copy = dead.join("packs/open").join(open.file_name().expect("a name"));
        files::create_folder(&dead.join("packs/open")).expect("created");
        fs::copy(open, &copy).expect("copied");
        damage(&OpenOptions::new().read(true).write(true).open(&copy).expect("a pack"));
        drop(store);
        (folder, Store::open(&dead, options).expect("the dead one's store"))
    }

    fn has(store: &Store, content: &[u8]) -> bool {
        let chunk = ChunkRef { id: ChunkId::of(content), bytes: u32::try_from(content.len()).expect("few") };
        let mut found = Vec::new();
        store.reader().read(&chunk, &mut found).is_ok() && found == content
    }

    const CONTENTS: [&[u8]; 3] = [b"the first", b"the second", b"the third"];

    #[test]
    fn what_is_whole_is_kept_and_nothing_is_doubted() {
        let (_folder, store) = killed(&CONTENTS, |_| ());
        assert!(CONTENTS.iter().all(|content| has(&store, content)));
        assert!(store.is_whole() && !store.take_doubt());
    }

    #[test]
    fn temporary_files_of_a_process_that_was_killed_go_at_the_next_start() {
        let (folder, store) = killed(&CONTENTS, |_| {});
        let (scratch, _) = store.scratch().expect("it is made");
        let left = scratch.join("copy");
        fs::create_dir(&left).expect("written");
        fs::write(left.join("file"), "x").expect("written");
        drop(store);
        drop(Store::open(&folder.path().join("dead"), Options::default()).expect("a store"));
        assert!(!left.exists());
    }

    #[test]
    fn a_pack_whose_sync_failed_is_written_anew() {
        let (folder, store) = killed(&CONTENTS, |_| ());
        drop(store);
        let packs = folder.path().join("dead/packs");
        let blobs = LocalBlobs::new(packs.clone());
        let sealed = blobs.list().expect("listed").remove(0);
        let bytes = fs::read(blobs.location(sealed)).expect("a pack");
        blobs.remove(sealed).expect("removed");
        fs::write(packs.join(format!("open/{sealed}.part")), bytes).expect("written");
        fs::write(unsynced_mark(&packs), "").expect("written");
        let store =
            Store::open(&folder.path().join("dead"), Options { reserve_bytes: 0, ..Options::default() })
                .expect("opened");
        assert!(CONTENTS.iter().all(|content| has(&store, content)));
        let anew = blobs.list().expect("listed");
        assert!(anew.len() == 1 && anew[0] != sealed);
        assert!(!unsynced_mark(&packs).exists());
        assert_eq!(files::list(&packs.join("open")).expect("a folder"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_cut_frame_is_left_out_and_the_store_asks_whether_a_release_lacks_it() {
        let cut = |file: &fs::File| file.set_len(file.metadata().expect("a file").len() - 1).expect("cut");
        let (_folder, store) = killed(&CONTENTS, cut);
        assert_eq!(CONTENTS.map(|content| has(&store, content)), [true, true, false]);
        assert!(!store.is_whole() && store.take_doubt());
        assert!(!store.take_doubt(), "asked once");
    }

    #[test]
    fn frames_after_damage_are_kept() {
        for at in [0, HEADER_BYTES as u64, HEADER_BYTES as u64 + 40] {
            let (_folder, store) = killed(&CONTENTS, |file| file.write_all_at(b"?", at).expect("damaged"));
            assert_eq!(CONTENTS.map(|content| has(&store, content)), [at == 0, true, true], "byte {at}");
            assert!(!store.is_whole(), "byte {at}");
        }
    }

    #[test]
    fn a_frame_inside_an_artifact_brings_no_wrong_chunk() {
        // The payload of a damaged frame holds a frame that calls other bytes by this chunk's name.
        let victim = ChunkRef { id: ChunkId::of(b"the victim"), bytes: 10 };
        let mut forged = Vec::new();
        let (codec, payload) = (delta::compression::Codec::Raw, b"the forged".to_vec());
        Frame { kind: FrameKind::Content, codec, chunks: vec![victim], payload }.encode(&mut forged);
        let damage = |file: &fs::File| file.write_all_at(b"?", HEADER_BYTES as u64).expect("damaged");
        let (_folder, store) = killed(&[&forged, CONTENTS[1]], damage);
        assert_eq!(store.find(&victim.id).expect("readable"), None);
        assert!(has(&store, CONTENTS[1]));
    }
}
