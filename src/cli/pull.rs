//! `whit pull`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::access::AccessArgs;
use super::error::Error;
use super::links::WrittenLinks;
use super::output::{self, Output};
use super::progress::{monitor, watched};
use super::rate::link_rate;
use super::tar;
use super::watch::{self, HookArgs, WatchOptions};
use super::workers::threads;
use crate::agent::pull::{PullOptions, Pulled, SetAside};
use crate::delivery::destination::Destinations;
use crate::net::blocking;
use crate::target::StateFile;
use crate::target::place::{Layout, Place, PlaceOptions, SharedPath};
use ground::escape;
use ground::ids::{ReleaseId, Selector};
use ground::monitor::Monitor;

const HELP: &str = "\
Only chunks that DIR's present content does not have are fetched; every byte is verified; readers see the old \
release or the new one, never a mixture; what did not change is not written.

plain: DIR holds the release and nothing else, and is exchanged with the next one. A pull refuses, and lists \
them, while there are files that no pull has put there, unless --delete is given. Files of the release that you \
have changed are set aside. `.DIR.whit`, beside DIR, holds them, a list of what was put there, and what an \
interrupted pull has fetched.

releases: DIR/releases holds complete copies, DIR/current leads to the one that is shown, DIR/shared has what all \
share. Works in a mount point or volume; a process in the old release keeps it.

  whit pull web /srv/web
  whit pull web@v1.2.3 /srv/web
  whit pull web /srv/web --layout releases --shared uploads/
  whit pull --rollback /srv/web
  whit pull web --tar - | tar t";

/// Make a directory equal to a release.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct PullArgs {
    /// APP, APP@LABEL, APP@RELEASE or APP@latest; APP alone is its current release.
    #[arg(required_unless_present = "rollback")]
    release: Option<Selector>,
    /// The directory; created if missing.
    #[arg(required_unless_present_any = ["tar", "rollback"])]
    dir: Option<PathBuf>,
    /// How DIR holds the release; remembered. By default plain, with --watch releases.
    #[arg(long, value_name = "LAYOUT", value_enum)]
    layout: Option<PulledLayout>,
    /// How many copies to keep, the shown one included, to go back to; remembered. By default 1 in a plain directory, which keeps 2
    /// at most, and 3 in one of releases.
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// A path of the release that lives in DIR/shared and is linked into each copy, a folder if it ends with a slash; repeatable,
    /// remembered. Only with --layout releases.
    #[arg(long, value_name = "PATH")]
    shared: Vec<String>,
    /// Show the copy again that DIR showed before, without the proxy. Nothing else is pulled.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["release", "dir", "delete", "tar", "layout", "keep", "shared", "link"])]
    rollback: Option<PathBuf>,
    /// Remove files in DIR that no pull has put there.
    #[arg(long, alias = "replace")]
    delete: bool,
    /// Write a tar file instead, or - for standard output: the same release gives the same bytes. A device, a pipe or
    /// the target of a link is written to, not replaced.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "delete", "layout", "keep", "shared"])]
    tar: Option<PathBuf>,
    /// How fast the link is, like 20mbit: below some 25mbit executables are sent by their functions, which takes seconds
    /// at both ends and a third of the bytes.
    #[arg(long, value_name = "RATE")]
    link: Option<String>,
    /// How to treat symbolic links that lead outside the release.
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    links: WrittenLinks,
    /// Go on: show what becomes the current release, or that of the label, as soon as it does. Needs a token with a target's name.
    #[arg(long, id = "watching", conflicts_with_all = ["tar", "rollback"])]
    watch: bool,
    #[command(flatten)]
    hooks: HookArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs `whit pull`.
pub async fn run(arguments: PullArgs, output: &Output) -> Result<(), Error> {
    if let Some(place) = arguments.rollback {
        return roll_back(&place, output).await;
    }
    let Some(release) = arguments.release else { return Ok(()) };
    if arguments.keep == Some(0) {
        return Err(Error::input("the shown copy itself is kept", "give --keep 1 or more"));
    }
    let options = PullOptions {
        delete: arguments.delete,
        threads: threads(),
        outside_links: arguments.links.into(),
        link_rate: arguments.link.as_deref().map(link_rate).transpose()?,
        keep: arguments.keep,
    };
    if let Some(file) = arguments.tar {
        return tar::run(&arguments.access, &release, &file, options.outside_links, output).await;
    }
    let (directory, place) =
        (arguments.dir.unwrap_or_default(), place_options(arguments.layout, &arguments.shared)?);
    if arguments.watch {
        let place = PlaceOptions { otherwise: Layout::Releases, ..place };
        let options =
            WatchOptions { release, directory, place, pull: options, hooks: arguments.hooks.hooks()? };
        return watch::run(options, &arguments.access, output).await;
    }
    let open = arguments.access.open(output, Destinations::new()).await?;
    let monitor = monitor(output, "fetching");
    let pulled = open
        .run(async |session| {
            let mut place = open_place(directory, place, Arc::clone(&monitor)).await?;
            let pulling = Box::pin(place.pull(session, &release, options, None, &monitor));
            let pulled = watched(session, &*monitor, pulling).await?;
            let release = pulled.release;
            blocking::start(move || note_by_hand(place, release)).await??;
            Ok(pulled)
        })
        .await;
    drop(monitor);
    let pulled = pulled?;
    output.report(&pulled, || pulled_text(&pulled))
}

