//! The store of one space: packs, their index, and the records of its releases.
//!
//! A frame is durable once [`Store::sync`] has returned; a release is recorded only after all its chunks are durable; the index
//! can always be rebuilt from the packs. Reading verifies every chunk. All methods may be called from any thread, and block.
//! Only one process opens a store at a time, which the proxy's lock ensures.

mod alive;
mod backend;
pub mod blobs;
mod cached;
mod collection;
mod copies;
mod current;
mod current_entry;
mod decoded;
mod error;
mod fault_injection;
mod gathering;
mod head;
mod history;
mod holder;
mod index;
pub mod layout;
mod known;
mod labelling;
mod labels;
mod lost;
mod manifests;
mod marking;
mod mending;
mod merger;
mod moves;
mod options;
mod pack_file;
mod packs;
mod place;
mod push_check;
mod reader;
mod recent;
mod record_value;
mod records;
mod recovery;
mod removal;
pub mod retention;
mod rewriting;
mod selecting;
mod shared;
mod sketches;
mod unsealed;
mod verification;
mod writer;

pub use backend::Backend;
pub use collection::collect;
pub use copies::Copies;
pub use current_entry::{CurrentAfter, Intent, Together};
pub use decoded::DecodedFrames;
pub use error::Error;
pub use fault_injection::FaultInjection;
pub use head::Mover;
pub use history::Pushed;
pub use holder::Holder;
#[cfg(feature = "testing")]
pub use index::Index;
pub use manifests::ArchiveForm;
pub use options::Options;
pub use packs::FrameSummary;
pub use place::Place;
pub use reader::StoreReader;
pub use records::{Found, Records};
pub use sketches::Sketches;
pub use verification::{Pass, heal, verify_packs, verify_releases};

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::ledger::{Lease, Leases};
use crate::restore::{ChunkReader, ChunkSource, Rebuilt};
use disk::files;
use format::manifest::{NodeRef, SegmentName};
use format::pack::Frame;
use format::recipe::ChunkRef;
use format::record::Record;
use ground::faults::{Fault, Faulty};
use ground::ids::{ChunkId, Selector, ShortId};

use self::blobs::LocalBlobs;
use self::collection::Condemned;
use self::lost::{DamagedCopy, Lost};
use self::packs::{Pack, Packs};
use self::recent::Recent;
use self::shared::Shared;
use self::writer::Writer;

/// The result of an operation of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The open store of one space.
#[derive(Debug)]
pub struct Store {
    options: Options,
    shared: Shared,
    writer: Writer,
    records: Records,
    /// The file that exists while some chunk that a release names may be gone.
    incomplete: PathBuf,
    /// Holds temporary files.
    scratch: PathBuf,
    /// Damaged copies of chunks, which count as missing.
    lost: Lost,
    leases: Arc<dyn Leases>,
    condemned: Condemned,
    rebuilt: Rebuilt,
    sketches: Sketches,
    copies: Copies,
    /// True if damage was found since somebody last asked.
    suspect: AtomicBool,
    /// True if frames were cut off at the opening, and nobody has checked yet whether a release lacks them.
    unsure: AtomicBool,
}

impl Store {
    /// Opens or creates the store that is wholly in `folder`: see [`Store::open_over`].
    ///
    /// # Errors
    /// Those of [`Store::open_over`].
    pub fn open(folder: &Path, options: Options) -> Result<Self> {
        let blobs = LocalBlobs::new(folder.join(layout::PACKS)).as_durable(options.durability);
        let backend = Backend { blobs: Arc::new(blobs), ..Backend::in_folder(folder, options.now) };
        Self::open_over(folder, backend, options)
    }

    /// Opens or creates the store in `folder`, whose sealed packs and records are in `backend`. Seals packs that a crash left
    /// open, and brings the index up to the packs.
    ///
    /// # Errors
    /// The disk's or the ledger's, or damage that cannot be set aside.
    pub fn open_over(folder: &Path, backend: Backend, options: Options) -> Result<Self> {
        match Self::open_once(folder, backend.clone(), options) {
            // Remove caches, so that a full disk can be collected.
            Err(error) if error.fault() == Fault::Full => {
                files::remove(&folder.join(layout::REBUILT))?;
                files::remove(&folder.join(layout::INDEX_DAMAGED))?;
                Self::open_once(folder, backend, options)
            }
            opened => opened,
        }
    }

