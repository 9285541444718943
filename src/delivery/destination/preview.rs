//! Compares two releases by path, content and mode, and says what a delivery would do.

use std::cmp::Ordering;

use super::{Error, Preview};
use crate::restore::{ChunkSource, Mapping, ReleaseEntries, ReleaseEntry};
use format::manifest::{EntryPath, Root};

/// A file or link of a release.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: EntryPath,
    bytes: u64,
    content: Content,
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    File { mode: u16, name: [u8; 16] },
    HardLink(EntryPath),
    Symlink(Vec<u8>),
}

/// Returns what leads from `old`, if anything is there, to `new`. Memory: the paths of both.
///
/// # Errors
/// A manifest cannot be read.
pub(super) fn compare(
    new: &Root,
    old: Option<&Root>,
    source: &dyn ChunkSource,
    mapping: &Mapping<'_>,
) -> Result<Preview, Error> {
    let (mut new_reader, mut old_reader) = (source.reader(), source.reader());
    let mut new = ReleaseEntries::new(new, &mut *new_reader);
    let mut old = old.map(|old| ReleaseEntries::new(old, &mut *old_reader));
    let mut next_old = || old.as_mut().map_or(Ok(None), |old| next(old, mapping));
    let mut preview = Preview::default();
    let (mut wanted, mut there) = (next(&mut new, mapping)?, next_old()?);
    loop {
        let order = match (&wanted, &there) {
            (None, None) => return Ok(preview),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(wanted), Some(there)) => wanted.path.cmp(&there.path),
        };
        if let Some(one) = wanted.as_ref().filter(|_| order.is_le()) {
            let list = if there.as_ref() == Some(one) { &mut preview.keep } else { &mut preview.put };
            list.push((one.path.to_string(), one.bytes));
        } else if let Some(one) = &there {
            preview.delete.push(one.path.to_string());
        }
        if order.is_le() {
            wanted = next(&mut new, mapping)?;
        }
        if order.is_ge() {
            there = next_old()?;
        }
    }
}

/// Returns the next file or link that the mapping does not leave out.
fn next(entries: &mut ReleaseEntries<'_>, mapping: &Mapping<'_>) -> Result<Option<Entry>, Error> {
    for entry in entries {
        let (path, bytes, content) = match entry? {
            ReleaseEntry::Directory(_) => continue,
            ReleaseEntry::File(file) => {
                let content =
                    Content::File { mode: mapping.mode_of_file(file.mode), name: file.content_name() };
                (file.path, file.size, content)
            }
            ReleaseEntry::HardLink { path, target } => (path, 0, Content::HardLink(target)),
            ReleaseEntry::Symlink { path, target } => (path, 0, Content::Symlink(target)),
        };
        if !mapping.leaves_out(&path) {
            return Ok(Some(Entry { path, bytes, content }));
        }
    }
    Ok(None)
}
