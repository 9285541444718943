//! The log in the ledger: what counts of it after a crash, and how long it is.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use format::current::{CurrentEntry, ENTRIES_MAX, MovedBy};
use format::record::Record;
use ground::faults::{Fault, Faulty as _};
use ground::ids::ReleaseId;
use whit::ledger::{Change, FileLedger, Key, Ledger};
use whit::store::{CurrentAfter, Intent, Together};

use super::{mover, record};
use crate::world::records;

#[test]
fn an_entry_without_its_record_never_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let one = records(folder.path()).add(record(1, &[])).expect("recorded");
    let app = || "app".parse().expect("a name");
    // Killed between the entry and the record: the ledger has the first of the two.
    let ledger = Arc::new(FileLedger::of_space(folder.path(), Instant::now));
    let key = Key::Current { space: "alone".parse().expect("a name"), app: app(), number: 2 };
    let entry = CurrentEntry {
        release: Some(ReleaseId::of(&2u64.to_le_bytes())),
        from: Some(one.release),
        record: Some(2),
        by: MovedBy::Push,
        user: "ada".parse().expect("a name"),
        token: String::new(),
        time: 2,
        because: None,
        back: vec![one.release],
        bad: Vec::new(),
    };
    let written = || ledger.apply(&[Change::Create { key: key.clone(), value: entry.encode() }]);
    written().expect("written");
    let opened = records(folder.path());
    assert_eq!(opened.standing(&app()).current, Some(one.release));
    assert!(!ledger.has(&key).expect("known"), "it is removed");
    // Another release gets the record's number: an entry that came back would still not count.
    let three = opened.add(record(3, &[])).expect("recorded");
    assert_eq!(three.sequence, 2);
    drop(opened);
    let key = Key::Current { space: "alone".parse().expect("a name"), app: app(), number: 9 };
    ledger.apply(&[Change::Put { key, value: entry.encode() }]).expect("written");
    assert_eq!(records(folder.path()).standing(&app()).current, Some(three.release));
}

#[test]
fn an_application_of_before_has_no_log_until_something_moves() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let app = || "app".parse().expect("a name");
    let all: Vec<Record> = {
        let records = records(folder.path());
        (1..=3).map(|seed| records.add(record(seed, &[])).expect("recorded")).collect()
    };
    fs::remove_dir_all(folder.path().join("releases/app/current")).expect("removed");
    let open = records(folder.path());
    let standing = open.standing(&app());
    assert_eq!((standing.current, standing.previous), (Some(all[2].release), Some(all[1].release)));
    assert!(open.log(&app(), u64::MAX, 10).expect("read").is_empty());
    // A push that keeps the current release says which that is.
    let intent = Intent { token: "", current: CurrentAfter::Kept, moves: false };
    open.add_with(record(4, &[]), intent, Vec::new).expect("recorded");
    assert_eq!(open.standing(&app()).current, Some(all[2].release));
    let user = "ada".parse().expect("a name");
    let (from, to) = (&all[2].release, &all[1].release);
    open.roll_back(&app(), (from, to), &mover(&user), |_, _| Together::default()).expect("rolled back");
    let moved = open
        .roll_back(&app(), (from, to), &mover(&user), |_, _| Together::default())
        .expect_err("it was moved");
    assert_eq!(moved.fault(), Fault::Retry, "{moved}");
    assert_eq!(records(folder.path()).standing(&app()), open.standing(&app()));
    assert_eq!(open.standing(&app()).previous, Some(all[0].release));
}

#[test]
fn a_log_does_not_grow_without_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let app = || "app".parse().expect("a name");
    let open = records(folder.path());
    let both = [1, 2].map(|seed| open.add(record(seed, &[])).expect("recorded").release);
    let user = "ada".parse().expect("a name");
    for step in 0..ENTRIES_MAX + 150 {
        let release = &both[usize::try_from(step % 2).expect("small")];
        open.promote(&app(), release, &mover(&user), Vec::new).expect("promoted").expect("it moved");
    }
    let log = open.log(&app(), u64::MAX, usize::MAX).expect("read");
    assert!((ENTRIES_MAX..ENTRIES_MAX + 100).contains(&(log.len() as u64)), "{}", log.len());
    assert_eq!(records(folder.path()).standing(&app()), open.standing(&app()));
}
