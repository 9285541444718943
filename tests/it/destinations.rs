//! The promises of every kind of destination, tested on each kind that shows whole releases: directories, commands, and one in
//! memory that is defined here, to show that the interface is complete. Kinds of objects promise less (`objects`).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use format::manifest::{EntryPath, Root};
use format::recipe::ChunkRef;
use ground::faults::{Fault, Faulty};
use ground::ids::{AppName, DeliveryId, ReleaseId};
use ground::monitor::Silent;
use protocol::wire::{Answer, Operation};
use whit::agent::push::PushOptions;
use whit::delivery::destination::{
    self, Check, Definition, Delivered, Destination, Error, Job, KeptCopy, Preview, ShownLog,
};
use whit::restore::{ChunkReader, ChunkSource, OutsideLinks, SourceError, TreeOptions, write_tree};
use whit::store::Store;

use crate::trees::{Entry, assert_same, change_byte, noise, snapshot, some_tree, walk_files, write};
use crate::world::{World, ask_as, delivered, push_options, web, within};

/// The entries that readers of a destination see.
type Shown = BTreeMap<OsString, Entry>;

/// A destination that stores every release in memory.
#[derive(Debug, Default)]
struct Memory {
    state: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    shown: Option<(AppName, ReleaseId)>,
    copies: HashMap<(AppName, ReleaseId), Arc<Image>>,
}

#[derive(Debug)]
struct Image {
    tree: Shown,
    files: HashMap<Vec<u8>, Vec<u8>>,
}

impl Memory {
    fn shown(&self) -> Option<Shown> {
        let state = self.state.lock().expect("no panic");
        state.shown.as_ref().map(|shown| state.copies[shown].tree.clone())
    }
}

impl Destination for Memory {
    fn deliver(&self, job: &Job<'_>) -> Result<Delivered, Error> {
        let (name, totals) = ((job.app.clone(), job.release()), job.root.totals);
        let already = self.state.lock().expect("no panic").shown.as_ref() == Some(&name);
        if !already {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let top = folder.path().join("top");
            let options = TreeOptions { cancelled: Some(job.cancelled), ..TreeOptions::default() };
            write_tree(job.root, job.source, &top, &options, job.monitor)?;
            let files = walk_files(&top).into_iter().map(|path| {
                let below = path.strip_prefix(&top).expect("below it").as_os_str().as_bytes().to_vec();
                (below, fs::read(&path).expect("a file"))
            });
            let copy = Image { files: files.collect(), tree: snapshot(&top) };
            let mut state = self.state.lock().expect("no panic");
            state.copies.insert(name.clone(), Arc::new(copy));
            state.shown = Some(name);
        }
        let reused_bytes = if already { totals.bytes } else { 0 };
        let place = self.describe(Some(job.app));
        let kept = vec![job.release()];
        let (files, bytes) = (totals.files, totals.bytes);
        Ok(Delivered { place, files, bytes, reused_bytes, already, kept, ..Delivered::default() })
    }

    fn plan(&self, _job: &Job<'_>) -> Result<Preview, Error> {
        Ok(Preview::default())
    }

    fn check(&self, _cancelled: &AtomicBool) -> Vec<Check> {
        Vec::new()
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn read_back(&self, app: &AppName, release: &ReleaseId) -> Vec<Box<dyn KeptCopy>> {
        let state = self.state.lock().expect("no panic");
        let copy = state.copies.get(&(app.clone(), *release)).map(Arc::clone);
        copy.into_iter().map(|copy| Box::new(ImageCopy(copy)) as Box<dyn KeptCopy>).collect()
    }

    fn describe(&self, app: Option<&AppName>) -> String {
        format!("memory of {}", app.map_or("{app}", AppName::as_str))
    }
}

struct ImageCopy(Arc<Image>);

impl KeptCopy for ImageCopy {
    fn read(&self, path: &EntryPath, offset: u64, bytes: u32) -> Option<Vec<u8>> {
        let begin = usize::try_from(offset).ok()?;
        let content = self.0.files.get(path.as_bytes())?;
        content.get(begin..begin + bytes as usize).map(<[u8]>::to_vec)
    }
}

/// A destination to test, and a reader's view of it.
struct Subject {
    destination: Arc<dyn Destination>,
    shown: Box<dyn Fn() -> Option<Shown> + Sync>,
    /// Whether it keeps copies that can be read.
    reads_back: bool,
    log: Log,
    deliveries: AtomicU64,
}

impl Subject {
    fn new(destination: Arc<dyn Destination>, shown: impl Fn() -> Option<Shown> + Sync + 'static) -> Self {
        let (log, deliveries) = (Log::default(), AtomicU64::new(0));
        Self { destination, shown: Box::new(shown), reads_back: true, log, deliveries }
    }
}

/// What the ledger would say of a place.
#[derive(Default)]
struct Log(Mutex<format::shown::Shown>);

impl Log {
    fn change(&self, change: impl FnOnce(&mut format::shown::Shown)) {
        change(&mut self.0.lock().expect("no panic"));
    }
}

impl ShownLog for Log {
    fn shown(&self) -> format::shown::Shown {
        self.0.lock().expect("no panic").clone()
    }

