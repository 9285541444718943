//! A random history of one store, checked after every step against a map of its expected content.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use disk::files::Durability;
use format::manifest::Item;
use format::pack::FooterView;
use ground::ids::{AppName, ChunkId, ReleaseId};
use whit::ledger::LEASE_TIME;
use whit::restore::{ChunkSource, Items};
use whit::store::{FaultInjection, Options, Pass, Store, collect, verify_packs, verify_releases};

use crate::content::{Build, Draft, Pool};
use crate::crash::{copy, files_below, image, new_folder};
use crate::pusher::{Pusher, Stepped};
use crate::random::Random;

const APPS: usize = 3;
/// With more records than this, releases are removed more often.
const RECORDED_MANY: usize = 8;
/// Number of latest builds that may be pushed again.
const BUILDS_KEPT: usize = 12;
const PUSHERS_MAX: usize = 5;
/// Small packs, so that they are often filled, emptied and merged.
const PACK_BYTES: u64 = 16 * 1024;
/// Steps printed after a failure.
const TOLD: usize = 40;

thread_local! {
    static NOW: Cell<Instant> = Cell::new(Instant::now());
}

/// Counts of the events in a history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub steps: u64,
    pub messages: u64,
    pub pushers: u64,
    pub commits: u64,
    pub begun_again: u64,
    pub collections: u64,
    pub packs_removed: u64,
    pub waits: u64,
    pub removals: u64,
    pub crashes: u64,
    pub reopenings: u64,
    pub lapses: u64,
    pub passes: u64,
}

/// A failure: the error, and the steps before it.
type Outcome<T> = Result<T, String>;

/// The expected content of the store, and the operations under way.
#[derive(Debug)]
struct Model {
    random: Random,
    pool: Pool,
    drafts: Vec<Draft>,
    /// Earlier builds, which may be pushed again.
    builds: Vec<Rc<Build>>,
    recorded: BTreeMap<(AppName, ReleaseId), Rc<Build>>,
    pinned: BTreeSet<(AppName, ReleaseId)>,
    /// Deliveries under way: their releases stay readable, recorded or not.
    delivered: Vec<Rc<Build>>,
    pushers: Vec<Pusher>,
    told: VecDeque<String>,
    counts: Counts,
}

/// A store and its model.
pub struct History {
    folder: TempDir,
    /// A copy of the index from some time ago.
    older_index: Option<TempDir>,
    options: Options,
    store: Option<Arc<Store>>,
    model: RefCell<Model>,
}

/// Runs a history of `steps` steps.
pub fn run(seed: u64, steps: u64, mistake: Option<FaultInjection>) -> Outcome<Counts> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter();
    let history = History::begin(seed, mistake)?;
    let mut history = history;
    let result = (0..steps).try_for_each(|_| history.step()).and_then(|()| history.end());
    let model = history.model.into_inner();
    match result {
        Ok(()) => Ok(model.counts),
        Err(error) => {
            let told: Vec<String> = model.told.into_iter().collect();
            Err(format!("{error}\n(seed {seed}) the last steps:\n{}", told.join("\n")))
        }
    }
}

impl History {
    fn begin(seed: u64, mistake: Option<FaultInjection>) -> Outcome<Self> {
        let mut random = Random::new(seed);
        let pool = Pool::new(&mut random, 1000, 350);
        let drafts = (0..APPS).map(|_| Draft::new(&mut random, &pool)).collect();
        let folder = new_folder();
        let options = Options {
            // A run after every few packs, a merge after every few runs.
            recent_chunks: 30,
            unindexed_chunks: 0,
            durability: Durability::Synced,
            reserve_bytes: 0,
            rebuilt_bytes: 0,
            pack_bytes: PACK_BYTES,
            cached_for: Duration::from_secs(3600),
            now: || NOW.get(),
            fault_injection: mistake,
        };
        let store = open(folder.path(), options)?;
        let model = Model {
            random,
            pool,
            drafts,
            builds: Vec::new(),
            recorded: BTreeMap::new(),
            pinned: BTreeSet::new(),
            delivered: Vec::new(),
            pushers: Vec::new(),
            told: VecDeque::new(),
            counts: Counts::default(),
        };
        Ok(Self { folder, older_index: None, options, store: Some(store), model: RefCell::new(model) })
    }

