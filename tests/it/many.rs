//! Many chunks, many releases, many spaces: unused ones cost nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use delta::compression::Codec;
use format::pack::{Frame, FrameKind};
use format::recipe::ChunkRef;
use format::record::{Cost, Record};
use ground::ids::{ChunkId, Label};
use whit::agent::push::PushOptions;
use whit::restore::ChunkSource;
use whit::store::retention::Rules;
use whit::store::{Options, Records, Store};

use crate::trees::{noise, write};
use crate::world::{World, pull_as, push_as, push_options, records, within};

fn files_with(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|end| end == ending)).collect()
}

fn chunk(number: u32) -> ChunkRef {
    ChunkRef { id: ChunkId::of(&number.to_le_bytes()), bytes: 4 }
}

/// Returns a frame of a hundred chunks of four bytes.
fn frame(first: u32) -> Frame {
    let chunks = (first..first + 100).map(chunk).collect();
    let payload = (first..first + 100).flat_map(u32::to_le_bytes).collect();
    Frame { kind: FrameKind::Content, codec: Codec::Raw, chunks, payload }
}

#[test]
fn new_chunks_become_runs_of_the_index_while_the_space_is_open_and_runs_stay_few() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options { reserve_bytes: 0, pack_bytes: 4000, recent_chunks: 300, ..Options::default() };
    let store = Store::open(folder.path(), options).expect("a store");
    let count = 10_000;
    for first in (0..count).step_by(100) {
        store.append(&frame(first)).expect("appended");
    }
    store.settle().expect("sealed");
    // A chunk in several packs, and in several runs.
    for _ in 0..2 {
        store.append(&frame(0)).expect("appended");
    }
    let whole = |store: &Store| {
        let mut reader = store.reader();
        (0..count).all(|number| reader.read(&chunk(number), &mut Vec::new()).is_ok())
            && (count..count + 1000).all(|other| store.find(&chunk(other).id).expect("readable").is_none())
    };
    let runs = || files_with(&folder.path().join("index"), "run");
    assert!(!runs().is_empty(), "all chunks are still in memory");
    assert!(whole(&store));
    store.close();
    assert!(whole(&store));
    drop(store);
    let store = Store::open(folder.path(), options).expect("a store");
    assert!(whole(&store));
    drop(store);
    assert!(runs().len() <= 6, "{:?}", runs());
    let entries: u64 = runs().iter().map(|run| fs::metadata(run).expect("a run").len() / 48).sum();
    assert!(entries < 2 * u64::from(count), "what was merged is still there");
    // Without an index, the packs are read.
    fs::remove_dir_all(folder.path().join("index")).expect("removed");
    assert!(whole(&Store::open(folder.path(), options).expect("a store")));
}

fn record(number: u64) -> Record {
    Record {
        app: "app".parse().expect("a name"),
        release: ground::ids::ReleaseId::of(&number.to_le_bytes()),
        sequence: number,
        created: number,
        user: "ada".parse().expect("a name"),
        labels: vec![format!("v{number}").parse().expect("a label")],
        totals: format::manifest::Totals::default(),
        cost: Cost::default(),
        behalf: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_push_nor_a_start_reads_the_records_of_all_releases() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        write(&tree, "file", "one");
        world.push("app", &tree).await;
        world.stop().await;
        let folder = world.space().join("releases/app");
        let path = |number: u64| folder.join(format!("{number:010}.record"));
        for number in 2..=500 {
            fs::write(path(number), Records::encode(&record(number))).expect("written");
        }
        // The first start after they were pushed reads them.
        world.again();
        write(&tree, "file", "two");
        assert_eq!(world.push("app", &tree).await.sequence, Some(501));
        // From now on, reading one repairs it.
        let is_damaged = |number: &u64| fs::read(path(*number)).expect("a file") == b"damaged";
        for number in 2..=500 {
            fs::write(path(number), "damaged").expect("written");
        }
        write(&tree, "file", "three");
        world.push("app", &tree).await;
        world.stop().await;
        world.again();
        write(&tree, "file", "four");
        // A record from before has that label.
        let labels = vec![label("v4")];
        let receipt =
            world.push_with(&PushOptions { labels, moves: true, ..push_options("app", &tree) }).await;
        assert_eq!(receipt.sequence, Some(503));
        world.pull("app@v4", &world.path("copy")).await.expect("pulled");
        assert_eq!((2..=500).filter(is_damaged).count(), 499);
        // Reading repairs them.
        assert_eq!(world.releases("app").await.expect("listed").len(), 503);
        assert_eq!((2..=500).filter(is_damaged).count(), 0);
        // A record that cannot be restored is set aside, and its number is not reused.
        world.stop().await;
        fs::remove_file(folder.join("history")).expect("removed");
        fs::write(path(503), "damaged").expect("written");
        world.again();
        assert_eq!(world.releases("app").await.expect("listed").len(), 502);
        assert_eq!(files_with(&folder, "damaged"), [folder.join("0000000503.damaged")]);
        write(&tree, "file", "five");
        assert_eq!(world.push("app", &tree).await.sequence, Some(504));
    })
    .await;
}

