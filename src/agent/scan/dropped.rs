//! What a release does not keep of a tree.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use crate::manifest::EntryPath;

/// Names that are given of each kind; all are counted.
const NAMES_MAX: usize = 5;
/// 4 KiB: the names of a file's attributes; where they take more, there are some in any case.
const ATTRIBUTES_BYTES: usize = 4096;

/// A kind of what is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lost {
    /// FIFOs, sockets and devices; they are left out.
    SpecialFiles,
    /// Symbolic links that lead outside and were to be skipped; they are left out.
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

impl Lost {
    /// For people: what is lost, of entries.
    pub fn words(self) -> &'static str {
        match self {
            Self::SpecialFiles => "skipped, as neither files, directories nor links",
            Self::OutsideLinks => "skipped, as links that lead outside",
            Self::Capabilities => "without their file capabilities",
            Self::Acls => "without their access control lists",
            Self::Attributes => "without their extended attributes",
            Self::SpecialBits => "without their set-id and sticky bits",
            Self::Owners => "without their owners, which differ from that of the tree",
        }
    }
}

/// What is not kept, of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The kind.
    pub what: Lost,
    /// Entries.
    pub count: u64,
    /// The first of them; control characters are escaped.
    pub first: Vec<String>,
}

impl Dropped {
    /// For people: `3 entries are pushed without …: a, b, c`.
    pub fn text(&self) -> String {
        let (verb, entries) = if self.count == 1 { ("is", "entry") } else { ("are", "entries") };
        let more = if self.count > self.first.len() as u64 { ", …" } else { "" };
        format!("{} {entries} {verb} {}: {}{more}", self.count, self.what.words(), self.first.join(", "))
    }
}

/// Counts what is not kept. Memory: some names.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Dropped>);

impl Losses {
    /// Counts an entry.
    pub fn add(&mut self, what: Lost, path: &EntryPath) {
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

    /// Counts what a file or directory that is pushed has beside what is kept; `owner` is that of the tree.
    pub fn examine(&mut self, path: &EntryPath, place: &Path, metadata: &Metadata, owner: u32) {
        if metadata.mode() & 0o7000 != 0 {
            self.add(Lost::SpecialBits, path);
        }
        if metadata.uid() != owner {
            self.add(Lost::Owners, path);
        }
        let mut names = [0; ATTRIBUTES_BYTES];
        let names = match rustix::fs::listxattr(place, &mut names) {
            Ok(0) => return,
            Ok(length) => &names[..length],
            Err(rustix::io::Errno::RANGE) => &b"user."[..],
            // A file system without attributes.
            Err(_) => return,
        };
        let mut kinds: Vec<Lost> = names.split(|byte| *byte == 0).filter_map(kind_of).collect();
        kinds.dedup();
        for kind in kinds {
            self.add(kind, path);
        }
    }

    /// What was counted.
    pub fn finish(self) -> Vec<Dropped> {
        self.0
    }
}

/// What an attribute is; none where the system gives one to every file.
fn kind_of(name: &[u8]) -> Option<Lost> {
    match name {
        b"" | b"security.selinux" | b"security.SMACK64" | b"security.ima" | b"security.evm" => None,
        b"security.capability" => Some(Lost::Capabilities),
        b"system.posix_acl_access" | b"system.posix_acl_default" => Some(Lost::Acls),
        _ => Some(Lost::Attributes),
    }
}
