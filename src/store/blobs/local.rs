//! Blobs in a local folder, read through memory maps: `ab/abcdef….pack`, and `damaged/` for those set aside.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Blob, Blobs};
use crate::store::layout::DAMAGED;
use disk::files::{self, Durability, OnPath, Result};
use disk::mmap::Mapping;
use format::pack::PackId;

/// The hexadecimal digits of a name that name its folder: 256 folders.
const FOLDER_DIGITS: usize = 2;
/// The ending of a blob's file.
const EXTENSION: &str = "pack";

/// The blobs in a local folder.
#[derive(Debug)]
pub struct LocalBlobs {
    folder: PathBuf,
    durability: Durability,
}

impl LocalBlobs {
    /// Keeps blobs below `folder`, on the file system of the files that are put.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, durability: Durability::Synced }
    }

    /// Keeps them as durable as that.
    #[must_use]
    pub fn as_durable(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }
}

impl Blobs for LocalBlobs {
    fn put(&self, name: PackId, from: &Path) -> Result<()> {
        let path = self.location(name);
        let folder = self.durability.create_folder(path.parent().unwrap_or(&self.folder));
        let renamed = folder.and_then(|()| self.durability.rename(from, &path));
        renamed.map_err(|error| files::Error { path, ..error })
    }

    fn open(&self, name: PackId) -> Result<Box<dyn Blob>> {
        let path = self.location(name);
        Ok(Box::new(LocalBlob { map: Mapping::open(&path)?, path }))
    }

    fn bytes(&self, name: PackId) -> Result<u64> {
        let path = self.location(name);
        Ok(fs::metadata(&path).on("examine", &path)?.len())
    }

    fn list(&self) -> Result<Vec<PackId>> {
        let mut names = Vec::new();
        for folder in files::list(&self.folder)? {
            let is_for_blobs = folder.file_name().is_some_and(|name| name.len() == FOLDER_DIGITS);
            if !is_for_blobs || !folder.is_dir() {
                continue;
            }
            for path in files::list(&folder)? {
                let name = path.file_stem().and_then(|name| name.to_str()).and_then(PackId::from_hex);
                names.extend(name.filter(|name| self.location(*name) == path));
            }
        }
        Ok(names)
    }

    fn remove(&self, name: PackId) -> Result<()> {
        files::remove(&self.location(name))
    }

    fn set_aside(&self, name: PackId) -> Result<()> {
        let path = self.location(name);
        let folder = self.folder.join(DAMAGED);
        files::create_folder(&folder)?;
        files::rename(&path, &folder.join(path.file_name().unwrap_or_default()))
    }

    fn location(&self, name: PackId) -> PathBuf {
        let name = name.to_string();
        self.folder.join(&name[..FOLDER_DIGITS]).join(name).with_extension(EXTENSION)
    }
}

/// A mapped file. Nobody changes it, so that the map stays valid, also after the file is removed.
#[derive(Debug)]
struct LocalBlob {
    path: PathBuf,
    map: Mapping,
}

impl Blob for LocalBlob {
    fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> Result<Cow<'_, [u8]>> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.map.range(offset, length).map(Cow::Borrowed).on("read", &self.path)
    }

    fn release(&self, offset: u64, length: usize) {
        if let Ok(offset) = usize::try_from(offset) {
            self.map.release(offset, length);
        }
    }
}
