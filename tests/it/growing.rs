//! Inputs that are slow to read: their first part is sent before the rest is read.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ground::monitor::{Monitor, Phase};
use whit::agent::Receipt;

use crate::trees::{assert_same, noise, write};
use crate::world::{World, push_heard, push_options, within};

/// Lets only this many bytes be read before some have been sent, or until it has waited for too long.
struct Gate {
    open_after: u64,
    read: AtomicU64,
    sent: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn after(bytes: u64) -> Arc<Self> {
        let (sent, changed) = (Mutex::new(false), Condvar::new());
        Arc::new(Self { open_after: bytes, read: AtomicU64::new(0), sent, changed })
    }

    fn has_sent(&self) -> bool {
        *self.sent.lock().expect("no panic")
    }
}

impl Monitor for Gate {
    fn advance(&self, phase: Phase, bytes: u64) {
        match phase {
            Phase::Scan if self.read.fetch_add(bytes, Ordering::Relaxed) >= self.open_after => {
                let sent = self.sent.lock().expect("no panic");
                let patience = Duration::from_secs(10);
                drop(self.changed.wait_timeout_while(sent, patience, |sent| !*sent).expect("no panic"));
            }
            Phase::Transfer => {
                *self.sent.lock().expect("no panic") = true;
                self.changed.notify_all();
            }
            _ => {}
        }
    }
}

const FILES: u64 = 1_500;
const FILE_BYTES: usize = 6_000;

fn make(world: &World) -> u64 {
    for n in 0..FILES {
        write(&world.path("tree"), &format!("{:02}/{n:04}", n % 40), noise(n, FILE_BYTES));
    }
    FILES * FILE_BYTES as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_push_crosses_while_its_input_is_read() {
    within(async {
        let world = World::start();
        let bytes = make(&world);
        let gate = Gate::after(bytes * 2 / 3);
        let options = push_options("app", &world.path("tree"));
        let receipt = push_heard(world.access(), &options, Arc::clone(&gate) as _).await.expect("a push");
        assert!(receipt.seconds < 9.0, "the reading waited in vain: {receipt:?}");
        let Receipt { files, chunks, .. } = &receipt;
        assert_eq!((*files, receipt.bytes.logical, receipt.bytes.unseen), (FILES, bytes, bytes));
        assert_eq!((receipt.sequence, chunks.unseen), (Some(1), chunks.total));
        world.pull("app", &world.path("pulled")).await.expect("a pull");
        assert_same(&world.path("tree"), &world.path("pulled"));

        // With an earlier release, everything is listed at once: a push of the same content is recognized.
        let again = push_heard(world.access(), &options, gate).await.expect("a push");
        assert!(again.unchanged && again.release == receipt.release, "{again:?}");
        assert_eq!((again.chunks.unseen, again.bytes.sent), (0, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_cannot_be_read_to_its_end_leaves_no_release() {
    within(async {
        let world = World::start();
        let bytes = make(&world);
        // The walk meets it last, and no release can contain it.
        std::os::unix::fs::symlink("/etc", world.path("tree").join("zz")).expect("linked");
        let gate = Gate::after(bytes * 2 / 3);
        let options = push_options("app", &world.path("tree"));
        let failed = push_heard(world.access(), &options, Arc::clone(&gate) as _).await;
        assert!(failed.is_err_and(|error| error.to_string().contains("zz")));
        assert!(world.releases("app").await.map_or(true, |releases| releases.is_empty()));
        fs::remove_file(world.path("tree").join("zz")).expect("removed");
        let receipt = push_heard(world.access(), &options, Gate::after(u64::MAX)).await.expect("a push");
        if gate.has_sent() {
            assert!(receipt.bytes.unseen < bytes, "what had crossed stays: {receipt:?}");
        }
        world.pull("app", &world.path("pulled")).await.expect("a pull");
        assert_same(&world.path("tree"), &world.path("pulled"));
    })
    .await;
}
