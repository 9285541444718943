//! Maps a release to its copy at a place: owner, modes, and links at the places of what is kept elsewhere.

use rustix::fs::{FileType, Stat};

use format::manifest::EntryPath;

/// The owner, modes and links that a copy has instead of its release's; nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// The user that all of the copy belongs to; the process's own if none.
    pub owner: Option<u32>,
    /// The group that all of the copy belongs to; the one that the system gives if none.
    pub group: Option<u32>,
    /// The permission bits of files; executable ones may also be executed by all who may read them.
    pub file_mode: Option<u16>,
    /// The permission bits of directories.
    pub directory_mode: Option<u16>,
    /// Links at the places of what is kept elsewhere. What the release has at or below these is left out.
    pub linked: &'a [Linked],
}

/// A symbolic link at the place of something that is kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// Its path in the copy. No other such path lies below it.
    pub path: EntryPath,
    /// Its target.
    pub target: Vec<u8>,
}

impl Mapping<'_> {
    /// Returns the permission bits of a file that has `mode` in its release.
    pub fn mode_of_file(&self, mode: u16) -> u16 {
        let executable = mode & 0o111 != 0;
        let wanted = |mode| if executable { mode | (mode & 0o444) >> 2 } else { mode };
        self.file_mode.map_or(mode, wanted)
    }

    /// Returns the permission bits of a directory that has `mode` in its release.
    pub fn mode_of_directory(&self, mode: u16) -> u16 {
        self.directory_mode.unwrap_or(mode)
    }

    /// Returns whether what the release has at `path` is left out.
    pub fn leaves_out(&self, path: &EntryPath) -> bool {
        self.linked.iter().any(|linked| {
            let (top, path) = (linked.path.as_bytes(), path.as_bytes());
            path.starts_with(top) && matches!(path.get(top.len()), None | Some(b'/'))
        })
    }

    /// Returns whether an entry is of this kind and has these permission bits, and the right owner.
    pub(super) fn is(&self, found: &Stat, kind: FileType, mode: u16) -> bool {
        FileType::from_raw_mode(found.st_mode) == kind
            && found.st_mode & 0o7777 == u32::from(mode)
            && self.is_owner(found)
    }

    /// Returns whether an entry belongs to the right user and group.
    pub(super) fn is_owner(&self, found: &Stat) -> bool {
        let is_owners = self.owner.is_none_or(|owner| found.st_uid == owner);
        is_owners && self.group.is_none_or(|group| found.st_gid == group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_read_an_executable_may_execute_it() {
        let mapping = Mapping { file_mode: Some(0o640), directory_mode: Some(0o750), ..Mapping::default() };
        assert_eq!(
            [0o600, 0o755, 0o700, 0o444].map(|mode| mapping.mode_of_file(mode)),
            [0o640, 0o750, 0o750, 0o640]
        );
        assert_eq!(
            (mapping.mode_of_directory(0o700), Mapping::default().mode_of_file(0o600)),
            (0o750, 0o600)
        );
    }

    #[test]
    fn a_link_stands_for_its_path_and_all_below() {
        let path = |text: &str| EntryPath::new(text).expect("a plain path");
        let linked = [Linked { path: path("a/b"), target: b"x".to_vec() }];
        let mapping = Mapping { linked: &linked, ..Mapping::default() };
        let left_out =
            ["a/b", "a/b/c", "a", "a/bc", "b", "a/b.c"].map(|text| mapping.leaves_out(&path(text)));
        assert_eq!(left_out, [true, true, false, false, false, false]);
    }
}
