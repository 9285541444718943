//! `whit pull --tar`: a release as a tar file.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::access::AccessArgs;
use super::error::Error;
use super::output::{self, Output};
use super::passing_release::{PassingRelease, cannot_write, check_plain};
use crate::agent::pull::{Fetched, LocalChunks};
use crate::delivery::destination::Destinations;
use crate::restore::{self, OutsideLinks, StreamOptions};
use disk::files;
use format::manifest::Root;
use ground::ids::Selector;

/// Fetches a release and writes it to `file`, or to standard output for `-`. A regular file is replaced once the new one is whole.
///
/// # Errors
/// The session's; the file cannot be written.
pub async fn run(
    access: &AccessArgs,
    release: &Selector,
    file: &Path,
    links: OutsideLinks,
    output: &Output,
) -> Result<(), Error> {
    let place = TarPlace::find(file)?;
    let is_content = matches!(place, TarPlace::Output);
    if is_content {
        check_plain(output)?;
    }
    let open = access.open(output, Destinations::new()).await?;
    let written = open.run(async |session| {
        let release = PassingRelease::fetch(session, release, &place.folder(), output).await?;
        let file = file.to_owned();
        release.write(move |root, chunks| write_tar(root, chunks, place, &file, links)).await?;
        Ok(release.fetched)
    });
    let fetched = written.await?;
    if is_content { Ok(()) } else { report(&fetched, file, output) }
}

fn write_tar(
    root: &Root,
    chunks: &LocalChunks<'_>,
    place: TarPlace,
    file: &Path,
    links: OutsideLinks,
) -> Result<(), Error> {
    let cannot = |source: std::io::Error| cannot_write(file, &source);
    let options = StreamOptions { links, ..StreamOptions::default() };
    let write = |to: &mut dyn Write| restore::write_tar(root, chunks, &options, to);
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
    Ok(())
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

fn report(fetched: &Fetched, file: &Path, output: &Output) -> Result<(), Error> {
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
