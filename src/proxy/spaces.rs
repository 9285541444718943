//! The spaces of a proxy: opens them when they are used, and closes idle ones.
//!
//! An open space has a thread, some ten files and up to 10 MB of recent chunks, so their number is bounded: spaces are
//! closed after some idle minutes, and those used longest ago make room for others. No space is closed while anybody
//! holds its store, and none is opened twice at a time.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
use crate::store::{self, Backend, Options, Store};
use disk::files::OnPath;
use ground::ids::SpaceName;
use ground::limits::SPACES_OPEN_MAX;
use ground::poison::Unpoisoned as _;

/// All spaces below one folder.
#[derive(Debug)]
pub struct Spaces {
    folder: PathBuf,
    ledger: Arc<dyn Ledger>,
    options: Options,
    slots: Mutex<HashMap<SpaceName, Arc<Slot>>>,
    open_count: AtomicUsize,
    /// The most idle spaces that stay open; more are open only while more are in use.
    most: usize,
    /// Spaces that were used since maintenance last asked.
    used: Mutex<HashSet<SpaceName>>,
}

/// A space that is open, or being opened or closed.
#[derive(Debug)]
struct Slot {
    /// Held while the store is opened or closed: others of the same space wait.
    store: Mutex<Option<Arc<Store>>>,
    used: Mutex<Instant>,
}

impl Slot {
    fn store(&self) -> MutexGuard<'_, Option<Arc<Store>>> {
        self.store.lock().unpoisoned()
    }

    fn used(&self) -> MutexGuard<'_, Instant> {
        self.used.lock().unpoisoned()
    }
}

impl Spaces {
    /// Starts with no space open. Their packs are below `folder`, their records in the ledger.
    pub fn new(folder: PathBuf, ledger: Arc<dyn Ledger>, options: Options) -> Self {
        Self {
            folder,
            ledger,
            options,
            slots: Mutex::default(),
            open_count: AtomicUsize::new(0),
            most: SPACES_OPEN_MAX,
            used: Mutex::default(),
        }
    }

