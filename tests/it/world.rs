//! A proxy of the test on a free port, and an agent's operations on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use format::record::{DeliveryEvent, DeliveryReport, DeliveryState, Record};
use ground::ids::{DestinationName, SpaceName};
use ground::monitor::{Monitor, Phase};
use ground::pattern::Pattern;
use protocol::token::{Action, Grant};
use protocol::wire::{Answer, Operation};
use whit::agent;
use whit::agent::pull::{PullOptions, Pulled, pull_tree};
use whit::agent::push::{PushOptions, push};
use whit::agent::{Access, Receipt, Session};
use whit::delivery::destination;
use whit::ledger::FileLedger;
use whit::net::identity::Identity;
use whit::net::link;
use whit::proxy::{Options, Proxy};
use whit::restore::OutsideLinks;
use whit::store::{Records, Store};

use crate::trees::is_slow;

/// Returns the time after which a test counts as hanging.
pub fn patience() -> Duration {
    Duration::from_secs(if is_slow() { 1800 } else { 180 })
}

/// Runs a test's work within [`patience`].
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(patience(), work).await.expect("the test hangs")
}

/// A folder for everything, and the proxy that serves from it.
pub struct World {
    folder: tempfile::TempDir,
    options: Options,
    identity: Identity,
    access: Access,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl World {
    /// Starts a proxy with one destination, `web`, and a small disk reserve.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Starts a proxy with options changed by `change`.
    pub fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut options = Options::new(&folder.path().join("data"), ([127, 0, 0, 1], 0).into());
        options.destinations =
            BTreeMap::from([(web(), destination::local(folder.path().join("web"), OutsideLinks::Refuse))]);
        options.store.reserve_bytes = 0;
        options.drain_patience = Duration::from_secs(5);
        change(&mut options);
        let (proxy, identity, access) = serve(&options);
        Self { folder, options, identity, access, running: Some(run(proxy)) }
    }

    /// Stops the proxy in an orderly way.
    pub async fn stop(&mut self) {
        if let Some((stop, running)) = self.running.take() {
            drop(stop);
            running.await.expect("the proxy ends well");
        }
    }

    /// Starts the proxy again after [`World::stop`]; it has another port.
    pub fn again(&mut self) {
        let (proxy, _, access) = serve(&self.options);
        self.access = access;
        self.running = Some(run(proxy));
    }

    /// Changes the options of the next start.
    pub fn change(&mut self, change: impl FnOnce(&mut Options)) {
        change(&mut self.options);
    }

    /// Returns a path in the folder that everything is in.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the proxy's address, and a token that allows everything in the space `default`.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Returns access with a token changed by `change`; before, it allows everything.
    pub fn access_with(&self, change: impl FnOnce(&mut Grant)) -> Access {
        Access { url: self.access.url.clone(), token: token(&self.identity, change) }
    }

    /// Returns access to another space.
    pub fn access_to(&self, space: &str) -> Access {
        let space: SpaceName = space.parse().expect("a name");
        self.access_with(|grant| grant.space = space)
    }

    /// Returns the proxy's keys and tokens.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the folder of the space `default`.
    pub fn space(&self) -> PathBuf {
        self.path("data/spaces/default")
    }

    /// Opens the store of the space `default`; the proxy must be stopped.
    pub fn store(&self) -> Store {
        Store::open(&self.space(), self.options.store).expect("a store")
    }

    /// Pushes as application `app`.
    pub async fn push(&self, app: &str, path: &Path) -> Receipt {
        self.try_push(app, path).await.expect("pushed")
    }

    /// Pushes as application `app`.
    pub async fn try_push(&self, app: &str, path: &Path) -> agent::Result<Receipt> {
        push_as(&self.access, &push_options(app, path)).await
    }

    /// Pushes with these options.
    pub async fn push_with(&self, options: &PushOptions) -> Receipt {
        push_as(&self.access, options).await.expect("pushed")
    }

    /// Pulls into a folder, which must be new or from an earlier pull.
    pub async fn pull(&self, selector: &str, target: &Path) -> agent::Result<Pulled> {
        pull_as(&self.access, selector, target, false).await
    }

    /// Returns the application's releases, newest first.
    pub async fn releases(&self, app: &str) -> agent::Result<Vec<Record>> {
        releases_as(&self.access, app).await
    }
}

/// Opens the records of a store that stands alone in a folder.
pub fn try_records(folder: &Path) -> whit::store::Result<Records> {
    let ledger = Arc::new(FileLedger::of_space(folder, Instant::now));
    Records::open(ledger, "alone".parse().expect("a name"), folder.join("releases"))
}

/// Opens the records as [`try_records`] does; panics if that fails.
pub fn records(folder: &Path) -> Records {
    try_records(folder).expect("records")
}

/// Returns the only destination of every world.
pub fn web() -> DestinationName {
    "web".parse().expect("a name")
}

