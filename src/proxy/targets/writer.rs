//! The thread that writes down what targets say of themselves.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::durable::WRITTEN_TOGETHER;
use super::registry::Targets;
use disk::files::{self, OnPath as _};

/// The time between two rounds: what changes several times in it is written once.
const PAUSE: Duration = Duration::from_millis(200);
/// The same after a failure.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// The thread; dropped, it writes what is left and ends.
#[derive(Debug)]
pub(in crate::proxy) struct Writer {
    targets: Arc<Targets>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub fn start(targets: &Arc<Targets>) -> files::Result<Self> {
        let of_thread = Arc::clone(targets);
        let thread = std::thread::Builder::new().name("whit-targets".to_owned());
        let thread = thread.spawn(move || write(&of_thread));
        let thread = thread.on("start the thread of", &PathBuf::from("the targets"))?;
        Ok(Self { targets: Arc::clone(targets), thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.targets.dirty.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes down targets panicked; they report again");
        }
    }
}

fn write(targets: &Targets) {
    while let Some(some) = targets.dirty.take() {
        let mut pause = PAUSE;
        for some in some.chunks(WRITTEN_TOGETHER) {
            if let Err(error) = targets.write(some) {
                tracing::warn!(%error, targets = some.len(), "what targets report could not be written down; it is tried again");
                targets.dirty.put_back(some);
                pause = PAUSE_AFTER_FAILURE;
            }
        }
        targets.dirty.pause(pause);
    }
}
