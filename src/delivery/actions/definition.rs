//! Hooks and webhooks as a configuration defines them.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use super::event::{Event, Happened};
use crate::delivery::command::{self, CommandLine, Variables, check_names};
use ground::ids::{AppName, DestinationName};
use ground::pattern::Pattern;

/// The longest that a receiver of a webhook may take.
const TIMEOUT_MAX: u64 = 60;

/// A mistake in the definition of an action.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// A mistake in a command.
    #[error(transparent)]
    Command(command::Mistake),
    /// A folder that depends on where the proxy was started.
    #[error("`{}` is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// An address that no webhook can be sent to.
    #[error("not an http or https address with a host")]
    Url,
    /// A webhook that nobody could verify.
    #[error("a webhook needs a secret")]
    NoSecret,
    /// No time, or too much.
    #[error("{found} seconds, expected 1 to {max}")]
    Time {
        /// The value.
        found: u64,
        /// The most.
        max: u64,
    },
    /// An action that nothing leads to.
    #[error("an action without events never runs")]
    Never,
}

impl Mistake {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Command(mistake) => mistake.hint(),
            Self::Relative(_) => "give the absolute path, starting with /",
            Self::Url => "give an address like https://example.com/hook",
            Self::NoSecret => {
                "name a file in `secret_files` or a variable in `secret_env`; to make one: `echo whsec_$(openssl rand -base64 32)`"
            }
            Self::Time { .. } => "give a number of seconds within the bounds, or omit the key",
            Self::Never => "give events, like on = [\"delivered\"], or omit the key",
        }
    }
}

/// A command that follows events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookDefinition {
    /// The program and its arguments.
    pub(super) command: CommandLine,
    /// Seconds that it may take; 300 by default.
    #[serde(default = "hook_seconds")]
    pub(super) seconds: u64,
    /// Seconds from TERM to KILL; 10 by default.
    #[serde(default = "grace")]
    pub(super) grace: u64,
    /// More variables.
    #[serde(default)]
    pub(super) env: Variables,
    /// Names of the proxy's own variables that the command gets, too.
    #[serde(default)]
    pub(super) pass_env: Vec<String>,
    /// The working folder; `/` by default.
    pub(super) folder: Option<PathBuf>,
    /// The events; `delivered` by default.
    #[serde(default = "delivered")]
    on: Vec<Event>,
    /// The applications for which it may be asked for; all by default.
    #[serde(default = "any")]
    apps: Vec<Pattern>,
    /// The destinations; all by default.
    #[serde(default = "any")]
    destinations: Vec<Pattern>,
    /// True to run it without being asked for.
    #[serde(default)]
    always: bool,
}

/// A message to an HTTP server that follows events.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookDefinition {
    /// The receiver's address. It may hold a secret, and is shown only by its host.
    pub(super) url: String,
    /// Files of secrets, the newest first; they are read at each try.
    #[serde(default)]
    pub(super) secret_files: Vec<PathBuf>,
    /// Variables of the proxy's environment that hold secrets.
    #[serde(default)]
    pub(super) secret_env: Vec<String>,
    /// A PEM file with authorities that sign the receiver's certificate, besides the system's.
    pub(super) ca_file: Option<PathBuf>,
    /// Seconds that the receiver may take; 10 by default.
    #[serde(default = "timeout")]
    pub(super) timeout: u64,
    /// The events; `delivered` by default.
    #[serde(default = "delivered")]
    on: Vec<Event>,
    /// The applications for which it may be asked for; all by default.
    #[serde(default = "any")]
    apps: Vec<Pattern>,
    /// The destinations; all by default.
    #[serde(default = "any")]
    destinations: Vec<Pattern>,
    /// True to send it without being asked for.
    #[serde(default)]
    always: bool,
}

fn hook_seconds() -> u64 {
    300
}

fn grace() -> u64 {
    10
}

fn timeout() -> u64 {
    10
}