    fn store(&self) -> &Arc<Store> {
        self.store.as_ref().expect("a store is open between steps")
    }

    fn step(&mut self) -> Outcome<()> {
        let chosen = {
            let model = self.model.get_mut();
            model.counts.steps += 1;
            model.random.below(1000)
        };
        match chosen {
            0..840 => {
                let model = self.model.get_mut();
                let store = self.store.as_ref().expect("a store is open between steps");
                (0..=model.random.below(12)).try_for_each(|_| model.small_step(store))?;
            }
            840..920 => self.collect()?,
            920..940 => self.pass_time(),
            940..960 => self.verify()?,
            960..980 => self.crash()?,
            980..990 => self.reopen()?,
            _ => self.keep_index()?,
        }
        self.model.borrow_mut().check(self.store())
    }

    /// Collects, with pushes and removals between the collector's steps.
    fn collect(&mut self) -> Outcome<()> {
        let failed: RefCell<Outcome<()>> = RefCell::new(Ok(()));
        let cancelled = AtomicBool::new(false);
        let store = Arc::clone(self.store());
        let image: RefCell<Option<Image>> = RefCell::new(None);
        self.model.borrow_mut().tell("collect: begins".to_owned());
        let crash = self.model.borrow_mut().random.percent(5);
        let roots = || {
            let mut model = self.model.borrow_mut();
            let steps = model.random.below(30);
            let moved = (0..steps).try_for_each(|_| model.small_step(&store));
            if crash && image.borrow().is_none() {
                model.tell("an image of a crash is taken while collecting".to_owned());
                image.replace(Some(Image::take(self.folder.path(), &store, &mut model)));
            }
            cancelled.store(model.random.percent(3), Ordering::Relaxed);
            if moved.is_err() {
                *failed.borrow_mut() = moved;
            }
            model.delivered.iter().map(|build| build.release).collect()
        };
        let collected = collect(&store, &roots, false, &cancelled).map_err(|error| error.to_string())?;
        failed.into_inner()?;
        let image = image.into_inner();
        {
            let model = self.model.get_mut();
            model.counts.collections += 1;
            model.counts.packs_removed += collected.packs_removed;
            model.counts.waits += u64::from(collected.waits_for_pushes);
            model.tell(format!("collect: {collected:?}"));
            model.check_all(&store)?;
        }
        drop(store);
        match image {
            Some(image) => self.crash_to(image),
            None => Ok(()),
        }
    }

    fn pass_time(&mut self) {
        let model = self.model.get_mut();
        let time = if model.random.percent(50) { LEASE_TIME / 3 } else { LEASE_TIME };
        NOW.set(NOW.get() + time);
        model.counts.lapses += 1;
        for pusher in &mut model.pushers {
            // Some have been silent since before this step.
            pusher.lapsed = true;
        }
        model.tell(format!("time passes: {time:?}"));
    }

    fn verify(&mut self) -> Outcome<()> {
        let store = Arc::clone(self.store());
        let model = self.model.get_mut();
        let pass = Pass { repair: model.random.percent(80), duration_max: None, bytes_per_second: None };
        let verified = verify_packs(&store, pass, &AtomicBool::new(false)).map_err(|e| e.to_string())?;
        model.tell(format!("verify: {verified:?}"));
        model.counts.passes += 1;
        if !verified.damaged.is_empty() {
            return Err(format!("damage was found where none is: {:?}", verified.damaged));
        }
        let incomplete = verify_releases(&store).map_err(|error| error.to_string())?;
        if !incomplete.is_empty() {
            return Err(format!("releases lack chunks: {incomplete:?}"));
        }
        model.check_all(&store)
    }

    /// Continues with what a power loss would have left.
    fn crash(&mut self) -> Outcome<()> {
        let store = Arc::clone(self.store());
        let image = Image::take(self.folder.path(), &store, self.model.get_mut());
        drop(store);
        self.crash_to(image)
    }

