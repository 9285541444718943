//! A release's content as sorted entries, stored as a small tree of chunks.
//!
//! The entries and the parts of their recipes form one stream of [`Item`]s. [`Builder`] cuts the stream
//! into *segments* at places that the items choose, lists the segments in *nodes*, those again, and
//! ends in a [`Root`]. Its BLAKE3 is the release id where no archive is among the entries. A change in one entry changes one segment and the
//! nodes above it. [`Reader`] gives the items back and refuses whatever an honest builder cannot make:
//! wrong order, duplicates, paths or links that leave the tree, sizes that do not add up.
//!
//! Byte layouts: FORMAT 2.

mod builder;
mod content;
mod coordinates;
mod item;
mod links;
mod outline;
mod path;
mod reader;
mod root;
mod thin;

pub use builder::{Builder, Segment};
pub use coordinates::{RefAt, SegmentIndex, SegmentName};
pub use item::{Item, MODE_MASK};
pub use links::{Leads, leads, wound_through};
pub use outline::{Gap, Outline, Step};
pub use path::EntryPath;
pub use reader::{Reader, decode_segment, segment_chunks};
pub use root::{FOLDER_MODE, NodeRef, Profile, Root, Shape, Totals, decode_node};
pub use thin::{Reference, Thin, shorten};

use ground::faults::{Fault, faulty};
use ground::ids::ChunkId;

/// The reasons to refuse a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes that are no segment, node or root.
    #[error("manifest {part} {id:?} is malformed at byte {offset}")]
    Malformed {
        /// `segment`, `node` or `root`.
        part: &'static str,
        /// The part's name.
        id: ChunkId,
        /// Where reading stopped.
        offset: usize,
    },
    /// Made by a newer whit.
    #[error("manifest version {0} is unknown to this version")]
    Version(u8),
    /// A recipe of a newer whit.
    #[error("recipe kind {0} is unknown to this version")]
    Recipe(u8),
    /// A path that cannot be created safely.
    #[error("path `{}` is not allowed: {why}", ground::escape::bytes(.path))]
    Path {
        /// The path's bytes.
        path: Vec<u8>,
        /// The reason.
        why: &'static str,
    },
    /// A link that leaves the release.
    #[error("symbolic link `{path}` points outside the release: `{}`", ground::escape::bytes(.target))]
    Link {
        /// The link.
        path: EntryPath,
        /// Its target.
        target: Vec<u8>,
    },
    /// A hard link to anything but the first name of a file.
    #[error("`{path}` is a hard link to `{target}`, which is not an earlier file marked as hard-linked")]
    HardLink {
        /// The link.
        path: EntryPath,
        /// Its target.
        target: EntryPath,
    },
    /// Files that announce further names and have none.
    #[error("{0} files are marked as hard-linked, but nothing links to them")]
    Unlinked(usize),
    /// More links than a reader remembers.
    #[error("the manifest has more than {0} links")]
    TooManyLinks(usize),
    /// Entries out of order, twice, or below something that is no directory.
    #[error("entry `{0}` is out of order, a duplicate, or not inside a directory")]
    Order(EntryPath),
    /// Chunks that do not add up to the file's size.
    #[error("the chunks of `{path}`: expected {expected} B, found {found} B")]
    Size {
        /// The file.
        path: EntryPath,
        /// The size in its entry.
        expected: u64,
        /// The bytes of its chunks.
        found: u64,
    },
    /// An archive whose stream is beyond the bounds of `limits`.
    #[error("the archive `{0}` unpacks to more than its size allows")]
    Stream(EntryPath),
    /// The entries are not those that the root counted.
    #[error("the manifest's entries do not match its root")]
    Totals,
    /// The entries have archives, and make another release than the root says.
    #[error("the manifest's entries do not make the release that its root names")]
    OtherContent,
    /// Beyond a limit of `limits`.
    #[error("the manifest has more than {0} segments")]
    TooLarge(usize),
    /// The segments give another root than the one named.
    #[error("the segments have the root hash of release {found:?}, expected {expected:?}")]
    OtherRoot {
        /// The release that was named.
        expected: ChunkId,
        /// The release that the segments make.
        found: ChunkId,
    },
}

faulty! {
    Error;
    Self::Version(_) | Self::Recipe(_) => Fault::Version;
    Self::Malformed { .. } | Self::OtherRoot { .. } => Fault::Corrupt;
    _ => Fault::Input;
}
