//! Looks at single entries of a scanned tree.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::Error;
use disk::files::OnPath;
use format::manifest::{EntryPath, MODE_MASK};

/// Identifies a file, whatever its name.
pub(super) type FileId = (u64, u64);

/// Returns the file's identity.
pub(super) fn id_of(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// Returns the names in a folder, in the manifest's order.
pub(super) fn names_in(place: &Path) -> Result<Vec<OsString>, Error> {
    let listed = match fs::read_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Error::Vanished(place.to_owned())),
        result => result.on("list", place)?,
    };
    let names: Result<Vec<OsString>, _> = listed.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let mut names = names.on("list", place)?;
    names.sort();
    Ok(names)
}

/// Returns an entry's metadata; follows no link.
pub(super) fn examine(place: &Path) -> Result<Metadata, Error> {
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::Vanished(place.to_owned())),
        result => Ok(result.on("examine", place)?),
    }
}

/// Returns the path of an entry of `folder`; none stands for the top.
pub(super) fn child(folder: Option<&EntryPath>, name: &OsStr) -> Result<EntryPath, Error> {
    let mut path = folder.map(|folder| [folder.as_bytes(), b"/"].concat()).unwrap_or_default();
    path.extend_from_slice(name.as_bytes());
    Ok(EntryPath::new(path)?)
}

/// Returns an entry's path below the top; empty for the top.
pub(super) fn below(path: Option<&EntryPath>) -> &Path {
    Path::new(OsStr::from_bytes(path.map_or(&[], EntryPath::as_bytes)))
}

/// Returns the permission bits that a manifest keeps.
pub(super) fn mode_of(kind: &Metadata) -> u16 {
    u16::try_from(kind.permissions().mode() & u32::from(MODE_MASK)).expect("nine bits fit")
}
