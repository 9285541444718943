//! Rebuilds complete artifacts from a manifest and a source of verified chunks.
//!
//! [`write_tree`] writes a release into a new folder, with several threads, and reuses the files of an earlier copy;
//! [`write_archive`] rebuilds an archive; [`write_file`], [`write_tar`] and [`write_zip`] stream one artifact or all of them. [`Items`] and
//! [`walk`] read a manifest in order, [`leaves`] lists its segments. [`check_fits`] compares a release with the free disk
//! space, [`looks_complete`] a folder with a release without reading a file.
//!
//! A manifest may come from anyone: memory stays bounded whatever it holds, nothing is written outside the folder, and every
//! written byte belongs to a chunk whose hash the manifest names.

mod archive;
mod archive_stream;
mod check;
mod entries;
mod free_space;
mod hole;
mod mapping;
mod older;
mod packed_bytes;
mod packed_keys;
mod pieces;
mod rebuilt;
mod release;
mod source;
mod stream;
mod tar_header;
mod tar_writer;
mod tree;
mod walk;
mod zip_writer;

#[cfg(test)]
mod sample;

pub use archive::{Step, each_archive, read_plan, write_archive, write_archive_copying};
pub use archive_stream::Archive;
pub use check::looks_complete;
pub use free_space::check_fits;
pub use mapping::{Linked, Mapping};
pub use older::{Older, known_streams};
pub use packed_bytes::PackedBytes;
pub use rebuilt::Rebuilt;
pub use release::{ReleaseEntries, ReleaseEntry, ReleaseFile, each_path};
pub use source::{ChunkReader, ChunkSource, SharedSource, SourceError};
pub use stream::write_file;
pub use tar_writer::{StreamOptions, write_tar};
pub use tree::{Linkable, OutsideLinks, Previous, Reuse, TreeOptions, write_tree};
pub use walk::{Items, leaves, walk};
pub use zip_writer::write_zip;

#[cfg(test)]
pub(crate) use sample::{Entry, MemorySource, gzips, noise, one_of_each, read_tree, sorted};

use std::io;
use std::path::PathBuf;

use disk::files;
use format::manifest::{self, EntryPath};
use ground::faults::{Fault, faulty};
use ground::ids::ChunkId;
use ground::threads;

/// The reason why a release could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest is not one that an honest builder makes.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// A chunk could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file or folder could not be written or read.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A chunk is not as long as the manifest says.
    #[error("chunk {id}: expected {expected} B, found {found} B")]
    Length {
        /// The chunk.
        id: ChunkId,
        /// Its length in the manifest.
        expected: u32,
        /// Its length in the source.
        found: usize,
    },
    /// The stream of an archive is malformed.
    #[error("the archive `{path}` cannot be rebuilt: {source}")]
    Plan {
        /// The archive.
        path: EntryPath,
        /// The fault in its plan.
        source: recode::archive::Error,
    },
    /// The stream of an archive rebuilds other bytes.
    #[error("the rebuilt archive `{0}` has a different hash")]
    OtherArtifact(EntryPath),
    /// The file system is too full for all of it; nothing was written.
    #[error("no room at {}: {needed} {unit} needed, {free} {unit} free besides the reserve", .place.display())]
    NoRoom {
        /// The folder to write to.
        place: PathBuf,
        /// The need of the release.
        needed: u64,
        /// The free space, the reserve not counted.
        free: u64,
        /// The unit of both: `B` or `entries`.
        unit: &'static str,
    },
    /// A link that leads outside, where none is allowed.
    #[error("the link `{path}` leads outside the release, to `{}`", ground::escape::bytes(.target))]
    OutsideLink {
        /// The link.
        path: EntryPath,
        /// Its target.
        target: Vec<u8>,
    },
    /// What lies above a link to something that is kept elsewhere is no directory.
    #[error("`{0}` cannot be linked in: the release has something else than a directory above it")]
    NoDirectory(EntryPath),
    /// A file whose other name is left out.
    #[error("`{path}` is another name of `{left_out}`, which is left out")]
    LeftOut {
        /// The name that remains.
        path: EntryPath,
        /// The name that is left out.
        left_out: EntryPath,
    },
    /// The release has no file of this name.
    #[error("the release has no file `{0}`")]
    Missing(EntryPath),
    /// One file was asked for, without a name, of a release that is a tree.
    #[error("the release is a tree of {0} files: name the one to write")]
    Unnamed(u64),
    /// A name that the stream's format cannot hold.
    #[error("a zip archive cannot hold `{0}`: its name or target is not UTF-8")]
    NotText(EntryPath),
    /// The stream's reader did not take it.
    #[error("could not write `{path}` to the output: {source}")]
    Output {
        /// The entry on its way.
        path: EntryPath,
        /// The writer's error.
        source: io::Error,
    },
    /// The end of a stream was not taken.
    #[error("could not finish the output: {0}")]
    OutputEnd(io::Error),
    /// The threads that write cannot be started.
    #[error(transparent)]
    Threads(#[from] threads::Error),
    /// The caller asked to stop.
    #[error("rebuilding was cancelled")]
    Cancelled,
}

faulty! {
    Error passes on Manifest, Source, File, Threads;
    Self::Plan { source, .. } => source.fault();
    Self::Length { .. } | Self::OtherArtifact(_) => Fault::Corrupt;
    Self::NoRoom { place, .. } => Fault::Full, format!("make room on the file system of {}", place.display());
    Self::Missing(_) => Fault::Missing, "`whit pull APP --tar - | tar t` lists a release's files";
    Self::Unnamed(_) => Fault::Input, "`whit pull APP --tar - | tar t` lists a release's files";
    Self::OutsideLink { .. } => Fault::Input,
        "to allow such links, pull with `--links keep`, or set `outside_links` for the destination";
    Self::NotText(_) => Fault::Input, "use tar, which holds names of any bytes";
    Self::NoDirectory(_) | Self::LeftOut { .. } => Fault::Input,
        "change what the destination's `shared` names, or what the release has there";
    Self::Output { source, .. } | Self::OutputEnd(source) => Fault::of_io(source);
    Self::Cancelled => Fault::Interrupted;
}
