//! The proxy inside a command, for those who have not set one up: the same code over loopback QUIC.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Error;
use super::output::Output;
use super::progress::waiting;
use crate::agent::{Access, Session};
use crate::delivery::destination::Destinations;
use crate::net::identity::Identity;
use crate::net::link;
use crate::proxy::{self, Options, Proxy};
use disk::files;
use ground::ids::{SpaceName, UserName};
use ground::pattern::Pattern;
use protocol::address::ProxyUrl;
use protocol::token::{Action, Grant};

/// How long to wait for another command that uses the same data.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a command may take, at its end, to mend what an earlier one left when it was killed.
const MEND_TIME_MAX: Duration = Duration::from_secs(10);
/// A command's own token lives as long as the longest command may.
const TOKEN_SECONDS: u64 = 7 * 24 * 3600;

/// A running proxy inside this process.
#[derive(Debug)]
pub struct Embedded {
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Embedded {
    /// Lets the proxy end what others still do with it, then seals its store.
    pub async fn stop(self) {
        drop(self.stop);
        if self.running.await.is_err() {
            tracing::error!("the proxy inside ended badly; its next start repairs what it left");
        }
    }
}

/// Opens the data folder with a proxy of this process, or finds the one that has it open.
///
/// `local` are destinations that only a proxy of this process knows.
pub async fn open(
    data: &Path,
    local: Destinations,
    output: &Output,
) -> Result<(Option<Embedded>, Access), Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut told = None;
    loop {
        let mut options = Options::new(data, ([127, 0, 0, 1], 0).into());
        options.destinations.clone_from(&local);
        options.drain_patience = PATIENCE;
        options.maintenance.mend_at_end = Some(MEND_TIME_MAX);
        match Proxy::start(&options) {
            Ok(proxy) => return start(proxy),
            Err(proxy::Error::InUse(_)) if Instant::now() < deadline => {}
            Err(error) => return Err(error.into()),
        }
        if local.is_empty()
            && let Some(access) = join(data).await?
        {
            return Ok((None, access));
        }
        if told.is_none() {
            let what = format!("waiting for another whit that uses {}", data.display());
            output.note(&what);
            told = Some(waiting(output, what));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn start(proxy: Proxy) -> Result<(Option<Embedded>, Access), Error> {
    let token = own_token(proxy.identity())?;
    let access = Access { url: proxy.url().clone(), token };
    let (stop, stopped) = oneshot::channel::<()>();
    // It stops when the sender is dropped.
    let running = tokio::spawn(proxy.run(async { drop(stopped.await) }));
    Ok((Some(Embedded { stop, running }), access))
}

/// Access to the proxy that holds the data folder's lock, if it answers.
async fn join(data: &Path) -> Result<Option<Access>, Error> {
    let text = files::read_if_there(&proxy::lock_path(data), 4096)?.unwrap_or_default();
    let Ok(url) = String::from_utf8_lossy(&text).trim().parse::<ProxyUrl>() else { return Ok(None) };
    let (identity, _) = Identity::open_or_create(&data.join("identity"))?;
    if identity.fingerprint() != url.fingerprint() {
        return Ok(None);
    }
    // The proxy listens on this machine, whatever name it tells others.
    let near = ProxyUrl::new("localhost", url.port(), url.fingerprint())?;
    let options = link::Options { connect_time_max: Duration::from_secs(1), ..link::Options::default() };
    let token = own_token(&identity)?;
    for url in [near, url] {
        let access = Access { url, token: token.clone() };
        if let Ok(session) = Session::open(&access, &options).await {
            session.finish().await;
            return Ok(Some(access));
        }
    }
    Ok(None)
}

/// A token for whoever may read the data folder anyway.
fn own_token(identity: &Identity) -> Result<String, Error> {
    let user = std::env::var("USER").ok().and_then(|name| name.parse::<UserName>().ok());
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(identity.sign_own(|id| Grant {
        id,
        user: user.unwrap_or_else(|| "local".parse().expect("a word")),
        space: default_space(),
        actions: Action::ALL.to_vec(),
        applications: vec![Pattern::any()],
        destinations: vec![Pattern::any()],
        issued: now,
        expires: Some(now + TOKEN_SECONDS),
    })?)
}

/// The space of those who name none.
pub fn default_space() -> SpaceName {
    "default".parse().expect("a word")
}
