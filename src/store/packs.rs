//! The packs of one space that can be read: sealed ones through maps, unsealed ones through their file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock};

use delta::compression::Decompressor;
use disk::files::{self, OnPath};
use disk::mmap::Mapping;
use format::pack::{self, FooterView, FrameKind, FrameView, PackId, TRAILER_BYTES, Trailer};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::poison::Unpoisoned as _;

/// A pack that can be read. Cheap to hold; a map is made at the first read.
#[derive(Debug)]
pub struct Pack {
    /// Its name.
    pub id: PackId,
    path: PathBuf,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Sealed(OnceLock<Mapping>),
    Open(File),
}

impl Pack {
    /// A sealed pack.
    pub fn sealed(id: PackId, path: PathBuf) -> Self {
        Self { id, path, body: Body::Sealed(OnceLock::new()) }
    }

    /// A pack that is still written to, through `file`.
    pub fn open(id: PackId, path: PathBuf, file: File) -> Self {
        Self { id, path, body: Body::Open(file) }
    }

    /// Whether it is still written to, or being sealed.
    pub fn is_open(&self) -> bool {
        matches!(self.body, Body::Open(_))
    }

    /// Where the pack lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes from `offset` on that hold the frame there: a slice of the map, or a copy.
    ///
    /// # Errors
    /// The pack cannot be read; an offset beyond it gives no bytes.
    pub fn frame(&self, offset: u64) -> files::Result<Cow<'_, [u8]>> {
        match &self.body {
            Body::Sealed(_) => {
                let head = self.read(offset, pack::FRAME_HEAD_BYTES)?;
                // What makes no sense is given as it is, for the frame's own check to refuse.
                match head.try_into().ok().and_then(pack::frame_length) {
                    None => Ok(Cow::Borrowed(head)),
                    Some(length) => Ok(Cow::Borrowed(self.read(offset, length)?)),
                }
            }
            Body::Open(file) => {
                let mut head = [0; pack::FRAME_HEAD_BYTES];
                file.read_exact_at(&mut head, offset).on("read", &self.path)?;
                let Some(length) = pack::frame_length(&head) else { return Ok(Cow::Owned(head.to_vec())) };
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset).on("read", &self.path)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// The file cannot be examined.
    pub fn bytes(&self) -> files::Result<u64> {
        Ok(std::fs::metadata(&self.path).on("examine", &self.path)?.len())
    }

    /// Says that the `length` bytes at `offset` are not needed for now.
    pub fn release(&self, offset: u64, length: usize) {
        if let (Body::Sealed(cell), Ok(offset)) = (&self.body, usize::try_from(offset))
            && let Some(map) = cell.get()
        {
            map.release(offset, length);
        }
    }

    /// The bytes of a range of a sealed pack, as far as it has them.
    ///
    /// # Errors
    /// The file cannot be mapped, or the disk does not give them.
    pub fn read(&self, offset: u64, length: usize) -> files::Result<&[u8]> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.map()?.range(offset, length).on("read", &self.path)
    }

    /// The map of a sealed pack.
    fn map(&self) -> files::Result<&Mapping> {
        let Body::Sealed(cell) = &self.body else { unreachable!("only sealed packs are mapped") };
        if let Some(map) = cell.get() {
            return Ok(map);
        }
        let map = Mapping::open(&self.path)?;
        Ok(cell.get_or_init(|| map))
    }
}

/// The packs by their number in the index.
#[derive(Debug, Default)]
pub struct Packs(RwLock<HashMap<u32, Arc<Pack>>>);

impl Packs {
    /// The pack with that number.
    pub fn by_number(&self, number: u32) -> Option<Arc<Pack>> {
        self.0.read().unpoisoned().get(&number).cloned()
    }

    /// The pack of that name and its number.
    pub fn by_id(&self, id: PackId) -> Option<(u32, Arc<Pack>)> {
        let packs = self.0.read().unpoisoned();
        packs.iter().find(|(_, pack)| pack.id == id).map(|(number, pack)| (*number, Arc::clone(pack)))
    }

    /// Adds a pack, or replaces an open one by its sealed form.
    pub fn insert(&self, number: u32, pack: Pack) {
        self.0.write().unpoisoned().insert(number, Arc::new(pack));
    }

    /// The sealed packs, by number.
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

    /// All packs, in no order.
    pub fn all(&self) -> Vec<(u32, Arc<Pack>)> {
        let packs = self.0.read().unpoisoned();
        packs.iter().map(|(number, pack)| (*number, Arc::clone(pack))).collect()
    }
}

/// Where a sealed pack lies below the space's `packs` folder.
pub fn sealed_path(packs: &Path, id: PackId) -> PathBuf {
    let name = id.to_string();
    packs.join(&name[..2]).join(format!("{name}.pack"))
}

/// Checks the header and footer of a sealed pack.
///
/// # Errors
/// The file cannot be mapped, or is not the sealed pack of that name.
pub fn check_sealed(pack: &Pack) -> Result<FooterView<'_>, super::Error> {
    let damaged = |source| super::Error::Pack { path: pack.path().to_owned(), source };
    let id = pack::read_header(pack.read(0, pack::HEADER_BYTES)?).map_err(damaged)?;
    if id != pack.id {
        return Err(damaged(pack::Error::Damaged { part: "header", offset: 0 }));
    }
    let end = pack.map()?.len() as u64;
    // The index tells places in four bytes.
    if end > u64::from(u32::MAX) {
        return Err(damaged(pack::Error::Damaged { part: "trailer", offset: end }));
    }
    let trailer = pack.read(end.saturating_sub(TRAILER_BYTES as u64), TRAILER_BYTES)?;
    let cut = pack::Error::Damaged { part: "trailer", offset: end };
    let trailer = Trailer::parse(trailer.try_into().map_err(|_| damaged(cut))?, end).map_err(damaged)?;
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
    /// What its chunks are.
    pub kind: FrameKind,
    /// Where it begins in the pack.
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
        let damaged = |source| super::Error::Pack { path: pack.path.clone(), source };
        let frame = FrameView::parse(&bytes, offset).map_err(damaged)?;
        let length = frame.bytes().len();
        let (kind, chunks) = (frame.kind(), frame.chunks().collect());
        visit(&FrameSummary { kind, offset, bytes: length as u64, chunks });
        drop(bytes);
        pack.release(offset, length);
        Ok(length as u64)
    };
    match &pack.body {
        Body::Sealed(_) => {
            // Whoever counts what is in a pack must not take one for small that is damaged in its middle.
            let footer = check_sealed(pack)?;
            (0..footer.frame_count()).try_for_each(|at| visit_at(footer.frame(at).0).map(drop))
        }
        Body::Open(file) => {
            let end = file.metadata().on("examine", &pack.path)?.len();
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
