//! The proxy's configuration file and the folders that whit uses (docs/CONFIG.md).

mod groups;
mod keep;
mod mistake;
mod places;

pub use groups::GroupConfig;
pub use keep::KeepConfig;
pub use mistake::Mistake;
pub use places::relation;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::delivery::actions::{self, HookDefinition, WebhookDefinition};
use crate::delivery::destination::{Definition, Destinations, Template};
use crate::delivery::rollout::Groups;
use crate::delivery::{Policies, Policy};
use crate::proxy::MaintenanceOptions;
use crate::store::{
    self,
    retention::{Retention, Rules},
};
use disk::files;
use ground::faults::{Fault, faulty};
use ground::ids::{ActionName, DestinationName};
use ground::pattern::Pattern;
use protocol::address;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The file is not TOML, or has unknown keys or values of another type.
    #[error("{}: {source}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: Box<toml::de::Error>,
    },
    /// A key whose value is a mistake.
    #[error("{}: {key}: {mistake}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, with those above it.
        key: String,
        /// The mistake.
        mistake: Mistake,
    },
    /// There is no folder for data.
    #[error("there is no folder for whit's data: neither {0} nor HOME is set")]
    NoHome(&'static str),
}

faulty! {
    Error passes on File;
    Self::NoHome(name) => Fault::Input, format!("set {name}, or give --data DIR");
    Self::Syntax { source, .. } => Fault::Input, {
        let meant = mistake::suggestion(source.message()).map(|word| format!("did you mean `{word}`? "));
        format!("{}docs/CONFIG.md lists every key", meant.unwrap_or_default())
    };
    Self::Key { mistake, .. } => Fault::Input, mistake.hint().into_owned();
}

/// `whit serve`'s configuration file. Every key is optional; `Config::default` has what holds without it. Flags on the
/// command line come first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data folder; without it [`data_folder`].
    pub data: Option<PathBuf>,
    /// The address to listen on; without it a fixed port on all addresses.
    pub listen: Option<SocketAddr>,
    /// The host in the address that agents get; without it the address listened on.
    pub public_host: Option<String>,
    /// MiB of the disk that pushes leave free.
    pub reserve_mib: u64,
    /// MiB of rebuilt archives that a space keeps for the next delivery; 0 for none.
    pub rebuilt_mib: u64,
    /// Retention rules, by pattern of application names; the first that matches applies.
    pub keep: Vec<KeepConfig>,
    /// MiB of packs that a space may take; beyond that, releases of applications with more than their fair share are evicted.
    pub size_max_mib: Option<u64>,
    /// Minutes between two collections of garbage; 0 for never.
    pub collect_minutes: u64,
    /// Hours for which content that was pushed without a release is kept; 0 keeps none.
    pub cache_hours: u64,
    /// Days between two checks of everything stored; 0 for never.
    pub verify_days: u64,
    /// Minutes after which an unused space is closed; 0 for never.
    pub idle_minutes: u64,
    /// Seconds in which nobody uses the proxy until it unpacks archives that crossed as they are; 0 for never.
    pub improve_after_seconds: u64,
    /// What all pulls together may send; none for as much as links take.
    pub limit_download: Option<ground::rate::Rate>,
    /// Destinations by name.
    pub destinations: BTreeMap<DestinationName, DestinationConfig>,
    /// Groups of targets and destinations, by name.
    pub groups: BTreeMap<DestinationName, GroupConfig>,
    /// Commands that follow deliveries, by name.
    pub hooks: BTreeMap<ActionName, HookDefinition>,
    /// Messages that follow deliveries, by name.
    pub webhooks: BTreeMap<ActionName, WebhookDefinition>,
}

impl Default for Config {
    fn default() -> Self {
        let store = store::Options::default();
        Self {
            data: None,
            listen: None,
            public_host: None,
            reserve_mib: store.reserve_bytes / MEBIBYTE,
            rebuilt_mib: store.rebuilt_bytes / MEBIBYTE,
            keep: Vec::new(),
            size_max_mib: None,
            collect_minutes: 60,
            cache_hours: store.cached_for.as_secs() / HOUR,
            verify_days: 7,
            idle_minutes: 10,
            improve_after_seconds: 30,
            limit_download: None,
            destinations: BTreeMap::new(),
            groups: BTreeMap::new(),
            hooks: BTreeMap::new(),
            webhooks: BTreeMap::new(),
        }
    }
}