fn serve(options: &Options) -> (Proxy, Identity, Access) {
    // The socket of a proxy that was there goes with its last task.
    let mut tries = if options.listen.port() == 0 { 1..=1 } else { 1..=100 };
    let proxy = tries.find_map(|_| {
        let started = Proxy::start(options);
        started.inspect_err(|_| std::thread::sleep(Duration::from_millis(50))).ok()
    });
    let proxy = proxy.expect("a proxy");
    let folder = options.data.join("identity");
    let identity = match &options.ledger {
        Some(ledger) => Identity::open_over(&folder, Arc::clone(ledger)),
        None => Identity::open_or_create(&folder),
    };
    let (identity, _) = identity.expect("an identity");
    let access = Access { url: proxy.url().clone(), token: token(&identity, |_| {}) };
    (proxy, identity, access)
}

fn run(proxy: Proxy) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    (stop, tokio::spawn(proxy.run(async { drop(stopped.await) })))
}

/// Returns the seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Makes a token that allows everything in the space `default`, unless `change` changes it.
pub fn token(identity: &Identity, change: impl FnOnce(&mut Grant)) -> String {
    let made = identity.create_token(|id| {
        let mut grant = Grant {
            id,
            user: "ada".parse().expect("a name"),
            space: "default".parse().expect("a name"),
            actions: Action::ALL.to_vec(),
            applications: vec![Pattern::any()],
            destinations: vec![Pattern::any()],
            issued: now(),
            expires: None,
            on_behalf: false,
            then: Vec::new(),
            target: None,
        };
        change(&mut grant);
        grant
    });
    made.expect("a token").1
}

/// Returns the default options of a push.
pub fn push_options(app: &str, path: &Path) -> PushOptions {
    PushOptions { threads: 2, ..PushOptions::new(app.parse().expect("a name"), path.to_owned()) }
}

/// Pushes over its own connection.
pub async fn push_as(access: &Access, options: &PushOptions) -> agent::Result<Receipt> {
    push_noted(access, options).await.0
}

/// Pushes over its own connection; also returns the notes.
pub async fn push_noted(access: &Access, options: &PushOptions) -> (agent::Result<Receipt>, Vec<String>) {
    let notes = Arc::new(Notes::default());
    let result = push_heard(access, options, Arc::clone(&notes) as _).await;
    let notes = notes.0.lock().expect("no panic").clone();
    (result, notes)
}

/// Pushes over its own connection; `monitor` observes it.
pub async fn push_heard(
    access: &Access,
    options: &PushOptions,
    monitor: Arc<dyn Monitor>,
) -> agent::Result<Receipt> {
    let result = async {
        let session = Session::open(access, &link::Options::default()).await?;
        let receipt = push(&session, options, &monitor).await;
        session.finish().await;
        receipt
    };
    // The future of a push is large, and part of the futures of all tests.
    Box::pin(result).await
}

/// Pulls over its own connection.
pub async fn pull_as(access: &Access, selector: &str, target: &Path, delete: bool) -> agent::Result<Pulled> {
    pull_with(
        access,
        selector,
        target,
        PullOptions { delete, threads: 2, outside_links: OutsideLinks::Refuse, link_rate: None, keep: None },
    )
    .await
}

/// The same, with all options.
pub async fn pull_with(
    access: &Access,
    selector: &str,
    target: &Path,
    options: PullOptions,
) -> agent::Result<Pulled> {
    let session = Session::open(access, &link::Options::default()).await?;
    let selector = selector.parse().expect("a selector");
    let monitor: Arc<dyn Monitor> = Arc::new(ground::monitor::Silent);
    // As with a push.
    let pulled = Box::pin(pull_tree(&session, &selector, target, options, &monitor)).await;
    session.finish().await;
    pulled
}

/// Asks over its own connection.
pub async fn ask_as(access: &Access, question: &Operation) -> agent::Result<Vec<Answer>> {
    let session = Session::open(access, &link::Options::default()).await?;
    let mut answers = Vec::new();
    let asked = session.ask(question, |answer| answers.push(answer)).await;
    session.finish().await;
    asked.map(|()| answers)
}

/// Returns an application's releases, newest first.
pub async fn releases_as(access: &Access, app: &str) -> agent::Result<Vec<Record>> {
    let answers = ask_as(access, &Operation::Releases(app.parse().expect("a name"))).await?;
    let records = answers.into_iter().flat_map(|answer| match answer {
        Answer::Standing(_) => Vec::new(),
        Answer::Releases(records) => records,
        other => panic!("{other:?} is no list of releases"),
    });
    Ok(records.collect())
}

/// Returns the report of the only requested delivery.
pub fn delivered(events: &[DeliveryEvent]) -> &DeliveryReport {
    match events {
        [DeliveryEvent { state: DeliveryState::Delivered(report), .. }] => report,
        other => panic!("not delivered: {other:?}"),
    }
}

/// Collects the notes of a push.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Monitor for Notes {
    fn begin(&self, _phase: Phase, _total: Option<u64>) {}

    fn note(&self, text: &str) {
        self.0.lock().expect("no panic").push(text.to_owned());
    }
}