    fn crash_to(&mut self, image: Image) -> Outcome<()> {
        let model = self.model.get_mut();
        model.counts.crashes += 1;
        model.pushers.clear();
        model.recorded = image.recorded;
        model.pinned = image.pinned;
        let index = image.folder.path().join("index");
        match model.random.below(4) {
            0 => {
                model.tell("crash: the index is lost".to_owned());
                fs::remove_dir_all(&index).expect("removed");
            }
            1 if self.older_index.is_some() => {
                model.tell("crash: the index is an older one".to_owned());
                fs::remove_dir_all(&index).expect("removed");
                copy(self.older_index.take().expect("it is there").path(), &index);
            }
            _ => model.tell("crash".to_owned()),
        }
        self.close();
        self.folder = image.folder;
        self.store = Some(open(self.folder.path(), self.options)?);
        let store = Arc::clone(self.store());
        let model = self.model.get_mut();
        for id in image.acknowledged {
            let there = store.find(&id).map_err(|error| error.to_string())?;
            if there.is_none() {
                return Err(format!("chunk {id} was acknowledged and is gone after a crash"));
            }
        }
        model.check_all(&store)
    }

    fn reopen(&mut self) -> Outcome<()> {
        let model = self.model.get_mut();
        model.tell("reopened".to_owned());
        model.counts.reopenings += 1;
        model.pushers.clear();
        self.close();
        self.store = Some(open(self.folder.path(), self.options)?);
        let store = Arc::clone(self.store());
        self.model.get_mut().check_all(&store)
    }

    fn close(&mut self) {
        let mut store = self.store.take().expect("a store is open");
        // A sync of some push may still use the store.
        loop {
            match Arc::try_unwrap(store) {
                Ok(store) => return drop(store),
                Err(held) => store = held,
            }
            std::thread::yield_now();
        }
    }

    fn keep_index(&mut self) -> Outcome<()> {
        self.store().settle().map_err(|error| error.to_string())?;
        let kept = new_folder();
        copy(&self.folder.path().join("index"), kept.path());
        self.older_index = Some(kept);
        self.model.get_mut().tell("the index is kept for later".to_owned());
        Ok(())
    }

    /// Lets all pushes end, collects twice, and checks what is left.
    fn end(&mut self) -> Outcome<()> {
        let store = Arc::clone(self.store());
        let model = self.model.get_mut();
        while let Some(last) = model.pushers.len().checked_sub(1) {
            model.message(&store, last)?;
        }
        model.delivered.clear();
        drop(store);
        // The open pack is sealed, so that its dead chunks can be collected too.
        self.reopen()?;
        let store = Arc::clone(self.store());
        for _ in 0..2 {
            let collected = collect(&store, &Vec::new, false, &AtomicBool::new(false));
            let collected = collected.map_err(|error| error.to_string())?;
            if collected.waits_for_pushes {
                return Err("the collector waits for pushes where none is".to_owned());
            }
        }
        let model = self.model.get_mut();
        model.check_all(&store)?;
        model.check_packs(&self.folder.path().join("packs"))
    }
}

fn open(folder: &Path, options: Options) -> Outcome<Arc<Store>> {
    Store::open(folder, options).map(Arc::new).map_err(|error| format!("the store does not open: {error}"))
}

impl Model {
    fn tell(&mut self, step: String) {
        self.told.push_back(step);
        if self.told.len() > TOLD {
            self.told.pop_front();
        }
    }

    /// Delivers one message of some push, or does something else that may happen at any time.
    fn small_step(&mut self, store: &Arc<Store>) -> Outcome<()> {
        match self.random.below(100) {
            0..6 if self.pushers.len() < PUSHERS_MAX => self.begin(store),
            6 => self.remove(store)?,
            7..11 if self.recorded.len() > RECORDED_MANY => self.remove(store)?,
            11 => self.pin(store)?,
            12 => self.deliver(),
            13 => drop(store.sync().map_err(|error| error.to_string())?),
            14 if !self.pushers.is_empty() => {
                let gone = self.random.below(self.pushers.len());
                let pusher = self.pushers.swap_remove(gone);
                self.tell(format!("push {} breaks off", pusher.number));
            }
            _ if !self.pushers.is_empty() => {
                let chosen = self.random.below(self.pushers.len());
                self.message(store, chosen)?;
            }
            _ => self.begin(store),
        }
        Ok(())
    }

