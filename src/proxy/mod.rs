//! The proxy's role: it answers requests, stores spaces, and delivers releases.

mod options;
mod audit;
mod behalf;
mod difference;
mod statistics;
mod admission;
mod memory_share;
mod links;
mod pull;
mod follow;
mod stopping;
mod changes;
mod incoming;
mod push;
mod deliveries;
mod preview;
mod query;
mod older_archives;
mod archive_proof;
mod read_scope;
mod refusal;
mod connection;
mod store_view;
mod current_token;
mod granted;
mod spaces;
mod targets;
mod taking;
mod improvement;
mod packing;
mod improvements;
mod lost_manifests;
mod maintenance;
mod prime;
mod promotion;
mod rollouts;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::delivery::actions::{self, Actions};
use crate::delivery::destination::Destinations;
use crate::delivery::rollout::Book;
use crate::delivery::{self, Deliveries, DeliveryOptions, Ended, Executor, StoreExecutor};
use crate::ledger::{FileLedger, Ledger};
use crate::net::blocking;
use crate::net::identity::{self, Identity};
use crate::net::link::{self, Listener, Sender};
use disk::clock::now;
use disk::files::{self, Lock};
use ground::faults::{Fault, faulty};
use ground::ids::{SpaceName, UserName};
use ground::limits::{READERS_AT_WORK_MAX, READERS_MAX, WINDOW_BYTES_TOTAL};
use ground::shares::Shares;
use protocol::address::ProxyUrl;
use protocol::token::Grant;
use protocol::wire::{Answer, Refusal};

pub use self::maintenance::MaintenanceOptions;
pub use self::options::Options;
#[cfg(feature = "testing")]
pub use self::store_view::StoreView;

use self::audit::Audit;
use self::granted::Granted;
use self::links::Links;
use self::maintenance::Maintenance;
use self::pull::{DownloadLimit, FrameCache, ParcelCache, PatchCache};
use self::rollouts::Rollouts;
use self::spaces::Spaces;
use self::targets::{Targets, Unassigned};

