//! Compares two releases by path, content and mode, and says what a delivery would do.

use super::{Error, Preview};
use crate::restore::{ChunkSource, Mapping, ReleaseEntry, each_path};
use format::manifest::Root;

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
    let mut preview = Preview::default();
    let counts = |entry: &ReleaseEntry| {
        !matches!(entry, ReleaseEntry::Directory(_)) && !mapping.leaves_out(entry.path())
    };
    each_path(old, new, source, &mut |old, new| {
        let (old, new) = (old.filter(counts), new.filter(counts));
        if let Some(new) = &new {
            let stays = old.is_some_and(|old| old.is_like(new, |mode| mapping.mode_of_file(mode)));
            let list = if stays { &mut preview.keep } else { &mut preview.put };
            let bytes = if let ReleaseEntry::File(file) = new { file.size } else { 0 };
            list.push((new.path().to_string(), bytes));
        } else if let Some(old) = old {
            preview.delete.push(old.path().to_string());
        }
    })?;
    Ok(preview)
}
