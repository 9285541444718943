//! The packs of one space that can be read: sealed ones as blobs, unsealed ones through their file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, RwLock};

use super::blobs::{Blob, Blobs};
use delta::compression::Decompressor;
use disk::files::{self, OnPath};
use format::pack::{self, FooterView, FrameKind, FrameView, PackId, TRAILER_BYTES, Trailer};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::poison::Unpoisoned as _;

/// A pack that can be read. Cheap to hold: a sealed one is opened at the first read.
#[derive(Debug)]
pub struct Pack {
    /// Its name.
    pub id: PackId,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Sealed { blobs: Arc<dyn Blobs>, blob: OnceLock<Box<dyn Blob>> },
    Open { file: File, path: PathBuf },
}

impl Pack {
    /// A sealed pack, which is among `blobs`.
    pub fn sealed(id: PackId, blobs: &Arc<dyn Blobs>) -> Self {
        Self { id, body: Body::Sealed { blobs: Arc::clone(blobs), blob: OnceLock::new() } }
    }

    /// A pack that is still written to, read through `file`.
    pub fn open(id: PackId, path: PathBuf, file: File) -> Self {
        Self { id, body: Body::Open { file, path } }
    }

    /// Returns whether it is still written to, or being sealed.
    pub fn is_open(&self) -> bool {
        matches!(self.body, Body::Open { .. })
    }

    /// Returns the pack's location, for messages alone.
    pub fn location(&self) -> PathBuf {
        match &self.body {
            Body::Sealed { blobs, .. } => blobs.location(self.id),
            Body::Open { path, .. } => path.clone(),
        }
    }

    /// Returns the bytes from `offset` on that hold the frame there: borrowed from memory, or a copy.
    ///
    /// # Errors
    /// The pack cannot be read. An offset beyond a sealed pack gives no bytes.
    pub fn frame(&self, offset: u64) -> files::Result<Cow<'_, [u8]>> {
        match &self.body {
            Body::Sealed { .. } => {
                let head = self.read(offset, pack::FRAME_HEAD_BYTES)?;
                // The frame's own check refuses a head that makes no sense.
                match (&*head).try_into().ok().and_then(pack::frame_length) {
                    None => Ok(head),
                    Some(length) => self.read(offset, length),
                }
            }
            Body::Open { file, path } => {
                let mut head = [0; pack::FRAME_HEAD_BYTES];
                file.read_exact_at(&mut head, offset).on("read", path)?;
                let Some(length) = pack::frame_length(&head) else { return Ok(Cow::Owned(head.to_vec())) };
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset).on("read", path)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Returns the pack's bytes.
    ///
    /// # Errors
    /// The pack is gone, or cannot be examined.
    pub fn bytes(&self) -> files::Result<u64> {
        match &self.body {
            Body::Sealed { blobs, .. } => blobs.bytes(self.id),
            Body::Open { file, path } => Ok(file.metadata().on("examine", path)?.len()),
        }
    }

    /// Says that the `length` bytes at `offset` are not needed for now.
    pub fn release(&self, offset: u64, length: usize) {
        if let Body::Sealed { blob, .. } = &self.body
            && let Some(blob) = blob.get()
        {
            blob.release(offset, length);
        }
    }

    /// Returns the bytes of a range of a sealed pack, as far as it has them.
    fn read(&self, offset: u64, length: usize) -> files::Result<Cow<'_, [u8]>> {
        self.blob()?.read(offset, length)
    }

    /// Returns the blob of a sealed pack.
    fn blob(&self) -> files::Result<&dyn Blob> {
        let Body::Sealed { blobs, blob } = &self.body else { unreachable!("only sealed packs are blobs") };
        if let Some(blob) = blob.get() {
            return Ok(&**blob);
        }
        let opened = blobs.open(self.id)?;
        Ok(&**blob.get_or_init(|| opened))
    }
}

/// The packs by their number in the index.
#[derive(Debug, Default)]
pub struct Packs(RwLock<HashMap<u32, Arc<Pack>>>);

impl Packs {
    /// Returns the pack with that number.
    pub fn by_number(&self, number: u32) -> Option<Arc<Pack>> {
        self.0.read().unpoisoned().get(&number).cloned()
    }

    /// Returns the pack of that name and its number.
    pub fn by_id(&self, id: PackId) -> Option<(u32, Arc<Pack>)> {
        let packs = self.0.read().unpoisoned();
        packs.iter().find(|(_, pack)| pack.id == id).map(|(number, pack)| (*number, Arc::clone(pack)))
    }

    /// Adds a pack, or replaces an open one by its sealed form.
    pub fn insert(&self, number: u32, pack: Pack) {
        self.0.write().unpoisoned().insert(number, Arc::new(pack));
    }

    /// Returns the sealed packs, by number.
    pub fn sealed(&self) -> Vec<(u32, Arc<Pack>)> {
        let mut packs = self.all();
        packs.retain(|(_, pack)| !pack.is_open());
        packs.sort_unstable_by_key(|(number, _)| *number);
        packs
    }

