//! `whit token`: creates, lists and revokes tokens, on the proxy's host.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::error::Error;
use super::output::{self, Output};
use crate::config;
use crate::library::default_space;
use crate::net::identity::Identity;
use crate::net::tokens::Listed;
use disk::clock::now;
use ground::faults::Fault;
use ground::ids::{SpaceName, TargetName, UserName};
use ground::pattern::Pattern;
use protocol::token::{Action, Grant, TokenId};

const HELP: &str = "\
Works on the proxy's data folder, beside a running proxy: a token can be used at once. A revoked one is \
refused at once; its commands under way end within seconds, and nothing more is recorded or delivered.";

/// Create, list and revoke tokens, on the proxy's host.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct TokenArgs {
    /// The proxy's data folder [env: `WHIT_DATA`; default: the user's data folder].
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Create a token and print it, alone, on standard output. It is shown only this once.
    Create(CreateArgs),
    /// List the tokens that were created here, and those that were revoked.
    List,
    /// Revoke a token; commands that use it end within seconds. Takes any token's id, recorded here or not.
    Revoke {
        /// The token's id, as `whit token list` shows it.
        id: String,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The user whom the token identifies.
    #[arg(long)]
    user: String,
    /// The group of users who share what is stored.
    #[arg(long, default_value = "default")]
    space: String,
    /// What the token allows; may be given several times, or with commas [default: all but admin; of a target: pull].
    #[arg(long = "allow", value_name = "push|pull|read|deliver|admin", value_delimiter = ',')]
    actions: Vec<Action>,
    /// Applications, as names or patterns like `web-*`; may be given several times [default: all].
    #[arg(long = "app", value_name = "PATTERN")]
    applications: Vec<Pattern>,
    /// Destinations, as names or patterns; may be given several times [default: all].
    #[arg(long = "to", value_name = "PATTERN")]
    destinations: Vec<Pattern>,
    /// How long the token is valid, like `30d` or `12h` [default: until it is revoked].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// For another proxy that delivers to this one: its pushes may say on whose behalf they are made.
    #[arg(long)]
    on_behalf: bool,
    /// Actions that deliveries may ask for to follow, as names or patterns; may be given several times [default: none].
    #[arg(long, value_name = "PATTERN")]
    then: Vec<Pattern>,
    /// For a machine that watches (`whit pull --watch`): the name that `whit targets` and groups know it by.
    #[arg(long, value_name = "NAME")]
    target: Option<TargetName>,
}

/// Runs the command.
pub fn run(arguments: &TokenArgs, output: &Output) -> Result<(), Error> {
    let data = match &arguments.data {
        Some(data) => data.clone(),
        None => config::data_folder()?,
    };
    let folder = data.join("identity");
    // Tokens may be created before the proxy's first start; listing or revoking needs an existing folder.
    if !matches!(arguments.command, TokenCommand::Create(_)) && !folder.exists() {
        return Err(Error::Message {
            fault: Fault::Missing,
            text: format!("no proxy has its data in {}", data.display()),
            hint: Some("give the folder that `whit serve` was given, with --data or WHIT_DATA".to_owned()),
        });
    }
    let (identity, _) = Identity::open_or_create(&folder)?;
    match &arguments.command {
        TokenCommand::Create(create) => create_token(&identity, create, output),
        TokenCommand::List => list(&identity, output),
        TokenCommand::Revoke { id } => {
            let id: TokenId = id.parse()?;
            let recorded = identity.revoke(id)?;
            output.report(&json!({ "revoked": id, "recorded": recorded }), || {
                let unrecorded = "; no token with this id is recorded here";
                format!("revoked {id}{}", if recorded { "" } else { unrecorded })
            })
        }
    }
}

fn create_token(identity: &Identity, arguments: &CreateArgs, output: &Output) -> Result<(), Error> {
    let (user, space): (UserName, SpaceName) = (arguments.user.parse()?, arguments.space.parse()?);
    let now = now();
    let all =
        |patterns: &[Pattern]| if patterns.is_empty() { vec![Pattern::any()] } else { patterns.to_vec() };
    let actions = match &arguments.actions[..] {
        [] if arguments.target.is_some() => vec![Action::Pull],
        [] => Action::USUAL.to_vec(),
        given => given.to_vec(),
    };
    let (id, token) = identity.create_token(|id| Grant {
        id,
        user,
        space,
        actions,
        applications: all(&arguments.applications),
        destinations: all(&arguments.destinations),
        issued: now,
        expires: arguments.expires.map(|time| now + time.as_secs()),
        on_behalf: arguments.on_behalf,
        then: arguments.then.clone(),
        target: arguments.target.clone(),
    })?;
    output.report(&json!({ "id": id, "token": token }), || token.clone())
}

/// Creates a token that allows everything in the default space: for the first start.
pub fn everything(identity: &Identity, user: UserName) -> Result<String, Error> {
    let (_, token) = identity.create_token(|id| Grant {
        id,
        user,
        space: default_space(),
        actions: Action::ALL.to_vec(),
        applications: vec![Pattern::any()],
        destinations: vec![Pattern::any()],
        issued: now(),
        expires: None,
        on_behalf: false,
        then: vec![Pattern::any()],
        target: None,
    })?;
    Ok(token)
}

fn list(identity: &Identity, output: &Output) -> Result<(), Error> {
    let tokens = identity.tokens()?;
    let now = now();
    let state = |token: &Listed| match &token.grant {
        _ if token.is_revoked => "revoked",
        Some(grant) if grant.is_expired(now) => "expired",
        Some(_) => "good",
        None => "damaged record",
    };
    let as_json = |token: &Listed| match &token.grant {
        Some(grant) => json!({
            "id": grant.id, "user": grant.user, "space": grant.space, "allow": grant.actions,
            "apps": grant.applications, "to": grant.destinations, "issued": grant.issued,
            "expires": grant.expires, "on_behalf": grant.on_behalf, "then": grant.then, "target": grant.target,
            "state": state(token),
        }),
        None => json!({ "id": token.id, "state": state(token), "recorded": token.is_recorded }),
    };
    let row = |token: &Listed| {
        let id = format!("#{}", token.id);
        let Some(grant) = &token.grant else {
            let mut row = vec!["?".to_owned(); 8];
            (row[0], row[7]) = (id, state(token).to_owned());
            return row;
        };
        let mut actions: Vec<String> = grant.actions.iter().map(ToString::to_string).collect();
        if grant.on_behalf {
            actions.push("on-behalf".to_owned());
        }
        actions.extend(grant.target.iter().map(|target| format!("target:{target}")));
        actions.extend(grant.then.iter().map(|pattern| format!("then:{}", pattern.as_str())));
        let patterns =
            |list: &[Pattern]| list.iter().map(|one| one.as_str().to_owned()).collect::<Vec<_>>().join(",");
        vec![
            id,
            grant.user.to_string(),
            grant.space.to_string(),
            actions.join(","),
            patterns(&grant.applications),
            patterns(&grant.destinations),
            grant.expires.map_or_else(|| "never".to_owned(), output::time),
            state(token).to_owned(),
        ]
    };
    output.report(&tokens.iter().map(as_json).collect::<Vec<_>>(), || {
        let rows: Vec<Vec<String>> = tokens.iter().map(row).collect();
        output::table(&["ID", "USER", "SPACE", "ALLOW", "APPS", "TO", "EXPIRES", "STATE"], &rows)
            .replace('#', "")
    })
}