    fn open_once(folder: &Path, backend: Backend, options: Options) -> Result<Self> {
        let Backend { blobs, ledger, space } = backend;
        let packs_folder = folder.join(layout::PACKS);
        files::create_folder(&packs_folder)?;
        files::remove_unpublished(folder)?;
        let scratch = folder.join(layout::SCRATCH);
        files::remove(&scratch)?;
        files::remove_unpublished(&packs_folder)?;
        let left_open = recovery::seal_open_packs(&packs_folder, &*blobs)?;
        if left_open.packs > 0 {
            tracing::info!(packs = left_open.packs, "packs left open by an earlier process were sealed");
        }
        let packs = Packs::default();
        let opened = recovery::open_index(&folder.join(layout::INDEX), &blobs, &packs, &options)?;
        let leases = ledger.leases(&space);
        let records = Records::open(ledger, space, folder.join(layout::RELEASES))?;
        let there: HashSet<_> = packs.all().iter().map(|(_, pack)| pack.id).collect();
        let lost = Lost::open(&folder.join(layout::LOST), &there)?;
        let shared = Shared {
            folder: packs_folder,
            blobs,
            index: Arc::new(opened.index),
            packs: Arc::new(packs),
            recent: Arc::new(Recent::default()),
            failed: Arc::default(),
        };
        shared.recent.add_sealed(opened.unindexed);
        let mut next_number = opened.next_number;
        for unsealed in left_open.unsealed {
            unsealed.enter(&shared, next_number);
            next_number += 1;
        }
        let writer = Writer::new(shared.clone(), next_number, &options)?;
        let incomplete = folder.join(layout::INCOMPLETE);
        let rebuilt =
            Rebuilt::open(folder.join(layout::REBUILT), options.rebuilt_bytes, options.reserve_bytes);
        let copies = Copies::new(folder.join(layout::DELIVERED));
        let sketches = Sketches::open(folder.join(layout::SKETCHES), options.reserve_bytes);
        let store = Self {
            options,
            shared,
            writer,
            records,
            incomplete,
            scratch,
            lost,
            leases,
            condemned: Condemned::default(),
            rebuilt,
            sketches,
            copies,
            suspect: AtomicBool::new(opened.packs_lost),
            unsure: AtomicBool::new(left_open.cut),
        };
        if opened.packs_lost || left_open.cut {
            store.mark_incomplete();
        }
        Ok(store)
    }

