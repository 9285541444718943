//! `whit serve`: runs a proxy until it is stopped.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::signal::unix::SignalKind;

use super::access::variable;
use super::error::Error;
use super::groups::{configured, configured_lines, shared_notes};
use super::log::Log;
use super::output::Output;
use super::progress::waiting;
use super::service::Service;
use super::signals::listen_for;
use super::token;
use crate::config;
use crate::config::Config;
use crate::net::link;
use crate::proxy::{self, Options, Proxy};
use ground::ids::UserName;
use ground::threads;

/// The default port: w-h-i-t on a telephone.
const PORT: u16 = 9448;

const HELP: &str = "\
Prints its address when it is ready, as the first line on standard output, and on its first start the \
`whit login` line to paste on a build host. Further tokens: `whit token create`. Ctrl-C or SIGTERM lets \
requests finish, for at most 30 seconds, then stops. Nothing acknowledged is ever lost.";

/// Run a proxy: receive pushes, keep them, rebuild and deliver complete releases.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct ServeArgs {
    /// The data folder [env: `WHIT_DATA`; default: the user's data folder].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen; port 0 picks a free one [default: port 9448 on all addresses].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// A configuration file: destinations, and defaults for these flags (docs/CONFIG.md).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration file, print its settings, and end.
    #[arg(long, requires = "config")]
    check_config: bool,
    /// The host in the address that agents get [default: the address listened on, or this host's name].
    #[arg(long, value_name = "HOST")]
    public_host: Option<String>,
}

/// Runs the command.
pub async fn run(arguments: ServeArgs, output: &Output) -> Result<(), Error> {
    // It goes where notes go.
    let log = Log::start(if output.is_quiet() { tracing::Level::ERROR } else { tracing::Level::INFO });
    raise_descriptors();
    let config = match &arguments.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    let of_environment = variable("WHIT_DATA").map(PathBuf::from);
    if let (None, Some(_), Some(_)) = (&arguments.data, &of_environment, &config.data) {
        output.note("WHIT_DATA is set and overrides the configuration's `data`");
    }
    let data = match arguments.data.or(of_environment).or_else(|| config.data.clone()) {
        Some(data) => data,
        None => config::data_folder()?,
    };
    let listen = arguments.listen.or(config.listen);
    if let Some(path) = &arguments.config {
        config.check_data(path, &data)?;
        if arguments.check_config {
            return report_config(&config, path, &data, listen, output);
        }
    }
    let mut options = Options::new(&data, listen.unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, PORT).into()));
    options.public_host = arguments.public_host.or_else(|| config.public_host.clone());
    options.destinations = config.destinations();
    options.groups = config.groups();
    options.actions = config.actions();
    options.policies = config.policies();
    options.download_rate_max = config.limit_download;
    options.maintenance = config.maintenance();
    options.store = config.store();
    let (mut interrupt, mut terminate) =
        (listen_for(SignalKind::interrupt())?, listen_for(SignalKind::terminate())?);
    let proxy = match Proxy::start(&options) {
        Err(proxy::Error::Link(link::Error::Bind { .. })) if listen.is_none() => {
            // A machine without IPv6.
            options.listen = (Ipv4Addr::UNSPECIFIED, PORT).into();
            Proxy::start(&options)?
        }
        result => result?,
    };
    let url = proxy.url().to_string();
    output.report(&json!({ "url": url }), || url.clone())?;
    output.note(&format!("data in {}; Ctrl-C stops", data.display()));
    if proxy.is_first_start() {
        output.note(&first_login(&proxy, &data)?);
    }
    let service = Service::of_environment();
    service.ready();
    let (mut stopping, tasks) = (None, threads::runs_tasks());
    let running = proxy.run(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        service.stopping();
        output.note("stopping once the requests under way have finished");
        stopping = Some(waiting(output, "stopping"));
    });
    tokio::select! {
        () = running => {}
        () = log.sum_up() => {}
        () = service.keep_alive() => {}
    }
    drop((stopping, tasks));
    log.end();
    Ok(())
}

/// Says how to log in for the first time. A token that allows everything is not for a journal, which more people read.
fn first_login(proxy: &Proxy, data: &Path) -> Result<String, Error> {
    let url = proxy.url();
    if variable("JOURNAL_STREAM").is_some() {
        let data = data.display();
        return Ok(format!(
            "first start; a first token, on this host, as this user: \
             whit token --data {data} create --user admin --allow push,pull,read,deliver,admin --then '*'; \
             then, on a build host: whit login {url} --token TOKEN"
        ));
    }
    let token = token::everything(proxy.identity(), "admin".parse::<UserName>()?)?;
    Ok(format!("first start; on a build host, paste:\n\n  whit login {url} --token {token}\n"))
}

/// Reports what a configuration file says.
fn report_config(
    config: &Config,
    path: &Path,
    data: &Path,
    listen: Option<SocketAddr>,
    output: &Output,
) -> Result<(), Error> {
    let places = config.destinations();
    let places: BTreeMap<_, _> =
        places.iter().map(|(name, place)| (name.to_string(), place.describe(None))).collect();
    let actions = config.actions();
    let actions: BTreeMap<_, _> =
        actions.iter().map(|(name, action)| (name.to_string(), action.describe())).collect();
    let groups = config.groups();
    let value = json!({
        "config": path.to_string_lossy(), "data": data.to_string_lossy(), "listen": listen, "destinations": places,
        "actions": actions, "groups": configured(&groups),
    });
    for note in shared_notes(&groups) {
        output.note(&note);
    }
    output.report(&value, || {
        let listen = listen.map_or_else(|| format!("port {PORT} on all addresses"), |to| to.to_string());
        let mut lines = vec![format!("{}: good", path.display())];
        lines.push(format!("  data         {}", data.display()));
        lines.push(format!("  listen       {listen}"));
        lines.extend(places.iter().map(|(name, path)| format!("  destination  {name}: {path}")));
        lines.extend(actions.iter().map(|(name, action)| format!("  action       {name}: {action}")));
        lines.extend(configured_lines(&groups).iter().map(|group| format!("  group        {group}")));
        lines.join("\n")
    })
}

/// Allows as many open files as the system lets a process have: spaces, connections and deliveries share them.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, allowed = limit.current, "the number of open files stays limited");
    }
}
