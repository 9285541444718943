//! The name of a release whose archives may be stored in several ways (FORMAT 2.6).

use super::{Item, Root, Totals};
use crate::recipe::{ContentHasher, Recipe};
use ground::ids::ReleaseId;

/// Hashes a release's items with each archive's content in place of its recipe, so that a release has one name whether its
/// archives are unpacked or not.
#[derive(Debug, Default)]
pub(super) struct Content {
    hasher: blake3::Hasher,
    has_archives: bool,
    file: File,
    encoded: Vec<u8>,
}

/// The file whose chunks come.
#[derive(Debug, Default)]
enum File {
    /// Its chunks are its content; so it is for no file.
    #[default]
    Chunks,
    /// An archive as it is.
    Packed(Box<ContentHasher>),
    /// An archive whose content was named by its recipe.
    Unpacked,
}

impl Content {
    /// Adds the next item, whose bytes are `encoded`.
    pub fn push(&mut self, item: &Item, encoded: &[u8]) {
        match (item, &mut self.file) {
            (Item::Chunk(chunk), File::Packed(content)) => return content.push(chunk),
            (Item::Chunk(_), File::Unpacked) => return,
            (Item::Chunk(_), File::Chunks) => {}
            _ => self.end_file(),
        }
        if let Item::File { path, mode, size, recipe } = item {
            match recipe {
                Recipe::Packed => {
                    self.has_archives = true;
                    self.file = File::Packed(Box::default());
                }
                Recipe::Container(container) => {
                    if let Some(content) = container.content {
                        self.has_archives = true;
                        let (path, mode, size, recipe) = (path.clone(), *mode, *size, Recipe::Packed);
                        self.encoded.clear();
                        Item::File { path, mode, size, recipe }.encode(&mut self.encoded);
                        self.hasher.update(&self.encoded).update(content.as_bytes());
                        self.file = File::Unpacked;
                        return;
                    }
                }
                Recipe::Chunks => {}
            }
        }
        self.hasher.update(encoded);
    }

    /// Returns the release's name, where it has archives whose content is named: otherwise the root's own is.
    pub fn finish(mut self, root: &Root) -> Option<ReleaseId> {
        self.end_file();
        // How many chunks there are depends on how archives are stored.
        let totals = Totals { chunks: 0, ..root.totals };
        let end = rmp_serde::to_vec(&(root.profile, root.shape, totals)).expect("a Vec takes every write");
        self.hasher.update(&end);
        self.has_archives.then(|| ReleaseId::from_bytes(*self.hasher.finalize().as_bytes()))
    }

    fn end_file(&mut self) {
        if let File::Packed(content) = std::mem::take(&mut self.file) {
            self.hasher.update(content.finish().as_bytes());
        }
    }
}
