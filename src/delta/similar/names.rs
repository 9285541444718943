//! Finds the old file of the most similar path.
//!
//! Words of a path that look like versions or hashes count as equal: `main.3f2a1b.js` is `main.98fe12.js` and
//! `lib/modules/6.1.0-55/a.ko` is `lib/modules/6.1.0-56/a.ko`. Keys from narrow to wide are tried in order;
//! among the files of one key those near in size are compared by their names.

use super::file::File;

/// Files of one key, near in size, whose names are compared.
const NEAR: usize = 12;

/// Old files by the keys of their paths.
#[derive(Debug)]
pub struct Names<'a> {
    old: &'a [File<'a>],
    /// Key, size, index; sorted.
    entries: Vec<(u64, u64, u32)>,
}

impl<'a> Names<'a> {
    /// Indexes `old`. Time O(n log n) for n files; memory: five keys of 24 bytes each.
    pub fn new(old: &'a [File<'a>]) -> Self {
        let mut entries: Vec<_> = (0u32..)
            .zip(old)
            .flat_map(|(index, file)| keys(file.path).map(|key| (key, file.bytes(), index)))
            .collect();
        entries.sort_unstable();
        Self { old, entries }
    }

    /// Returns the old file that `file` most likely replaces; O(log n).
    ///
    /// Considers files of a quarter to four times its size.
    pub fn most_similar(&self, file: &File<'_>) -> Option<usize> {
        let size = file.bytes();
        keys(file.path).into_iter().find_map(|key| {
            let at = self.entries.partition_point(|entry| *entry < (key, size, 0));
            let near = &self.entries[at.saturating_sub(NEAR)..(at + NEAR).min(self.entries.len())];
            near.iter()
                .filter(|entry| entry.0 == key && entry.1 / 4 <= size && size / 4 <= entry.1)
                .max_by_key(|entry| {
                    (alike(self.old[entry.2 as usize].path, file.path), u64::MAX - entry.1.abs_diff(size))
                })
                .map(|entry| entry.2 as usize)
        })
    }
}

/// Returns how many bytes two paths share at both ends: the more, the more alike.
fn alike(one: &[u8], other: &[u8]) -> usize {
    let front = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let back = one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count();
    front + back
}

/// Returns the keys of a path, the narrowest first: the path without versions and hashes; the same without the
/// last eight letters of the stem, whatever they are (Vite's hashes look like words at times); the name in any folder, in
/// both ways; folder and extension.
fn keys(path: &[u8]) -> [u64; 5] {
    let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (folder, name) = path.split_at(cut);
    let dot = name.iter().rposition(|byte| *byte == b'.').unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let shorn = match stem.len().checked_sub(9) {
        Some(at) if matches!(stem[at], b'-' | b'.' | b'_') => &stem[..at],
        _ => stem,
    };
    let (folder_plain, stem_plain, shorn_plain) = (plain(folder), plain(stem), plain(shorn));
    let extension = plain(extension);
    let key = |kind: u8, parts: &[&[u8]]| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[kind]);
        for part in parts {
            hasher.update(part).update(&[0]);
        }
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"))
    };
    [
        key(0, &[&folder_plain, &stem_plain, &extension]),
        key(1, &[&folder_plain, &shorn_plain, &extension]),
        key(2, &[&stem_plain, &extension]),
        key(3, &[&shorn_plain, &extension]),
        key(4, &[&folder_plain, &extension]),
    ]
}

/// Returns `text` with `#` for each word that looks like a hash, and for each run of digits in other words.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.first() {
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let word = &rest[..length.max(1)];
        if length == 0 {
            out.push(*first);
        } else if is_hash(word) {
            out.push(b'#');
        } else {
            for byte in word {
                match (byte.is_ascii_digit(), out.last()) {
                    (true, Some(b'#')) => {}
                    (true, _) => out.push(b'#'),
                    (false, _) => out.push(*byte),
                }
            }
        }
        rest = &rest[word.len()..];
    }
    out
}

/// Returns whether a word is more likely a hash than something a person wrote: six or more hexadecimal digits
/// of which one is a digit, or eight or more letters and digits that change often between kinds.
fn is_hash(word: &[u8]) -> bool {
    let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
    if word.len() >= 6 && digits > 0 && word.iter().all(u8::is_ascii_hexdigit) {
        return true;
    }
    let kind = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let changes = word.windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    word.len() >= 8 && digits > 0 && changes * 3 >= word.len()
}

#[cfg(test)]
mod tests {
    use super::super::file::Chunk;
    use super::*;

    fn found(old: &[(&str, u32)], new: (&str, u32)) -> Option<String> {
        let chunks: Vec<[Chunk; 1]> = old.iter().map(|(_, bytes)| [Chunk { id: 1, bytes: *bytes }]).collect();
        let files: Vec<File<'_>> = old
            .iter()
            .zip(&chunks)
            .map(|((path, _), chunks)| File { path: path.as_bytes(), chunks })
            .collect();
        let chunk = [Chunk { id: 2, bytes: new.1 }];
        let at = Names::new(&files).most_similar(&File { path: new.0.as_bytes(), chunks: &chunk });
        at.map(|at| old[at].0.to_owned())
    }

    #[test]
    fn hashes_versions_and_renamed_folders_are_seen_through() {
        let old = [
            ("assets/main.3f2a1b.js", 900),
            ("assets/main.3f2a1b.css", 900),
            ("assets/NodeView-BlZo0g6x.js", 1000),
            ("assets/VIcon-D-fsaV_k.js", 700),
            ("lib/modules/6.1.0-55/kernel/a.ko", 5000),
            ("lib/modules/6.1.0-55/kernel/b.ko", 5000),
            ("site/docs/index.html", 300),
        ];
        for (path, bytes, expected) in [
            ("assets/main.98fe12.js", 950, 0),
            ("assets/main.98fe12.css", 950, 1),
            ("assets/NodeView-Xy12_-Ab.js", 1000, 2),
            ("assets/VIcon-Settings.js", 700, 3),
            ("lib/modules/6.1.0-56/kernel/b.ko", 5000, 5),
            ("web/pages/index.html", 300, 6),
        ] {
            assert_eq!(found(&old, (path, bytes)).as_deref(), Some(old[expected].0), "{path}");
        }
        assert_eq!(found(&old, ("other/thing.bin", 10)), None);
        assert_eq!(found(&old, ("assets/main.98fe12.js", 90_000)), None);
    }

    #[test]
    fn among_equal_names_the_nearest_size_wins() {
        let old = [("a/index-aaaaaaa1.js", 100), ("a/index-bbbbbbb1.js", 200), ("a/index-ccccccc1.js", 300)];
        assert_eq!(found(&old, ("a/index-ddddddd1.js", 210)).as_deref(), Some("a/index-bbbbbbb1.js"));
    }
}
