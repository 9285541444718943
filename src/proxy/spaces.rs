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

    /// The stores that are open, in no order.
    pub fn opened(&self) -> Vec<Arc<Store>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// The names of all spaces that there are on disk.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn names(&self) -> crate::files::Result<Vec<SpaceName>> {
        use crate::files::OnPath;
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
        for store in self.open.lock().unwrap_or_else(PoisonError::into_inner).values() {
            store.close();
        }
    }
}
