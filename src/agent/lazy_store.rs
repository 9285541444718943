//! A store for the chunks of one command, opened at its first use.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::store::{self, Store};
use disk::files;
use ground::poison::Unpoisoned as _;

/// A store that is opened or created at its first use: a command that moves no content does without it.
///
/// Each chunk is verified when it is read. A store with damaged packs, as a power loss leaves it where nothing was synced, begins
/// anew.
#[derive(Debug)]
pub struct LazyStore {
    folder: PathBuf,
    options: store::Options,
    /// True if an earlier command left a store.
    was_there: bool,
    opened: OnceLock<Option<Arc<Store>>>,
    /// Why it could not be opened.
    failure: Mutex<Option<store::Error>>,
}

impl LazyStore {
    /// Names the store in `folder`.
    pub fn new(folder: PathBuf, options: store::Options) -> Self {
        let was_there = folder.exists();
        Self { folder, options, was_there, opened: OnceLock::new(), failure: Mutex::default() }
    }

    /// Returns the store, opened or created.
    ///
    /// # Errors
    /// The disk's, at the first call; that it failed, at later ones: it is not tried again.
    pub fn get(&self) -> store::Result<&Arc<Store>> {
        let open = || {
            // A power loss may have left damaged packs, which nothing would ever replace.
            let opened = Store::open(&self.folder, self.options).ok().filter(Store::is_whole);
            let opened = opened.map_or_else(
                || {
                    drop(files::remove(&self.folder));
                    Store::open(&self.folder, self.options)
                },
                Ok,
            );
            opened.map(Arc::new).map_err(|error| *self.failure() = Some(error)).ok()
        };
        let opened = self.opened.get_or_init(open).as_ref();
        opened.ok_or_else(|| self.failure().take().unwrap_or(store::Error::WriteFailed))
    }

    /// Returns the store if there is something in it.
    pub fn if_there(&self) -> Option<&Arc<Store>> {
        if self.was_there { self.get().ok() } else { self.if_open() }
    }

    /// Returns the store if it was opened.
    pub fn if_open(&self) -> Option<&Arc<Store>> {
        self.opened.get()?.as_ref()
    }

    /// Closes the store if it was opened.
    pub fn close(&self) {
        if let Some(store) = self.if_open() {
            store.close();
        }
    }

    /// Returns whether an earlier command left a store for which there was no use yet.
    pub fn is_untouched(&self) -> bool {
        self.was_there && self.opened.get().is_none()
    }

    fn failure(&self) -> MutexGuard<'_, Option<store::Error>> {
        self.failure.lock().unpoisoned()
    }
}
