//! Remembers where complete copies of releases were delivered, so that lost chunks can be taken from them.
//!
//! `delivered/NAME.place` in the space's folder, one for each application and folder (FORMAT 7): a version byte, the
//! application and the folder's path in MessagePack, and the first 16 bytes of the BLAKE3 of both. Only hints: a
//! folder may be gone, and every byte read there is compared with its chunk's name.

use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use super::Result;
use disk::files::{self, OnPath};
use format::value;
use ground::ids::AppName;
use ground::poison::Unpoisoned as _;

const VERSION: u8 = 1;
/// A path has at most 4 KiB; the rest fits easily.
const PLACE_BYTES_MAX: u64 = 8 * 1024;
/// The most folders remembered; the one delivered to longest ago makes room for another.
const PLACES_MAX: usize = 1024;
const EXTENSION: &str = "place";

/// The places of one space. Takes no memory: the files are read when they are needed.
#[derive(Debug)]
pub struct Copies {
    folder: PathBuf,
    /// Locked while a place is noted.
    noting: Mutex<()>,
}

impl Copies {
    /// Opens the places recorded in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, noting: Mutex::new(()) }
    }

    /// Notes that the application's releases are delivered to `place`.
    ///
    /// # Errors
    /// The disk's; the delivery is made all the same.
    pub fn note(&self, app: &AppName, place: &Path) -> Result<()> {
        let place = std::path::absolute(place).on("find", place)?;
        let content = encode(app, &place);
        let path = self.folder.join(name(app, &place));
        let _alone = self.noting.lock().unpoisoned();
        if files::read_if_there(&path, PLACE_BYTES_MAX)?.is_some_and(|found| found == content) {
            let file = fs::File::options().append(true).open(&path).on("open", &path)?;
            return Ok(file.set_modified(SystemTime::now()).on("touch", &path)?);
        }
        files::create_folder(&self.folder)?;
        self.make_room()?;
        Ok(files::publish(&path, &content, 0o600)?)
    }

    /// Returns the folders that the application was delivered to, in no order.
    ///
    /// # Errors
    /// The disk's.
    pub fn of(&self, app: &AppName) -> Result<Vec<PathBuf>> {
        let mut places = Vec::new();
        for path in self.list()? {
            let read = files::read_bounded(&path, PLACE_BYTES_MAX).ok();
            // A damaged file is a lost hint.
            if let Some((of, place)) = read.and_then(|bytes| decode(&bytes))
                && of == *app
            {
                places.push(place);
            }
        }
        Ok(places)
    }

    fn list(&self) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.on("list", &self.folder)?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.on("list", &self.folder)?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    fn make_room(&self) -> Result<()> {
        let mut paths = self.list()?;
        if paths.len() < PLACES_MAX {
            return Ok(());
        }
        let noted = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
        paths.sort_by_cached_key(noted);
        let many = paths.len() + 1 - PLACES_MAX;
        Ok(paths[..many].iter().try_for_each(|path| files::remove(path))?)
    }
}

fn name(app: &AppName, place: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(app.as_str().as_bytes()).update(&[0]).update(place.as_os_str().as_bytes());
    format!("{}.{EXTENSION}", &hasher.finalize().to_hex()[..32])
}

fn encode(app: &AppName, place: &Path) -> Vec<u8> {
    value::encode_checked(VERSION, &(app.as_str(), place.as_os_str().as_bytes()))
}

fn decode(bytes: &[u8]) -> Option<(AppName, PathBuf)> {
    let (app, place): (String, Vec<u8>) = value::decode_checked(VERSION..=VERSION, bytes).ok()?;
    Some((app.parse().ok()?, std::ffi::OsString::from_vec(place).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_remembered_by_application_and_what_is_damaged_is_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copies = Copies::new(folder.path().join("delivered"));
        let app = |name: &str| name.parse::<AppName>().expect("a name");
        assert!(copies.of(&app("a")).expect("listed").is_empty());
        for _ in 0..2 {
            copies.note(&app("a"), Path::new("/srv/a")).expect("noted");
        }
        copies.note(&app("a"), Path::new("/srv/other")).expect("noted");
        copies.note(&app("b"), Path::new("/srv/a")).expect("noted");
        let mut found = copies.of(&app("a")).expect("listed");
        found.sort();
        assert_eq!(found, [Path::new("/srv/a"), Path::new("/srv/other")]);
        assert_eq!(copies.of(&app("b")).expect("listed"), [Path::new("/srv/a")]);
        for path in copies.list().expect("listed") {
            let mut bytes = fs::read(&path).expect("a place");
            bytes[3] ^= 1;
            fs::write(&path, bytes).expect("damaged");
        }
        assert!(copies.of(&app("a")).expect("listed").is_empty());
    }
}