/// How a pulled directory holds its release.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum PulledLayout {
    /// DIR holds the release and nothing else.
    Plain,
    /// DIR/releases holds complete copies, and DIR/current leads to one.
    Releases,
}

impl From<PulledLayout> for Layout {
    fn from(layout: PulledLayout) -> Self {
        match layout {
            PulledLayout::Plain => Self::Plain,
            PulledLayout::Releases => Self::Releases,
        }
    }
}

/// Notes for a target that watches the place that a person has shown a release.
fn note_by_hand(mut place: Place, release: ReleaseId) -> Result<(), Error> {
    Ok(StateFile::new(&place.own_folder()?).note_by_hand(release)?)
}

/// Returns what the command line says of the place.
fn place_options(layout: Option<PulledLayout>, shared: &[String]) -> Result<PlaceOptions, Error> {
    let mistake = |path: &String| {
        let hint = "name a path below the release, like uploads/ or config/local.toml";
        Error::input(format!("`{}` cannot be shared", escape::text(path)), hint)
    };
    let paths = shared.iter().map(|path| SharedPath::try_from(path.clone()).map_err(|_| mistake(path)));
    let paths: Vec<SharedPath> = paths.collect::<Result<_, _>>()?;
    let shared = (!paths.is_empty()).then_some(paths);
    Ok(PlaceOptions { layout: layout.map(Into::into), otherwise: Layout::Plain, shared })
}

async fn open_place(
    directory: PathBuf,
    options: PlaceOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<Place, Error> {
    Ok(blocking::start(move || Place::open(&directory, &options, &*monitor)).await??)
}

/// Shows the copy before again.
async fn roll_back(place: &Path, output: &Output) -> Result<(), Error> {
    let monitor = monitor(output, "fetching");
    let mut opened = open_place(place.to_owned(), place_options(None, &[])?, Arc::clone(&monitor)).await?;
    let (left, back, previous, layout) = blocking::start(move || {
        let left = opened.shown()?.map(|(release, _)| release);
        let back = opened.go_back(left.as_ref(), &*monitor)?;
        let (layout, previous) = (opened.layout(), opened.previous()?.map(|(release, _)| release));
        note_by_hand(opened, back.release)?;
        Ok::<_, Error>((left, back, previous, layout))
    })
    .await??;
    let value = json!({
        "release": back.release, "left": left, "place": escape::path(place), "layout": layout,
        "copy": escape::path(&back.copy), "previous": previous, "set_aside": back.set_aside,
    });
    output.report(&value, || {
        let shown = format!("{} shows release {} again", escape::path(place), back.release.short());
        [shown].into_iter().chain(set_aside_text(&back.set_aside)).collect::<Vec<_>>().join("\n")
    })
}

fn pulled_text(pulled: &Pulled) -> String {
    let (app, release, place) = (&pulled.app, pulled.release.short(), escape::path(&pulled.place));
    if pulled.unchanged {
        return format!("{place} holds {app}, release {release}, already: nothing was written");
    }
    let mut lines = vec![
        format!("pulled {app}, release {release}, into {place}"),
        format!("  content    {} in {} files", output::bytes(pulled.bytes), output::count(pulled.files)),
        format!(
            "  fetched    {} in {} chunks",
            output::bytes(pulled.fetched_bytes),
            output::count(pulled.fetched_chunks)
        ),
        format!(
            "  wire       {} up, {} down",
            output::bytes(pulled.wire.up),
            output::bytes(pulled.wire.down)
        ),
        format!("  time       {:.2} s", pulled.seconds),
    ];
    if let Some(previous) = &pulled.previous {
        lines.push(format!("  previous   release {}, kept; back with --rollback", previous.short()));
    }
    lines.extend(set_aside_text(&pulled.set_aside));
    lines.join("\n")
}

fn set_aside_text(SetAside { count, some, place }: &SetAside) -> Option<String> {
    let place = place.as_ref()?;
    let more = if *count > some.len() as u64 { " …" } else { "" };
    let count = output::count(*count);
    Some(format!("  set aside  {count} changed by you, in {place}: {}{more}", some.join(", ")))
}
