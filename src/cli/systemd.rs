//! `whit systemd`: units for systemd, printed to be looked at and installed.
//!
//! A unit gives its process what it needs and nothing else: the token as a credential, the directory to write to, the network.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::access::variable;
use super::error::Error;
use super::output::Output;
use super::watch::HookArgs;
use crate::config::Config;
use crate::delivery::destination::Template;
use ground::ids::Selector;

const HELP: &str = "\
  whit systemd --target web /srv/web --on-release 'systemctl restart web' --confirm 'curl -fsS localhost:8080/up' \\
    > /etc/systemd/system/whit-web.service
  whit systemd --serve --config /etc/whit.toml > /etc/systemd/system/whit.service

The first lines of a unit say how to install it.";

/// The folder that systemd makes for a proxy.
const STATE: &str = "/var/lib/whit";
/// The layout of a directory that is exchanged.
const PLAIN: &str = "plain";

/// What every unit has: no new rights, no devices, no kernel, no other address families.
const HARDENED: &str = "\
NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
";

/// Print a systemd unit for a target that watches, or for a proxy.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct SystemdArgs {
    /// A target: `whit pull --watch` of a release into a directory.
    #[arg(long, id = "watching", requires_all = ["release", "dir"], required_unless_present = "serve", conflicts_with = "serve")]
    target: bool,
    /// A proxy: `whit serve`.
    #[arg(long)]
    serve: bool,
    /// With --target: APP or APP@LABEL.
    #[arg(requires = "watching")]
    release: Option<Selector>,
    /// With --target: the directory.
    #[arg(requires = "watching")]
    dir: Option<PathBuf>,
    /// With --target: how the directory holds its release.
    #[arg(long, value_name = "LAYOUT", value_parser = ["plain", "releases"], requires = "watching")]
    layout: Option<String>,
    /// With --target: a path that all copies share, as for `whit pull`; may be given several times.
    #[arg(long, value_name = "PATH", requires = "watching")]
    shared: Vec<String>,
    /// With --target: copies to keep, as for `whit pull`.
    #[arg(long, value_name = "N", requires = "watching")]
    keep: Option<usize>,
    /// With --target: the proxy's address [env: `WHIT_PROXY`].
    #[arg(long, value_name = "URL", requires = "watching")]
    proxy: Option<String>,
    /// With --serve: the configuration file.
    #[arg(long, value_name = "FILE", requires = "serve")]
    config: Option<PathBuf>,
    /// The user that it runs as [default: `whit`; a proxy that delivers to no folder gets a user of its own at each start].
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    hooks: HookArgs,
}

/// Runs the command.
pub fn run(arguments: &SystemdArgs, output: &Output) -> Result<(), Error> {
    let unit = match (&arguments.release, &arguments.dir) {
        (Some(release), Some(dir)) => target(arguments, release, dir)?,
        _ => proxy(arguments)?,
    };
    output.report(&json!({ "unit": unit }), || unit.clone())
}

fn target(arguments: &SystemdArgs, release: &Selector, dir: &Path) -> Result<String, Error> {
    let hooks = arguments.hooks.hooks()?;
    let proxy = match &arguments.proxy {
        Some(proxy) => proxy.clone(),
        None => variable("WHIT_PROXY").and_then(|proxy| proxy.into_string().ok()).ok_or_else(|| {
            Error::input("a target needs the proxy's address", "give --proxy, or set WHIT_PROXY")
        })?,
    };
    let dir = absolute(dir)?;
    let app = &release.app;
    let user = arguments.user.as_deref().unwrap_or("whit");
    let is_plain = arguments.layout.as_deref() == Some(PLAIN);
    // A plain directory is exchanged with another one beside it.
    let written = if is_plain { dir.parent().unwrap_or(Path::new("/")) } else { &dir };
    let mut command = vec![program()?, "pull".into(), "--watch".into(), "--proxy".into(), proxy];
    command.extend(arguments.layout.as_ref().map(|layout| format!("--layout={layout}")));
    command.extend(arguments.keep.map(|keep| format!("--keep={keep}")));
    command.extend(arguments.shared.iter().map(|path| format!("--shared={path}")));
    command.extend(arguments.hooks.words());
    command.extend([release.to_string(), path_text(&dir)?]);
    let mut command = line(&command);
    // A specifier of systemd's own: the folder of credentials.
    command.push_str(" --token-file %d/token");
    let stop = hooks.confirm_within + hooks.healthy_for + std::time::Duration::from_secs(60);
    let mut unit = format!(
        "# whit-{app}.service: {app} in {place}\n\
         #\n\
         # useradd --system {user}; install -d -o {user} {shown}\n\
         # On the proxy's host: whit token create --target NAME --app {app} --allow pull\n\
         # That token into /etc/whit/{app}.token, for root alone; a newer one is taken by a restart of this unit.\n\
         # This file into /etc/systemd/system/, then: systemctl enable --now whit-{app}\n\
         #\n\
         # The commands of a target run as {user}, with these limits. To restart a service from them, let polkit allow it to {user},\n\
         # or print this unit with --user root.\n\n\
         [Unit]\nDescription=whit: {app} in {place}\nWants=network-online.target\nAfter=network-online.target\nStartLimitIntervalSec=0\n\n\
         [Service]\nType=notify\nExecStart={command}\nRestart=always\nRestartSec=5\nWatchdogSec=60\nTimeoutStopSec={stop}\nKillMode=mixed\n\
         User={user}\nUMask=0022\nLoadCredential=token:/etc/whit/{app}.token\nReadWritePaths={quoted}\n",
        place = percent(&dir.display().to_string()),
        shown = written.display(),
        stop = stop.as_secs(),
        quoted = word(&path_text(written)?),
    );
    if user == "root" {
        unit.push_str("# What a deployment does with files of other users.\nCapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_KILL\n");
    } else {
        unit.push_str("CapabilityBoundingSet=\n");
    }
    if !dir.starts_with("/home") && !dir.starts_with("/root") {
        unit.push_str("ProtectHome=yes\n");
    }
    unit.push_str(HARDENED);
    unit.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    Ok(unit)
}

