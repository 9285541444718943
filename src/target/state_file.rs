//! The durable file of a watching target, in the private folder of its place (FORMAT 9.1).
//!
//! Whoever writes it holds the place, so that a watching target and a person who pulls by hand never write at a time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use disk::files::{self, OnPath as _};
use format::watched::Watched;
use ground::faults::{Fault, Faulty as _};
use ground::ids::ReleaseId;

/// Its name in the folder.
const NAME: &str = "watched";
/// The name of the file that holds room for it.
const ROOM: &str = "watched-room";
/// 128 KiB: room for what a target usually remembers, and the copy that replaces it.
const ROOM_BYTES: usize = 128 * 1024;
/// 1 MiB: more than 64 bad releases with their reasons take.
const BYTES_MAX: u64 = 1024 * 1024;

/// The file.
#[derive(Debug, Clone)]
pub struct StateFile(PathBuf);

impl StateFile {
    /// Names the file in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self(folder.join(NAME))
    }

    /// Reads it; none where it is not there or unusable: damaged, or of another version.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self) -> files::Result<Option<Watched>> {
        let bytes = files::read_if_there(&self.0, BYTES_MAX)?;
        Ok(bytes.and_then(|bytes| Watched::decode(&bytes)))
    }

    /// Holds room on the disk, so that what fails because the disk is full can be remembered. Where there is none, it does without.
    pub fn hold_room(&self) {
        let room = self.0.with_file_name(ROOM);
        if !room.exists() {
            drop(files::publish(&room, &vec![0; ROOM_BYTES], 0o600));
        }
    }

    /// Writes it durably; on a full disk in the room that is held.
    ///
    /// # Errors
    /// The old content is still there. One that would be too long to be read is not written.
    pub fn write(&self, watched: &Watched) -> files::Result<()> {
        let bytes = watched.encode();
        if bytes.len() as u64 > BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge)).on("write", &self.0);
        }
        let write = || files::publish(&self.0, &bytes, 0o600);
        write().or_else(|error| match error.fault() {
            Fault::Full => {
                files::remove(&self.0.with_file_name(ROOM))?;
                write()
            }
            _ => Err(error),
        })
    }

    /// Returns when it was written last; none where it is not there.
    pub fn written(&self) -> Option<SystemTime> {
        fs::metadata(&self.0).ok()?.modified().ok()
    }

    /// Notes that a person has shown `release`: it is proven by the target that watches, and stays until something else is wanted.
    /// Nothing where no target watches the place.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn note_by_hand(&self, release: ReleaseId) -> files::Result<()> {
        let Some(mut watched) = self.read()? else { return Ok(()) };
        watched.shown_by_hand(&release);
        self.write(&watched)
    }
}
