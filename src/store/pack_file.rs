//! The file of a pack that is still written to: `packs/open/ID.part`, on the local disk whatever keeps the sealed packs.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::blobs::Blobs;
use super::layout::{DAMAGED, OPEN, UNSYNCED};
use super::{Error, Result};
use disk::crash_points;
use disk::files::{self, Durability, OnPath};
use format::pack::{self, Footer, PackId};

/// A pack's file that is appended to.
#[derive(Debug)]
pub struct PackFile {
    /// The pack's name.
    pub id: PackId,
    /// The path of the file.
    pub path: PathBuf,
    durability: Durability,
    file: File,
}

impl PackFile {
    /// Creates a file with a new name and a header below the `packs` folder.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(packs: &Path, durability: Durability) -> Result<Self> {
        let mut random = [0; 16];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
            .map_err(|_| Error::Random)?;
        let id = PackId::from_bytes(random);
        let folder = packs.join(OPEN);
        files::create_folder(&folder)?;
        let path = folder.join(format!("{id}.part"));
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).append(true).create_new(true).mode(0o600).open(&path).on("create", &path)?;
        crash_points::point("pack.created");
        file.write_all(&pack::header(id)).on("write", &path)?;
        crash_points::point("pack.headed");
        durability.sync_folder(&folder)?;
        Ok(Self { id, path, durability, file })
    }

    /// Opens a file that an earlier process left.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(id: PackId, path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).append(true).open(path).on("open", path)?;
        Ok(Self { id, path: path.to_owned(), durability: Durability::Synced, file })
    }

    /// Lists the files that earlier processes left below the `packs` folder, by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn left_open(packs: &Path) -> Result<Vec<(PackId, PathBuf)>> {
        let id = |path: &PathBuf| PackId::from_hex(path.file_stem()?.to_str()?);
        let paths = files::list(&packs.join(OPEN))?.into_iter();
        Ok(paths.filter_map(|path| Some((id(&path)?, path))).collect())
    }

    /// Moves a damaged open pack out of the way, for people to look at.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_aside(packs: &Path, path: &Path) -> Result<()> {
        let folder = packs.join(DAMAGED);
        files::create_folder(&folder)?;
        Ok(files::rename(path, &folder.join(path.file_name().unwrap_or_default()))?)
    }

    /// Opens the file again, to read or to sync it.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn share(&self) -> Result<File> {
        Ok(self.file.try_clone().on("open", &self.path)?)
    }

    /// Appends a frame that somebody pushes; on an error a part of it may be there.
    ///
    /// # Errors
    /// The disk's.
    pub fn append_frame(&mut self, frame: &[u8]) -> Result<()> {
        crash_points::half("append.half", &self.file, frame);
        self.copy_frame(frame)
    }

    /// Appends a frame of another pack; on an error a part of it may be there.
    ///
    /// # Errors
    /// The disk's.
    pub fn copy_frame(&mut self, frame: &[u8]) -> Result<()> {
        Ok(self.file.write_all(frame).on("write", &self.path)?)
    }

    /// Cuts the file to `length` bytes. Nobody maps an open pack, so that it may be cut.
    ///
    /// # Errors
    /// The disk's.
    pub fn cut(&self, length: u64) -> Result<()> {
        Ok(self.file.set_len(length).on("cut", &self.path)?)
    }

    /// Appends the footer of a pack of `bytes`, makes the file durable, and puts it among the sealed packs.
    ///
    /// # Errors
    /// The disk's: the file may end in a part of the footer.
    pub fn seal(&mut self, blobs: &dyn Blobs, footer: Footer, bytes: u64) -> Result<()> {
        let footer = footer.encode(bytes);
        crash_points::point("seal.before");
        crash_points::half("seal.half", &self.file, &footer);
        self.file.write_all(&footer).on("write", &self.path)?;
        crash_points::point("seal.footer");
        self.durability.sync(&self.file).on("sync", &self.path)?;
        crash_points::point("seal.synced");
        blobs.put(self.id, &self.path)?;
        crash_points::point("seal.after");
        Ok(())
    }
}

/// Returns the path of the mark that a sync of an open pack failed.
///
/// The system may then hold pages of the pack that look written and are not on the disk; no later sync of
/// the file writes them. So the next start copies what it reads there into another file.
pub fn unsynced_mark(packs: &Path) -> PathBuf {
    packs.join(UNSYNCED)
}