    fn begin(&mut self, store: &Arc<Store>) {
        let app = self.random.below(APPS);
        let again = self.random.percent(25);
        let build = match self.random.pick(&self.builds) {
            Some(build) if again => Rc::clone(build),
            _ => {
                self.drafts[app].change(&mut self.random, &self.pool);
                let build = Rc::new(self.drafts[app].build());
                if self.builds.len() == BUILDS_KEPT {
                    self.builds.remove(0);
                }
                self.builds.push(Rc::clone(&build));
                build
            }
        };
        let app: AppName = format!("app-{app}").parse().expect("a name");
        self.counts.pushers += 1;
        let dry_run = self.random.percent(3);
        // The release that the agent remembers may be removed, or be of another application.
        let base = if self.random.percent(60) {
            self.some_recorded().map(|key| Rc::clone(&self.recorded[&key]))
        } else {
            None
        };
        let base = base.or_else(|| self.builds.first().filter(|_| self.random.percent(20)).map(Rc::clone));
        let pusher = Pusher::new(self.counts.pushers, &app, &build, base.as_ref(), store, dry_run);
        self.tell(format!("push {} of {app} {} begins", pusher.number, build.release.short()));
        self.pushers.push(pusher);
    }

    fn message(&mut self, store: &Arc<Store>, at: usize) -> Outcome<()> {
        self.counts.messages += 1;
        let holders = Arc::strong_count(store);
        let stepped = self.pushers[at].step(&mut self.random, &self.pool)?;
        while Arc::strong_count(store) > holders {
            // The push syncs in the background: the simulation must not depend on when the system lets it end.
            std::thread::yield_now();
        }
        if stepped == Stepped::Going {
            return Ok(());
        }
        let pusher = self.pushers.swap_remove(at);
        self.tell(format!("push {} of {}: {stepped:?}", pusher.number, pusher.build.release.short()));
        match stepped {
            Stepped::Committed => {
                self.counts.commits += 1;
                self.recorded.insert((pusher.app.clone(), pusher.build.release), Rc::clone(&pusher.build));
            }
            Stepped::Again => self.counts.begun_again += 1,
            Stepped::Answered | Stepped::Going => {}
        }
        Ok(())
    }

    fn some_recorded(&mut self) -> Option<(AppName, ReleaseId)> {
        let keys: Vec<_> = self.recorded.keys().cloned().collect();
        self.random.pick(&keys).cloned()
    }

    fn remove(&mut self, store: &Store) -> Outcome<()> {
        let Some((app, release)) = self.some_recorded() else { return Ok(()) };
        let removed = store.records().remove(&app, &release);
        self.tell(format!("remove {app} {}: {removed:?}", release.short()));
        let pinned = self.pinned.contains(&(app.clone(), release));
        if removed.is_ok() == pinned {
            return Err(format!("removing {app} {release}, pinned: {pinned}: {removed:?}"));
        }
        if removed.is_ok() {
            self.counts.removals += 1;
            self.recorded.remove(&(app, release));
        }
        Ok(())
    }

    fn pin(&mut self, store: &Store) -> Outcome<()> {
        let Some((app, release)) = self.some_recorded() else { return Ok(()) };
        let key = (app.clone(), release);
        let changed = if self.pinned.remove(&key) {
            store.records().unpin(&app, &release)
        } else {
            self.pinned.insert(key);
            store.records().pin(&app, &release)
        };
        changed.map_err(|error| error.to_string())
    }

    fn deliver(&mut self) {
        if !self.delivered.is_empty() && self.random.percent(60) {
            let done = self.random.below(self.delivered.len());
            self.delivered.swap_remove(done);
        } else if let Some(key) = self.some_recorded() {
            let build = Rc::clone(&self.recorded[&key]);
            self.tell(format!("a delivery of {} begins", build.release.short()));
            self.delivered.push(build);
        }
    }

