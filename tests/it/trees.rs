//! Creates and compares trees of files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Returns bytes that no compressor makes smaller; the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Returns text that a compressor makes much smaller, without repeated chunks.
pub fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    for line in 0u64.. {
        if bytes.len() >= length {
            break;
        }
        let word = blake3::hash(&((seed << 32) | (line / 4)).to_le_bytes()).to_hex();
        bytes.extend_from_slice(format!("line {line} says {}\n", &word[..16]).as_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes a file, and the folders above it.
pub fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("created");
    fs::write(path, bytes).expect("written");
}

/// Writes a tree of 5 files and some 1.1 MB, with a link and an empty folder.
pub fn some_tree(folder: &Path, seed: u64) {
    write(folder, "bin/server", noise(seed, 600_000));
    write(folder, "bin/tool", noise(seed + 1, 300_000));
    write(folder, "share/words.txt", text(seed + 2, 200_000));
    write(folder, "README", "Read me.");
    write(folder, "empty", "");
    fs::create_dir_all(folder.join("var/empty")).expect("created");
    std::os::unix::fs::symlink("bin/server", folder.join("link")).expect("linked");
    fs::set_permissions(folder.join("bin/server"), fs::Permissions::from_mode(0o755)).expect("changed");
}

/// An entry of a tree, as far as whit stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Folder(u32),
    Link(OsString),
    File { mode: u32, bytes: usize, hash: blake3::Hash },
}

/// Returns all entries below a folder, by path.
pub fn snapshot(folder: &Path) -> BTreeMap<OsString, Entry> {
    let mut entries = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            let kind = fs::symlink_metadata(&path).expect("it is there");
            let mode = kind.permissions().mode() & 0o777;
            let seen = if kind.is_dir() {
                folders.push(path.clone());
                Entry::Folder(mode)
            } else if kind.is_symlink() {
                Entry::Link(fs::read_link(&path).expect("a link").into_os_string())
            } else {
                let bytes = fs::read(&path).expect("a file");
                Entry::File { mode, bytes: bytes.len(), hash: blake3::hash(&bytes) }
            };
            entries.insert(path.strip_prefix(folder).expect("below it").into(), seen);
        }
    }
    entries
}

/// Returns the regular files below a folder, in no order.
pub fn walk_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            files.extend(walk_files(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}

/// Asserts that two trees are the same, byte for byte.
pub fn assert_same(expected: &Path, found: &Path) {
    let (expected, found) = (snapshot(expected), snapshot(found));
    for (path, entry) in &expected {
        assert_eq!(Some(entry), found.get(path), "{}", path.display());
    }
    assert_eq!(expected.len(), found.len(), "there is more than there should be");
}

/// Changes the byte at `at`.
pub fn change_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] = bytes[at].wrapping_add(1);
    fs::write(path, bytes).expect("written");
}

/// Returns whether to run the tests at full size.
pub fn is_slow() -> bool {
    std::env::var_os("WHIT_SLOW_TESTS").is_some()
}
