//! Which proxy a command talks to: one that was named, one that was logged in to, or one of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::embedded;
use super::error::Error;
use super::output::Output;
use super::progress::waiting;
use super::signals::interrupted;
use crate::agent::{Access, Session};
use crate::config;
use crate::delivery::destination::{Destinations, Template};
use crate::library;
use crate::net::link;
use disk::files;
use ground::limits::ANSWER_TIME_LONG_MAX;
use ground::threads;
use protocol::address::ProxyUrl;

/// The proxy and the token.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Proxy")]
pub struct AccessArgs {
    /// The proxy's address, as `whit serve` prints it [env: `WHIT_PROXY`].
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    proxy: Option<String>,
    /// The token to use [env: `WHIT_TOKEN`, which other users of this machine do not see].
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// A file that holds the token. It is read again while a command runs, so that a newer token can replace it
    /// [env: `WHIT_TOKEN_FILE`].
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Use the proxy inside the command, with its data in this folder [env: `WHIT_DATA`; default without any
    /// proxy or login: the user's data folder].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// The proxy and token that `whit login` remembers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The proxy's address.
    pub proxy: ProxyUrl,
    /// The token.
    pub token: String,
}

/// The longest file of a token or login.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A session, and its proxy if that runs inside the command.
#[derive(Debug)]
pub struct OpenSession {
    /// The session.
    pub session: Session,
    /// Names the proxy or the data folder for people.
    pub place: String,
    /// How long who follows something may connect again after each loss of the proxy: a day, or not at all where it is inside a
    /// command, as another would have another address.
    pub patience: Duration,
    embedded: Option<library::Proxy>,
    output: Output,
}

impl OpenSession {
    /// Closes the session, and stops the proxy inside.
    pub async fn finish(self) {
        self.session.finish().await;
        if let Some(embedded) = self.embedded {
            let _waiting = waiting(&self.output, "ending the proxy inside");
            embedded.stop().await;
        }
    }

    /// Runs `work` on the session to its end or to a signal, then closes everything in order. A second one ends the program
    /// at once.
    pub async fn run<T>(self, work: impl AsyncFnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        let result = {
            let mut working = Box::pin(work(&self.session));
            let _tasks = threads::runs_tasks();
            tokio::select! {
                result = &mut working => result,
                // What the work holds is closed once the mark is gone: nothing else runs here then.
                () = interrupted() => Err(Error::Interrupted),
            }
        };
        tokio::select! {
            () = self.finish() => result,
            () = interrupted() => Err(Error::Interrupted),
        }
    }
}

/// The place of a command's proxy.
#[derive(Debug)]
enum ProxyPlace {
    /// At an address.
    Remote(Access),
    /// Inside the command, on this folder.
    Inside(PathBuf),
}

impl AccessArgs {
    /// Opens a session, or is interrupted; `local` are destinations that only a proxy inside the command can serve.
    pub async fn open(&self, output: &Output, local: Destinations) -> Result<OpenSession, Error> {
        self.open_within(Duration::ZERO, output, local).await
    }

    /// The same, trying for `limit` to reach a remote proxy.
    pub async fn open_within(
        &self,
        limit: Duration,
        output: &Output,
        local: Destinations,
    ) -> Result<OpenSession, Error> {
        tokio::select! {
            opened = self.open_place(limit, output, local) => opened,
            () = interrupted() => Err(Error::Interrupted),
        }
    }

    async fn open_place(
        &self,
        limit: Duration,
        output: &Output,
        local: Destinations,
    ) -> Result<OpenSession, Error> {
        let (place, patience, session, embedded) = match self.place(output)? {
            ProxyPlace::Remote(_) if !local.is_empty() => {
                return Err(Error::input(
                    "a remote proxy cannot deliver to a `dir:PATH` of this machine",
                    "name a destination of the proxy's configuration; or leave out --proxy, to use a proxy inside the command",
                ));
            }
            ProxyPlace::Remote(access) => {
                let waiting = waiting(output, format!("connecting to {}", host_of(&access.url)));
                let session =
                    Session::open_within(&access, &link::Options::default(), limit, &waiting).await?;
                let session = match self.file_of_token() {
                    Some(file) => session.with_token_file(file),
                    None => session,
                };
                (host_of(&access.url), ANSWER_TIME_LONG_MAX, session, None)
            }
            ProxyPlace::Inside(data) => {
                check_apart(&local, &data)?;
                let (embedded, session) = embedded::open(&data, local, output).await?;
                (data.display().to_string(), Duration::ZERO, session, embedded)
            }
        };
        Ok(OpenSession { session, place, patience, embedded, output: output.clone() })
    }

