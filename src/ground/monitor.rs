//! How long work tells what it is doing: values passed down, never printing.

use std::sync::atomic::{AtomicU64, Ordering};

/// The parts of the work that a person waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Files are read, chunked and hashed.
    Scan,
    /// Both sides find the unseen chunks.
    Negotiate,
    /// Chunks cross the link.
    Transfer,
    /// Artifacts are rebuilt and written.
    Rebuild,
    /// The proxy makes deliveries.
    Deliver,
}

/// Receives progress. It is called often and from many threads, so it must be cheap and must not fail.
pub trait Monitor: Send + Sync {
    /// Notes that a phase begins; `total` bytes are expected, if known.
    fn begin(&self, phase: Phase, total: Option<u64>) {
        let _ = (phase, total);
    }

    /// Notes that `bytes` more are done.
    fn advance(&self, phase: Phase, bytes: u64) {
        let _ = (phase, bytes);
    }

    /// Reports the bytes that have crossed the link so far, both ways together.
    fn crossed(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Takes a message that is not an error.
    fn note(&self, text: &str) {
        let _ = text;
    }
}

/// Ignores all progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {}

/// Counts what advanced, for tests and receipts.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Returns the bytes that advanced in any phase.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Monitor for Counter {
    fn advance(&self, _phase: Phase, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}
