//! Tests that every kind of ledger must pass.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ground::ids::{AppName, ReleaseId, SpaceName};
use protocol::token::TokenId;
use whit::ledger::{Change, Error, Key, Ledger, Retired, Table, VALUE_BYTES_MAX};

/// Opens a kind: the same ledger each time.
pub type Open<'a> = &'a dyn Fn() -> Arc<dyn Ledger>;

pub fn space() -> SpaceName {
    "shop".parse().expect("a name")
}

pub fn app() -> AppName {
    "web".parse().expect("a name")
}

pub fn record(number: u64) -> Key {
    Key::Record { space: space(), app: app(), number }
}

pub fn records() -> Table {
    record(1).table()
}

pub fn create(key: Key, value: &[u8]) -> Change {
    Change::Create { key, value: value.to_vec() }
}

fn put(key: Key, value: &[u8]) -> Change {
    Change::Put { key, value: value.to_vec() }
}

/// Runs the whole suite, each part on its own ledger.
pub fn run(on_new: impl Fn(&dyn Fn(Open<'_>))) {
    let parts: [fn(Open<'_>); 9] = [
        a_key_is_created_once,
        what_is_refused_changes_nothing,
        every_table_has_its_own_keys,
        a_retired_key_is_not_listed_and_not_forgotten,
        a_thousand_keys_are_listed_in_order,
        each_number_is_given_once,
        values_are_opaque,
        the_last_use_is_known,
        leases_are_the_same_for_all,
    ];
    for part in parts {
        on_new(&part);
    }
}

fn a_key_is_created_once(open: Open<'_>) {
    let ledger = open();
    assert_eq!(ledger.read(&record(1)).expect("read"), None);
    assert!(
        ledger.list(&records()).expect("listed").is_empty()
            && ledger.apps(&space()).expect("listed").is_empty()
    );
    ledger.apply(&[create(record(1), b"one")]).expect("created");
    let again = ledger.apply(&[create(record(1), b"other")]);
    assert!(matches!(again, Err(Error::Exists(key)) if key == record(1)));
    assert_eq!(open().read(&record(1)).expect("read").as_deref(), Some(&b"one"[..]));
    ledger.apply(&[put(record(1), b"mended")]).expect("put");
    assert_eq!(open().read(&record(1)).expect("read").as_deref(), Some(&b"mended"[..]));
    assert_eq!(open().apps(&space()).expect("listed"), [app()]);
}

fn what_is_refused_changes_nothing(open: Open<'_>) {
    let ledger = open();
    ledger.apply(&[create(record(2), b"two")]).expect("created");
    let deliver = || create(Key::Delivery { number: 1 }, b"a delivery");
    let refused = ledger.apply(&[create(record(1), b"one"), deliver(), create(record(2), b"other")]);
    assert!(matches!(refused, Err(Error::Exists(key)) if key == record(2)));
    let large = vec![0; usize::try_from(VALUE_BYTES_MAX).expect("small") + 1];
    let refused = ledger.apply(&[create(record(1), b"one"), deliver(), create(record(3), &large)]);
    assert!(matches!(refused, Err(Error::TooLarge { key, bytes: 65_537 }) if key == record(3)));
    assert_eq!(open().list(&records()).expect("listed"), [record(2)]);
    assert!(open().list(&Table::Deliveries).expect("listed").is_empty());
    ledger.apply(&[create(record(1), b"one"), deliver(), create(record(3), &large[1..])]).expect("applied");
    assert_eq!(open().list(&records()).expect("listed"), [record(1), record(2), record(3)]);
}

fn every_table_has_its_own_keys(open: Open<'_>) {
    let (id, release) = (TokenId::from_bytes([7; 8]), ReleaseId::of(b"a root"));
    let keys = [
        record(7),
        Key::Pin { space: space(), app: app(), release },
        Key::Delivery { number: 7 },
        Key::Ended { number: 7 },
        Key::Notice { number: 7 },
        Key::Rollout { number: 7 },
        Key::Group { space: space(), app: app(), group: "web.eu".parse().expect("a name") },
        Key::Shown { space: space(), app: app(), destination: "edge.eu".parse().expect("a name") },
        Key::Target { space: space(), app: app(), target: "web-1.eu".parse().expect("a name") },
        Key::Token { id },
        Key::Revoked { id },
        Key::Current { space: space(), app: app(), number: 7 },
        Key::Label { space: space(), app: app(), label: "v1.2.3".parse().expect("a label") },
    ];
    let ledger = open();
    for key in &keys {
        ledger.apply(&[put(key.clone(), key.to_string().as_bytes())]).expect("put");
    }
    let elsewhere = Key::Record { space: "other".parse().expect("a name"), app: app(), number: 7 };
    ledger.apply(&[create(elsewhere.clone(), b"of another space")]).expect("created");
    for key in &keys {
        assert_eq!(open().list(&key.table()).expect("listed"), *std::slice::from_ref(key));
        assert!(open().has(key).expect("known"));
        assert_eq!(open().read(key).expect("read"), Some(key.to_string().into_bytes()));
        ledger.apply(&[Change::Remove { key: key.clone() }]).expect("removed");
        ledger.apply(&[Change::Remove { key: key.clone() }]).expect("there is none");
        assert!(!open().has(key).expect("known") && open().scan(&key.table()).expect("listed").is_empty());
    }
    assert!(open().has(&elsewhere).expect("known"));
}

fn a_retired_key_is_not_listed_and_not_forgotten(open: Open<'_>) {
    let ledger = open();
    let retire =
        |number, reason| ledger.apply(&[Change::Retire { key: record(number), reason }]).expect("retired");
    for number in 1..=4 {
        ledger.apply(&[create(record(number), b"a record")]).expect("created");
    }
    retire(2, Retired::Removed);
    retire(3, Retired::Damaged);
    retire(4, Retired::Damaged);
    retire(4, Retired::Unreadable);
    retire(9, Retired::Removed);
    let ledger = open();
    assert_eq!(ledger.list(&records()).expect("listed"), [record(1)]);
    let expected = [
        (record(1), None),
        (record(2), Some(Retired::Removed)),
        (record(3), Some(Retired::Damaged)),
        (record(4), Some(Retired::Unreadable)),
    ];
    assert_eq!(ledger.scan(&records()).expect("listed"), expected);
    for number in 2..=4 {
        assert!(!ledger.has(&record(number)).expect("known"));
        assert_eq!(ledger.read(&record(number)).expect("read"), None);
        for change in [create(record(number), b"other"), put(record(number), b"other")] {
            assert!(matches!(ledger.apply(&[change]), Err(Error::Exists(key)) if key == record(number)));
        }
        ledger.apply(&[Change::Remove { key: record(number) }]).expect("nothing to remove");
    }
    assert_eq!(open().scan(&records()).expect("listed"), expected);
    assert_eq!(open().apps(&space()).expect("listed"), [app()]);
}

fn a_thousand_keys_are_listed_in_order(open: Open<'_>) {
    // Unordered, and with more digits than names are padded to.
    let numbers = || {
        (0..500u64).map(|step| 1 + step * 7 % 500).chain((0..500).map(|step| 9_999_999_900 + step * 3 % 500))
    };
    let creates: Vec<Change> =
        numbers().map(|number| create(record(number), &number.to_le_bytes())).collect();
    let ledger = open();
    creates.chunks(10).for_each(|some| ledger.apply(some).expect("created"));
    let mut expected: Vec<u64> = numbers().collect();
    expected.sort_unstable();
    let expected: Vec<Key> = expected.into_iter().map(record).collect();
    assert_eq!(open().list(&records()).expect("listed"), expected);
}

fn each_number_is_given_once(open: Open<'_>) {
    const THREADS: u64 = 8;
    const EACH: u64 = 100;
    let ledger = open();
    let take_numbers = || {
        let (mut next, mut taken) = (1, Vec::new());
        while taken.len() < usize::try_from(EACH).expect("few") {
            match ledger.apply(&[create(record(next), b"a record")]) {
                Ok(()) => taken.push(next),
                Err(Error::Exists(_)) => {}
                Err(error) => panic!("{error}"),
            }
            next += 1;
        }
        taken
    };
    let mut all: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(take_numbers)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    all.sort_unstable();
    assert_eq!(all, (1..=THREADS * EACH).collect::<Vec<_>>());
}

fn values_are_opaque(open: Open<'_>) {
    let ledger = open();
    let largest = vec![0xff; 64 * 1024];
    let values: [&[u8]; 3] = [b"", &largest, b"\xeea version of the future"];
    for (number, value) in (1..).zip(values) {
        ledger.apply(&[create(record(number), value)]).expect("created");
    }
    ledger.recover(&records()).expect("nothing was left");
    for (number, value) in (1..).zip(values) {
        assert!(open().has(&record(number)).expect("known"));
        assert_eq!(open().read(&record(number)).expect("read").as_deref(), Some(value));
    }
}

fn the_last_use_is_known(open: Open<'_>) {
    let ledger = open();
    // Some file systems have coarser times than the clock.
    let before = SystemTime::now() - Duration::from_secs(2);
    assert_eq!(ledger.touched(&record(1)).expect("known"), None);
    ledger.apply(&[create(record(1), b"a record")]).expect("created");
    let written = ledger.touched(&record(1)).expect("known").expect("there is one");
    ledger.touch(&record(1)).expect("noted");
    let touched = open().touched(&record(1)).expect("known").expect("there is one");
    assert!(before <= written && written <= touched + Duration::from_secs(2));
}

fn leases_are_the_same_for_all(open: Open<'_>) {
    let ledger = open();
    let (one, other) = (ledger.leases(&space()), ledger.leases(&space()));
    let lease = one.open(7).expect("opened");
    assert!(other.holds(lease) && other.renew(lease));
    assert_eq!((other.holding().expect("known"), other.first_pack().expect("known")), (vec![lease], Some(7)));
    let elsewhere = ledger.leases(&"other".parse().expect("a name"));
    assert!(elsewhere.holding().expect("known").is_empty());
    let second = other.open(3).expect("opened");
    assert_ne!(lease, second);
    assert_eq!(one.first_pack().expect("known"), Some(3));
    one.end(second);
    other.end(lease);
    assert!(one.holding().expect("known").is_empty() && !one.holds(lease) && !one.renew(lease));
}
