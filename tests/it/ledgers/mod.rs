//! Ledgers: every kind passes one suite, and a proxy works over any of them.

pub mod memory;
mod suite;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use format::manifest::Totals;
use format::record::{Cost, DeliveryReport, Record};
use ground::faults::{Fault, Faulty};
use ground::ids::{DestinationName, ReleaseId};
use protocol::token::claimed;
use protocol::wire::{Answer, Operation};
use whit::agent::Access;
use whit::agent::push::PushOptions;
use whit::delivery::destination;
use whit::delivery::{Deliveries, Delivery, DeliveryOptions, Executor, Failure, Task};
use whit::ledger::{Change, Error, FileLedger, Key, Ledger, Retired, Table};
use whit::restore::OutsideLinks;
use whit::store::{CurrentAfter, Intent, Records};

use self::memory::MemoryLedger;
use self::suite::{app, create, record, records, space};
use crate::collecting::Mounted;
use crate::trees::{assert_same, write};
use crate::world::{World, ask_as, delivered, patience, push_options, releases_as, token, web, within};

fn files(data: &Path) -> Arc<dyn Ledger> {
    Arc::new(FileLedger::of_data(data, Instant::now))
}

#[test]
fn files_keep_the_contract() {
    suite::run(|part| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        part(&|| files(folder.path()));
    });
}

#[test]
fn memory_keeps_the_contract() {
    suite::run(|part| {
        let ledger = Arc::new(MemoryLedger::default());
        part(&|| Arc::<MemoryLedger>::clone(&ledger));
    });
}

/// Applies changes that write three records: the first two are written, and a removal or the third is refused.
fn fails_in_the_middle(ledger: &dyn Ledger) -> Error {
    let remove = Change::Remove { key: Key::Delivery { number: 1 } };
    let changes = [create(record(1), b"one"), create(record(2), b"two"), remove, create(record(3), b"three")];
    let error = ledger.apply(&changes).expect_err("it fails in the middle");
    assert_eq!(ledger.list(&records()).expect("listed"), [record(1), record(2)]);
    error
}

#[test]
fn after_a_failure_in_the_middle_the_first_changes_are_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("deliveries"), "no folder").expect("written");
    let error = fails_in_the_middle(&*files(folder.path()));
    assert!(error.to_string().contains("deliveries"), "{error}");

    let ledger = MemoryLedger::default();
    ledger.fill(Some(2));
    let error = fails_in_the_middle(&ledger);
    assert!(error.fault() == Fault::Full && error.to_string().contains("record 3"), "{error}");
}

#[test]
fn a_full_disk_is_an_error_that_names_the_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = Mounted::with(&folder.path().join("disk"), "size=64k") else {
        println!("skipped: only root can mount a disk to fill");
        return;
    };
    let ledger = files(&disk.0);
    let value = vec![7; 30_000];
    let errors =
        (1..8).filter_map(|number| Some((number, ledger.apply(&[create(record(number), &value)]).err()?)));
    let (number, error) = { errors }.next().expect("8 values do not fit");
    assert_eq!(error.fault(), Fault::Full, "{error}");
    assert!(error.to_string().contains(&format!("{number:010}.record")), "{error}");
    assert_eq!(ledger.list(&records()).expect("listed").len() as u64, number - 1);
}

#[test]
fn files_are_where_they_always_were_and_others_are_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = files(folder.path());
    let releases = folder.path().join("spaces/shop/releases/web");
    fs::create_dir_all(&releases).expect("created");
    let others = ["history", "1.record", "0000000001.record.old", "notes.txt", "0000000002.future"];
    for other in others.iter().chain(&["0000000009.record.1.2.part"]) {
        fs::write(releases.join(other), "whatever").expect("written");
    }
    let release = ReleaseId::of(b"a root");
    let pin = Key::Pin { space: space(), app: app(), release };
    ledger.recover(&records()).expect("recovered");
    ledger.apply(&[create(record(1), b"one"), create(record(2), b"two"), create(pin, b"")]).expect("created");
    ledger.apply(&[Change::Retire { key: record(2), reason: Retired::Removed }]).expect("retired");
    let mut names: Vec<String> = fs::read_dir(&releases)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("plain"))
        .collect();
    names.retain(|name| !others.contains(&name.as_str()));
    names.sort();
    let mut expected =
        ["0000000001.record".to_owned(), "0000000002.removed".to_owned(), format!("{release}.pin")];
    expected.sort();
    assert_eq!(names, expected);
    assert!(others.iter().all(|other| fs::read(releases.join(other)).expect("left alone") == b"whatever"));
    assert_eq!(ledger.list(&records()).expect("listed"), [record(1)]);
    assert_eq!(ledger.describe(&record(2)), releases.join("0000000002.removed").display().to_string());
}