    fn note(&self, started: u64, done: u64) -> Result<(), Error> {
        self.change(|shown| shown.note(started, done));
        Ok(())
    }

    fn switch(&self, _kept: &[ReleaseId]) -> Result<(), Error> {
        Ok(())
    }
}

/// Returns a directory; its place depends on the application.
fn directory(folder: &Path) -> Subject {
    let current = folder.join("of-app/current");
    let shown = move || fs::canonicalize(&current).ok().map(|copy| snapshot(&copy));
    Subject::new(destination::local(folder.join("of-{app}"), OutsideLinks::Refuse), shown)
}

/// Returns a command that unpacks a release aside, and then shows it by one rename.
fn command(folder: &Path) -> Subject {
    let script = "set -e; rm -rf new link; mkdir new; tar -xpf - -C new; rm -rf old-$WHIT_RELEASE; \
                  test ! -e $WHIT_RELEASE || mv $WHIT_RELEASE old-$WHIT_RELEASE; mv new $WHIT_RELEASE; \
                  ln -s $WHIT_RELEASE link; mv -T link current";
    let text =
        format!("kind = 'exec'\ncommand = ['/bin/sh', '-c', '{script}']\nfolder = '{}'\n", folder.display());
    let definition: Definition = toml::from_str(&text).expect("a definition");
    let current = folder.join("current");
    let shown = move || fs::canonicalize(&current).ok().map(|copy| snapshot(&copy));
    Subject { reads_back: false, ..Subject::new(definition.open(), shown) }
}

fn memory(_folder: &Path) -> Subject {
    let memory = Arc::new(Memory::default());
    let destination: Arc<dyn Destination> = memory.clone();
    Subject::new(destination, move || memory.shown())
}

/// Chunks of a store, until some number were read.
struct Ending<'a> {
    store: &'a Store,
    left: AtomicUsize,
    /// Set instead of a failure, once all were read.
    cancelled: Option<&'a AtomicBool>,
}

impl ChunkSource for Ending<'_> {
    fn reader(&self) -> Box<dyn ChunkReader + '_> {
        Box::new(EndingReader { ending: self, reader: self.store.reader() })
    }
}

struct EndingReader<'a> {
    ending: &'a Ending<'a>,
    reader: Box<dyn ChunkReader + 'a>,
}

impl ChunkReader for EndingReader<'_> {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), SourceError> {
        let take = |left: usize| left.checked_sub(1);
        let is_over = self.ending.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err();
        match self.ending.cancelled {
            Some(cancelled) if is_over => cancelled.store(true, Ordering::Relaxed),
            None if is_over => return Err(SourceError::Unknown(chunk.id)),
            _ => {}
        }
        self.reader.read(chunk, out)
    }
}

/// Two releases of an application, in a store.
struct Releases {
    world: World,
    store: Store,
    app: AppName,
    roots: [Root; 2],
}

impl Releases {
    async fn make() -> Self {
        let mut world = World::start();
        let mut releases = Vec::new();
        for number in 0..2 {
            let tree = world.path(&format!("tree{number}"));
            some_tree(&tree, 1);
            write(&tree, "version", number.to_string());
            write(&tree, "share/more", noise(10 + number, 200_000));
            releases.push(world.push("app", &tree).await.release);
        }
        world.stop().await;
        let store = world.store();
        let root = |number: usize| store.root(&releases[number]).expect("a root");
        let roots = [root(0), root(1)];
        Self { world, store, app: "app".parse().expect("a name"), roots }
    }