/// The reason why a proxy cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The proxy's keys.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The host in the address for agents.
    #[error(transparent)]
    Address(#[from] protocol::address::Error),
    /// The socket.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The deliveries that an earlier run left.
    #[error(transparent)]
    Deliveries(#[from] delivery::Error),
    /// The actions that an earlier run left.
    #[error(transparent)]
    Actions(#[from] actions::Error),
    /// Another process uses the data folder.
    #[error("{} is in use by another whit", .0.display())]
    InUse(PathBuf),
}

faulty! {
    Error passes on File, Identity, Link, Deliveries, Actions;
    Self::Address(error) => error.fault(),
        "give this host's public name with --public-host";
    Self::InUse(_) => Fault::Retry, "stop the other process, or give another --data";
}

/// State that all requests share.
struct Shared {
    identity: Identity,
    spaces: Arc<Spaces>,
    deliveries: Deliveries,
    rollouts: Arc<Rollouts>,
    targets: Arc<Targets>,
    actions: Arc<Actions>,
    /// Says what deliveries would do.
    executor: Arc<StoreExecutor>,
    audit: Arc<Audit>,
    destinations: Destinations,
    /// Tells long maintenance to end.
    stopping: Arc<AtomicBool>,
    /// Locked while an executable is encoded or decoded, for a push or a pull, or archives are rebuilt as a proof: each
    /// takes up to a gigabyte.
    heavy_work: Arc<Mutex<()>>,
    /// The time that a peer may take to show a valid token.
    stranger_patience: Duration,
    /// The silence after which a target that watches counts as gone.
    target_patience: Duration,
    /// Connections on which a valid token was shown.
    connections: Arc<Shares<(Owner, admission::OfTarget)>>,
    /// Bytes that these connections may hold unread.
    windows: Arc<Shares<Owner>>,
    /// Bytes of memory that pushes and pulls may use.
    memory: Arc<Shares<Owner>>,
    /// Requests that may run at a time: each has a thread.
    turns: Arc<Shares<(Owner, admission::OfTarget)>>,
    /// Questions that read whole releases, at work or waiting.
    readers: Arc<Shares<Owner>>,
    /// Limits how many of these questions are at work.
    desks: Arc<Semaphore>,
    /// Cached patches and payloads for pulling machines.
    patches: PatchCache,
    /// Cached parcels for the same.
    parcels: ParcelCache,
    /// Cached frames for pulls that are under way at a time.
    frames: FrameCache,
    /// What pulls may send.
    downloads: DownloadLimit,
    /// The links of users who push.
    links: Links,
    /// Whether archives are unpacked in idle time.
    improves: bool,
}

/// The user whose share it is: all tokens of a user have one share.
type Owner = (SpaceName, UserName);

/// A proxy that listens.
pub struct Proxy {
    shared: Arc<Shared>,
    maintenance: Maintenance,
    of_targets: targets::Writer,
    rollouts: rollouts::Driver,
    listener: Listener,
    url: ProxyUrl,
    first_start: bool,
    drain_patience: Duration,
    mend_at_end: Option<Duration>,
    /// Held as long as the proxy lives.
    _lock: Lock,
}

impl Proxy {
    /// Opens the data folder, takes its lock and listens. Blocks for the disk; call it within a tokio runtime.
    ///
    /// # Errors
    /// The folder is in use or unusable, or the address cannot be listened on.
    pub fn start(options: &Options) -> Result<Self, Error> {
        files::create_folder(&options.data)?;
        let lock_path = lock_path(&options.data);
        let lock = Lock::take(&lock_path, options.lock_patience)?;
        let mut lock = lock.ok_or_else(|| Error::InUse(options.data.clone()))?;
        let files = || Arc::new(FileLedger::of_data(&options.data, options.store.now)) as Arc<dyn Ledger>;
        let ledger = options.ledger.clone().unwrap_or_else(files);
        let (identity, first_start) =
            Identity::open_over(&options.data.join("identity"), Arc::clone(&ledger))?;
        let listener = Listener::bind(options.listen, &identity, &options.link)?;
        let address = listener.local_address()?;
        let host = options.public_host.clone().unwrap_or_else(|| public_host_of(address));
        let url = ProxyUrl::new(&host, address.port(), identity.fingerprint())?;
        let spaces = Spaces::new(options.data.join("spaces"), Arc::clone(&ledger), options.store);
        let spaces = Arc::new(spaces);
        let opened = Arc::clone(&spaces);
        let [a, b, c, d, ..] = *identity.fingerprint().as_bytes();
        let open = move |space: &SpaceName| opened.open(space);
        let actions = Arc::new(Actions::start(&options.actions, &ledger)?);
        let executor = Arc::new(StoreExecutor::new(open, Arc::clone(&ledger), Arc::clone(&actions)));
        let teller = Arc::clone(&executor);
        let makes: Arc<dyn Executor> = Arc::<StoreExecutor>::clone(&executor);
        let audit = Arc::new(Audit::open(&options.data.join("audit.log"))?);
        let of_ends = Arc::clone(&audit);
        let deliveries = DeliveryOptions {
            proxy: [a, b, c, d],
            policies: options.policies.clone(),
            seed: random(),
            on_end: Arc::new(move |id, ended: &Ended| of_ends.write_end(id, ended)),
            on_failure: Arc::new(move |event, id, delivery: &_, reason: &_| {
                teller.tell(event, id, delivery, reason);
            }),
        };
        let book = Book::open(Arc::clone(&ledger), [a, b, c, d]).map_err(delivery::Error::from)?;
        let rollouts = Arc::new(Rollouts::new(options.groups.clone(), book));
        let of_groups = Arc::clone(&rollouts);
        let unassigned: Unassigned =
            Box::new(move |space, app, target| of_groups.unassigned(space, app, target));
        let targets = Arc::new(Targets::new(Arc::clone(&ledger), unassigned, options.requests_max / 2));
        let of_targets = targets::Writer::start(&targets)?;
        let deliveries = Deliveries::start(ledger, options.destinations.clone(), &makes, deliveries)?;
        lock.describe(&url.to_string())?;
        let destinations = options.destinations.clone();
        let stopping = Arc::default();
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (heavy_work, patches) = (Arc::default(), PatchCache::default());
        let shared = Arc::new(Shared {
            identity,
            spaces,
            deliveries,
            rollouts,
            targets,
            actions,
            executor,
            audit,
            destinations,
            stopping,
            heavy_work,
            patches,
            parcels: ParcelCache::new(processors),
            frames: FrameCache::new(processors),
            downloads: DownloadLimit::new(options.download_rate_max),
            links: Links::default(),
            improves: options.maintenance.improve_after.is_some(),
            stranger_patience: options.stranger_patience,
            target_patience: options.target_patience,
            connections: Shares::new(options.connections_max),
            windows: Shares::new(WINDOW_BYTES_TOTAL),
            memory: Shares::new(options.held_max),
            turns: Shares::new(options.requests_max),
            readers: Shares::new(READERS_MAX),
            desks: Arc::new(Semaphore::new(READERS_AT_WORK_MAX)),
        });
        let maintenance = Maintenance::start(&shared, &options.maintenance)?;
        let rollouts = rollouts::Driver::start(&shared)?;
        let (drain_patience, mend_at_end) = (options.drain_patience, options.maintenance.mend_at_end);
        Ok(Self {
            shared,
            maintenance,
            of_targets,
            rollouts,
            listener,
            url,
            first_start,
            drain_patience,
            mend_at_end,
            _lock: lock,
        })
    }

    /// Returns the address that agents use.
    pub fn url(&self) -> &ProxyUrl {
        &self.url
    }

    /// Returns whether this start made the proxy's keys.
    pub fn is_first_start(&self) -> bool {
        self.first_start
    }

    /// Returns the proxy's keys and tokens.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Serves until `stop` is done, then lets work under way end, for at most the options' patience.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                connection = self.listener.accept() => match connection {
                    Some(connection) => {
                        // Each line of the log names its peer.
                        let span = tracing::error_span!("connection", peer = %connection.remote_address());
                        connections.spawn(connection::serve(Arc::clone(&self.shared), connection).instrument(span));
                    }
                    None => break,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        // First: a member whose stream the proxy ends is not away.
        self.shared.rollouts.stop();
        self.rollouts.join().await;
        self.shared.targets.stop();
        self.listener.drain(self.drain_patience).await;
        connections.shutdown().await;
        let (shared, maintenance, mend_at_end) = (self.shared, self.maintenance, self.mend_at_end);
        let of_targets = self.of_targets;
        let stopped = blocking::start(move || {
            if let Some(most) = mend_at_end {
                maintenance::repair_opened(&shared, most);
            }
            shared.stopping.store(true, Ordering::Relaxed);
            maintenance.stop();
            drop(of_targets);
            shared.deliveries.stop();
            shared.actions.stop();
            shared.spaces.close();
        });
        if stopped.await.is_err() {
            tracing::error!("the store was not closed cleanly; the next start repairs it");
        }
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Returns the lock file of a data folder, which also names its user.
pub fn lock_path(data: &Path) -> PathBuf {
    data.join("lock")
}

/// Returns the host for agents when the proxy listens on `address`.
fn public_host_of(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.ip().to_string();
    }
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Draws a number that differs from start to start; nothing secret depends on it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Returns the space, the user and the token of a request.
fn owner(grant: &Grant) -> Owner {
    (grant.space.clone(), grant.user.clone())
}

/// Sends the agent a refusal, in the message that every conversation knows.
async fn refuse(mut sender: Sender, refusal: Refusal) {
    tracing::info!(fault = ?refusal.fault, text = refusal.text, "refused");
    // The agent may have gone already.
    if sender.send(&Answer::Refused(refusal)).await.is_ok() {
        drop(sender.finish());
    }
}

/// Ends a stream well, or with a refusal.
async fn end(sender: Sender, result: Result<(), Refusal>) {
    match result {
        Ok(()) => drop(sender.finish()),
        Err(refusal) => refuse(sender, refusal).await,
    }
}
