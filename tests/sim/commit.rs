//! A collector runs at every moment of a commit at which the store reads its clock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use disk::files::Durability;
use whit::ledger::LEASE_TIME;
use whit::restore::{ChunkSource, walk};
use whit::store::{FaultInjection, Options, Store, collect};

use crate::content::{Build, Pool};
use crate::pusher::{Pusher, Stepped};
use crate::random::Random;

type Hook = Box<dyn FnOnce()>;

thread_local! {
    static NOW: Cell<Instant> = Cell::new(Instant::now());
    /// A function to call at a later reading of the clock, and the number of readings until then.
    static HOOK: RefCell<Option<(u32, Hook)>> = const { RefCell::new(None) };
}

/// Returns the time; calls the hook if this reading is the one.
fn now() -> Instant {
    let due = HOOK.with_borrow_mut(|hook| {
        let (looks, _) = hook.as_mut()?;
        *looks -= 1;
        if *looks == 0 { hook.take() } else { None }
    });
    if let Some((_, hook)) = due {
        hook();
    }
    NOW.get()
}

/// Commits a push whose lease has lapsed while a collector runs at the given reading of the clock. Returns whether the
/// collector ran, and whether the release is readable if it was committed.
fn commit_at(look: u32, mistake: Option<FaultInjection>) -> (bool, bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let _entered = runtime.enter();
    let mut random = Random::new(1);
    let pool = Pool::new(&mut random, 180, 400);
    // The segments are stored in a pack that an earlier release keeps alive.
    let (earlier, later) = pool.chunks.split_at(45);
    let earlier = Rc::new(Build::new(&[earlier.to_vec()]));
    let build = Rc::new(Build::new(&[later.to_vec()]));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        reserve_bytes: 0,
        rebuilt_bytes: 0,
        pack_bytes: 18 * 1024,
        cached_for: Duration::from_secs(3600),
        recent_chunks: 40,
        unindexed_chunks: 0,
        durability: Durability::Synced,
        now,
        fault_injection: mistake,
    };
    let store = Arc::new(Store::open(folder.path(), options).expect("a store"));
    let app = "app".parse().expect("a name");
    let mut pusher = Pusher::new(1, &app, &earlier, None, &store, false);
    while pusher.step(&mut random, &pool) != Ok(Stepped::Committed) {}
    let mut pusher = Pusher::new(2, &app, &build, None, &store, false);
    while !pusher.is_at_commit() {
        assert_eq!(pusher.step(&mut random, &pool), Ok(Stepped::Going));
    }
    store.settle().expect("sealed");
    NOW.set(NOW.get() + LEASE_TIME);
    pusher.lapsed = true;
    let for_hook = Arc::clone(&store);
    let hook = move || {
        collect(&for_hook, &Vec::new, false, &AtomicBool::new(false)).expect("collected");
    };
    HOOK.set(Some((look, Box::new(hook))));
    let stepped = loop {
        match pusher.step(&mut random, &pool).expect("no refusal but to begin again") {
            Stepped::Going => {}
            stepped => break stepped,
        }
    };
    let ran = HOOK.take().is_none();
    if stepped == Stepped::Again {
        return (ran, true);
    }
    let root = store.root(&build.release).expect("a root");
    let mut complete = true;
    let mut content = store.reader();
    walk::<whit::restore::Error>(&root, store.reader().as_mut(), &mut |item| {
        if let format::manifest::Item::Chunk(chunk) = item {
            complete &= content.read(&chunk, &mut Vec::new()).is_ok();
        }
        Ok(())
    })
    .expect("a whole manifest");
    (ran, complete)
}

#[test]
fn a_collector_at_any_moment_of_a_commit_leaves_the_release_whole() {
    let mut look = 1;
    while let (true, complete) = commit_at(look, None) {
        assert!(complete, "a collector at look {look} took chunks of the release");
        look += 1;
    }
    assert!(look > 3, "the store looked at its clock {look} times");
}

#[test]
fn chunks_checked_without_a_lease_are_caught() {
    let caught =
        (1..10).any(|look| matches!(commit_at(look, Some(FaultInjection::CheckedUnheld)), (true, false)));
    assert!(caught, "no collector took anything");
}

#[test]
fn a_push_whose_lease_lapsed_and_that_does_not_look_again_is_caught() {
    let caught =
        (1..10).any(|look| matches!(commit_at(look, Some(FaultInjection::LapsedUnchecked)), (true, false)));
    assert!(caught, "no collector took anything");
}
