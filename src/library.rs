//! whit in a program of one's own: a proxy, a push, a pull, and a file out of a store.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::agent::pull::{PullOptions, Pulled, pull_tree};
use crate::agent::push::{self, PushOptions, Receipt};
use crate::agent::{self, Access, Session};
use crate::net::identity::{self, Identity};
use crate::net::link;
use crate::proxy;
use crate::restore;
use crate::store::{self, Store};
use disk::clock::now;
use format::manifest::EntryPath;
use ground::faults::faulty;
use ground::ids::{Selector, SpaceName, UserName};
use ground::monitor::Monitor;
use ground::pattern::Pattern;
use protocol::token::{Action, Grant};

/// A proxy's own token lives longer than any command.
const TOKEN_SECONDS: u64 = 7 * 24 * 3600;

/// Why something failed. [`Faulty`](crate::Faulty) says what can be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The proxy did not start.
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    /// The proxy's keys cannot be used.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// A push or a pull failed.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// The store cannot be read, or has no such release.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The release is damaged, or has no such file.
    #[error(transparent)]
    Restore(#[from] restore::Error),
}

faulty! {
    Error passes on Proxy, Identity, Agent, Store, Restore;
}

/// The result of what a program asks of whit.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A proxy that runs in this process until it is stopped.
#[derive(Debug)]
pub struct Proxy {
    access: Access,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy that keeps its data in the folder `data`, which is created if it is missing, and listens on a free
    /// port of this machine alone. Blocks for the disk; call it within a tokio runtime.
    ///
    /// # Errors
    /// Another process uses the folder, or the disk's error.
    pub fn start(data: &Path) -> Result<Self> {
        let options = proxy::Options::new(data, ([127, 0, 0, 1], 0).into());
        Ok(Self::run(proxy::Proxy::start(&options)?)?)
    }

    /// Runs a proxy that was started with other options.
    pub(crate) fn run(proxy: proxy::Proxy) -> Result<Self, identity::Error> {
        let access = Access { url: proxy.url().clone(), token: own_token(proxy.identity())? };
        let (stop, stopped) = oneshot::channel::<()>();
        // It stops when the sender is dropped.
        let running = tokio::spawn(proxy.run(async { drop(stopped.await) }));
        Ok(Self { access, stop, running })
    }

    /// Returns the proxy's address, and a token that allows everything in the space `default` for a week.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Lets requests under way end, then seals the store.
    pub async fn stop(self) {
        drop(self.stop);
        if self.running.await.is_err() {
            tracing::error!("the proxy in this process panicked; its next start repairs the data");
        }
    }
}

/// Pushes a directory or file as a release of an application.
///
/// # Errors
/// The input cannot be read, or the proxy cannot be reached or refuses. What was acknowledged is not sent again by the
/// next push.
pub async fn push(access: &Access, options: &PushOptions, monitor: Arc<dyn Monitor>) -> Result<Receipt> {
    let session = Session::open(access, &link::Options::default()).await?;
    let receipt = Box::pin(push::push(&session, options, &monitor)).await;
    session.finish().await;
    Ok(receipt?)
}

/// Makes the directory `target` equal to a release. Whoever opens it sees the old tree or the new one.
///
/// # Errors
/// The proxy cannot be reached or refuses, or `target` has files that no pull put there; it is then as it was.
pub async fn pull(
    access: &Access,
    release: &Selector,
    target: &Path,
    options: PullOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<Pulled> {
    let session = Session::open(access, &link::Options::default()).await?;
    let pulled = Box::pin(pull_tree(&session, release, target, options, &monitor)).await;
    session.finish().await;
    Ok(pulled?)
}

/// Writes one file of a release to `out`, out of the data folder of a proxy that does not run; a release of a single file
/// needs no path. Returns its bytes. Each is verified.
///
/// # Errors
/// The space is in use by a proxy, there is no such release or file, it is damaged, or `out` failed.
pub fn read_file(
    data: &Path,
    space: &SpaceName,
    release: &Selector,
    path: Option<&EntryPath>,
    out: &mut dyn Write,
) -> Result<u64> {
    let store = Store::open(&data.join("spaces").join(space.as_str()), store::Options::default())?;
    let root = store.root(&store.select(release)?.release).map_err(restore::Error::from)?;
    let bytes = restore::write_file(&root, &store, path, out)?;
    store.close();
    Ok(bytes)
}

/// Signs a token for whoever may read the data folder anyway.
pub(crate) fn own_token(identity: &Identity) -> Result<String, identity::Error> {
    let user = std::env::var("USER").ok().and_then(|name| name.parse::<UserName>().ok());
    let now = now();
    identity.sign_own(|id| Grant {
        id,
        user: user.unwrap_or_else(|| "local".parse().expect("a word")),
        space: default_space(),
        actions: Action::ALL.to_vec(),
        applications: vec![Pattern::any()],
        destinations: vec![Pattern::any()],
        issued: now,
        expires: Some(now + TOKEN_SECONDS),
        on_behalf: false,
        then: Vec::new(),
        target: None,
    })
}

/// Returns the space of those who name none.
pub(crate) fn default_space() -> SpaceName {
    "default".parse().expect("a word")
}
