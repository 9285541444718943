//! A cache of rebuilt archives, of bounded size.
//!
//! Its files are not trusted: readers compare the hash, and rebuild the archive if it is wrong.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use tempfile::NamedTempFile;

use disk::files;
use ground::ids::ArtifactId;
use ground::poison::Unpoisoned as _;

/// 1 MiB: a smaller archive is rebuilt as quickly as it is found.
const ARCHIVE_BYTES_MIN: u64 = 1024 * 1024;
/// 256 KiB: the most that is written at once.
const WRITE_BYTES: usize = 256 * 1024;

/// The cache of one space. It takes no memory: the folder is the cache.
#[derive(Debug)]
pub struct Rebuilt {
    folder: PathBuf,
    bytes_max: u64,
    reserve_bytes: u64,
    /// Locked while room is made.
    making_room: Mutex<()>,
}

impl Rebuilt {
    /// Keeps up to `bytes_max` in `folder`, as long as the disk has `reserve_bytes` left; 0 keeps nothing, and so does a
    /// folder that cannot be used, as everything can be rebuilt.
    pub fn open(folder: PathBuf, bytes_max: u64, reserve_bytes: u64) -> Self {
        let ready = match bytes_max {
            0 if !folder.exists() => Ok(()),
            0 => files::remove(&folder),
            _ => files::create_folder(&folder).and_then(|()| files::remove_unpublished(&folder)),
        };
        let usable =
            ready.inspect_err(|error| tracing::warn!(%error, "rebuilt archives are not cached")).is_ok();
        let bytes_max = if usable { bytes_max } else { 0 };
        Self { folder, bytes_max, reserve_bytes, making_room: Mutex::new(()) }
    }

    /// Returns a stored archive of `size` bytes; its content is not verified.
    pub fn get(&self, archive: &ArtifactId, size: u64) -> Option<File> {
        let file = File::open(self.path(archive)).ok()?;
        if file.metadata().ok()?.len() != size {
            return None;
        }
        // It is then removed last; if that is refused, it is removed sooner.
        drop(file.set_modified(SystemTime::now()));
        Some(file)
    }

    /// Removes an archive whose hash is wrong.
    pub fn forget(&self, archive: &ArtifactId) {
        drop(fs::remove_file(self.path(archive)));
    }

    /// Begins to store an archive. Returns `None` if it is stored already, too small or too large, or there is no room.
    pub fn keep(&self, archive: &ArtifactId, size: u64) -> Option<Keeping> {
        let path = self.path(archive);
        if !(ARCHIVE_BYTES_MIN..=self.bytes_max / 2).contains(&size) || path.exists() {
            return None;
        }
        self.make_room(size).ok()?;
        if files::free_bytes(&self.folder).ok()? < size.saturating_add(self.reserve_bytes) {
            return None;
        }
        let file = tempfile::Builder::new().suffix(".part").tempfile_in(&self.folder).ok()?;
        Some(Keeping { file: Some(BufWriter::with_capacity(WRITE_BYTES, file)), path })
    }

    /// Reads every kept archive and returns the damaged ones, with their bytes; removes them if `remove` is set. Calls
    /// `read` with the number of bytes as they are read, and stops when it returns false.
    pub fn damaged(&self, remove: bool, read: &mut dyn FnMut(u64) -> bool) -> Vec<(PathBuf, u64)> {
        let mut damaged = Vec::new();
        let mut buffer = vec![0; WRITE_BYTES];
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_str().and_then(|name| name.parse::<ArtifactId>().ok());
            let (Some(id), Ok(mut file)) = (name, File::open(&path)) else { continue };
            let mut hasher = blake3::Hasher::new();
            let mut bytes = 0;
            // A file that the disk cannot read to its end is damaged, too.
            while let Ok(count @ 1..) = file.read(&mut buffer) {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
                if !read(count as u64) {
                    return damaged;
                }
            }
            if ArtifactId::from_bytes(*hasher.finalize().as_bytes()) != id {
                if remove {
                    self.forget(&id);
                }
                damaged.push((path, bytes));
            }
        }
        damaged
    }

    /// Returns the bytes of all stored archives.
    pub fn bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
    }

    /// Removes everything, to make room for data that cannot be rebuilt; returns whether there was anything.
    pub fn clear(&self) -> bool {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter(|entry| fs::remove_file(entry.path()).is_ok()).count() > 0
    }

    fn path(&self, archive: &ArtifactId) -> PathBuf {
        self.folder.join(archive.to_string())
    }

    /// Removes the archives used longest ago until `size` more bytes fit.
    fn make_room(&self, size: u64) -> std::io::Result<()> {
        let _alone = self.making_room.lock().unpoisoned();
        let mut kept: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another thread may have removed it.
            let Ok(metadata) = entry.metadata() else { continue };
            kept.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, length, path) in kept {
            if bytes.saturating_add(size) <= self.bytes_max {
                break;
            }
            // Another may have done it; what stays is tried again.
            drop(fs::remove_file(path));
            bytes -= length;
        }
        Ok(())
    }
}