/// The definition of a destination: the keys that every kind has, and those of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DestinationConfig {
    /// The keys that every kind has.
    #[serde(flatten)]
    pub policy: Policy,
    /// The kind, with its keys.
    #[serde(flatten)]
    pub definition: Definition,
}

const MEBIBYTE: u64 = 1024 * 1024;
const HOUR: u64 = 3600;
/// A year: more is the business of releases.
const CACHE_HOURS_MAX: u64 = 365 * 24;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The longest configuration file.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// It cannot be read, or [`Config::parse`] refuses it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&files::read_bounded(path, CONFIG_BYTES_MAX)?, path)
    }

    /// Parses a configuration file's bytes; errors name `path`.
    ///
    /// # Errors
    /// [`Error::Syntax`], [`Error::Key`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let config: Self = toml::from_slice(bytes)
            .map_err(|source| Error::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        match config.mistake() {
            Some((key, mistake)) => Err(Error::Key { path: path.to_owned(), key, mistake }),
            None => Ok(config),
        }
    }

    /// Returns the first key whose value is a mistake.
    fn mistake(&self) -> Option<(String, Mistake)> {
        if let Some(Err(error)) = self.public_host.as_deref().map(address::check_host) {
            return Some(("public_host".to_owned(), Mistake::Host(error)));
        }
        if self.size_max_mib == Some(0) {
            return Some(("size_max_mib".to_owned(), Mistake::Nothing));
        }
        for (place, rule) in self.keep.iter().enumerate() {
            let covers = |earlier: &&KeepConfig| earlier.app == Pattern::any() || earlier.app == rule.app;
            if let Some(earlier) = self.keep[..place].iter().find(covers) {
                let key = format!("keep, rule {}, app", place + 1);
                return Some((key, Mistake::Unreached(earlier.app.clone())));
            }
        }
        let mut earlier: Vec<(&DestinationName, Template)> = Vec::new();
        for (name, DestinationConfig { definition, .. }) in &self.destinations {
            let found = |key: &str, mistake| Some((format!("destinations.{name}.{key}"), mistake));
            if let Err((key, mistake)) = definition.check() {
                return found(key, Mistake::Definition(mistake));
            }
            for folder in definition.open().folders() {
                for (other, other_folder) in &earlier {
                    if let Some((relation, app)) = places::relation(folder, other_folder) {
                        let other = (*other).clone();
                        return found("path", Mistake::Destination { relation, other, app });
                    }
                }
                earlier.push((name, folder.clone()));
            }
        }
        groups::mistaken(&self.groups, &self.destinations).or_else(|| self.mistaken_action())
    }

    fn mistaken_action(&self) -> Option<(String, Mistake)> {
        if let Some(name) = self.hooks.keys().find(|name| self.webhooks.contains_key(*name)) {
            return Some((format!("webhooks.{name}"), Mistake::Twice(name.clone())));
        }
        self.actions().iter().find_map(|(name, definition)| {
            let table = if self.hooks.contains_key(name) { "hooks" } else { "webhooks" };
            let (key, mistake) = definition.check().err()?;
            Some((format!("{table}.{name}.{key}"), Mistake::Action(mistake)))
        })
    }

    /// Checks the destinations of the file at `path` against the folder of the proxy's own data.
    ///
    /// # Errors
    /// [`Error::Key`] for a destination that lies in the data folder, or holds it.
    pub fn check_data(&self, path: &Path, data: &Path) -> Result<(), Error> {
        let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
        for (name, destination) in self.destinations() {
            for folder in destination.folders() {
                if let Some((relation, app)) = places::relation(folder, &Template::new(&data)) {
                    let (path, key) = (path.to_owned(), format!("destinations.{name}.path"));
                    return Err(Error::Key { path, key, mistake: Mistake::Data { relation, data, app } });
                }
            }
        }
        Ok(())
    }

    /// Returns the store's options.
    pub fn store(&self) -> store::Options {
        store::Options {
            reserve_bytes: self.reserve_mib.saturating_mul(MEBIBYTE),
            rebuilt_bytes: self.rebuilt_mib.saturating_mul(MEBIBYTE),
            cached_for: Duration::from_secs(self.cache_hours.min(CACHE_HOURS_MAX) * HOUR),
            ..store::Options::default()
        }
    }

    /// Returns the options of maintenance.
    pub fn maintenance(&self) -> MaintenanceOptions {
        let rule = |keep: &KeepConfig| {
            let keep_within = keep.days.map(|days| DAY * u32::try_from(days).unwrap_or(u32::MAX));
            let retention = Retention { keep_last: keep.last, keep_within, keep_labels: keep.labels.clone() };
            (keep.app.clone(), retention)
        };
        let rules = Rules {
            apps: self.keep.iter().map(rule).collect(),
            size_max: self.size_max_mib.map(|mebibytes| mebibytes.saturating_mul(MEBIBYTE)),
        };
        let every =
            |count: u64, unit: Duration| (count > 0).then(|| unit * u32::try_from(count).unwrap_or(u32::MAX));
        MaintenanceOptions {
            rules,
            collect_every: every(self.collect_minutes, Duration::from_secs(60)),
            verify_every: every(self.verify_days, DAY),
            idle_after: every(self.idle_minutes, Duration::from_secs(60)),
            improve_after: every(self.improve_after_seconds, Duration::from_secs(1)),
            ..MaintenanceOptions::default()
        }
    }

    /// Returns the hooks and webhooks that are defined.
    pub fn actions(&self) -> actions::Definitions {
        let hooks = self.hooks.iter().map(|(name, hook)| (name, actions::Definition::Hook(hook.clone())));
        let webhooks = self.webhooks.iter();
        let webhooks = webhooks.map(|(name, webhook)| (name, actions::Definition::Webhook(webhook.clone())));
        hooks.chain(webhooks).map(|(name, definition)| (name.clone(), definition)).collect()
    }

    /// Returns the destinations that are defined.
    pub fn destinations(&self) -> Destinations {
        self.destinations.iter().map(|(name, defined)| (name.clone(), defined.definition.open())).collect()
    }

    /// Returns the groups that are defined.
    pub fn groups(&self) -> Groups {
        self.groups.iter().map(|(name, defined)| (name.clone(), defined.open())).collect()
    }

    /// Returns what holds for each destination, whatever its kind.
    pub fn policies(&self) -> Policies {
        self.destinations.iter().map(|(name, defined)| (name.clone(), defined.policy.clone())).collect()
    }
}

