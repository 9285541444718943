//! Counts the things of a tree that a release does not keep.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use format::manifest::EntryPath;
use ground::escape;

/// The names given of each kind; all entries are counted.
const NAMES_MAX: usize = 5;
/// 4 KiB: the names of a file's attributes; longer lists need not be read to know that there are some.
const ATTRIBUTES_BYTES: usize = 4096;

/// A kind of thing that a release does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DroppedKind {
    /// FIFOs, sockets and devices; they are left out.
    SpecialFiles,
    /// Symbolic links that lead outside, which the user wants skipped; they are left out.
    OutsideLinks,
    /// File capabilities.
    Capabilities,
    /// Access control lists.
    Acls,
    /// Other extended attributes.
    Attributes,
    /// Set-id and sticky bits.
    SpecialBits,
    /// Owners other than that of the tree.
    Owners,
}

impl DroppedKind {
    /// Says for people how entries are pushed.
    pub fn words(self) -> &'static str {
        match self {
            Self::SpecialFiles => "skipped: neither files, directories nor links",
            Self::OutsideLinks => "skipped: links that lead outside",
            Self::Capabilities => "without their file capabilities",
            Self::Acls => "without their access control lists",
            Self::Attributes => "without their extended attributes",
            Self::SpecialBits => "without their set-id and sticky bits",
            Self::Owners => "without their owners, which differ from the tree's",
        }
    }
}

/// The entries of one kind that a release does not keep, or not whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The kind.
    pub what: DroppedKind,
    /// How many entries.
    pub count: u64,
    /// The first of them; control characters are escaped.
    pub first: Vec<String>,
}

impl Dropped {
    /// Says for people: `7 entries are without …: a, b, c, d, e and 2 more`.
    pub fn text(&self) -> String {
        let (verb, entries) = if self.count == 1 { ("is", "entry") } else { ("are", "entries") };
        let names = escape::list(&self.first, self.count);
        format!("{} {entries} {verb} {}: {names}", self.count, self.what.words())
    }
}

/// Counts what a release drops. Memory: the first names of each kind.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Dropped>);

impl Losses {
    /// Counts an entry.
    pub fn add(&mut self, what: DroppedKind, path: &EntryPath) {
        let at = self.0.iter().position(|dropped| dropped.what == what).unwrap_or_else(|| {
            self.0.push(Dropped { what, count: 0, first: Vec::new() });
            self.0.len() - 1
        });
        let dropped = &mut self.0[at];
        dropped.count += 1;
        if dropped.first.len() < NAMES_MAX {
            dropped.first.push(path.to_string());
        }
    }

    /// Counts what a pushed file or directory has and a release does not keep. `owner` is the owner of the tree.
    pub fn examine(&mut self, path: &EntryPath, place: &Path, metadata: &Metadata, owner: u32) {
        if metadata.mode() & 0o7000 != 0 {
            self.add(DroppedKind::SpecialBits, path);
        }
        if metadata.uid() != owner {
            self.add(DroppedKind::Owners, path);
        }
        let mut names = [0; ATTRIBUTES_BYTES];
        let names = match rustix::fs::listxattr(place, &mut names) {
            Ok(0) => return,
            Ok(length) => &names[..length],
            Err(rustix::io::Errno::RANGE) => &b"user."[..],
            // A file system without attributes.
            Err(_) => return,
        };
        let mut kinds: Vec<DroppedKind> = names.split(|byte| *byte == 0).filter_map(kind_of).collect();
        kinds.dedup();
        for kind in kinds {
            self.add(kind, path);
        }
    }

    /// Returns the counts.
    pub fn finish(self) -> Vec<Dropped> {
        self.0
    }
}

/// Returns the kind of an extended attribute; none for those that a system gives to every file.
fn kind_of(name: &[u8]) -> Option<DroppedKind> {
    match name {
        b"" | b"security.selinux" | b"security.SMACK64" | b"security.ima" | b"security.evm" => None,
        b"security.capability" => Some(DroppedKind::Capabilities),
        b"system.posix_acl_access" | b"system.posix_acl_default" => Some(DroppedKind::Acls),
        _ => Some(DroppedKind::Attributes),
    }
}