/// An archive that is being written to the cache. A failure to write it is silent: the archive is then not stored.
#[derive(Debug)]
pub struct Keeping {
    /// The file, which is dropped once a write has failed.
    file: Option<BufWriter<NamedTempFile>>,
    path: PathBuf,
}

impl Keeping {
    /// Takes the archive's next bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.file = self.file.take().and_then(|mut file| file.write_all(bytes).is_ok().then_some(file));
    }

    /// Stores the archive, which is complete. Does not sync it: after a power loss it is rebuilt.
    pub fn end(self) {
        if let Some(file) = self.file.and_then(|file| file.into_inner().ok()) {
            drop(file.persist(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn add(cache: &Rebuilt, content: &[u8]) -> ArtifactId {
        let id = ArtifactId::of(content);
        let mut keeping = cache.keep(&id, content.len() as u64).expect("there is room");
        content.chunks(100_000).for_each(|piece| keeping.write(piece));
        keeping.end();
        id
    }

    #[test]
    fn what_is_kept_is_given_out_until_others_need_the_room() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = Rebuilt::open(folder.path().join("rebuilt"), 4 * MIB, 0);
        let content: Vec<Vec<u8>> = (0..3).map(|n| vec![n; 1_500_000]).collect();
        let ids: Vec<ArtifactId> = content[..2].iter().map(|content| add(&cache, content)).collect();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut found = Vec::new();
        let mut first = cache.get(&ids[0], 1_500_000).expect("it is kept");
        first.read_to_end(&mut found).expect("it can be read");
        assert_eq!(found, content[0]);
        let third = add(&cache, &content[2]);
        let is_there = |id| cache.get(id, 1_500_000).is_some();
        assert_eq!((is_there(&ids[0]), is_there(&ids[1]), is_there(&third)), (true, false, true));
        assert!(cache.get(&third, 1_499_999).is_none(), "another size");
        assert!(cache.clear() && !cache.clear() && !is_there(&third));
    }

    #[test]
    fn what_is_not_ended_small_large_or_not_wanted_is_not_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("rebuilt");
        let cache = Rebuilt::open(path.clone(), 4 * MIB, 0);
        let id = ArtifactId::of(b"an archive");
        assert!(cache.keep(&id, MIB - 1).is_none() && cache.keep(&id, 2 * MIB + 1).is_none());
        let mut keeping = cache.keep(&id, MIB).expect("there is room");
        keeping.write(&[1; 1000]);
        drop(keeping);
        assert!(cache.get(&id, 1000).is_none());
        assert_eq!(fs::read_dir(&path).expect("a folder").count(), 0);
        let full = Rebuilt::open(path.clone(), 4 * MIB, u64::MAX);
        assert!(full.keep(&id, MIB).is_none(), "the disk has no room beside the reserve");
        let none = Rebuilt::open(path.clone(), 0, 0);
        assert!(none.keep(&id, MIB).is_none() && !path.exists());
        fs::write(&path, b"a file in its place").expect("written");
        let unusable = Rebuilt::open(path, 4 * MIB, 0);
        assert!(unusable.keep(&id, MIB).is_none() && unusable.get(&id, MIB).is_none() && !unusable.clear());
    }
}
