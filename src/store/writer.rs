//! Appends frames to the open pack, makes them durable in groups, and seals full packs.
//!
//! A frame is written at once and counted; [`Writer::sync`] makes all counted frames durable, with one sync for all callers
//! that wait. A thread of its own seals full packs: footer, sync, put among the blobs. Until the index has a pack's chunks,
//! `Recent` answers for them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::merger::Merger;
use super::pack_file::PackFile;
use super::packs::Pack;
use super::place::Place;
use super::shared::Shared;
use super::{Error, Options, Result};
use disk::crash_points;
use disk::files::{self, Durability, OnPath};
use format::pack::{self, Footer, Frame};
use ground::ids::ChunkId;
use ground::limits::PACK_CHUNKS_MAX;
use ground::poison::Unpoisoned as _;

/// Packs waiting to be sealed: bounds memory.
const SEAL_QUEUE: usize = 2;

/// The pack that is being filled.
#[derive(Debug)]
struct OpenPack {
    number: u32,
    file: PackFile,
    bytes: u64,
    footer: Footer,
    /// A part of a frame was written and could not be cut off: nothing may follow it.
    broken: bool,
}

/// A message to the sealer's thread.
#[derive(Debug)]
enum ForSealer {
    Seal(Box<OpenPack>),
    /// Report whether everything before was sealed.
    Report(SyncSender<bool>),
}

#[derive(Debug, Default)]
struct State {
    open: Option<OpenPack>,
    next_number: u32,
    /// Frames written since the start.
    written: u64,
    /// Files with frames that may not be durable.
    dirty: Vec<(File, PathBuf)>,
}

/// Writes the packs of one space. All methods may be called from any thread.
#[derive(Debug)]
pub struct Writer {
    shared: Shared,
    state: Mutex<State>,
    /// Frames that are durable.
    durable: AtomicU64,
    sealer: Mutex<Option<(SyncSender<ForSealer>, JoinHandle<()>)>>,
    /// Bytes at which a pack is full.
    pack_bytes: u64,
    durability: Durability,
}

impl Writer {
    /// Starts with no open pack; new packs are numbered from `next_number`.
    ///
    /// # Errors
    /// There is no thread to seal packs.
    pub fn new(shared: Shared, next_number: u32, options: &Options) -> Result<Self> {
        let (sender, receiver) = sync_channel(SEAL_QUEUE);
        let (for_sealer, its_options) = (shared.clone(), *options);
        let thread = std::thread::Builder::new().name("whit-sealer".to_owned());
        let thread = thread
            .spawn(move || seal_all(&for_sealer, &receiver, &its_options))
            .on("start the sealer of", &shared.folder)?;
        Ok(Self {
            shared,
            state: Mutex::new(State { next_number, ..State::default() }),
            durable: AtomicU64::new(0),
            sealer: Mutex::new(Some((sender, thread))),
            pack_bytes: options.pack_bytes,
            durability: options.durability,
        })
    }

    /// Appends a frame; its chunks can be found and read at once, and are durable after [`Writer::sync`].
    ///
    /// Returns the number of frames with it, which [`Writer::durable`] must reach.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when less than `reserve_bytes` would stay free, or the disk's error. The pack is as before.
    pub fn append(&self, frame: &Frame, reserve_bytes: u64) -> Result<u64> {
        let mut bytes = Vec::with_capacity(pack::frame_bytes(frame.chunks.len(), frame.payload.len()));
        frame.encode(&mut bytes);
        let free = files::free_bytes(&self.shared.folder)?;
        if free < reserve_bytes.saturating_add(bytes.len() as u64) {
            let folder = self.shared.folder.clone();
            return Err(Error::NoRoom { folder, free, reserve: reserve_bytes });
        }
        let mut state = self.state.lock().unpoisoned();
        // While a sync runs nobody knows yet; the commit will.
        if self.shared.failed.try_lock().is_ok_and(|failed| *failed) {
            return Err(Error::WriteFailed);
        }
        if state.open.as_ref().is_none_or(|pack| pack.broken) {
            // A broken pack is left as it is: its whole frames are read from it, the next start seals it.
            let pack = OpenPack::create(&self.shared.folder, state.next_number, self.durability)?;
            let file = &pack.file;
            self.shared.packs.insert(pack.number, Pack::open(file.id, file.path.clone(), file.share()?));
            state.next_number += 1;
            state.dirty.push((file.share()?, file.path.clone()));
            state.open = Some(pack);
        }
        let pack = state.open.as_mut().expect("it was opened above");
        let chunks = pack.append(frame, &bytes)?;
        self.shared.recent.add(chunks.into_iter());
        let full = pack.bytes >= self.pack_bytes || pack.footer.chunk_count() >= PACK_CHUNKS_MAX / 2;
        state.written += 1;
        let written = state.written;
        if full {
            let pack = state.open.take().expect("it was just written to");
            drop(state);
            self.hand_to_sealer(pack);
        }
        Ok(written)
    }

