//! Prints from a thread of its own, so that a reader who does not read holds nobody up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::output::{Output, to_stderr};
use ground::poison::Unpoisoned as _;
use ground::threads;

/// Reports and notes that wait for the reader: one of a target has at most some 10 KiB.
const AHEAD: usize = 64;
/// How long the last lines may take once all is said.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// What is printed.
enum Line {
    Report(Value, String),
    Note(String),
}

/// Prints reports and notes in their order. Those for which there is no room are left out, and counted.
#[derive(Debug)]
pub struct OutputThread {
    waiting: Mutex<Option<SyncSender<Line>>>,
    ended: Mutex<Receiver<()>>,
    left_out: Arc<AtomicU64>,
}

impl OutputThread {
    /// Starts the thread. It ends once this is dropped and the reader has read what came before.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(output: &Output) -> Result<Self, threads::Error> {
        let (lines, received) = sync_channel::<Line>(AHEAD);
        let (ends, ended) = sync_channel(1);
        let left_out = Arc::new(AtomicU64::new(0));
        let (output, lost) = (output.clone(), Arc::clone(&left_out));
        let thread = thread::Builder::new().name("whit-lines".to_owned());
        let started = thread.spawn(move || {
            // Dropped at the end.
            let _ends: SyncSender<()> = ends;
            for line in received {
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    to_stderr(&format!("{lost} lines were left out: nobody read"));
                }
                match line {
                    // Who prints goes on, whoever reads.
                    Line::Report(value, text) => drop(output.report(&value, || text)),
                    Line::Note(text) => output.note(&text),
                }
            }
        });
        started.map_err(threads::Error::Start)?;
        Ok(Self { waiting: Mutex::new(Some(lines)), ended: Mutex::new(ended), left_out })
    }

    /// Reports a value, as [`Output::report`] does.
    pub fn report(&self, value: Value, text: String) {
        self.add(Line::Report(value, text));
    }

    /// Prints a note for people.
    pub fn note(&self, text: &str) {
        self.add(Line::Note(text.to_owned()));
    }

    fn add(&self, line: Line) {
        let is_full = |waiting: &SyncSender<Line>| waiting.try_send(line).is_err();
        if self.waiting.lock().unpoisoned().as_ref().is_some_and(is_full) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for OutputThread {
    /// Waits for the last lines, for a second at most: a thread whose line nobody reads ends with the program.
    fn drop(&mut self) {
        *self.waiting.lock().unpoisoned() = None;
        // It ends without a word, or is late.
        let _ended = self.ended.lock().unpoisoned().recv_timeout(END_TIME_MAX);
    }
}
