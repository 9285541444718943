//! `whit pull` and `whit cat`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::output::{self, Output};
use super::progress::watched;
use super::push::link_rate;
use super::{AccessArgs, Error, monitor, threads};
use crate::agent::Session;
use crate::agent::pull::{Fetched, Held, Present, PullOptions, Pulled, fetch, pull_tree};
use crate::faults::{Fault, io_hint};
use crate::ids::Selector;
use crate::manifest::EntryPath;
use crate::reassembly;
use crate::store::{self, Store};

const HELP: &str = "\
Only chunks that DIR's present content does not have are fetched; every byte is verified; DIR shows the
old tree or the new one, never a mixture. Afterwards DIR holds the release and nothing else. Beside it,
`.DIR.whit` keeps a mark, and what an interrupted pull has fetched.

  whit pull web /srv/web
  whit pull web@v1.2.3 /srv/web
  whit pull web --tar - | tar t";

/// Make a directory equal to a release.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct PullArgs {
    /// APP, APP@LABEL or APP@RELEASE; the latest release where none is named.
    release: Selector,
    /// The directory; made where there is none.
    #[arg(required_unless_present = "tar")]
    dir: Option<PathBuf>,
    /// Replace a directory whose content no pull has made.
    #[arg(long)]
    replace: bool,
    /// Write a tar file instead, or - for standard output: the same release gives the same bytes.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "replace"])]
    tar: Option<PathBuf>,
    /// How fast the link is, like 20mbit: below some 200mbit executables are told by their functions, which takes seconds
    /// at both ends and a third of the bytes.
    #[arg(long, value_name = "RATE")]
    link: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Write one file of a release to standard output.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// APP, APP@LABEL or APP@RELEASE; the latest release where none is named.
    release: Selector,
    /// The file's path in the release; not needed where the release is a single file.
    path: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs `whit pull`.
pub async fn run(arguments: PullArgs, output: &Output) -> Result<(), Error> {
    let link_rate = arguments.link.as_deref().map(link_rate).transpose()?;
    let to_stdout = arguments.tar.as_deref() == Some(Path::new("-"));
    if to_stdout {
        check_plain(output)?;
    }
    let open = arguments.access.open(output, Vec::new()).await?;
    if let Some(file) = arguments.tar {
        let fetched = open.run(async |session| tar(session, &arguments.release, &file, output).await).await?;
        return if to_stdout { Ok(()) } else { report_tar(&fetched, &file, output) };
    }
    let target = arguments.dir.unwrap_or_default();
    let options = PullOptions { replace: arguments.replace, threads: threads(), link_rate };
    let monitor = monitor(output, "fetching");
    let pulled = open
        .run(async |session| {
            let pulling = pull_tree(session, &arguments.release, &target, options, &monitor);
            Ok(watched(session, &*monitor, pulling).await?)
        })
        .await;
    drop(monitor);
    let pulled = pulled?;
    output.report(&pulled, || pulled_text(&pulled))
}

/// Standard output has room for one thing.
fn check_plain(output: &Output) -> Result<(), Error> {
    if output.is_json() {
        return Err(Error::input(
            "the release's bytes go to standard output, and no JSON",
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
        Some(path) => Some(EntryPath::new(path.as_bytes()).map_err(reassembly::Error::from)?),
        None => None,
    };
    let open = arguments.access.open(output, Vec::new()).await?;
    open.run(async |session| {
        let (fetched, store, _folder) =
            fetch_aside(session, &arguments.release, &std::env::temp_dir(), output).await?;
        let held = Held { present: &Present::default(), fetched: &store };
        reassembly::write_file(&fetched.root, &held, path.as_ref(), &mut std::io::stdout().lock())?;
        std::io::stdout().flush().map_err(Error::Output)
    })
    .await
}

async fn tar(session: &Session, release: &Selector, file: &Path, output: &Output) -> Result<Fetched, Error> {
    let to_stdout = file == Path::new("-");
    let folder = file.parent().filter(|folder| !to_stdout && !folder.as_os_str().is_empty());
    let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
    let (fetched, store, _aside) = fetch_aside(session, release, &folder, output).await?;
    let held = Held { present: &Present::default(), fetched: &store };
    if to_stdout {
        reassembly::write_tar(&fetched.root, &held, &mut std::io::stdout().lock())?;
        std::io::stdout().flush().map_err(Error::Output)?;
        return Ok(fetched);
    }
    let mut aside = tempfile::NamedTempFile::new_in(&folder).map_err(|source| cannot_write(file, &source))?;
    {
        let mut writer = std::io::BufWriter::with_capacity(1024 * 1024, aside.as_file_mut());
        reassembly::write_tar(&fetched.root, &held, &mut writer)?;
        writer.flush().map_err(|source| cannot_write(file, &source))?;
    }
    aside.as_file().sync_all().map_err(|source| cannot_write(file, &source))?;
    aside.persist(file).map_err(|error| cannot_write(file, &error.error))?;
    Ok(fetched)
}

/// Fetches a whole release into a store in a temporary folder inside `folder`, which goes with what is returned.
async fn fetch_aside(
    session: &Session,
    release: &Selector,
    folder: &Path,
    output: &Output,
) -> Result<(Fetched, Arc<Store>, tempfile::TempDir), Error> {
    let aside = tempfile::tempdir_in(folder).map_err(|source| cannot_write(folder, &source))?;
    let store = Store::open(aside.path(), store::Options::PASSING).map_err(crate::agent::Error::from)?;
    let store = Arc::new(store);
    let monitor = monitor(output, "fetching");
    let present = Arc::new(Present::default());
    let fetching = fetch(session, release, &present, &store, None, &monitor);
    let fetched = watched(session, &*monitor, fetching).await?;
    Ok((fetched, store, aside))
}

fn cannot_write(path: &Path, source: &std::io::Error) -> Error {
    Error::Told {
        fault: Fault::of_io(source),
        text: format!("could not write {}: {source}", path.display()),
        hint: io_hint(source, path),
    }
}

fn pulled_text(pulled: &Pulled) -> String {
    let lines = [
        format!("pulled {}, release {}, into {}", pulled.app, pulled.release.short(), pulled.place.display()),
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
    lines.join("\n")
}