fn proxy(arguments: &SystemdArgs) -> Result<String, Error> {
    let config = arguments.config.as_deref().map(absolute).transpose()?;
    let read = config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    let destinations = read.destinations();
    let folders: Vec<&Path> =
        destinations.values().flat_map(|place| place.folders()).map(Template::as_path).collect();
    let data = read.data.as_deref().unwrap_or(Path::new(STATE));
    let is_state = data == Path::new(STATE);
    let mut command = vec![program()?, "serve".to_owned(), "--data".to_owned(), path_text(data)?];
    if let Some(config) = &config {
        command.extend(["--config".to_owned(), path_text(config)?]);
    }
    let command = line(&command);
    let is_dynamic = arguments.user.is_none() && folders.is_empty() && is_state;
    let user = arguments.user.as_deref().unwrap_or("whit");
    let as_user = if is_dynamic {
        "systemd-run --pipe --quiet -p DynamicUser=yes -p User=whit -p StateDirectory=whit".to_owned()
    } else {
        format!("runuser -u {user} --")
    };
    let (program, shown) = (program()?, percent(&data.display().to_string()));
    let mut unit = format!(
        "# whit.service: a proxy; its data are in {shown}\n\
         #\n\
         # This file into /etc/systemd/system/, then: systemctl enable --now whit\n\
         # Its address: journalctl -u whit. Tokens, as its user:\n\
         # {as_user} {program} token --data {shown} create --user ci --allow push\n\n\
         [Unit]\nDescription=whit: a proxy for releases\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nType=notify\nExecStart={command}\nRestart=on-failure\nRestartSec=2\nWatchdogSec=60\nTimeoutStopSec=60\nKillMode=mixed\n\
         Environment={home}\nLimitNOFILE=65536\n",
        home = word(&format!("HOME={}", path_text(data)?)),
    );
    let folder = if is_state {
        "StateDirectory=whit\nStateDirectoryMode=0700\n".to_owned()
    } else {
        format!("# install -d -m 700 -o {user} {shown}\nReadWritePaths={}\n", word(&path_text(data)?))
    };
    unit.push_str(&folder);
    let by = if is_dynamic {
        "# It owns no folder but its state, so that its user need not outlive it.\nDynamicUser=yes\nUser=whit\nUMask=0077\n".to_owned()
    } else {
        format!(
            "# The owner of its data and of the folders that are delivered to: useradd --system {user}\nUser={user}\nUMask=0022\n"
        )
    };
    unit.push_str(&by);
    for folder in folders {
        // Of a pattern the part before what varies.
        let fixed: PathBuf = folder
            .components()
            .take_while(|part| !part.as_os_str().to_string_lossy().contains('{'))
            .collect();
        let _infallible = writeln!(unit, "ReadWritePaths=-{}", word(&path_text(&fixed)?));
    }
    unit.push_str("CapabilityBoundingSet=\nProtectHome=yes\n");
    unit.push_str(HARDENED);
    unit.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    Ok(unit)
}

fn program() -> Result<String, Error> {
    let path = std::env::current_exe()
        .map_err(|source| Error::input(format!("whit cannot be found: {source}"), "run it by its path"))?;
    path_text(&path)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| {
        Error::input(format!("{}: {source}", path.display()), "give a path that starts with /")
    })
}

fn path_text(path: &Path) -> Result<String, Error> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    text.map(str::to_owned)
        .ok_or_else(|| Error::input("a unit cannot name that path", "choose one of plain letters"))
}

/// Returns a command line as `ExecStart` has it.
fn line(words: &[String]) -> String {
    // A dollar would begin a variable.
    words.iter().map(|text| word(text).replace('$', "$$")).collect::<Vec<_>>().join(" ")
}

/// Returns a word as a unit has it: quoted where it must be, without specifiers.
fn word(text: &str) -> String {
    let text = percent(text);
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-=:@%+,#".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_out_as_they_were() {
        for (text, expected) in [
            ("/srv/web", "/srv/web"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("50%", "50%%"),
            ("say \"$HOME\\\"", "\"say \\\"$$HOME\\\\\\\"\""),
        ] {
            assert_eq!(line(&[text.to_owned()]), expected, "{text}");
        }
    }
}