#[test]
fn a_history_that_is_gone_damaged_or_behind_is_made_good_from_the_records() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let records = records(folder.path());
    for number in 1..=40 {
        records.add(record(number)).expect("written");
    }
    // The same release again, and then removals.
    records.add(record(7)).expect("written");
    for number in [3, 7, 40] {
        let release = record(number).release;
        assert_eq!(
            records.remove_held(&record(1).app, &release).expect("removed"),
            if number == 7 { 2 } else { 1 }
        );
    }
    let history = folder.path().join("releases/app/history");
    let good = fs::read(&history).expect("a history");
    let expected = records.pushed(&record(1).app).expect("the application");
    assert_eq!(expected.len(), 37);
    let wrongs: [&dyn Fn(); 5] = [
        &|| {},
        &|| fs::remove_file(&history).expect("removed"),
        &|| fs::write(&history, &good[..good.len() / 2]).expect("written"),
        &|| fs::write(&history, noise(1, good.len())).expect("written"),
        &|| fs::write(&history, [&good[..], b"torn"].concat()).expect("written"),
    ];
    for wrong in wrongs {
        wrong();
        let again = crate::world::records(folder.path());
        assert_eq!(again.pushed(&record(1).app).expect("the application"), expected);
        assert_eq!(again.latest(&record(1).app).map(|latest| latest.sequence), Some(39));
        assert_eq!(again.releases(), records.releases());
        assert!(again.has(&record(5).release, |_| true) && !again.has(&record(7).release, |_| true));
        assert!(!again.has(&record(5).release, |_| false));
        let select = |at: &str| again.select(&format!("app@{at}").parse().expect("a selector"));
        assert_eq!(select("v12").expect("there").sequence, 12);
        let digits = record(12).release.to_string();
        assert_eq!(select(&digits[..12]).expect("there").sequence, 12);
        assert!(select("v7").is_err());
    }
    let again = crate::world::records(folder.path());
    assert_eq!(again.add(record(50)).expect("written").sequence, 42, "numbers are never given twice");
}

