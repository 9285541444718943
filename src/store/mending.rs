//! Reads the files of records, mends damaged ones from the history, and sets aside those that it does not have.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::history::{self, Pushed};
use super::records::{RECORD_BYTES_MAX, Records};
use super::{Error, Result};
use disk::files::{self, OnPath};
use format::record::Record;
use ground::faults::{Fault, Faulty};
use ground::ids::AppName;
use ground::poison::Unpoisoned as _;

/// How the file of a record ends that was found damaged ...
const DAMAGED: &str = "damaged";
/// ... and after an admin was told of it.
const LET_GO: &str = "unreadable";

impl Records {
    /// Returns the records that were found damaged, now or earlier. The chunks that their pushes need are unknown.
    pub fn unreadable(&self) -> Vec<PathBuf> {
        self.unreadable.lock().unpoisoned().clone()
    }

    /// Gives up a record that was found damaged; its bytes stay beside, for people to look at.
    ///
    /// # Errors
    /// The disk's.
    pub fn let_go(&self, path: &Path) -> Result<()> {
        files::rename(path, &path.with_extension(LET_GO))?;
        self.unreadable.lock().unpoisoned().retain(|other| other != path);
        Ok(())
    }

    /// Returns the files whose records are damaged though the history has them; with `repair`, writes these anew and sets
    /// aside those that the history does not have.
    ///
    /// # Errors
    /// The disk's.
    pub fn damaged_on_disk(&self, repair: bool) -> Result<Vec<PathBuf>> {
        let mut damaged = Vec::new();
        for summary in self.apps() {
            for pushed in self.pushed(&summary.app).unwrap_or_default() {
                let path = self.record_path(&summary.app, pushed.sequence);
                let found = match files::read_bounded(&path, RECORD_BYTES_MAX) {
                    Ok(bytes) => Self::decode(&path, &bytes).ok(),
                    Err(error) if matches!(error.fault(), Fault::Missing | Fault::Corrupt) => None,
                    Err(error) => return Err(error.into()),
                };
                if found.is_some_and(|found| Pushed::from(&found) == pushed) {
                    continue;
                }
                // No record is removed or added between the look and the mending.
                let mut held = self.write();
                if !held.pushed(&summary.app).contains(&pushed) {
                    continue;
                }
                if repair && self.mend(&summary.app, &pushed)?.is_none() {
                    self.set_aside(&path)?;
                    held.forget(&summary.app, |other| *other == pushed);
                    self.find_latest(&mut held, &summary.app)?;
                }
                damaged.push(path);
            }
        }
        Ok(damaged)
    }

    /// Writes a record anew, as the history has it.
    pub(super) fn mend(&self, app: &AppName, pushed: &Pushed) -> Result<Option<Record>> {
        let known = history::find(&self.folder.join(app.as_str()), pushed.sequence);
        let Some(record) = known.filter(|record| Pushed::from(record) == *pushed) else { return Ok(None) };
        let path = self.record_path(app, pushed.sequence);
        files::publish(&path, &Self::encode(&record), 0o600)?;
        tracing::warn!(path = %path.display(), "a damaged record was written anew");
        Ok(Some(record))
    }

    /// Sets a damaged record aside, so that its bytes can still be looked at.
    pub(super) fn set_aside(&self, path: &Path) -> Result<()> {
        let aside = path.with_extension(DAMAGED);
        if path.exists() {
            files::rename(path, &aside)?;
            self.unreadable.lock().unpoisoned().push(aside);
        }
        Ok(())
    }

    /// Reads a record's file; none where it is damaged or gone.
    pub(super) fn read_file(path: &Path) -> Result<Option<Record>> {
        let Some(bytes) = files::read_if_there(path, RECORD_BYTES_MAX)? else { return Ok(None) };
        match Self::decode(path, &bytes) {
            Ok(record) => Ok(Some(record)),
            Err(error @ Error::Record { .. }) => {
                tracing::error!(%error, "a record is damaged");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads what is known of an application's pushes, oldest first, and the highest number that any of its
    /// records has or had.
    pub(super) fn read_folder(&self, folder: &Path) -> Result<(Vec<Pushed>, u64)> {
        let (mut there, mut last_number) = (Vec::new(), 0);
        for entry in fs::read_dir(folder).on("list", folder)? {
            let path = entry.on("list", folder)?.path();
            let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
            let number =
                path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            match (kind, number) {
                ("part", _) => files::remove(&path)?,
                ("record" | "removed" | DAMAGED | LET_GO, Some(number)) => {
                    last_number = last_number.max(number);
                    match kind {
                        "record" => there.push(number),
                        DAMAGED => {
                            self.unreadable.lock().unpoisoned().push(path);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        let (known, is_whole) = history::read(folder)?;
        let known_count = known.len();
        let mut known: HashMap<u64, Record> =
            known.into_iter().map(|record| (record.sequence, record)).collect();
        there.sort_unstable();
        let (mut records, mut unknown) = (Vec::with_capacity(there.len()), 0);
        for number in there {
            if let Some(known) = known.remove(&number) {
                records.push(known);
                continue;
            }
            let path = folder.join(format!("{number:010}.record"));
            unknown += 1;
            match Self::read_file(&path)? {
                Some(record) => records.push(record),
                None => self.set_aside(&path)?,
            }
        }
        let is_stale = known_count + unknown > 2 * records.len() + 64;
        if (unknown > 0 || !is_whole || is_stale)
            && let Err(error) = history::replace(folder, &records)
        {
            tracing::debug!(%error, "an application's history was not written; the next start reads its records again");
        }
        Ok((records.iter().map(Pushed::from).collect(), last_number))
    }
}
