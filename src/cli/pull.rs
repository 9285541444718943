//! `whit pull` and `whit cat`.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::access::AccessArgs;
use super::error::Error;
use super::links::WrittenLinks;
use super::output::{self, Output};
use super::progress::monitor;
use super::progress::watched;
use super::rate::link_rate;
use super::watch::{self, HookArgs, Watching};
use super::workers::threads;
use crate::agent::pull::{
    DirectoryChunks, FetchOptions, Fetched, LocalChunks, PullOptions, Pulled, SetAside, fetch,
};
use crate::agent::{LazyStore, Session};
use crate::delivery::destination::Destinations;
use crate::net::blocking;
use crate::restore::{self, OutsideLinks, StreamOptions};
use crate::store;
use crate::target::StateFile;
use crate::target::place::{Layout, Place, PlaceOptions, SharedPath};
use disk::files;
use format::manifest::EntryPath;
use ground::escape;
use ground::faults::{Fault, io_hint};
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

/// Write one file of a release to standard output.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// APP, APP@LABEL, APP@RELEASE or APP@latest; APP alone is its current release.
    release: Selector,
    /// The file's path in the release; not needed if the release is a single file.
    path: Option<String>,
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
    let link_rate = arguments.link.as_deref().map(link_rate).transpose()?;
    let to_stdout = arguments.tar.as_deref() == Some(Path::new("-"));
    if to_stdout {
        check_plain(output)?;
    }
    let place_options = place_options(arguments.layout, &arguments.shared)?;
    let outside_links = arguments.links.into();
    if arguments.watch {
        let pull = PullOptions {
            delete: arguments.delete,
            threads: threads(),
            outside_links,
            link_rate,
            keep: arguments.keep,
        };
        let (directory, hooks) = (arguments.dir.unwrap_or_default(), arguments.hooks.hooks()?);
        let place = PlaceOptions { otherwise: Layout::Releases, ..place_options };
        let watching = Watching { release, directory, place, pull, hooks };
        return watch::run(watching, &arguments.access, output).await;
    }
    let open = arguments.access.open(output, Destinations::new()).await?;
    if let Some(file) = arguments.tar {
        let fetched =
            open.run(async |session| tar(session, &release, &file, outside_links, output).await).await?;
        return if to_stdout { Ok(()) } else { report_tar(&fetched, &file, output) };
    }
    let target = arguments.dir.unwrap_or_default();
    let (delete, keep) = (arguments.delete, arguments.keep);
    let options = PullOptions { delete, threads: threads(), outside_links, link_rate, keep };
    let monitor = monitor(output, "fetching");
    let pulled = open
        .run(async |session| {
            let mut place = open_place(target, place_options, Arc::clone(&monitor)).await?;
            let pulling = Box::pin(place.pull(session, &release, options, None, &monitor));
            let pulled = watched(session, &*monitor, pulling).await?;
            let release = pulled.release;
            held_up(move || note_by_hand(place, release)).await?;
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

/// Tells who watches for the place that a person has shown a release.
fn note_by_hand(mut place: Place, release: ReleaseId) -> Result<(), Error> {
    Ok(StateFile::new(&place.own_folder()?).note_by_hand(release)?)
}

impl From<PulledLayout> for Layout {
    fn from(layout: PulledLayout) -> Self {
        match layout {
            PulledLayout::Plain => Self::Plain,
            PulledLayout::Releases => Self::Releases,
        }
    }
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
    target: PathBuf,
    options: PlaceOptions,
    monitor: Arc<dyn Monitor>,
) -> Result<Place, Error> {
    held_up(move || Ok(Place::open(&target, &options, &*monitor)?)).await
}

async fn roll_back(place: &Path, output: &Output) -> Result<(), Error> {
    let monitor = monitor(output, "fetching");
    let mut opened = open_place(place.to_owned(), place_options(None, &[])?, Arc::clone(&monitor)).await?;
    let (left, back, previous, layout) = held_up(move || {
        let left = opened.shown()?.map(|(release, _)| release);
        let back = opened.go_back(left.as_ref(), &*monitor)?;
        let (layout, previous) = (opened.layout(), opened.previous()?.map(|(release, _)| release));
        note_by_hand(opened, back.release)?;
        Ok((left, back, previous, layout))
    })
    .await?;
    let value = json!({
        "release": back.release, "left": left, "place": escape::path(place), "layout": layout,
        "copy": escape::path(&back.copy), "previous": previous, "set_aside": back.set_aside,
    });
    output.report(&value, || {
        let shown = format!("{} shows release {} again", escape::path(place), back.release.short());
        [shown].into_iter().chain(set_aside_text(&back.set_aside)).collect::<Vec<_>>().join("\n")
    })
}

/// Refuses `--json` where standard output is for the content.
fn check_plain(output: &Output) -> Result<(), Error> {
    if output.is_json() {
        return Err(Error::input(
            "standard output holds the content, so it cannot hold JSON",
            "leave out --json",
        ));
    }
    Ok(())
}

fn report_tar(fetched: &Fetched, file: &Path, output: &Output) -> Result<(), Error> {
    let (record, totals) = (&fetched.record, fetched.root.totals);
    let value = json!({
        "release": record.release, "app": record.app, "place": file.to_string_lossy(),
        "files": totals.files, "bytes": totals.bytes,
    });
    output.report(&value, || {
        let content = format!("{} in {} files", output::bytes(totals.bytes), output::count(totals.files));
        let release = record.release.short();
        format!("pulled {}, release {release}, into {}\n  content    {content}", record.app, file.display())
    })
}

/// Runs `whit cat`.
pub async fn cat(arguments: CatArgs, output: &Output) -> Result<(), Error> {
    check_plain(output)?;
    let path = match &arguments.path {
        Some(path) => Some(EntryPath::new(path.as_bytes()).map_err(restore::Error::from)?),
        None => None,
    };
    let open = arguments.access.open(output, Destinations::new()).await?;
    open.run(async |session| {
        let aside = fetch_aside(session, &arguments.release, &std::env::temp_dir(), output).await?;
        let Aside { fetched, store, folder } = aside;
        let written = held_up(move || {
            let local = LocalChunks { present: &DirectoryChunks::default(), fetched: &store };
            restore::write_file(&fetched.root, &local, path.as_ref(), &mut std::io::stdout().lock())?;
            std::io::stdout().flush().map_err(Error::Output)
        });
        written.await?;
        drop(folder);
        Ok(())
    })
    .await
}

async fn tar(
    session: &Session,
    release: &Selector,
    file: &Path,
    links: OutsideLinks,
    output: &Output,
) -> Result<Fetched, Error> {
    let place = TarPlace::find(file)?;
    let Aside { fetched, store, folder } = fetch_aside(session, release, &place.folder(), output).await?;
    let file = file.to_owned();
    let fetched = held_up(move || write_tar(fetched, &store, place, &file, links)).await?;
    drop(folder);
    Ok(fetched)
}

/// Runs work that takes long off the async threads. Ctrl-C does not wait for it.
async fn held_up<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    blocking::start(work).await.map_err(crate::agent::Error::from)?
}

/// Writes a fetched release as a tar file.
fn write_tar(
    fetched: Fetched,
    store: &LazyStore,
    place: TarPlace,
    file: &Path,
    links: OutsideLinks,
) -> Result<Fetched, Error> {
    let local = LocalChunks { present: &DirectoryChunks::default(), fetched: store };
    let cannot = |source: std::io::Error| cannot_write(file, &source);
    let options = StreamOptions { links, ..StreamOptions::default() };
    let write = |to: &mut dyn Write| restore::write_tar(&fetched.root, &local, &options, to);
    match place {
        TarPlace::Output => {
            write(&mut std::io::stdout().lock())?;
            std::io::stdout().flush().map_err(Error::Output)?;
        }
        TarPlace::Through => {
            // The link may lead to a file that does not exist yet.
            let file =
                OpenOptions::new().write(true).create(true).truncate(true).open(file).map_err(cannot)?;
            let mut writer = BufWriter::with_capacity(1024 * 1024, file);
            write(&mut writer)?;
            writer.flush().map_err(cannot)?;
        }
        TarPlace::File(path) => {
            let (beside, opened) = files::create_aside(&path, 0o666)?;
            let finish = || -> Result<(), Error> {
                // Closed as the one before was, from its first byte.
                if let Ok(there) = std::fs::metadata(&path) {
                    opened.set_permissions(there.permissions()).map_err(cannot)?;
                }
                let mut writer = BufWriter::with_capacity(1024 * 1024, &opened);
                write(&mut writer)?;
                writer.flush().map_err(cannot)?;
                drop(writer);
                opened.sync_all().map_err(cannot)?;
                Ok(files::rename(&beside, &path)?)
            };
            finish().inspect_err(|_| drop(std::fs::remove_file(&beside)))?;
        }
    }
    Ok(fetched)
}

/// Where a tar file goes.
enum TarPlace {
    /// Standard output.
    Output,
    /// An existing device or pipe, or the target of a link: written to, not replaced.
    Through,
    /// A regular file, written aside and renamed. The path is absolute.
    File(PathBuf),
}

impl TarPlace {
    fn find(file: &Path) -> Result<Self, Error> {
        if file == Path::new("-") {
            return Ok(Self::Output);
        }
        let path = std::path::absolute(file).map_err(|source| cannot_write(file, &source))?;
        match std::fs::symlink_metadata(&path) {
            Ok(there) if there.is_dir() => {
                let hint = format!("name a file in it, as {}", file.join("release.tar").display());
                Err(Error::input(format!("{} is a directory", file.display()), hint))
            }
            Ok(there) if !there.is_file() => Ok(Self::Through),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(cannot_write(file, &error)),
            _ => Ok(Self::File(path)),
        }
    }

    /// The folder for fetched chunks: on the same file system as the tar file, if that is a regular file.
    fn folder(&self) -> PathBuf {
        match self {
            Self::File(path) => path.parent().map_or_else(std::env::temp_dir, Path::to_owned),
            Self::Output | Self::Through => std::env::temp_dir(),
        }
    }
}

/// A release in a store of its own.
struct Aside {
    fetched: Fetched,
    // Closed before its folder goes: a store that closes writes its last pack.
    store: Arc<LazyStore>,
    folder: tempfile::TempDir,
}

/// Fetches a whole release into a store in a temporary folder inside `folder`, which goes with what is returned.
async fn fetch_aside(
    session: &Session,
    release: &Selector,
    folder: &Path,
    output: &Output,
) -> Result<Aside, Error> {
    let aside = tempfile::tempdir_in(folder).map_err(|source| cannot_write(folder, &source))?;
    let store = Arc::new(LazyStore::new(aside.path().join("store"), store::Options::PASSING));
    let monitor = monitor(output, "fetching");
    let present = Arc::new(DirectoryChunks::default().into());
    let fetching = fetch(session, release, &present, &store, FetchOptions::default(), &monitor);
    let fetched = watched(session, &*monitor, fetching).await?;
    Ok(Aside { fetched, store, folder: aside })
}

fn cannot_write(path: &Path, source: &std::io::Error) -> Error {
    Error::Message {
        fault: Fault::of_io(source),
        text: format!("could not write {}: {source}", path.display()),
        hint: io_hint(source, path),
    }
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