fn delivered() -> Vec<Event> {
    vec![Event::Delivered]
}

fn any() -> Vec<Pattern> {
    vec![Pattern::any()]
}

/// An action as a configuration defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Definition {
    /// A command.
    Hook(HookDefinition),
    /// A message.
    Webhook(WebhookDefinition),
}

impl Definition {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first key whose value is a mistake.
    pub fn check(&self) -> Result<(), (&'static str, Mistake)> {
        if self.events().is_empty() {
            return Err(("on", Mistake::Never));
        }
        match self {
            Self::Hook(hook) => hook.check(),
            Self::Webhook(webhook) => webhook.check(),
        }
    }

    /// Returns what it is and which events it follows, for people; without secrets.
    pub fn describe(&self) -> String {
        let what = match self {
            Self::Hook(hook) => format!("hook {}", hook.command.program().display()),
            Self::Webhook(_) => "webhook".to_owned(),
        };
        let events: Vec<_> = self.events().iter().map(|event| event.as_str()).collect();
        format!("{what}, after {}", events.join(", "))
    }

    fn events(&self) -> &[Event] {
        match self {
            Self::Hook(hook) => &hook.on,
            Self::Webhook(webhook) => &webhook.on,
        }
    }

    /// Returns whether the action may be asked for with an application's deliveries to a destination.
    pub fn may_follow(&self, app: &AppName, destination: Option<&DestinationName>) -> bool {
        let (apps, destinations) = match self {
            Self::Hook(hook) => (&hook.apps, &hook.destinations),
            Self::Webhook(webhook) => (&webhook.apps, &webhook.destinations),
        };
        let fits = |patterns: &[Pattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        fits(apps, app.as_str()) && destination.is_none_or(|name| fits(destinations, name.as_str()))
    }

    /// Returns whether the action follows an event, `asked` for or not.
    pub fn follows(&self, happened: &Happened, is_asked: bool) -> bool {
        let always = match self {
            Self::Hook(hook) => hook.always,
            Self::Webhook(webhook) => webhook.always,
        };
        (is_asked || always)
            && self.events().contains(&happened.event)
            && self.may_follow(&happened.app, happened.destination.as_ref())
    }
}

impl HookDefinition {
    fn check(&self) -> Result<(), (&'static str, Mistake)> {
        let in_command = |key| move |mistake| (key, Mistake::Command(mistake));
        self.command.check().map_err(in_command("command"))?;
        self.env.check().map_err(in_command("env"))?;
        check_names(&self.pass_env).map_err(in_command("pass_env"))?;
        let relative = self.folder.as_ref().filter(|folder| !folder.is_absolute());
        if let Some(folder) = relative {
            return Err(("folder", Mistake::Relative(folder.clone())));
        }
        check_time("seconds", self.seconds, 24 * 3600)
    }
}

impl WebhookDefinition {
    fn check(&self) -> Result<(), (&'static str, Mistake)> {
        let url = reqwest::Url::parse(&self.url).ok();
        if !url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            return Err(("url", Mistake::Url));
        }
        if self.secret_files.is_empty() && self.secret_env.is_empty() {
            return Err(("secret_files", Mistake::NoSecret));
        }
        for (key, paths) in
            [("secret_files", self.secret_files.as_slice()), ("ca_file", self.ca_file.as_slice())]
        {
            if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
                return Err((key, Mistake::Relative(path.clone())));
            }
        }
        check_time("timeout", self.timeout, TIMEOUT_MAX)
    }
}

fn check_time(key: &'static str, found: u64, max: u64) -> Result<(), (&'static str, Mistake)> {
    if (1..=max).contains(&found) { Ok(()) } else { Err((key, Mistake::Time { found, max })) }
}

/// The address may hold a secret.
impl fmt::Debug for WebhookDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookDefinition").field("secret_files", &self.secret_files).finish_non_exhaustive()
    }
}
