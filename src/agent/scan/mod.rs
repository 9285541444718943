//! Reads a directory or file on a build host and makes its manifest.
//!
//! A walker lists the entries in the manifest's order, workers read, cut and hash the files, a
//! collector puts the results back in order. The manifest goes to a [`Spool`], so that memory stays
//! bounded whatever the input's size.

mod hasher;
mod spool;
mod walk;

pub use spool::{Located, Spool};
pub use walk::Selection;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use crate::chunking::Profile;
use crate::faults::{Fault, Faulty};
use crate::files;
use crate::manifest::{self, Builder, EntryPath, Item, NodeRef, Root, Shape};
use crate::monitor::{Monitor, Phase};
use crate::recipe::{ChunkRef, Recipe};

/// Why a path could not be scanned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The walk met something it cannot list.
    #[error("could not list {}: {source}", .path.display())]
    Walk {
        /// Where the walk began.
        path: PathBuf,
        /// What it met.
        source: ignore::Error,
    },
    /// A file that was written while it was read.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// A file that was listed and then was gone.
    #[error("{} vanished while the tree was read", .0.display())]
    Vanished(PathBuf),
    /// A name, link or tree that no release can hold.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// Neither a file nor a directory.
    #[error("{} is neither a file nor a directory", .0.display())]
    Kind(PathBuf),
    /// A `--exclude` that is no pattern.
    #[error("`{pattern}` is not a pattern: {source}")]
    Pattern {
        /// As it was given.
        pattern: String,
        /// What is wrong with it.
        source: ignore::Error,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            Self::Changed(_) | Self::Vanished(_) => Fault::Retry,
            Self::Manifest(error) => error.fault(),
            Self::Walk { source, .. } => source.io_error().map_or(Fault::Input, Fault::of_io),
            Self::Kind(_) | Self::Pattern { .. } => Fault::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Changed(_) | Self::Vanished(_) => "push when the build has finished, or exclude the path",
            Self::Manifest(manifest::Error::Link { .. }) => {
                "make the link relative and keep it inside the tree, or exclude it with --exclude or .whitignore"
            }
            Self::File(_) | Self::Walk { .. } => {
                "make it readable, or exclude it with --exclude or .whitignore"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl Error {
    /// Whether reading everything once more may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Changed(_) | Self::Vanished(_))
    }
}

/// A scanned tree or file: its root, its segments, and where each chunk can be read again.
#[derive(Debug)]
pub struct Scan {
    /// The manifest's root.
    pub root: Root,
    /// Its segments, in order.
    pub segments: Vec<NodeRef>,
    /// The segments' bytes.
    pub spool: Spool,
}

/// One file's chunk references, in blocks as they are found; an error ends them.
type Parts = Receiver<Result<Vec<ChunkRef>, Error>>;

/// An entry in the manifest's order, with its parts still to come where it is a file.
enum Listed {
    Entry(Item),
    File { path: EntryPath, mode: u16, size: u64, parts: Parts },
}

/// Files listed ahead of the one whose chunks are being collected.
const LISTED_AHEAD: usize = 256;

/// Scans `path`, a directory or a file, with `threads` workers.
///
/// Memory: some MB and 44 B for each segment. Reads every byte once.
///
/// # Errors
/// The first of [`Error`]; one [`Error::is_passing`] is worth a second scan.
pub fn scan(
    path: &Path,
    selection: &Selection,
    profile: Profile,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Scan, Error> {
    monitor.begin(Phase::Scan, None);
    let top = walk::Top::of(path)?;
    let mut collector = Collector {
        builder: Builder::new(profile),
        spool: Spool::new(top.base.clone()),
        file: None,
        checker: manifest::Reader::new(),
    };
    std::thread::scope(|scope| {
        let (listed_in, listed) = sync_channel(LISTED_AHEAD);
        let pool = hasher::Pool::start(scope, profile, threads.max(1), monitor);
        let walker =
            scope.spawn(|| walk::list(&top, selection, pool, &listed_in, monitor).map(|()| drop(listed_in)));
        let collected = collector.collect(&listed);
        // The walker stops when nobody listens; its own error comes first, being the cause.
        drop(listed);
        walker.join().expect("the walker does not panic")?;
        collected
    })?;
    collector.finish(top.shape)
}

struct Collector {
    builder: Builder,
    spool: Spool,
    /// The file whose chunks come next, and the offset of the next.
    file: Option<(EntryPath, u64)>,
    checker: manifest::Reader,
}

impl Collector {
    fn collect(&mut self, listed: &Receiver<Listed>) -> Result<(), Error> {
        while let Ok(entry) = listed.recv() {
            match entry {
                Listed::Entry(item) => {
                    self.file = None;
                    self.push(&item)?;
                }
                Listed::File { path, mode, size, parts } => {
                    let item = Item::File { path: path.clone(), mode, size, recipe: Recipe::Chunks };
                    self.file = None;
                    self.push(&item)?;
                    self.file = Some((path, 0));
                    while let Ok(part) = parts.recv() {
                        for chunk in part? {
                            self.push(&Item::Chunk(chunk))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds an item; the place of the next chunk is known before its segment may end.
    fn push(&mut self, item: &Item) -> Result<(), Error> {
        let segment = self.builder.push(item);
        self.spool.item(item, self.file.as_ref().map(|(path, offset)| (path, *offset)));
        if let (Item::Chunk(chunk), Some((_, offset))) = (item, &mut self.file) {
            *offset += u64::from(chunk.bytes);
        }
        match segment {
            Some(segment) => self.end_segment(&segment),
            None => Ok(()),
        }
    }

    fn end_segment(&mut self, segment: &manifest::Segment) -> Result<(), Error> {
        // What the proxy would refuse is refused here, where the path can still be named and mended.
        self.checker.segment(&segment.bytes)?;
        self.spool.end_segment(&segment.bytes)?;
        Ok(())
    }

    fn finish(mut self, shape: Shape) -> Result<Scan, Error> {
        let builder = std::mem::replace(&mut self.builder, Builder::new(Profile::DEFAULT));
        let (last, root, segments) = builder.finish(shape)?;
        if let Some(segment) = last {
            self.end_segment(&segment)?;
        }
        std::mem::take(&mut self.checker).finish(&root)?;
        Ok(Scan { root, segments, spool: self.spool })
    }
}

/// The path of an entry below `base`, on this machine.
pub fn path_below(base: &Path, entry: &EntryPath) -> PathBuf {
    base.join(std::ffi::OsStr::from_bytes(entry.as_bytes()))
}
