//! `whit login`: remembers a proxy and a token, after trying them.

use clap::Args;
use serde_json::json;

use super::access::{Login, variable};
use super::error::Error;
use super::output::{self, Output};
use super::progress::waiting;
use crate::agent::{Access, Session};
use crate::config;
use crate::net::link;
use disk::files;
use protocol::address::ProxyUrl;
use protocol::wire::{Answer, Operation};

/// Remember a proxy and a token, after trying them.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The proxy's address, as `whit serve` prints it.
    url: ProxyUrl,
    /// The token, as `whit token create` prints it.
    #[arg(long, env = "WHIT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: String,
}

/// Runs the command.
pub async fn run(arguments: LoginArgs, output: &Output) -> Result<(), Error> {
    let login = Login { proxy: arguments.url, token: arguments.token.trim().to_owned() };
    let access = Access { url: login.proxy.clone(), token: login.token.clone() };
    let waits = waiting(output, "connecting");
    let session = Session::open(&access, &link::Options::default()).await?;
    let mut identity = None;
    session
        .ask(&Operation::Identify, |answer| {
            if let Answer::Identity(info) = answer {
                identity = Some(info);
            }
        })
        .await?;
    session.finish().await;
    drop(waits);
    let Some(info) = identity else { return Err(crate::agent::Error::Ended.into()) };
    let path = config::login_file()?;
    let text =
        toml::to_string(&login).map_err(|source| Error::input(source.to_string(), "check the address"))?;
    if let Some(folder) = path.parent() {
        files::create_folder(folder)?;
    }
    // The user may keep the file elsewhere and link to it: write to the target.
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    // The token opens the proxy: for the user's eyes only.
    files::publish(&path, text.as_bytes(), 0o600)?;
    for name in ["WHIT_PROXY", "WHIT_DATA"] {
        if variable(name).is_some() {
            output.note(&format!("{name} is set and overrides this login until it is unset"));
        }
    }
    output.report(
        &json!({ "proxy": login.proxy, "user": info.user, "space": info.space, "expires": info.expires }),
        || {
            let until = info.expires.map_or_else(|| "revoked".to_owned(), output::time);
            format!("logged in to {} as {} in space {}, until {until}", login.proxy, info.user, info.space)
        },
    )
}