    /// Returns the store of a space, which it creates if missing. Blocks while it is opened.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn open(&self, space: &SpaceName) -> store::Result<Arc<Store>> {
        self.note_used(space);
        self.open_slot(space).map(|(store, _)| store)
    }

    /// Reports the space to maintenance as used.
    pub fn note_used(&self, space: &SpaceName) {
        let mut used = self.used.lock().unpoisoned();
        if !used.contains(space) {
            used.insert(space.clone());
        }
    }

    /// Opens a space for maintenance, which does not count as use, and closes it again if it was not open.
    ///
    /// # Errors
    /// The store cannot be opened, or the error of `work`.
    pub fn visit(
        &self,
        space: &SpaceName,
        work: impl FnOnce(&Arc<Store>) -> store::Result<()>,
    ) -> store::Result<()> {
        let (store, was_open) = self.open_slot(space)?;
        let worked = work(&store);
        drop(store);
        if !was_open {
            self.close_if(|name, _| name == space);
        }
        worked
    }

    fn open_slot(&self, space: &SpaceName) -> store::Result<(Arc<Store>, bool)> {
        let slot = {
            let mut slots = self.slots();
            let new = || Arc::new(Slot { store: Mutex::default(), used: Mutex::new(Instant::now()) });
            Arc::clone(slots.entry(space.clone()).or_insert_with(new))
        };
        let mut held = slot.store();
        *slot.used() = Instant::now();
        if let Some(store) = &*held {
            return Ok((Arc::clone(store), true));
        }
        self.make_room();
        let folder = self.folder.join(space.as_str());
        let backend = Backend::new(&folder, Arc::clone(&self.ledger), space.clone());
        let store = Arc::new(Store::open_over(&folder, backend, self.options)?);
        *held = Some(Arc::clone(&store));
        self.open_count.fetch_add(1, Ordering::Relaxed);
        Ok((store, false))
    }

    /// Closes the spaces used longest ago while too many are open.
    fn make_room(&self) {
        if self.open_count.load(Ordering::Relaxed) < self.most {
            return;
        }
        let mut uses: Vec<(Instant, SpaceName)> =
            self.slots().iter().map(|(name, slot)| (*slot.used(), name.clone())).collect();
        uses.sort_unstable();
        for (_, oldest) in uses {
            if self.open_count.load(Ordering::Relaxed) < self.most {
                return;
            }
            self.close_if(|name, _| *name == oldest);
        }
    }

    /// Returns when the space was last used; none where it is not open.
    pub fn last_used(&self, space: &SpaceName) -> Option<Instant> {
        self.slots().get(space).map(|slot| *slot.used())
    }

    /// Returns whether nobody has used any space for a time, but who holds `own` once.
    pub fn are_idle(&self, after: Duration, own: &Arc<Store>) -> bool {
        let now = Instant::now();
        let slots: Vec<Arc<Slot>> = self.slots().values().map(Arc::clone).collect();
        slots.iter().all(|slot| {
            // Somebody opens or closes it.
            let Ok(held) = slot.store.try_lock() else { return false };
            let Some(store) = &*held else { return true };
            let holders = Arc::strong_count(store) - usize::from(Arc::ptr_eq(store, own));
            holders <= 1 && now.duration_since(*slot.used()) >= after
        })
    }

    /// Closes the spaces that nobody has used for `idle`.
    pub fn close_idle(&self, after: Duration) {
        let now = Instant::now();
        self.close_if(|_, slot| now.duration_since(*slot.used()) >= after);
    }

    /// Closes the spaces for which `is_due` holds, unless somebody holds their store or they know of unrepaired damage.
    fn close_if(&self, is_due: impl Fn(&SpaceName, &Slot) -> bool) {
        let slots: Vec<(SpaceName, Arc<Slot>)> =
            self.slots().iter().map(|(name, slot)| (name.clone(), Arc::clone(slot))).collect();
        for (name, slot) in &slots {
            // The holder of the lock opens or closes the space.
            let Ok(mut held) = slot.store.try_lock() else { continue };
            let Some(store) = &*held else { continue };
            if Arc::strong_count(store) > 1 {
                *slot.used() = Instant::now();
            } else if is_due(name, slot)
                && !store.has_to_remember()
                && let Some(store) = held.take()
            {
                store.close();
                drop(store);
                self.open_count.fetch_sub(1, Ordering::Relaxed);
                tracing::debug!(space = %name, "closed an unused space");
            }
        }
        drop(slots);
        // A task that holds a slot is about to open it.
        self.slots().retain(|_, slot| Arc::strong_count(slot) > 1 || slot.store().is_some());
    }

    /// Returns the stores that are open, in no order.
    pub fn opened(&self) -> Vec<Arc<Store>> {
        let slots: Vec<Arc<Slot>> = self.slots().values().map(Arc::clone).collect();
        slots.iter().filter_map(|slot| slot.store().clone()).collect()
    }

    /// Returns the spaces that were used since the last call, and those that are open.
    pub fn take_used(&self) -> HashSet<SpaceName> {
        let mut used = std::mem::take(&mut *self.used.lock().unpoisoned());
        used.extend(self.slots().keys().cloned());
        used
    }

    /// Returns the names of all spaces that there are on disk.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn names(&self) -> disk::files::Result<Vec<SpaceName>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.on("list", &self.folder)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.on("list", &self.folder)?.file_name();
            names.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        Ok(names)
    }

    /// Seals what is open in every space.
    pub fn close(&self) {
        for store in self.opened() {
            store.close();
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<SpaceName, Arc<Slot>>> {
        self.slots.lock().unpoisoned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::FileLedger;

    fn spaces(folder: &std::path::Path, most: usize) -> Spaces {
        let options = Options { reserve_bytes: 0, ..Options::default() };
        let ledger = Arc::new(FileLedger::of_data(folder, options.now));
        Spaces { most, ..Spaces::new(folder.join("spaces"), ledger, options) }
    }

    fn name(number: u32) -> SpaceName {
        format!("s{number}").parse().expect("a name")
    }

    #[test]
    fn what_was_used_longest_ago_makes_room_and_what_is_held_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let spaces = spaces(folder.path(), 2);
        let held = spaces.open(&name(0)).expect("opened");
        for number in 1..5 {
            spaces.open(&name(number)).expect("opened");
            let mut open: Vec<SpaceName> = spaces.slots().keys().cloned().collect();
            open.sort_unstable();
            assert_eq!(open, [name(0), name(number)]);
        }
        assert!(Arc::ptr_eq(&held, &spaces.open(&name(0)).expect("still open")));
        // Where all are in use there are more.
        let (_one, _other) = (spaces.open(&name(1)).expect("opened"), spaces.open(&name(2)).expect("opened"));
        assert_eq!(spaces.opened().len(), 3);
        assert_eq!(spaces.take_used().len(), 5);
    }

    #[test]
    fn what_is_idle_is_closed_and_what_upkeep_opens_is_not_kept_open() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let spaces = spaces(folder.path(), 10);
        let held = spaces.open(&name(0)).expect("opened");
        spaces.open(&name(1)).expect("opened");
        spaces.close_idle(Duration::from_secs(3600));
        assert_eq!(spaces.opened().len(), 2);
        spaces.close_idle(Duration::ZERO);
        assert_eq!(spaces.opened().len(), 1);
        spaces.visit(&name(1), |_| Ok(())).expect("visited");
        spaces.visit(&name(0), |_| Ok(())).expect("visited");
        assert_eq!(spaces.opened().len(), 1);
        drop(held);
        // Known damage would be forgotten.
        spaces.open(&name(0)).expect("open").suspect();
        spaces.close_idle(Duration::ZERO);
        assert_eq!(spaces.opened().len(), 1);
    }

    #[test]
    fn a_space_that_is_closed_while_others_open_it_is_never_open_twice() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let spaces = spaces(folder.path(), 2);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let spaces = &spaces;
                scope.spawn(move || {
                    for round in 0..20 {
                        // sled's lock would be missed by a second one.
                        spaces.open(&name((thread + round) % 3)).expect("opened");
                        spaces.close_idle(Duration::ZERO);
                    }
                });
            }
        });
    }
}