/// Returns the default data folder: `WHIT_DATA`, else by the XDG rules.
///
/// # Errors
/// [`Error::NoHome`].
pub fn data_folder() -> Result<PathBuf, Error> {
    let given = std::env::var_os("WHIT_DATA").filter(|value| !value.is_empty()).map(PathBuf::from);
    given.or_else(|| xdg("XDG_DATA_HOME", ".local/share")).ok_or(Error::NoHome("WHIT_DATA"))
}

/// Returns the folder in which an agent remembers its pushes: `WHIT_STATE`, else by the XDG rules; none if `WHIT_STATE` is
/// empty or no folder can be found.
pub fn state_folder() -> Option<PathBuf> {
    match std::env::var_os("WHIT_STATE") {
        Some(given) => Some(PathBuf::from(given)).filter(|given| !given.as_os_str().is_empty()),
        None => xdg("XDG_STATE_HOME", ".local/state"),
    }
}

/// Returns the file that `whit login` writes.
///
/// # Errors
/// [`Error::NoHome`].
pub fn login_file() -> Result<PathBuf, Error> {
    let folder = xdg("XDG_CONFIG_HOME", ".config").ok_or(Error::NoHome("XDG_CONFIG_HOME"))?;
    Ok(folder.join("login.toml"))
}

/// Returns whit's folder below an XDG base folder.
fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home)))?;
    Some(base.join("whit"))
}

#[cfg(test)]
mod tests {
    use ground::faults::Faulty as _;

    use super::*;
    use crate::delivery::destination;
    use crate::restore::OutsideLinks;

