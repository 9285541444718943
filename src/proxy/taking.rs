//! Stores what the store lacks of files on this machine, under a lease.

use std::collections::HashSet;

use crate::agent::scan::{self, LastOpened, Scan};
use crate::ledger::Lease;
use crate::restore;
use crate::store::{self, ArchiveForm, Store};
use delta::compression::{Compressor, LEVEL_DEFAULT};
use delta::similar::Sketch;
use format::manifest::{self, Builder, EntryPath, NodeRef, Root, SegmentIndex};
use format::pack::{Frame, FrameEnd, FrameKind, Framer};
use format::recipe::ChunkRef;
use ground::faults::{Fault, faulty};

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The files.
    #[error(transparent)]
    Scan(#[from] scan::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] format::manifest::Error),
    /// There is no place for temporary files.
    #[error("no room can be made beside the store: {0}")]
    Space(std::io::Error),
    /// There is too little room to unpack an archive.
    #[error("there is too little room beside the store to unpack {0}")]
    Archive(EntryPath),
    /// What was taken cannot be read.
    #[error(transparent)]
    Restore(#[from] restore::Error),
    /// The proxy stops, or has something else to do.
    #[error("the proxy stops")]
    Stopping,
    /// It took so long that chunks may have been collected.
    #[error("the content took too long to read, and some of it was collected meanwhile")]
    Lapsed,
}

faulty! {
    Error passes on Scan, Store, Manifest, Restore;
    Self::Space(error) => Fault::of_io(error);
    Self::Archive(_) => Fault::Full;
    Self::Stopping | Self::Lapsed => Fault::Retry, "prime again: stored content is not stored twice";
}

/// Stores what the store lacks of a scan.
pub(super) struct Taking<'a> {
    store: &'a Store,
    /// Keeps what was taken, until something names it.
    pub lease: Lease,
    compressor: Compressor,
    taken: HashSet<ChunkRef>,
    /// Plain bytes of the content that the store lacked.
    pub unseen_bytes: u64,
}

impl<'a> Taking<'a> {
    /// Begins with a lease.
    pub fn begin(store: &'a Store) -> Result<Self, Error> {
        let (lease, compressor) = (store.lease()?, Compressor::new(LEVEL_DEFAULT));
        Ok(Self { store, lease, compressor, taken: HashSet::new(), unseen_bytes: 0 })
    }

    /// Stores the content and the manifest of a scan, segment by segment.
    pub fn take(&mut self, scan: &Scan, is_stopping: impl Fn() -> bool) -> Result<(), Error> {
        self.take_content(scan, is_stopping)?;
        for index in SegmentIndex::range(0..scan.segments.len()) {
            let segment = scan.spool.segment(index).map_err(scan::Error::from)?;
            self.take_manifest(vec![segment])?;
        }
        self.take_root(&scan.root, scan.segments.clone())
    }

    /// Stores the nodes above some segments, and their root.
    pub fn take_root(&mut self, root: &Root, segments: Vec<NodeRef>) -> Result<(), Error> {
        let mut nodes = Vec::new();
        root.over(segments, |node| nodes.push(node.bytes))?;
        nodes.push(root.encode());
        self.take_manifest(nodes)
    }

    /// Ends the manifest that `builder` has made of what was taken, and notes it as one that makes the release of `root`.
    pub fn name(mut self, builder: Builder, root: &Root, archives: ArchiveForm) -> Result<(), Error> {
        let (last, made, segments) = builder.finish(root.shape)?;
        if let Some(last) = last {
            self.take_manifest(vec![last.bytes])?;
        }
        self.take_root(&made, segments)?;
        self.store.sync()?;
        if made.release() != root.release() {
            return Err(manifest::Error::OtherContent.into());
        }
        if !self.lease.renew() {
            return Err(Error::Lapsed);
        }
        Ok(self.store.keep_root(&made, archives)?)
    }

    /// Stores the content of a scan.
    pub fn take_content(&mut self, scan: &Scan, is_stopping: impl Fn() -> bool) -> Result<(), Error> {
        let mut last = LastOpened::default();
        for index in SegmentIndex::range(0..scan.segments.len()) {
            if is_stopping() {
                return Err(Error::Stopping);
            }
            self.lease.renew();
            let mut chunks = Vec::new();
            for located in scan.spool.chunks(index)? {
                let chunk = located.chunk;
                if self.lacks(&chunk)? {
                    let mut plain = Vec::new();
                    located.read_verified(&mut last, &mut plain)?;
                    chunks.push((chunk, plain));
                }
            }
            self.unseen_bytes += chunks.iter().map(|(chunk, _)| u64::from(chunk.bytes)).sum::<u64>();
            let sketches =
                chunks.iter().filter_map(|(chunk, plain)| Some((chunk.id.into(), Sketch::of(plain)?)));
            self.store.sketches().insert(sketches);
            self.keep(FrameKind::Content, FrameEnd::Reached, &chunks)?;
        }
        Ok(())
    }

    /// Stores chunks of content.
    pub fn take_chunks(&mut self, chunks: Vec<Vec<u8>>) -> Result<(), Error> {
        let mut lacking = Vec::new();
        for plain in chunks {
            let chunk = ChunkRef::of(&plain);
            if self.lacks(&chunk)? {
                lacking.push((chunk, plain));
            }
        }
        self.keep(FrameKind::Content, FrameEnd::Reached, &lacking)
    }

    /// Returns whether the store lacks a chunk, which is then taken.
    fn lacks(&mut self, chunk: &ChunkRef) -> Result<bool, Error> {
        Ok(!self.store.holds(chunk)? && self.taken.insert(*chunk))
    }

    /// Stores parts of a manifest.
    pub fn take_manifest(&mut self, parts: Vec<Vec<u8>>) -> Result<(), Error> {
        let mut lacking = Vec::new();
        for part in parts {
            let chunk = ChunkRef::of(&part);
            if self.lacks(&chunk)? {
                lacking.push((chunk, part));
            }
        }
        self.keep(FrameKind::Manifest, FrameEnd::Below, &lacking)
    }

    fn keep(&mut self, kind: FrameKind, end: FrameEnd, chunks: &[(ChunkRef, Vec<u8>)]) -> Result<(), Error> {
        let (store, lease) = (self.store, &self.lease);
        let framer = Framer::new(kind, end, &mut self.compressor);
        framer.frame_all(chunks.iter().map(|(chunk, bytes)| (*chunk, bytes.as_slice())), |frame: Frame| {
            lease.brought(frame.payload.len() as u64);
            store.append(&frame)?;
            Ok(())
        })
    }
}
