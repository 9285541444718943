//! A cache of payloads that were made for one pull, for other machines that pull the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use format::recipe::ChunkRef;
use ground::limits::RECORD_QUERIES_MAX;
use ground::poison::Unpoisoned as _;

/// 64 MiB: the most bytes of cached payloads.
const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The interval at which a waiting pull checks whether other heavy work has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Payloads made for one machine, cached for others.
#[derive(Debug, Default)]
pub(in crate::proxy) struct PatchCache(Mutex<VecDeque<(blake3::Hash, Arc<Vec<u8>>)>>);

impl PatchCache {
    fn held(&self) -> MutexGuard<'_, VecDeque<(blake3::Hash, Arc<Vec<u8>>)>> {
        self.0.lock().unpoisoned()
    }

    fn find(&self, name: blake3::Hash) -> Option<Arc<Vec<u8>>> {
        self.held().iter().find(|(other, _)| *other == name).map(|(_, payload)| Arc::clone(payload))
    }

    fn hold(&self, name: blake3::Hash, payload: &Arc<Vec<u8>>) {
        let mut held = self.held();
        held.push_back((name, Arc::clone(payload)));
        let mut bytes: usize = held.iter().map(|(_, payload)| payload.len()).sum();
        while bytes > CACHE_BYTES_MAX || held.len() > RECORD_QUERIES_MAX {
            bytes -= held.pop_front().map_or(0, |(_, payload)| payload.len());
        }
    }
}

/// Shared by all pulls: the cache, and the lock for work that takes much memory.
#[derive(Clone, Copy)]
pub(super) struct PatchMaker<'a> {
    pub cache: &'a PatchCache,
    pub heavy_work: &'a Mutex<()>,
}

impl PatchMaker<'_> {
    /// Returns the payload of that name; if the cache lacks it, makes it, alone in the process. An empty one means that
    /// no payload pays, `None` that other heavy work did not end by the `deadline`.
    pub fn payload(
        &self,
        name: blake3::Hash,
        deadline: Instant,
        make: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Arc<Vec<u8>>> {
        let _alone = loop {
            // It may have been made meanwhile for another machine.
            if let Some(payload) = self.cache.find(name) {
                return Some(payload);
            }
            match self.heavy_work.try_lock() {
                Ok(alone) => break alone,
                Err(TryLockError::Poisoned(poisoned)) => break Err(poisoned).unpoisoned(),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
            }
        };
        if let Some(payload) = self.cache.find(name) {
            return Some(payload);
        }
        let payload = Arc::new(make().unwrap_or_default());
        self.cache.hold(name, &payload);
        Some(payload)
    }
}

/// Returns the name of the payload that encodes `new` against `old` by the method `kind`.
pub(super) fn name_of(kind: &str, old: &[ChunkRef], new: &[ChunkRef]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key(kind);
    for chunks in [old, new] {
        hasher.update(&(chunks.len() as u64).to_le_bytes());
        for chunk in chunks {
            hasher.update(chunk.id.as_bytes());
        }
    }
    hasher.finalize()
}
