//! Simulates the effect of a power loss on a store's folder.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use format::pack::Scanner;
use whit::store::Store;

use crate::random::Random;

/// Returns a copy of the folder as a power loss now would leave it: part of what was never synced is lost.
pub fn image(folder: &Path, store: &Store, random: &mut Random) -> TempDir {
    store.settle().expect("full packs can be sealed");
    let unsynced = usize::try_from(store.appended().saturating_sub(store.durable())).expect("few");
    let image = new_folder();
    copy(folder, image.path());
    for path in files_below(&image.path().join("packs").join("open")) {
        cut(&path, unsynced, random);
    }
    image
}

/// Removes part of what was written to an open pack and never synced.
fn cut(path: &Path, unsynced: usize, random: &mut Random) {
    let mut bytes = fs::read(path).expect("an open pack");
    let ends: Vec<u64> = Scanner::new(&bytes).map_or(Vec::new(), |scanner| {
        scanner.map(|(offset, frame)| offset + frame.bytes().len() as u64).collect()
    });
    let durable = match ends.len().saturating_sub(unsynced) {
        0 => 0,
        frames => usize::try_from(ends[frames - 1]).expect("packs are small"),
    };
    let kept = durable + random.below(bytes.len() - durable + 1);
    match random.below(3) {
        0 => bytes[kept..].fill(0),
        1 => {
            let noise = random.bytes(bytes.len() - kept);
            bytes[kept..].copy_from_slice(&noise);
        }
        _ => bytes.truncate(kept),
    }
    fs::write(path, bytes).expect("written");
}

/// Creates a folder, in memory if the system allows it: crashes are simulated here, so syncs need not reach a disk.
pub fn new_folder() -> TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    folder.expect("a temporary folder")
}

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).expect("copied") }
    }
}
