//! `whit demo`: two releases of something real through a proxy of its own, over real QUIC.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::error::Error;
use super::output::{self, Output};
use super::progress::monitor;
use super::receipt::receipt_text;
use super::signals::interrupted;
use super::workers::threads;
use crate::agent::push::{PushOptions, push};
use crate::agent::{Access, Effort, Receipt, Session};
use crate::delivery::destination;
use crate::library;
use crate::net::link;
use crate::proxy::{Options, Proxy};
use crate::restore::OutsideLinks;
use format::record::DeliveryState;
use ground::faults::Fault;
use ground::ids::DestinationName;

const HELP: &str = "\
Without OLD and NEW, takes the largest library whose sources Cargo has unpacked in two releases below \
CARGO_HOME, as it has for this build's own dependencies. Starts a proxy with empty data on a free loopback port, \
pushes OLD, pushes NEW, has NEW delivered to a directory, and compares the copy with NEW byte for byte. Pushes \
with `--effort bytes`.";

/// Push two releases through a temporary proxy and show what was sent.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct DemoArgs {
    /// The earlier release: a directory or a file.
    #[arg(requires = "new")]
    old: Option<PathBuf>,
    /// The later release.
    new: Option<PathBuf>,
    /// Where to work and leave the delivered copy [default: a new folder in the temporary folder].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(arguments: DemoArgs, output: &Output) -> Result<(), Error> {
    let (old, new) = match (arguments.old, arguments.new) {
        (Some(old), Some(new)) => (old, new),
        _ => dependency_pair().ok_or_else(|| {
            let hint = "give two folders or files: `whit demo OLD NEW`";
            Error::Message {
                fault: Fault::Missing,
                text: "found no dependency of this build in two releases".to_owned(),
                hint: Some(hint.to_owned()),
            }
        })?,
    };
    let folder = match arguments.dir {
        Some(folder) => folder,
        None => {
            tempfile::Builder::new().prefix("whit-demo-").tempdir().map_err(|source| cannot(&source))?.keep()
        }
    };
    let folder = std::path::absolute(folder).map_err(|source| cannot(&source))?;
    output.note(&format!("old: {}\nnew: {}\n", old.display(), new.display()));
    let (first, second) = push_both(&folder, &old, &new, output).await?;
    let copy = copy_of(&second)?;
    let same = compare(&new, Path::new(&copy))?;
    output.report(&json!({ "old": first, "new": second, "copy": copy, "verified_bytes": same }), || {
        let beside = side_by_side(&receipt_text(&first), &receipt_text(&second));
        let sent = output::ratio(second.bytes.logical, second.wire.up + second.wire.down);
        format!(
            "{beside}\n\nThe second push crossed the link in 1/{} of its size.\n\
             A complete copy, {} verified byte for byte, lies in\n  {copy}",
            sent.trim_end_matches(" x"),
            output::bytes(same)
        )
    })
}

/// Serves, pushes OLD, pushes NEW with its delivery, and stops.
async fn push_both(
    folder: &Path,
    old: &Path,
    new: &Path,
    output: &Output,
) -> Result<(Receipt, Receipt), Error> {
    let destination: DestinationName = "copy".parse()?;
    let mut options = Options::new(&folder.join("data"), ([127, 0, 0, 1], 0).into());
    let delivered = destination::local(folder.join("delivered"), OutsideLinks::Refuse);
    options.destinations = BTreeMap::from([(destination.clone(), delivered)]);
    let proxy = library::Proxy::run(Proxy::start(&options)?)?;
    let pushes = async {
        let first = push_one(proxy.access(), old, Vec::new(), output).await?;
        let second = push_one(proxy.access(), new, vec![destination], output).await?;
        Ok((first, second))
    };
    let result = tokio::select! {
        result = pushes => result,
        () = interrupted() => Err(Error::Interrupted),
    };
    proxy.stop().await;
    result
}

