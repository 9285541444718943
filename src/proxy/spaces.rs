//! The spaces of a proxy, opened when they are first asked for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::SpaceName;
use crate::store::{self, Options, Store};

/// All spaces below one folder.
#[derive(Debug)]
pub struct Spaces {
    folder: PathBuf,
    options: Options,
    open: Mutex<HashMap<SpaceName, Arc<Store>>>,
}

impl Spaces {
    /// Starts with no space open.
    pub fn new(folder: PathBuf, options: Options) -> Self {
        Self { folder, options, open: Mutex::default() }
    }

    /// The store of a space; made where there is none. Blocks while it is opened.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn open(&self, space: &SpaceName) -> store::Result<Arc<Store>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(space) {
            return Ok(Arc::clone(store));
        }
        let store = Arc::new(Store::open(&self.folder.join(space.as_str()), self.options)?);
        open.insert(space.clone(), Arc::clone(&store));
        Ok(store)
    }

    /// Seals what is open in every space.
    pub fn close(&self) {
        for store in self.open.lock().unwrap_or_else(PoisonError::into_inner).values() {
            store.close();
        }
    }
}