fn label(word: &str) -> Label {
    word.parse().expect("a label")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spaces_that_nobody_uses_are_closed_and_opened_again_when_they_are_used() {
    within(async {
        let world = World::start_with(|options| {
            options.maintenance.idle_after = Some(Duration::from_millis(50));
            options.maintenance.look_every = Duration::from_millis(10);
        });
        let tree = world.path("tree");
        for number in 0..4 {
            write(&tree, "file", format!("{number}"));
            push_as(&world.access_to(&format!("s{number}")), &push_options("app", &tree))
                .await
                .expect("pushed");
        }
        let spaces = world.path("data/spaces");
        let is_open = || {
            let files = fs::read_dir("/proc/self/fd").expect("this is Linux");
            let mut files = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
            files.any(|file| file.starts_with(&spaces))
        };
        while is_open() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Open packs are sealed and indexed.
        assert_eq!(files_with(&spaces.join("s0/packs/open"), "part"), Vec::<PathBuf>::new());
        for number in 0..4 {
            let copy = world.path(&format!("copy{number}"));
            pull_as(&world.access_to(&format!("s{number}")), "app", &copy, false).await.expect("pulled");
            assert_eq!(fs::read_to_string(copy.join("file")).expect("a file"), format!("{number}"));
        }
        while is_open() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Waits until an application has this many releases, and returns their labels, newest first.
async fn left(world: &World, app: &str, count: usize) -> Vec<String> {
    loop {
        let releases = world.releases(app).await.expect("listed");
        if releases.len() == count {
            return releases.iter().flat_map(|record| &record.labels).map(ToString::to_string).collect();
        }
        assert!(releases.len() > count, "too much was evicted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn push_noise(world: &World, app: &str, name: &str, seed: u64, bytes: usize) {
    let tree = world.path(&format!("{app}-{name}"));
    write(&tree, "file", noise(seed, bytes));
    world.push_with(&PushOptions { labels: vec![label(name)], ..push_options(app, &tree) }).await;
}

/// Restarts the world with maintenance that limits its space to that size.
async fn held_to(world: &mut World, size_max: u64) {
    world.stop().await;
    world.change(|options| {
        options.maintenance.rules = Rules { size_max: Some(size_max), ..Rules::default() };
        options.maintenance.collect_every = Some(Duration::from_millis(50));
    });
    world.again();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_release_that_was_used_longest_ago_is_evicted_not_the_one_pushed_longest_ago() {
    within(async {
        let mut world = World::start();
        for (number, name) in (0..).zip(["v0", "v1", "v2", "v3"]) {
            push_noise(&world, "app", name, number, 400_000).await;
            // Each release has its own pack, so that all of it can be collected.
            world.stop().await;
            world.again();
        }
        world.stop().await;
        // As if they had been pushed hours ago.
        let folder = world.space().join("releases/app");
        fs::remove_file(folder.join("history")).expect("removed");
        for (number, hours) in [(1, 9), (2, 8), (3, 7), (4, 6)] {
            let path = folder.join(format!("{number:010}.record"));
            let mut record = Records::decode(&fs::read(&path).expect("a record")).expect("a record");
            record.created -= 3600 * hours;
            fs::write(&path, Records::encode(&record)).expect("written");
            let time = SystemTime::now() - Duration::from_secs(3600 * hours);
            let file = fs::File::options().append(true).open(path).expect("a record");
            file.set_modified(time).expect("changed");
        }
        world.again();
        world.pull("app@v0", &world.path("copy")).await.expect("pulled");
        held_to(&mut world, 1_400_000).await;
        // The last is current, and a rollback goes back to the one before: neither goes.
        assert_eq!(left(&world, "app", 3).await, ["v3", "v2", "v0"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_takes_more_than_its_share_takes_nothing_from_the_others() {
    within(async {
        let mut world = World::start();
        for (number, name) in (0..).zip(["v0", "v1", "v2"]) {
            // Well within half of the stored size.
            push_noise(&world, "web", name, number, 150_000).await;
        }
        for (number, name) in (10..).zip(["v0", "v1", "v2"]) {
            push_noise(&world, "eve", name, number, 1_500_000).await;
        }
        // Eve's latest release and the one that a rollback goes back to are larger than the limit.
        held_to(&mut world, 1_600_000).await;
        assert_eq!(left(&world, "eve", 2).await, ["v2", "v1"]);
        assert_eq!(left(&world, "web", 3).await, ["v2", "v1", "v0"]);
        // Without her, the others' older releases are removed, as many as necessary.
        held_to(&mut world, 500_000).await;
        assert_eq!(left(&world, "web", 2).await, ["v2", "v1"]);
    })
    .await;
}

#[test]
fn a_proxy_may_open_as_many_files_as_the_system_lets_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 200; exec \"$0\" serve --listen 127.0.0.1:0 --data data"]);
    command.arg(env!("CARGO_BIN_EXE_whit")).current_dir(folder.path()).env("HOME", folder.path());
    let mut served = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut url = String::new();
    let out = served.stdout.take().expect("it is piped");
    BufReader::new(out).read_line(&mut url).expect("an address");
    let limits = fs::read_to_string(format!("/proc/{}/limits", served.id())).expect("this is Linux");
    served.kill().and_then(|()| served.wait()).expect("it ends");
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let numbers: Vec<&str> = limit.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{limit}");
}