/// One push on a connection of its own, so that its handshake counts.
async fn push_one(
    access: &Access,
    path: &Path,
    destinations: Vec<DestinationName>,
    output: &Output,
) -> Result<Receipt, Error> {
    let session = Session::open(access, &link::Options::default()).await?;
    let options = PushOptions {
        destinations,
        threads: threads(),
        effort: Effort::Bytes,
        ..PushOptions::new("demo".parse()?, path.to_owned())
    };
    let receipt = push(&session, &options, &monitor(output, "sending")).await?;
    session.finish().await;
    Ok(receipt)
}

/// Where the delivered copy lies.
fn copy_of(receipt: &Receipt) -> Result<String, Error> {
    super::deliveries::delivered_all(&receipt.delivered)?;
    match receipt.delivered.first().map(|event| &event.state) {
        Some(DeliveryState::Delivered(report)) => Ok(report.place.clone()),
        _ => Err(crate::agent::Error::Ended.into()),
    }
}

/// Compares every file of `new` with its copy, with nothing of whit's own in between; returns the bytes.
fn compare(new: &Path, copy: &Path) -> Result<u64, Error> {
    let kind = std::fs::symlink_metadata(new).map_err(|source| cannot(&source))?;
    if kind.is_symlink() {
        return Ok(0);
    }
    if kind.is_file() {
        let copy =
            if copy.is_dir() { copy.join(new.file_name().unwrap_or_default()) } else { copy.to_owned() };
        return same_file(new, &copy);
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(new).map_err(|source| cannot(&source))? {
        let entry = entry.map_err(|source| cannot(&source))?;
        let (from, to) = (entry.path(), copy.join(entry.file_name()));
        let is_dir = entry.file_type().map_err(|source| cannot(&source))?.is_dir();
        bytes += if is_dir {
            compare(&from, &to)?
        } else if from.is_symlink() {
            0
        } else {
            same_file(&from, &to)?
        };
    }
    Ok(bytes)
}

fn same_file(new: &Path, copy: &Path) -> Result<u64, Error> {
    let read = |path: &Path| std::fs::read(path).map_err(|source| cannot(&source));
    let (expected, found) = (read(new)?, read(copy)?);
    if expected == found {
        return Ok(expected.len() as u64);
    }
    let text = format!("the delivered {} differs from {}", copy.display(), new.display());
    Err(Error::Message { fault: Fault::Bug, text, hint: None })
}

fn cannot(source: &std::io::Error) -> Error {
    Error::Message { fault: Fault::of_io(source), text: source.to_string(), hint: None }
}

fn side_by_side(left: &str, right: &str) -> String {
    let width = left.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let mut rights = right.lines();
    let mut lines: Vec<String> =
        left.lines().map(|line| format!("{line:<width$}   {}", rights.next().unwrap_or_default())).collect();
    lines.extend(rights.map(|line| format!("{:<width$}   {line}", "")));
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// The largest library whose sources Cargo has unpacked in two releases, the earlier first.
fn dependency_pair() -> Option<(PathBuf, PathBuf)> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))?;
    let mut releases: BTreeMap<String, Vec<(Vec<u64>, PathBuf)>> = BTreeMap::new();
    for registry in std::fs::read_dir(home.join("registry/src")).ok()?.flatten() {
        for entry in std::fs::read_dir(registry.path()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((name, version)) = split_version(&name) else { continue };
            releases.entry(name.to_owned()).or_default().push((version, entry.path()));
        }
    }
    let mut pairs: Vec<(u64, PathBuf, PathBuf)> = Vec::new();
    for mut found in releases.into_values().filter(|found| found.len() > 1) {
        found.sort();
        if let [.., (_, old), (_, new)] = found.as_slice() {
            pairs.push((size_of_tree(new), old.clone(), new.clone()));
        }
    }
    pairs.into_iter().max().map(|(_, old, new)| (old, new))
}

/// `syn-2.0.1` as `syn` and its numbers.
fn split_version(name: &str) -> Option<(&str, Vec<u64>)> {
    let (crate_name, version) = name.rsplit_once('-')?;
    let numbers = version.split('.').map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
    (numbers.len() == 3).then_some((crate_name, numbers))
}

fn size_of_tree(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size_of_tree(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}