    /// Returns the place of the chunk, if the store has it.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn find(&self, id: &ChunkId) -> Result<Option<Place>> {
        Ok(self.locate(id)?.map(|(place, _)| place))
    }

    /// Returns the chunk's place and its pack, which can be read even after it is removed.
    fn locate(&self, id: &ChunkId) -> Result<Option<(Place, Arc<Pack>)>> {
        let found = |place: Place| Some((place, self.shared.packs.by_number(place.pack)?));
        let is_right = |(place, pack): &(Place, Arc<Pack>)| {
            let (pack, frame_offset) = (pack.id, place.frame_offset);
            self.lost.is_empty() || !self.lost.has(&DamagedCopy { id: *id, pack, frame_offset })
        };
        // A chunk of a damaged pack that was left out counts as missing, so that the next push brings it.
        self.shared.recent.moves.look(|| {
            // Where a recent copy is damaged, the index may know an older one.
            if let Some(found) = self.shared.recent.find(id).and_then(found).filter(is_right) {
                return Ok(Some(found));
            }
            Ok(self.shared.index.find(id)?.and_then(found).filter(is_right))
        })
    }

    /// Returns whether a push may count on the chunk: it is there, has that length, and is not condemned.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn holds(&self, chunk: &ChunkRef) -> Result<bool> {
        let is_there = self.find(&chunk.id)?.is_some_and(|place| place.bytes == chunk.bytes);
        let condemned = self.condemned.has(&chunk.id) && !self.injects(FaultInjection::CondemnedShown);
        Ok(is_there && !condemned)
    }

    /// Returns the time by the store's clock.
    pub fn now(&self) -> Instant {
        (self.options.now)()
    }

    /// Opens the lease of a push, which must come before its first lookup.
    ///
    /// # Errors
    /// The ledger's.
    pub fn lease(&self) -> Result<Lease> {
        Ok(Lease::open(&self.leases, self.writer.first_open())?)
    }

    /// Returns the first chunk whose id begins with the 8 bytes of `name`.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn find_name(&self, name: SegmentName) -> Result<Option<NodeRef>> {
        let is_there = |(_, place): &(ChunkId, Place)| self.shared.packs.by_number(place.pack).is_some();
        let found = self.shared.recent.moves.look(|| match self.shared.recent.find_name(name) {
            Some(found) => Ok(Some(found).filter(is_there)),
            None => self.shared.index.find_name(name).map(|found| found.filter(is_there)),
        })?;
        Ok(found.map(|(id, place)| NodeRef { id, bytes: place.bytes }))
    }

    /// Returns the first chunk with this short id, if a push may count on it.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn find_short(&self, short: ShortId) -> Result<Option<ChunkRef>> {
        let found = self.shared.recent.moves.look(|| match self.shared.recent.find_short(short) {
            Some(found) => Ok(Some(found)),
            None => self.shared.index.find_short(short),
        })?;
        let Some((id, place)) = found else { return Ok(None) };
        let chunk = ChunkRef { id, bytes: place.bytes };
        Ok(self.holds(&chunk)?.then_some(chunk))
    }

    /// Returns the sketches of the space's chunks.
    pub fn sketches(&self) -> &Sketches {
        &self.sketches
    }

    /// Returns the folders to which applications were delivered.
    pub fn copies(&self) -> &Copies {
        &self.copies
    }

    /// Returns a folder for temporary files that take as much room as content, and how many bytes these must leave free. What
    /// is left in it goes when the store is opened again.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self) -> Result<(&Path, u64)> {
        files::create_folder(&self.scratch)?;
        Ok((&self.scratch, self.options.reserve_bytes))
    }

    /// Appends a frame, which is readable at once and durable after [`Store::sync`]. Returns the number of frames with it.
    ///
    /// Removes rebuilt archives if it needs their room.
    ///
    /// # Errors
    /// No room, or the disk's.
    pub fn append(&self, frame: &Frame) -> Result<u64> {
        let reserve = self.options.reserve_bytes;
        match self.append_leaving(frame, reserve) {
            Err(Error::NoRoom { .. }) if self.rebuilt.clear() => self.append_leaving(frame, reserve),
            result => result,
        }
    }

    /// Appends a frame, leaving `reserve` bytes of the disk free: the collector may use what pushes must leave.
    fn append_leaving(&self, frame: &Frame, reserve_bytes: u64) -> Result<u64> {
        let append = || self.writer.append(frame, reserve_bytes);
        if self.injects(FaultInjection::BroughtAgainInVain) {
            append()
        } else {
            self.condemned.take_back(frame, append)
        }
    }

    /// Makes every frame appended before the call durable; returns how many are.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> Result<u64> {
        if self.injects(FaultInjection::NoSync) {
            return Ok(self.writer.appended());
        }
        self.writer.sync()
    }

    /// Returns the number of frames appended since the store was opened.
    pub fn appended(&self) -> u64 {
        self.writer.appended()
    }

    /// Returns how many of the appended frames are durable.
    pub fn durable(&self) -> u64 {
        self.writer.durable()
    }

    /// Returns the records of the space's releases.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Returns the record that a selector means.
    ///
    /// # Errors
    /// No release fits, or several do.
    pub fn select(&self, selector: &Selector) -> Result<Record> {
        self.records.select(selector)
    }

    /// Hands each frame of each pack to `visit`, in no order between packs. Time O(chunks).
    ///
    /// # Errors
    /// A pack cannot be read.
    pub fn visit_frames(&self, visit: &mut dyn FnMut(&FrameSummary)) -> Result<()> {
        for (_, pack) in self.shared.packs.all() {
            packs::visit_frames(&pack, visit)?;
        }
        Ok(())
    }

    /// Returns the bytes of all packs.
    ///
    /// # Errors
    /// A pack cannot be examined.
    pub fn stored_bytes(&self) -> Result<u64> {
        let packs = self.shared.packs.all();
        packs.iter().map(|(_, pack)| Ok(pack.bytes()?)).sum()
    }

    /// Waits until all full packs are sealed.
    ///
    /// # Errors
    /// [`Error::WriteFailed`] if one could not be sealed.
    pub fn settle(&self) -> Result<()> {
        self.writer.settle()
    }

    /// Seals the open pack and waits until the index has it. Frames that are appended later stay in an open pack.
    pub fn close(&self) {
        self.writer.close();
        self.sketches.flush();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.writer.close();
    }
}

impl ChunkSource for Store {
    fn reader(&self) -> Box<dyn ChunkReader + '_> {
        Box::new(StoreReader::new(self))
    }

    fn rebuilt(&self) -> Option<&Rebuilt> {
        Some(&self.rebuilt)
    }
}