    fn read(text: &str) -> Result<Config, Error> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("whit.toml");
        std::fs::write(&path, text).expect("written");
        Config::read(&path)
    }

    #[test]
    fn destinations_are_read_with_their_defaults() {
        let config =
            read("[destinations.web]\nkind = \"dir\"\npath = \"/srv/{app}\"\n").expect("a configuration");
        let defaults = destination::local("/srv/{app}", OutsideLinks::Refuse);
        let found = config.destinations();
        assert_eq!(format!("{:?}", found.values().next()), format!("{:?}", Some(&defaults)));
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for bad in [
            "lisen = 1",
            "[destinations.web]\nkind = \"ftp\"",
            "public_host = \"a host\"",
            "size_max_mib = 0",
            "[[keep]]\napp = \"*\"\n[[keep]]\napp = \"web\"",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    fn refusal(text: &str) -> (String, String) {
        let error = read(text).expect_err(text);
        (error.to_string(), error.hint().unwrap_or_default())
    }

    #[test]
    fn an_action_that_cannot_be_meant_is_refused_by_its_key_and_shows_no_secret() {
        let webhook = "secret_files = [\"/nowhere/secret\"]\nurl = \"https://example.com/hunter2\"";
        for (text, key) in [
            ("[hooks.a]\ncommand = []".to_owned(), "hooks.a.command: "),
            ("[hooks.a]\ncommand = [\"./a\"]".to_owned(), "hooks.a.command: "),
            ("[hooks.a]\ncommand = [\"true\"]\non = []".to_owned(), "hooks.a.on: "),
            ("[hooks.a]\ncommand = [\"true\"]\nenv = { WHIT_APP = \"x\" }".to_owned(), "hooks.a.env: "),
            ("[hooks.a]\ncommand = [\"true\"]\nseconds = 0".to_owned(), "hooks.a.seconds: "),
            ("[webhooks.a]\nurl = \"https://example.com\"".to_owned(), "webhooks.a.secret_files: "),
            (format!("[webhooks.a]\n{webhook}\ntimeout = 61"), "webhooks.a.timeout: "),
            (format!("[webhooks.a]\n{}", webhook.replace("https", "ftp")), "webhooks.a.url: "),
            (format!("[hooks.a]\ncommand = [\"true\"]\n[webhooks.a]\n{webhook}"), "webhooks.a: "),
        ] {
            let (refused, hint) = refusal(&text);
            assert!(refused.contains(key) && !hint.is_empty(), "{refused}; {hint}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        let config = read(&format!("[webhooks.a]\n{webhook}")).expect("a configuration");
        assert!(config.actions().len() == 1 && !format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_misspelt_word_is_answered_with_the_nearest_known_one() {
        for (text, meant) in [
            ("lisen = \"[::]:1\"", "`listen`"),
            ("[destinations.web]\nkind = \"dir\"\npth = \"/srv\"", "`path`"),
            ("[destinations.web]\nkind = \"dri\"\npath = \"/srv\"", "`dir`"),
            ("[[keep]]\napp = \"web\"\nlabel = [\"v*\"]", "`labels`"),
        ] {
            let (refused, hint) = refusal(text);
            assert!(refused.contains("whit.toml") && hint.contains(meant), "{refused}; {hint}");
        }
        assert!(!refusal("colour = 1").1.contains("meant"));
    }

    #[test]
    fn a_destination_that_cannot_be_meant_is_refused_by_its_key() {
        let one = |line: &str| format!("[destinations.web]\nkind = \"dir\"\n{line}\n");
        let other = |path: &str| format!("[destinations.xyz]\nkind = \"dir\"\npath = \"{path}\"\n");
        for (text, key, word) in [
            (one("path = \"a\""), "path", "absolute"),
            (one("path = \"/nowhere/{aap}\""), "path", "`{aap}`"),
            (one("path = \"/nowhere\"\nkeep = 0"), "keep", "nothing"),
        ] {
            let (refused, hint) = refusal(&text);
            assert!(refused.contains(&format!("whit.toml: destinations.web.{key}: ")), "{refused}");
            assert!(refused.contains(word) && !hint.is_empty(), "{refused}; {hint}");
        }
        for (path, other_path, word) in [
            ("/nowhere/a", "/nowhere/a", "same folder"),
            ("/nowhere/a", "/nowhere/a/b", "lies inside"),
            ("/nowhere/a/b", "/nowhere/a", "holds"),
            ("/nowhere/{app}", "/nowhere/next", "`next`"),
        ] {
            let refused = refusal(&format!("{}{}", one(&format!("path = \"{path}\"")), other(other_path))).0;
            assert!(refused.contains("destinations.xyz.path: ") && refused.contains(word), "{refused}");
        }
        let apart = format!("{}{}", one("path = \"/nowhere/{app}\""), other("/nowhere/{app}-next"));
        let config = read(&apart).expect("a configuration");
        let file = Path::new("whit.toml");
        assert!(config.check_data(file, Path::new("/elsewhere")).is_ok());
        for data in ["/nowhere/web/data", "/nowhere"] {
            let refused = config.check_data(file, Path::new(data)).expect_err(data).to_string();
            assert!(
                refused.starts_with("whit.toml: destinations.web.path: ") && refused.contains(data),
                "{refused}"
            );
        }
    }
}
