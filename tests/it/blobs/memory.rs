//! Blobs in memory: the second kind, which shows what a store may rely on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use disk::files::{self, OnPath, Result};
use format::pack::PackId;
use whit::store::blobs::{Blob, Blobs};

type Named = BTreeMap<PackId, Arc<Vec<u8>>>;

#[derive(Debug, Default)]
pub struct MemoryBlobs {
    blobs: Mutex<Named>,
    aside: Mutex<Named>,
}

impl MemoryBlobs {
    fn blobs(&self) -> MutexGuard<'_, Named> {
        self.blobs.lock().expect("no other thread panicked")
    }

    fn found(&self, name: PackId, action: &'static str) -> Result<Arc<Vec<u8>>> {
        let found = self.blobs().get(&name).cloned().ok_or(io::Error::from(io::ErrorKind::NotFound));
        found.on(action, &self.location(name))
    }

    /// Changes one byte of a blob, which no real kind may do.
    pub fn damage(&self, name: PackId, at: usize) {
        let mut bytes = self.found(name, "damage").expect("it is there").to_vec();
        bytes[at] ^= 1;
        self.blobs().insert(name, Arc::new(bytes));
    }

    /// Returns the number of blobs set aside.
    pub fn aside(&self) -> usize {
        self.aside.lock().expect("no other thread panicked").len()
    }
}

impl Blobs for MemoryBlobs {
    fn put(&self, name: PackId, from: &Path) -> Result<()> {
        let bytes = std::fs::read(from).on("read", &self.location(name))?;
        self.blobs().insert(name, Arc::new(bytes));
        files::remove(from)
    }

    fn open(&self, name: PackId) -> Result<Box<dyn Blob>> {
        Ok(Box::new(MemoryBlob(self.found(name, "open")?)))
    }

    fn bytes(&self, name: PackId) -> Result<u64> {
        Ok(self.found(name, "examine")?.len() as u64)
    }

    fn list(&self) -> Result<Vec<PackId>> {
        // In no order.
        Ok(self.blobs().keys().rev().copied().collect())
    }

    fn remove(&self, name: PackId) -> Result<()> {
        self.blobs().remove(&name);
        Ok(())
    }

    fn set_aside(&self, name: PackId) -> Result<()> {
        let bytes = self.found(name, "set aside")?;
        self.aside.lock().expect("no other thread panicked").insert(name, bytes);
        self.remove(name)
    }

    fn location(&self, name: PackId) -> PathBuf {
        format!("memory:{name}").into()
    }
}

#[derive(Debug)]
struct MemoryBlob(Arc<Vec<u8>>);

impl Blob for MemoryBlob {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> Result<Cow<'_, [u8]>> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(offset..).unwrap_or_default();
        // A copy, as over a network: the store must not rely on borrowed bytes.
        Ok(Cow::Owned(rest[..length.min(rest.len())].to_vec()))
    }

    fn release(&self, _offset: u64, _length: usize) {}
}