    /// Returns a pack number that was never used.
    pub fn new_number(&self) -> u32 {
        let mut state = self.state.lock().unpoisoned();
        state.next_number += 1;
        state.next_number - 1
    }

    /// Returns the number of the pack that the next frame will be in, or of an earlier one.
    pub fn first_open(&self) -> u32 {
        let state = self.state.lock().unpoisoned();
        state.open.as_ref().map_or(state.next_number, |open| open.number)
    }

    /// Returns the number of appended frames.
    pub fn appended(&self) -> u64 {
        self.state.lock().unpoisoned().written
    }

    /// Returns the number of frames on stable storage; does not wait.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Makes all frames appended before the call durable. Callers that wait together share one sync.
    ///
    /// # Errors
    /// The disk's error: then nothing can be said about the frames since the last sync.
    pub fn sync(&self) -> Result<u64> {
        let target = self.state.lock().unpoisoned().written;
        // Callers that wait here share the next sync.
        let mut failed = self.shared.failed.lock().unpoisoned();
        if self.durable() >= target {
            return Ok(self.durable());
        }
        if *failed {
            return Err(Error::WriteFailed);
        }
        let (written, dirty) = {
            let mut state = self.state.lock().unpoisoned();
            let mut dirty = std::mem::take(&mut state.dirty);
            if let Some(open) = &state.open {
                // The open pack will be written to again, so that it is dirty at the next sync too.
                dirty.retain(|(_, path)| *path != open.file.path);
                dirty.push((open.file.share()?, open.file.path.clone()));
                let again = (open.file.share()?, open.file.path.clone());
                state.dirty.push(again);
            }
            (state.written, dirty)
        };
        crash_points::point("sync.before");
        for (file, path) in &dirty {
            if let Err(error) = file.sync_data().on("sync", path) {
                // After a failed sync the system may have dropped the pages: never believe a later success.
                *failed = true;
                self.shared.note_failed_sync();
                return Err(error.into());
            }
        }
        crash_points::point("sync.after");
        self.durable.store(written, Ordering::Release);
        Ok(written)
    }

    /// Seals the open pack and waits until it is sealed, and all before it.
    ///
    /// # Errors
    /// [`Error::WriteFailed`] where one could not be sealed.
    pub fn seal_now(&self) -> Result<()> {
        self.sync()?;
        let open = self.state.lock().unpoisoned().open.take();
        if let Some(pack) = open {
            self.hand_to_sealer(pack);
        }
        self.settle()
    }

    /// Waits until all packs that are full are sealed.
    ///
    /// # Errors
    /// [`Error::WriteFailed`] where one could not be sealed.
    pub fn settle(&self) -> Result<()> {
        let (sender, sealed) = sync_channel(1);
        let sealer = self.sealer.lock().unpoisoned();
        let asked = sealer.as_ref().is_some_and(|(queue, _)| queue.send(ForSealer::Report(sender)).is_ok());
        drop(sealer);
        if asked && sealed.recv() == Ok(true) { Ok(()) } else { Err(Error::WriteFailed) }
    }

    /// Seals the open pack and waits until the index has all packs. What is appended later stays in an open
    /// pack until the next start.
    pub fn close(&self) {
        let open = self.state.lock().unpoisoned().open.take();
        if let Some(pack) = open.filter(|pack| !pack.broken) {
            self.hand_to_sealer(pack);
        }
        let sealer = self.sealer.lock().unpoisoned().take();
        if let Some((sender, thread)) = sealer {
            drop(sender);
            if thread.join().is_err() {
                tracing::error!("the sealer panicked; the next start takes its packs in");
            }
        }
    }