fn pushed(seed: u64) -> Record {
    Record {
        app: app(),
        release: ReleaseId::of(&seed.to_le_bytes()),
        sequence: 0,
        created: seed,
        user: "ada".parse().expect("a name"),
        labels: Vec::new(),
        totals: Totals::default(),
        cost: Cost::default(),
        behalf: Vec::new(),
    }
}

#[test]
fn a_record_that_an_admin_restored_beside_its_damaged_file_counts_and_is_not_given_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = files(folder.path());
    let open =
        || Records::open(Arc::clone(&ledger), space(), folder.path().join("histories")).expect("opened");
    open().add(pushed(1)).expect("recorded");
    let restored = folder.path().join("spaces/shop/releases/web/0000000001.record");
    fs::write(restored.with_extension("damaged"), "damaged").expect("written");
    assert_eq!(ledger.scan(&records()).expect("listed"), [(record(1), None)]);
    for _ in 0..2 {
        let store = open();
        for unreadable in store.unreadable() {
            store.let_go(&unreadable).expect("given up");
        }
        assert_eq!(store.pushed(&app()).expect("known").len(), 1);
    }
    assert!(restored.exists());
}

#[test]
fn whoever_changes_another_key_does_not_wait_for_a_long_removal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = files(folder.path());
    let many = 1..=3000;
    let releases = folder.path().join("spaces/shop/releases/web");
    fs::create_dir_all(&releases).expect("created");
    many.clone()
        .for_each(|number| fs::write(releases.join(format!("{number:010}.record")), "").expect("written"));
    let retire = |number| Change::Retire { key: record(number), reason: Retired::Removed };
    let created = std::thread::scope(|scope| {
        let removal = scope.spawn(|| ledger.apply(&many.map(retire).collect::<Vec<_>>()));
        while ledger.has(&record(1)).expect("known") {
            std::thread::yield_now();
        }
        let mut created = 0;
        while !removal.is_finished() {
            created += 1;
            ledger.apply(&[create(Key::Delivery { number: created }, b"a delivery")]).expect("created");
        }
        removal.join().expect("no panic").expect("removed");
        created
    });
    assert!(created > 10, "{created} deliveries were written down during a removal");
    assert!(ledger.list(&records()).expect("listed").is_empty());
}

/// Returns two proxies whose stores share a ledger, each with its own folder.
fn two_proxies(ledger: &Arc<MemoryLedger>, folder: &Path) -> [Records; 2] {
    ["one", "other"].map(|name| {
        let ledger = Arc::<MemoryLedger>::clone(ledger);
        Records::open(ledger, space(), folder.join(name)).expect("records")
    })
}

