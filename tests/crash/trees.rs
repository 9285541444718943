//! Makes trees to push from a seed, and compares them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use recode::deflate::{Encoder, Method};

use delta::relink::linked::{Program, link};

/// xorshift64, which is random enough for choices; its seed is printed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Takes a seed from `WHIT_CRASH_SEED` or the clock, and prints it.
    pub fn cast(what: &str) -> Self {
        let given = std::env::var("WHIT_CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::from(clock.expect("after 1970").subsec_nanos())
        });
        println!("{what}: WHIT_CRASH_SEED={seed}");
        Self::new(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// Returns bytes that no compressor makes smaller.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed + 1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&dice.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The contents of a tree: some files change with every version, the rest never.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub files: u64,
    pub changing: u64,
    pub file_bytes: usize,
}

impl Shape {
    /// Some 1 MiB, three quarters of it changing: small enough for many rounds, several frames long.
    pub const SMALL: Self = Self { files: 40, changing: 30, file_bytes: 28_000 };

    /// Returns the path and the content of a file of a version.
    pub fn file(self, file: u64, version: u64) -> (String, Vec<u8>) {
        let seed = if file < self.changing { file + 1000 * version } else { file };
        let name = if file % 3 == 0 { format!("deep/{file}") } else { format!("{file}") };
        (name, noise(seed, self.file_bytes))
    }

    /// Creates version `version` in the new folder `folder`.
    pub fn write(self, folder: &Path, version: u64) {
        fs::create_dir_all(folder.join("deep/er")).expect("created");
        for file in 0..self.files {
            let (name, content) = self.file(file, version);
            fs::write(folder.join(name), content).expect("written");
        }
        fs::write(folder.join("version"), version.to_string()).expect("written");
        fs::write(folder.join("run"), "#!/bin/sh\n").expect("written");
        fs::set_permissions(folder.join("run"), fs::Permissions::from_mode(0o755)).expect("set");
        fs::write(folder.join("deep/er/empty"), "").expect("written");
        symlink("deep/0", folder.join("link")).expect("linked");
    }
}

/// Adds files that are encoded against their earlier versions: one with an edit, a relinked program, and an archive
/// with one changed member.
pub fn write_related(folder: &Path, version: u64) {
    let number = |limit: u64| usize::try_from(version * 7919 % limit).expect("small");
    let mut edited = noise(5_000_001, 300_000);
    let at = number(290_000);
    edited.splice(at..at + 10, version.to_le_bytes());
    fs::write(folder.join("edited"), edited).expect("written");
    // One function in 64 differs, and all that follows it moves.
    let program = Program { functions: 1500, changed: Some(number(64)), shift: number(2000) };
    fs::write(folder.join("program"), link(&program)).expect("written");
    let words: Vec<u8> =
        noise(5_000_002, 60_000).iter().flat_map(|byte| format!("{byte} ").into_bytes()).collect();
    let plain = [words.as_slice(), format!("build {version}\n").as_bytes(), &words[..100_000]].concat();
    // The header of RFC 1952 without a name. Only a reader of the whole file checks the trailer; whit does not.
    let mut archive = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut encoder = Encoder::new(&Method::STOCK);
    encoder.write(&plain, &mut archive);
    encoder.finish(&mut archive);
    archive.extend([0; 8]);
    fs::write(folder.join("archive.gz"), archive).expect("written");
}

/// Returns everything below a folder: kind, permission bits and bytes by path.
pub fn read(folder: &Path) -> BTreeMap<PathBuf, (char, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(at) = left.pop() {
        let Ok(entries) = fs::read_dir(folder.join(&at)) else { continue };
        for entry in entries {
            let path = at.join(entry.expect("an entry").file_name());
            let place = folder.join(&path);
            let metadata = fs::symlink_metadata(&place).expect("it is there");
            let mode = metadata.permissions().mode() & 0o777;
            let entry = if metadata.is_symlink() {
                let target = fs::read_link(&place).expect("a link");
                ('l', 0, target.into_os_string().into_encoded_bytes())
            } else if metadata.is_dir() {
                left.push(path.clone());
                ('d', mode, Vec::new())
            } else {
                ('f', mode, fs::read(&place).expect("readable"))
            };
            found.insert(path, entry);
        }
    }
    found
}

/// Returns the files below a folder.
pub fn walk_files(folder: &Path) -> Vec<PathBuf> {
    let found = read(folder).into_iter().filter(|(_, (kind, ..))| *kind == 'f');
    found.map(|(path, _)| folder.join(path)).collect()
}

/// Returns whether two folders are the same, bit for bit.
pub fn is_same(one: &Path, other: &Path) -> bool {
    one.is_dir() && other.is_dir() && read(one) == read(other)
}

/// Copies a folder with everything below it, as `cp -a` does.
pub fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(status.success());
}