    /// Checks the records, and reads one release.
    fn check(&mut self, store: &Store) -> Outcome<()> {
        if store.records().releases() != self.recorded.keys().map(|(_, release)| *release).collect() {
            return Err("the records are not those of the model".to_owned());
        }
        let builds: Vec<Rc<Build>> = self.recorded.values().chain(&self.delivered).cloned().collect();
        self.random.pick(&builds).map_or(Ok(()), |build| self.read(store, build))
    }

    /// Reads every release.
    fn check_all(&mut self, store: &Store) -> Outcome<()> {
        self.check(store)?;
        let mut read = HashSet::new();
        for build in self.recorded.values().chain(&self.delivered) {
            if read.insert(build.release) {
                self.read(store, build)?;
            }
        }
        Ok(())
    }

    fn read(&self, store: &Store, build: &Build) -> Outcome<()> {
        let failed = |what: &str| format!("release {} cannot be read: {what}", build.release);
        let root = store.root(&build.release).map_err(|error| failed(&error.to_string()))?;
        let mut manifest = store.reader();
        let mut content = store.reader();
        let mut expected = build.items.iter();
        let mut bytes = Vec::new();
        for item in Items::new(&root, manifest.as_mut()) {
            let item = item.map_err(|error| failed(&error.to_string()))?;
            if expected.next() != Some(&item) {
                return Err(failed("its items are not the model's"));
            }
            if let Item::Chunk(chunk) = item {
                bytes.clear();
                content.read(&chunk, &mut bytes).map_err(|error| failed(&error.to_string()))?;
                if bytes != self.pool.bytes(&chunk.id) {
                    return Err(failed("its bytes are not the model's"));
                }
            }
        }
        if expected.next().is_none() { Ok(()) } else { Err(failed("it ends early")) }
    }

    /// Checks that no pack is mostly dead after two collections without a push.
    fn check_packs(&self, packs: &Path) -> Outcome<()> {
        let mut live: HashSet<ChunkId> = HashSet::new();
        for build in self.recorded.values() {
            live.insert(ChunkId::from(build.release));
            live.extend(build.nodes.iter().map(|node| node.id));
            live.extend(build.items.iter().filter_map(|item| match item {
                Item::Chunk(chunk) => Some(chunk.id),
                _ => None,
            }));
            // Releases in the simulation have no nodes between root and segments.
            assert_eq!(build.root.depth, 0);
        }
        for path in
            files_below(packs).into_iter().filter(|path| path.extension().is_some_and(|e| e == "pack"))
        {
            let bytes = fs::read(&path).expect("a pack");
            let footer = FooterView::of_pack(&bytes).map_err(|error| error.to_string())?;
            let (mut all, mut alive) = (0, 0);
            for entry in footer.chunks() {
                all += u64::from(entry.chunk.bytes);
                alive += if live.contains(&entry.chunk.id) { u64::from(entry.chunk.bytes) } else { 0 };
            }
            if alive * 100 < all * 60 {
                return Err(format!("{} is mostly dead: {alive} B of {all} B are alive", path.display()));
            }
        }
        Ok(())
    }
}

/// The folder after a crash at some moment, and the model of that moment.
struct Image {
    folder: TempDir,
    acknowledged: Vec<ChunkId>,
    recorded: BTreeMap<(AppName, ReleaseId), Rc<Build>>,
    pinned: BTreeSet<(AppName, ReleaseId)>,
}

impl Image {
    fn take(folder: &Path, store: &Store, model: &mut Model) -> Self {
        let image = image(folder, store, &mut model.random);
        let holding = model.pushers.iter().filter(|pusher| !pusher.lapsed);
        let acknowledged = holding.flat_map(Pusher::acknowledged).copied().collect();
        let (recorded, pinned) = (model.recorded.clone(), model.pinned.clone());
        Self { folder: image, acknowledged, recorded, pinned }
    }
}

/// Returns the steps of a history: `WHIT_SIM_STEPS`, or `default`.
pub fn steps(default: u64) -> u64 {
    std::env::var("WHIT_SIM_STEPS").map_or(default, |text| text.parse().expect("WHIT_SIM_STEPS is a number"))
}