    fn tree(&self, number: usize) -> Shown {
        snapshot(&self.world.path(&format!("tree{number}")))
    }

    fn deliver(&self, subject: &Subject, number: usize) -> Result<Delivered, Error> {
        self.deliver_from(subject, number, &self.store, &AtomicBool::new(false))
    }

    fn deliver_from(
        &self,
        subject: &Subject,
        number: usize,
        source: &dyn ChunkSource,
        cancelled: &AtomicBool,
    ) -> Result<Delivered, Error> {
        let root_of = |release: &ReleaseId| self.store.root(release).ok();
        let (app, destination, root) = (&self.app, &web(), &self.roots[number]);
        let delivery = subject.deliveries.fetch_add(1, Ordering::Relaxed);
        let rules = subject.destination.rules();
        subject.log.change(|shown| shown.begin(root.release(), delivery, rules, delivery));
        let delivered = subject.destination.deliver(&Job {
            id: DeliveryId { proxy: [0; 4], number: delivery },
            app,
            destination,
            root,
            labels: &[],
            created: 0,
            user: None,
            is_current: true,
            behalf: &[],
            source,
            root_of: &root_of,
            shown: &subject.log,
            monitor: &Silent,
            cancelled,
        })?;
        subject.log.change(|shown| shown.complete_first(&delivered.kept, delivery));
        Ok(delivered)
    }

    /// Compares each remaining copy of a release with what was pushed; returns the number of copies.
    fn compare_kept(&self, subject: &Subject, number: usize) -> usize {
        let tree = self.world.path(&format!("tree{number}"));
        let copies = subject.destination.read_back(&self.app, &self.roots[number].release());
        for copy in &copies {
            for path in walk_files(&tree) {
                let below = path.strip_prefix(&tree).expect("below it");
                let name = EntryPath::new(below.as_os_str().as_bytes()).expect("a path");
                let content = fs::read(&path).expect("a file");
                let bytes = u32::try_from(content.len()).expect("a small file");
                assert!(copy.read(&name, 0, bytes).as_ref() == Some(&content), "{name}");
                assert_eq!(copy.read(&name, 0, bytes + 1), None, "{name} has no byte beyond its end");
            }
            assert_eq!(copy.read(&EntryPath::new("no/such/file").expect("a path"), 0, 1), None);
        }
        copies.len()
    }
}

/// Runs a test on every kind, each in its own folder.
async fn each_kind(test: impl Fn(&Releases, &Subject)) {
    within(async {
        let releases = Releases::make().await;
        for (name, kind) in
            [("dir", directory as fn(&Path) -> Subject), ("exec", command), ("memory", memory)]
        {
            println!("{name}");
            let folder = tempfile::tempdir().expect("a temporary folder");
            test(&releases, &kind(folder.path()));
        }
    })
    .await;
}

#[tokio::test]
async fn each_kind_shows_what_was_delivered_last_in_any_order() {
    each_kind(|releases, subject| {
        assert_eq!((subject.shown)(), None);
        for (number, already) in [(0, false), (0, true), (1, false), (0, false), (1, false), (1, true)] {
            let delivered = releases.deliver(subject, number).expect("delivered");
            assert_eq!((subject.shown)(), Some(releases.tree(number)));
            let totals = releases.roots[number].totals;
            assert_eq!((delivered.files, delivered.bytes), (totals.files, totals.bytes));
            assert_eq!(delivered.already, already);
            assert!(!already || delivered.reused_bytes == delivered.bytes);
        }
    })
    .await;
}

#[tokio::test]
async fn each_kind_reads_back_exactly_the_releases_bytes_or_nothing() {
    each_kind(|releases, subject| {
        assert_eq!(releases.compare_kept(subject, 0), 0);
        let one = usize::from(subject.reads_back);
        releases.deliver(subject, 0).expect("delivered");
        assert_eq!((releases.compare_kept(subject, 0), releases.compare_kept(subject, 1)), (one, 0));
        releases.deliver(subject, 1).expect("delivered");
        assert_eq!((releases.compare_kept(subject, 0), releases.compare_kept(subject, 1)), (one, one));
        let other: AppName = "other".parse().expect("a name");
        assert!(subject.destination.read_back(&other, &releases.roots[0].release()).is_empty());
    })
    .await;
}