    fn hand_to_sealer(&self, pack: OpenPack) {
        let sealer = self.sealer.lock().unpoisoned();
        let handed =
            sealer.as_ref().is_some_and(|(sender, _)| sender.send(ForSealer::Seal(Box::new(pack))).is_ok());
        if !handed {
            // The pack stays as it is: its frames are whole, and the next start seals it.
            tracing::warn!("a pack stays unsealed until the next start");
        }
    }
}

impl OpenPack {
    fn create(folder: &Path, number: u32, durability: Durability) -> Result<Self> {
        Ok(Self {
            number,
            file: PackFile::create(folder, durability)?,
            bytes: pack::HEADER_BYTES as u64,
            footer: Footer::default(),
            broken: false,
        })
    }

    /// Writes a frame, or leaves the pack as it was.
    fn append(&mut self, frame: &Frame, bytes: &[u8]) -> Result<Vec<(ChunkId, Place)>> {
        crash_points::point("append.before");
        if let Err(error) = self.file.append_frame(bytes) {
            self.broken = self.file.cut(self.bytes).is_err();
            return Err(error);
        }
        crash_points::point("append.after");
        let offset = self.bytes;
        let frame_offset = u32::try_from(offset).map_err(|_| Error::WriteFailed)?;
        let frame_bytes = u32::try_from(bytes.len()).map_err(|_| Error::WriteFailed)?;
        self.footer.add(offset, frame_bytes, frame.kind, frame.chunks.iter().copied());
        self.bytes += u64::from(frame_bytes);
        let mut plain_offset = 0;
        let place = |chunk: &format::recipe::ChunkRef| {
            let place = Place { pack: self.number, frame_offset, plain_offset, bytes: chunk.bytes };
            plain_offset += chunk.bytes;
            (chunk.id, place)
        };
        Ok(frame.chunks.iter().map(place).collect())
    }
}

/// The sealer's thread: seals packs as they come, until the writer is closed, and keeps the index small.
fn seal_all(shared: &Shared, packs: &Receiver<ForSealer>, options: &Options) {
    let mut all_sealed = true;
    let mut merger = Merger::new(Arc::clone(&shared.index));
    merger.start_if_due();
    let make_run = || {
        if let Err(error) = shared.make_run() {
            // They stay in memory; the next pack, or the next start, tries again.
            tracing::warn!(%error, "new chunks could not be written into the index");
        }
    };
    while let Ok(message) = packs.recv() {
        let pack = match message {
            ForSealer::Seal(pack) => *pack,
            ForSealer::Report(to) => {
                if to.send(all_sealed).is_err() {
                    tracing::debug!("nothing waits for the result of sealing");
                }
                continue;
            }
        };
        let (number, path) = (pack.number, pack.file.path.clone());
        match seal(shared, pack) {
            Ok(waiting) if waiting >= options.recent_chunks => {
                make_run();
                merger.start_if_due();
            }
            Ok(_) => {}
            Err(error) => {
                // The chunks stay readable through `recent`; the next start seals and indexes the pack.
                all_sealed = false;
                tracing::warn!(pack = number, path = %path.display(), %error, "a pack could not be sealed");
            }
        }
    }
    if shared.recent.sealed_chunks() > options.unindexed_chunks {
        make_run();
    }
    merger.finish();
}

/// Seals a pack; returns how many chunks of sealed packs wait for a run.
fn seal(shared: &Shared, mut pack: OpenPack) -> Result<usize> {
    let chunks = pack.footer.chunk_count();
    {
        let mut failed = shared.failed.lock().unpoisoned();
        if *failed {
            return Err(Error::WriteFailed);
        }
        let sealed = pack.file.seal(&*shared.blobs, pack.footer, pack.bytes);
        if matches!(&sealed, Err(Error::File(error)) if error.action == "sync") {
            *failed = true;
            shared.note_failed_sync();
        }
        sealed?;
    }
    let waiting = shared.recent.note_sealed(pack.number, chunks);
    shared.packs.insert(pack.number, Pack::sealed(pack.file.id, &shared.blobs));
    Ok(waiting)
}
