//! Merges the runs of the index in the background, while the space is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::index::Index;

/// Merges the index's runs on a thread of its own, when they are too many.
#[derive(Debug)]
pub struct Merger {
    index: Arc<Index>,
    cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Merger {
    /// Nothing is merged yet.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, cancelled: Arc::default(), thread: None }
    }

    /// Begins a merge where one is due and none is under way.
    pub fn start_if_due(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) || !self.index.is_merge_due() {
            return;
        }
        self.join();
        let (index, cancelled) = (Arc::clone(&self.index), Arc::clone(&self.cancelled));
        let work = move || {
            if let Err(error) = index.merge(&cancelled) {
                tracing::warn!(%error, "index runs could not be merged; lookups take longer");
            }
        };
        match std::thread::Builder::new().name("whit-merger".to_owned()).spawn(work) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => tracing::warn!(%error, "index runs will be merged later"),
        }
    }

    /// Ends a large merge early, a small one when it is done.
    pub fn finish(mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.join();
    }

    fn join(&mut self) {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a merge of the index panicked; it is tried again");
        }
    }
}
