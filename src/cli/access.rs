//! Which proxy a command talks to: one that was named, one that was logged in to, or one of its own.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::embedded::{self, Embedded};
use super::output::Output;
use super::{Error, config};
use crate::address::ProxyUrl;
use crate::agent::{Access, Session};
use crate::destination::Directory;
use crate::files;
use crate::ids::DestinationName;
use crate::link;

/// Which proxy, and as whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Proxy")]
pub struct AccessArgs {
    /// The proxy's address, as `whit serve` prints it.
    #[arg(long, env = "WHIT_PROXY", value_name = "URL")]
    proxy: Option<String>,
    /// The token to show. Better from the environment than on the command line, where others see it.
    #[arg(long, env = "WHIT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the token.
    #[arg(long, env = "WHIT_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Use the proxy inside the command, with its data in this folder [default where no proxy is named
    /// or logged in to: `WHIT_DATA`, else the user's data folder].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What `whit login` remembers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The proxy's address.
    pub proxy: ProxyUrl,
    /// The token.
    pub token: String,
}

/// More is no token and no login.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A session, and the proxy behind it where that runs inside the command.
#[derive(Debug)]
pub struct Open {
    /// The session.
    pub session: Session,
    embedded: Option<Embedded>,
}

impl Open {
    /// Says goodbye, and stops the proxy inside.
    pub async fn finish(self) {
        self.session.finish().await;
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }

    /// Runs `work` on the session, to its end or to Ctrl-C, and closes everything in order.
    pub async fn run<T>(self, work: impl AsyncFnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        let result = tokio::select! {
            result = work(&self.session) => result,
            _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
        };
        self.finish().await;
        result
    }
}

impl AccessArgs {
    /// Opens a session; `local` are destinations that only a proxy inside the command can serve.
    pub async fn open(
        &self,
        output: &Output,
        local: Vec<(DestinationName, Directory)>,
    ) -> Result<Open, Error> {
        if let Some(access) = self.remote()? {
            if !local.is_empty() {
                return Err(Error::input(
                    "a proxy elsewhere does not deliver to `dir:` paths of this machine",
                    "name one of the destinations in the proxy's configuration",
                ));
            }
            let session = Session::open(&access, &link::Options::default()).await?;
            Ok(Open { session, embedded: None })
        } else {
            let data = match &self.data {
                Some(data) => data.clone(),
                None => config::data_folder()?,
            };
            let (embedded, access) = embedded::open(&data, local, output).await?;
            let session = Session::open(&access, &link::Options::default()).await?;
            Ok(Open { session, embedded })
        }
    }

    /// The proxy that was named or logged in to.
    fn remote(&self) -> Result<Option<Access>, Error> {
        let login = match (&self.proxy, &self.data) {
            // A data folder on the command line means the proxy inside.
            (None, Some(_)) => return Ok(None),
            _ => read_login()?,
        };
        let Some(url) = &self.proxy else {
            let Some(login) = login else { return Ok(None) };
            let token = self.token()?.unwrap_or(login.token);
            return Ok(Some(Access { url: login.proxy, token }));
        };
        let url: ProxyUrl = url.parse()?;
        let remembered = login.filter(|login| login.proxy == url).map(|login| login.token);
        let token = self.token()?.or(remembered).ok_or_else(|| {
            Error::input(
                "there is no token for the proxy",
                "set WHIT_TOKEN or WHIT_TOKEN_FILE, or run `whit login`",
            )
        })?;
        Ok(Some(Access { url, token }))
    }

    fn token(&self) -> Result<Option<String>, Error> {
        if let Some(token) = &self.token {
            return Ok(Some(token.trim().to_owned()));
        }
        let Some(path) = &self.token_file else { return Ok(None) };
        let text = files::read_bounded(path, FILE_BYTES_MAX)?;
        Ok(Some(String::from_utf8_lossy(&text).trim().to_owned()))
    }
}

fn read_login() -> Result<Option<Login>, Error> {
    let Ok(path) = config::login_file() else { return Ok(None) };
    let Some(bytes) = files::read_if_there(&path, FILE_BYTES_MAX)? else { return Ok(None) };
    let login = toml::from_slice(&bytes);
    login.map(Some).map_err(|source| config::Error::Syntax { path, source: Box::new(source) }.into())
}