#[test]
fn two_proxies_over_one_ledger_give_each_number_once_and_learn_of_the_others_pushes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = Arc::new(MemoryLedger::default());
    let proxies = two_proxies(&ledger, folder.path());
    let push = |proxy: &Records, thread: u64| {
        (0..25)
            .map(|step| proxy.add(pushed(thread * 100 + step)).expect("recorded").sequence)
            .collect::<Vec<_>>()
    };
    let mut numbers: Vec<u64> = std::thread::scope(|scope| {
        let push = &push;
        let threads = (0..8).map(|thread| {
            scope.spawn({
                let proxy = &proxies[thread % 2];
                move || push(proxy, thread as u64)
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    for proxy in &proxies {
        proxy.add(pushed(1000)).expect("recorded");
    }
    let known = proxies[1].pushed(&app()).expect("pushes");
    assert_eq!(known.iter().map(|pushed| pushed.sequence).collect::<Vec<_>>(), (1..=202).collect::<Vec<_>>());
}

#[test]
fn a_record_and_its_deliveries_are_one_transaction() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = Arc::new(MemoryLedger::default());
    let [proxy, _] = two_proxies(&ledger, folder.path());
    let deliver = |number| create(Key::Delivery { number }, b"a delivery");
    ledger.apply(&[deliver(1)]).expect("another proxy's");
    let mut next = 1..;
    let moves = Intent { token: "", current: CurrentAfter::Pushed, moves: true };
    let recorded = proxy.add_with(pushed(1), moves, || next.next().map(deliver).into_iter().collect());
    assert_eq!(recorded.expect("recorded").sequence, 1);
    let deliveries = ledger.list(&Table::Deliveries).expect("listed");
    assert_eq!(deliveries, [Key::Delivery { number: 1 }, Key::Delivery { number: 2 }]);
    // A record written before the disk was full counts, though its push fails; so does the entry before it.
    ledger.fill(Some(2));
    let error = proxy.add_with(pushed(2), moves, || vec![deliver(3)]).expect_err("the second does not fit");
    assert_eq!(error.fault(), Fault::Full);
    ledger.fill(None);
    assert!(proxy.has(&pushed(2).release, |_| true));
    assert_eq!(proxy.standing(&app()).current, Some(pushed(2).release));
    assert_eq!(proxy.add(pushed(3)).expect("recorded").sequence, 3);
    for fit in [0, 1] {
        // Neither nothing nor an entry alone makes the release current.
        ledger.fill(Some(fit));
        assert_eq!(proxy.add(pushed(4)).expect_err("no record fits").fault(), Fault::Full);
        ledger.fill(None);
        assert!(!proxy.has(&pushed(4).release, |_| true));
        assert_eq!(proxy.standing(&app()).current, Some(pushed(3).release));
    }
    assert_eq!(proxy.add(pushed(5)).expect("recorded").sequence, 4, "no number is left out");
}

/// Records the destinations that it is asked to deliver to.
#[derive(Default)]
struct Spy(Mutex<Vec<DestinationName>>);

impl Executor for Spy {
    fn deliver(&self, task: &Task<'_>) -> Result<DeliveryReport, Failure> {
        self.0.lock().expect("no panic").push(task.delivery.destination.clone());
        Ok(DeliveryReport::default())
    }
}

#[test]
fn a_delivery_that_was_written_down_before_the_disk_was_full_is_made_at_once() {
    let (ledger, spy) = (Arc::new(MemoryLedger::default()), Arc::new(Spy::default()));
    let kind: Arc<dyn Ledger> = Arc::<MemoryLedger>::clone(&ledger);
    let executor: Arc<dyn Executor> = Arc::<Spy>::clone(&spy);
    let names: [DestinationName; 2] = ["one", "other"].map(|name| name.parse().expect("a name"));
    let unused = || destination::local("unused", OutsideLinks::Refuse);
    let destinations = names.iter().map(|name| (name.clone(), unused())).collect();
    let deliveries =
        Deliveries::start(kind, destinations, &executor, DeliveryOptions::default()).expect("started");
    let delivery = |to: &DestinationName| Delivery::new(space(), app(), ReleaseId::of(b"a root"), to.clone());
    ledger.fill(Some(1));
    let error = deliveries.add(names.iter().map(delivery).collect()).expect_err("the second does not fit");
    assert_eq!(error.fault(), Fault::Full);
    let begin = Instant::now();
    while !deliveries.pending(&space()).is_empty() {
        assert!(begin.elapsed() < patience(), "the first is not made");
        std::thread::yield_now();
    }
    deliveries.stop();
    assert_eq!(*spy.0.lock().expect("no panic"), names[..1]);
    assert!(ledger.list(&Table::Deliveries).expect("listed").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_works_over_a_ledger_in_memory_and_writes_none_of_it_to_files() {
    within(async {
        let ledger = Arc::new(MemoryLedger::default());
        let kind: Arc<dyn Ledger> = Arc::<MemoryLedger>::clone(&ledger);
        let mut world = World::start_with(|options| options.ledger = Some(kind));
        let tree = world.path("tree");
        for version in ["one", "two"] {
            write(&tree, "file", version);
            let labels = vec![version.parse().expect("a label")];
            let options = PushOptions { labels, destinations: vec![web()], ..push_options("app", &tree) };
            let receipt = world.push_with(&options).await;
            delivered(&receipt.delivered);
            assert_same(&tree, &world.path("web/current"));
        }
        let ask = |operation: Operation| {
            let access = world.access().clone();
            async move { ask_as(&access, &operation).await }
        };
        let one = || "app@one".parse().expect("a selector");
        let remove = || Operation::Remove { release: one(), all_labels: true, force: true };
        ask(Operation::Pin { release: one(), pinned: true }).await.expect("pinned");
        assert_eq!(ask(remove()).await.expect_err("pinned").fault(), Fault::Input);
        ask(Operation::Pin { release: one(), pinned: false }).await.expect("unpinned");
        ask(remove()).await.expect("removed");
        let collected = ask(Operation::Collect { dry_run: false }).await.expect("collected");
        assert!(matches!(collected.as_slice(), [Answer::Collected(_)]));

        let access = Access { token: token(world.identity(), |_| {}), ..world.access().clone() };
        let id = claimed(&access.token).expect("a token").id;
        assert_eq!(releases_as(&access, "app").await.expect("allowed").len(), 1);
        assert!(ledger.has(&Key::Token { id }).expect("known"));
        assert!(world.identity().revoke(id).expect("revoked"), "it is registered");
        assert_eq!(releases_as(&access, "app").await.expect_err("revoked").fault(), Fault::Denied);

        world.stop().await;
        world.again();
        assert_eq!(world.releases("app").await.expect("listed").len(), 1);
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
        let names = |folder: &str| {
            let entries = fs::read_dir(world.path("data").join(folder)).into_iter().flatten();
            entries.map(|entry| entry.expect("an entry").file_name()).collect::<Vec<_>>()
        };
        assert_eq!(names("spaces/default/releases/app"), ["history"], "the proxy's own cache");
        for folder in ["deliveries", "identity/tokens", "identity/revoked"] {
            assert!(names(folder).is_empty(), "{folder}");
        }
    })
    .await;
}
