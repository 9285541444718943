//! The proxy inside a command, for users without one: the same code over loopback QUIC.

use std::path::Path;
use std::time::{Duration, Instant};

use super::error::Error;
use super::output::Output;
use super::progress::waiting;
use crate::agent::{Access, Session};
use crate::delivery::destination::Destinations;
use crate::library::{self, own_token};
use crate::net::identity::Identity;
use crate::net::link;
use crate::proxy::{self, Options};
use disk::files;
use protocol::address::ProxyUrl;
use protocol::wire::Operation;

/// How long to wait for another command that uses the same data.
const PATIENCE: Duration = Duration::from_secs(600);
/// The wait between two tries.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a command may take at its end to repair what a killed one left.
const MEND_TIME_MAX: Duration = Duration::from_secs(10);

/// Opens the data folder with a proxy of this process, or finds the one that has it open. Returns a session with it.
///
/// `local` are destinations that only a proxy of this process knows.
pub async fn open(
    data: &Path,
    local: Destinations,
    output: &Output,
) -> Result<(Option<library::Proxy>, Session), Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut waits = None;
    loop {
        let mut options = Options::new(data, ([127, 0, 0, 1], 0).into());
        options.destinations.clone_from(&local);
        options.drain_patience = PATIENCE;
        options.maintenance.mend_at_end = Some(MEND_TIME_MAX);
        match proxy::Proxy::start(&options) {
            Ok(proxy) => {
                let proxy = library::Proxy::run(proxy)?;
                let session = Session::open(proxy.access(), &link::Options::default()).await?;
                return Ok((Some(proxy), session));
            }
            Err(proxy::Error::InUse(_)) if Instant::now() < deadline => {}
            Err(error) => return Err(error.into()),
        }
        if local.is_empty()
            && let Some(session) = join(data).await?
        {
            return Ok((None, session));
        }
        if waits.is_none() {
            let what = format!("waiting for another whit that uses {}", data.display());
            output.note(&what);
            waits = Some(waiting(output, what));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Returns a session with the proxy that holds the data folder's lock, if it answers a request: a proxy whose command ends
/// waits for the sessions that have asked it something, and takes no new ones.
async fn join(data: &Path) -> Result<Option<Session>, Error> {
    let text = files::read_if_there(&proxy::lock_path(data), 4096)?.unwrap_or_default();
    let Ok(url) = String::from_utf8_lossy(&text).trim().parse::<ProxyUrl>() else { return Ok(None) };
    let (identity, _) = Identity::open_or_create(&data.join("identity"))?;
    if identity.fingerprint() != url.fingerprint() {
        return Ok(None);
    }
    // The proxy listens on this machine, whatever its public name is.
    let near = ProxyUrl::new("localhost", url.port(), url.fingerprint())?;
    let options = link::Options { connect_time_max: Duration::from_secs(1), ..link::Options::default() };
    let token = own_token(&identity)?;
    for url in [near, url] {
        let access = Access { url, token: token.clone() };
        if let Ok(session) = Session::open(&access, &options).await
            && session.ask(&Operation::Identify, drop).await.is_ok()
        {
            return Ok(Some(session));
        }
    }
    Ok(None)
}