    /// Returns the place that the command line names, else the environment, else the login; else the user's own folder.
    /// Notes a variable or login that is overridden by another place.
    fn place(&self, output: &Output) -> Result<ProxyPlace, Error> {
        let (proxy, data) = (variable("WHIT_PROXY"), variable("WHIT_DATA"));
        let overridden = |set: &str, used: &str| output.note(&format!("{set} is set, {used} is used"));
        if let Some(folder) = &self.data {
            if proxy.is_some() {
                overridden("WHIT_PROXY", "--data");
            }
            return Ok(ProxyPlace::Inside(folder.clone()));
        }
        if let Some(url) = &self.proxy {
            if proxy.is_some_and(|set| set != url.as_str()) {
                overridden("WHIT_PROXY", "--proxy");
            }
            return self.at(url);
        }
        if let Some(url) = proxy {
            return self.at(&text("WHIT_PROXY", url)?);
        }
        let login = read_login()?;
        if let Some(folder) = data {
            if login.is_some() {
                output.note("WHIT_DATA is set and overrides the proxy of `whit login`");
            }
            return Ok(ProxyPlace::Inside(folder.into()));
        }
        let Some(login) = login else { return Ok(ProxyPlace::Inside(config::data_folder()?)) };
        let token = self.token()?.unwrap_or(login.token);
        Ok(ProxyPlace::Remote(Access { url: login.proxy, token }))
    }

    /// Returns the remote proxy and the file of its token, without connecting; none where the proxy is inside the command.
    pub fn remote(&self, output: &Output) -> Result<Option<(Access, Option<PathBuf>)>, Error> {
        Ok(match self.place(output)? {
            ProxyPlace::Remote(access) => Some((access, self.file_of_token())),
            ProxyPlace::Inside(_) => None,
        })
    }

    /// The data folder, where the proxy is inside the command.
    pub fn data_inside(&self) -> Result<Option<PathBuf>, Error> {
        // Opening the proxy notes what is overridden.
        Ok(match self.place(&Output::new(false, true))? {
            ProxyPlace::Inside(data) => Some(data),
            ProxyPlace::Remote(_) => None,
        })
    }

    /// The proxy at an address.
    fn at(&self, url: &str) -> Result<ProxyPlace, Error> {
        let url: ProxyUrl = url.parse()?;
        let token = match self.token()? {
            Some(token) => token,
            None => remembered(&url)?,
        };
        Ok(ProxyPlace::Remote(Access { url, token }))
    }

    /// Returns the command line's token, else the environment's.
    fn token(&self) -> Result<Option<String>, Error> {
        if let Some(token) = &self.token {
            return Ok(Some(token.trim().to_owned()));
        }
        if let (None, Some(token)) = (&self.token_file, variable("WHIT_TOKEN")) {
            return Ok(Some(text("WHIT_TOKEN", token)?.trim().to_owned()));
        }
        let Some(path) = self.file_of_token() else { return Ok(None) };
        let text = files::read_bounded(&path, FILE_BYTES_MAX)?;
        Ok(Some(String::from_utf8_lossy(&text).trim().to_owned()))
    }

    /// Returns the file to read the token from, again and again, unless the token itself is given.
    fn file_of_token(&self) -> Option<PathBuf> {
        if self.token.is_some() || (self.token_file.is_none() && variable("WHIT_TOKEN").is_some()) {
            return None;
        }
        self.token_file.clone().or_else(|| variable("WHIT_TOKEN_FILE").map(PathBuf::from))
    }
}

/// Checks that no folder to deliver to contains another, or the data folder, or lies in it.
fn check_apart(local: &Destinations, data: &Path) -> Result<(), Error> {
    let data = Template::new(std::path::absolute(data).unwrap_or_else(|_| data.to_owned()));
    let folders: Vec<&Template> = local.values().flat_map(|place| place.folders()).collect();
    for (number, folder) in folders.iter().enumerate() {
        let others = folders[..number].iter().copied().filter(|other| other != folder);
        for other in others.chain([&data]) {
            if config::relation(folder, other).is_some() {
                let (path, other) = (folder.as_path().display(), other.as_path().display());
                return Err(Error::input(
                    format!("`dir:{path}` and {other} overlap"),
                    "give each destination a folder outside the data folder and outside the others",
                ));
            }
        }
    }
    Ok(())
}

/// Returns the token of `whit login`, if that was to this address.
fn remembered(url: &ProxyUrl) -> Result<String, Error> {
    let login = read_login()?.filter(|login| login.proxy == *url);
    login.map(|login| login.token).ok_or_else(|| {
        Error::input(
            "there is no token for the proxy",
            "set WHIT_TOKEN or WHIT_TOKEN_FILE, or run `whit login`",
        )
    })
}

/// Reads a variable of the environment; an empty one counts as unset.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn text(name: &str, value: OsString) -> Result<String, Error> {
    let wrong = |_| Error::input(format!("{name} is not text"), format!("set {name} to text, or unset it"));
    value.into_string().map_err(wrong)
}

/// Returns an address without its fingerprint, for people.
fn host_of(url: &ProxyUrl) -> String {
    let url = url.to_string();
    url.split('#').next().unwrap_or_default().to_owned()
}

fn read_login() -> Result<Option<Login>, Error> {
    let Ok(path) = config::login_file() else { return Ok(None) };
    let Some(bytes) = files::read_if_there(&path, FILE_BYTES_MAX)? else { return Ok(None) };
    let login = toml::from_slice(&bytes);
    login.map(Some).map_err(|source| config::Error::Syntax { path, source: Box::new(source) }.into())
}
