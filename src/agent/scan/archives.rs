//! Where archives are unpacked in one scan, by which choice, and with which room.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::agent::memory::{Memory, StreamMemory};
use crate::agent::pace::{History, Pace, Packing};
use disk::files::{self, OnPath};
use ground::limits::ROOM_RESERVE_BYTES;
use recode::archive::{self, Planner};
use recode::codec::Permits;

/// 16 GiB: streams of one scan.
const STREAMS_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Where archives are unpacked in one scan, and how many bytes they may take: what is free there, but for a reserve. Archives
/// beyond that are chunked as they are.
#[derive(Debug)]
pub struct Archives {
    folder: PathBuf,
    bytes_left: AtomicU64,
    /// Set once an archive stayed as it is for lack of room.
    lacked_room: AtomicBool,
    turns: Arc<Permits>,
    pace: Option<(Pace, Option<Arc<Memory>>)>,
    stopping: Arc<AtomicBool>,
    memory: Option<Arc<dyn StreamMemory>>,
}

impl Archives {
    /// Temporary files go to `folder`, which exists.
    pub fn new(folder: PathBuf) -> Self {
        Self::leaving(folder, ROOM_RESERVE_BYTES)
    }

    /// Temporary files go to `folder`, which exists, and leave `reserve_bytes` of its file system free.
    pub fn leaving(folder: PathBuf, reserve_bytes: u64) -> Self {
        // Where it cannot be known, creating a file there says why.
        let free = files::free_bytes(&folder).unwrap_or(u64::MAX).saturating_sub(reserve_bytes);
        Self::within(folder, free.min(STREAMS_BYTES_MAX))
    }

    /// Temporary files take at most `bytes` of `folder`.
    pub(super) fn within(folder: PathBuf, bytes: u64) -> Self {
        Self {
            folder,
            bytes_left: AtomicU64::new(bytes),
            lacked_room: AtomicBool::new(false),
            turns: Arc::default(),
            pace: None,
            stopping: Arc::default(),
            memory: None,
        }
    }

    /// Unpacks only archives for which the pace says so, after the push that is remembered.
    #[must_use]
    pub fn paced(self, pace: Pace, memory: Option<Arc<Memory>>) -> Self {
        Self { pace: Some((pace, memory)), ..self }
    }

    /// Leaves what is not unpacked yet as it is once `stopping` is set.
    #[must_use]
    pub fn stopped_by(self, stopping: &Arc<AtomicBool>) -> Self {
        Self { stopping: Arc::clone(stopping), ..self }
    }

    /// Takes what `memory` knows of packed streams, and tells it what is found of others.
    #[must_use]
    pub fn knowing(self, memory: Arc<dyn StreamMemory>) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Returns whether an archive of `size` bytes is unpacked.
    pub(super) fn unpacks(&self, file: &File, size: u64) -> bool {
        let Some((pace, memory)) = &self.pace else { return true };
        let history = match memory {
            None => History::Unknown,
            Some(memory) if memory.has_archives_packed() => History::Packed,
            Some(_) => History::Unpacked,
        };
        let mut first = [0; 8];
        // Where it cannot be read, whoever reads it next reports that.
        let is_tight = file.read_exact_at(&mut first, 0).is_ok() && archive::is_tight(&first);
        pace.unpacks(size, if is_tight { Packing::Tight } else { Packing::Loose }, history)
    }

    /// Creates a planner that uses up to `threads` threads.
    pub(super) fn planner(&self, threads: usize) -> Planner {
        Planner::new(threads, Arc::clone(&self.turns)).stopped_by(&self.stopping)
    }

    /// Returns whether what is not unpacked yet is left as it is.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Returns who knows packed streams.
    pub(super) fn memory(&self) -> Option<&dyn StreamMemory> {
        self.memory.as_deref()
    }

    /// Returns where temporary files go.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes bytes of what is left, until they are given back; none where so many are not left.
    pub(super) fn reserve(&self, bytes: u64) -> Option<Reserved<'_>> {
        let spend = |left: u64| left.checked_sub(bytes);
        let spent = self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        self.lacked_room.fetch_or(spent.is_err(), Ordering::Relaxed);
        spent.ok().map(|_| Reserved { archives: self, bytes })
    }

    /// Returns whether an archive stayed as it is for lack of room.
    pub fn lacked_room(&self) -> bool {
        self.lacked_room.load(Ordering::Relaxed)
    }

    pub(super) fn create(&self) -> files::Result<File> {
        tempfile::tempfile_in(&self.folder).on("create a temporary file in", &self.folder)
    }
}

/// Bytes that temporary files take; given back when it is dropped.
pub(super) struct Reserved<'a> {
    archives: &'a Archives,
    bytes: u64,
}

impl Reserved<'_> {
    /// Takes them to the end of the scan.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.archives.bytes_left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_unless_it_is_kept() {
        let archives = Archives::within(std::env::temp_dir(), 10);
        let some = archives.reserve(6).expect("there is room");
        assert!(archives.reserve(5).is_none());
        drop(some);
        archives.reserve(6).expect("there is room").keep();
        assert!(archives.reserve(5).is_none() && archives.reserve(4).is_some());
    }
}