    /// Forgets a pack; those that read it still can, even when its file is removed.
    pub fn remove(&self, number: u32) {
        self.0.write().unpoisoned().remove(&number);
    }

    /// Forgets all packs.
    pub fn clear(&self) {
        self.0.write().unpoisoned().clear();
    }

    /// Returns all packs, in no order.
    pub fn all(&self) -> Vec<(u32, Arc<Pack>)> {
        let packs = self.0.read().unpoisoned();
        packs.iter().map(|(number, pack)| (*number, Arc::clone(pack))).collect()
    }
}

/// Checks the header and footer of a sealed pack.
///
/// # Errors
/// The pack cannot be read, or is not the sealed pack of that name.
pub fn check_sealed(pack: &Pack) -> Result<FooterView<'_>, super::Error> {
    let damaged = |source| super::Error::Pack { path: pack.location(), source };
    let id = pack::read_header(&pack.read(0, pack::HEADER_BYTES)?).map_err(damaged)?;
    if id != pack.id {
        return Err(damaged(pack::Error::Damaged { part: "header", offset: 0 }));
    }
    let end = pack.blob()?.bytes();
    // The index has four bytes for an offset.
    if end > u64::from(u32::MAX) {
        return Err(damaged(pack::Error::Damaged { part: "trailer", offset: end }));
    }
    let trailer = pack.read(end.saturating_sub(TRAILER_BYTES as u64), TRAILER_BYTES)?;
    let cut = pack::Error::Damaged { part: "trailer", offset: end };
    let trailer = Trailer::parse((&*trailer).try_into().map_err(|_| damaged(cut))?, end).map_err(damaged)?;
    let length = usize::try_from(trailer.footer_bytes).unwrap_or(usize::MAX);
    FooterView::parse(pack.read(trailer.footer_offset, length)?, &trailer).map_err(damaged)
}

/// Returns the chunks of the frame at `offset` that do not match their ids; none where the frame does not decode.
pub fn chunks_of_damaged_frame(pack: &Pack, offset: u64) -> Option<Vec<ChunkId>> {
    let bytes = pack.frame(offset).ok()?;
    let frame = FrameView::parse(&bytes, offset).ok()?;
    let mut plain = Vec::new();
    Decompressor::new().decompress(frame.codec(), frame.payload(), frame.plain_bytes(), &mut plain).ok()?;
    let mut rest = plain.as_slice();
    let is_damaged = |chunk: &ChunkRef| {
        let (bytes, after) = rest.split_at(chunk.bytes as usize);
        rest = after;
        ChunkId::of(bytes) != chunk.id
    };
    Some(frame.chunks().filter(is_damaged).map(|chunk| chunk.id).collect())
}

/// Returns the chunks that a sealed pack's footer names in the frame at `offset`.
///
/// # Errors
/// The pack cannot be read, or has no whole footer.
pub fn named_in_frame(pack: &Pack, offset: u64) -> super::Result<Vec<ChunkId>> {
    let footer = check_sealed(pack)?;
    Ok(footer.chunks().filter(|entry| entry.frame_offset == offset).map(|entry| entry.chunk.id).collect())
}

/// A frame, without its payload.
#[derive(Debug, Clone)]
pub struct FrameSummary {
    /// The kind of its chunks.
    pub kind: FrameKind,
    /// The offset of the frame in the pack.
    pub offset: u64,
    /// Its bytes in the pack.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: Vec<ChunkRef>,
}

/// Hands each frame of a pack to `visit`, in order; of an open pack those that are there.
///
/// # Errors
/// The pack cannot be read; a sealed one has no whole footer, or lacks a frame that it names.
pub fn visit_frames(pack: &Pack, visit: &mut dyn FnMut(&FrameSummary)) -> super::Result<()> {
    let mut visit_at = |offset: u64| -> super::Result<u64> {
        let bytes = pack.frame(offset)?;
        let damaged = |source| super::Error::Pack { path: pack.location(), source };
        let frame = FrameView::parse(&bytes, offset).map_err(damaged)?;
        let length = frame.bytes().len();
        let (kind, chunks) = (frame.kind(), frame.chunks().collect());
        visit(&FrameSummary { kind, offset, bytes: length as u64, chunks });
        drop(bytes);
        pack.release(offset, length);
        Ok(length as u64)
    };
    match &pack.body {
        Body::Sealed { .. } => {
            // A pack that is damaged in its middle must not look small.
            let footer = check_sealed(pack)?;
            (0..footer.frame_count()).try_for_each(|at| visit_at(footer.frame(at).0).map(drop))
        }
        Body::Open { .. } => {
            let end = pack.bytes()?;
            let mut offset = pack::HEADER_BYTES as u64;
            while offset < end {
                // A frame that is being written now is not counted yet.
                let Ok(length) = visit_at(offset) else { break };
                offset += length;
            }
            Ok(())
        }
    }
}