#[tokio::test]
async fn each_kind_leaves_what_it_showed_where_a_delivery_fails_or_is_cancelled_midway() {
    each_kind(|releases, subject| {
        releases.deliver(subject, 0).expect("delivered");
        let mut read = 0;
        loop {
            let (never, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
            let left = || AtomicUsize::new(read);
            let failing = Ending { store: &releases.store, left: left(), cancelled: None };
            let failed = releases.deliver_from(subject, 1, &failing, &never);
            if let Ok(delivered) = failed {
                assert!(!delivered.already && read > 0);
                break;
            }
            assert_eq!(failed.expect_err("a chunk is missing").fault(), Fault::Corrupt);
            assert_eq!((subject.shown)(), Some(releases.tree(0)), "after {read} chunks");
            assert_eq!(releases.compare_kept(subject, 1), 0);
            let ending = Ending { store: &releases.store, left: left(), cancelled: Some(&stopped) };
            // The last chunks may be read before anybody checks it.
            match releases.deliver_from(subject, 1, &ending, &stopped) {
                Ok(_) => {
                    releases.deliver(subject, 0).expect("delivered");
                    break;
                }
                Err(error) => assert_eq!(error.fault(), Fault::Interrupted),
            }
            assert_eq!((subject.shown)(), Some(releases.tree(0)), "after {read} chunks");
            read += 7;
        }
        releases.deliver(subject, 1).expect("nothing is in the way");
        assert_eq!((subject.shown)(), Some(releases.tree(1)));
    })
    .await;
}

#[tokio::test]
async fn each_kind_shows_one_release_or_the_other_at_every_moment() {
    each_kind(|releases, subject| {
        releases.deliver(subject, 0).expect("delivered");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (one, other) = (releases.tree(0), releases.tree(1));
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) || looks == 0 {
                    let shown = (subject.shown)().expect("a release is always shown");
                    assert!(shown == one || shown == other);
                    looks += 1;
                }
            });
            // More copies than the limit would remove one that the reader uses.
            for number in [1, 0] {
                releases.deliver(subject, number).expect("delivered");
            }
            done.store(true, Ordering::Relaxed);
            reader.join().expect("the reader saw whole releases");
        });
    })
    .await;
}

#[tokio::test]
async fn each_kind_describes_itself_in_the_same_words_for_each_application() {
    each_kind(|releases, subject| {
        let describe =
            || (subject.destination.describe(None), subject.destination.describe(Some(&releases.app)));
        let (all, one) = describe();
        assert!(all.contains("{app}") && !one.contains('{') && one.contains("app"), "{all}, {one}");
        releases.deliver(subject, 0).expect("delivered");
        assert_eq!(describe(), (all, one));
        for folder in subject.destination.folders() {
            assert!(folder.of(&releases.app).is_dir());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_delivers_to_a_kind_that_it_does_not_know_and_heals_from_it() {
    within(async {
        let memory = Arc::new(Memory::default());
        let mut world = World::start_with(|options| {
            options.destinations.insert(web(), Arc::clone(&memory) as Arc<dyn Destination>);
        });
        let tree = world.path("tree");
        some_tree(&tree, 1);
        let to_web = PushOptions { destinations: vec![web()], ..push_options("app", &tree) };
        for already in [false, true] {
            let receipt = world.push_with(&to_web).await;
            let report = delivered(&receipt.delivered);
            assert_eq!((report.place.as_str(), report.already), ("memory of app", already));
            assert_eq!(memory.shown(), Some(snapshot(&tree)));
        }
        world.stop().await;
        let packs = walk_files(&world.space().join("packs"));
        let pack = packs.into_iter().find(|path| path.extension().is_some_and(|end| end == "pack"));
        change_byte(&pack.expect("a sealed pack"), 300_000);
        world.again();
        let verify = Operation::Verify { repair: true, seconds_max: None };
        match ask_as(world.access(), &verify).await.expect("verified").as_slice() {
            [Answer::Verified(verified)] => {
                assert!(verified.healed_chunks > 0 && verified.incomplete.is_empty(), "{verified:?}");
            }
            other => panic!("{other:?}"),
        }
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
    })
    .await;
}
