//! Blobs: immutable named bytes, the sealed packs of one space.
//!
//! A store needs little of the place of its packs, so that this can be a folder or any object store:
//!
//! - **Names are random and never used again.** So no operation has a condition, and nothing here needs a lock. (Some
//!   object stores ignore conditions silently.)
//! - **A blob is complete or absent.** It never changes after [`Blobs::put`] returned; no reader meets a part of it.
//! - **Every change is visible at once**: after a put returned, [`Blobs::list`], [`Blobs::open`] and [`Blobs::bytes`] have the
//!   blob; after a removal returned, they do not.
//! - **An open blob can be read to its end**, also after it was removed.
//! - **Errors name the blob** by its location, and keep the system's error, by which the store distinguishes a full disk from
//!   damage. A missing blob is [`std::io::ErrorKind::NotFound`].
//!
//! All methods may be called from any thread, and block. What is not immutable is not here: a pack that is still written
//! to is a local file ([`super::pack_file`]), as are the mark of a failed sync and the position of verifying.
//! tests/it/blobs holds every kind to this page.

mod local;

pub use local::LocalBlobs;

use std::borrow::Cow;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use disk::files::Result;
use format::pack::PackId;

/// Keeps the sealed packs of one space.
pub trait Blobs: Send + Sync + Debug {
    /// Takes over the complete, synced file at `from` as the blob `name`. Durable on return, when no file is left at `from`.
    ///
    /// A put that a crash or an error cut short may be repeated with the same bytes.
    ///
    /// # Errors
    /// No room, or the system's error: the file is still at `from`, or the blob exists.
    fn put(&self, name: PackId, from: &Path) -> Result<()>;

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// The blob does not exist, or cannot be read.
    fn open(&self, name: PackId) -> Result<Box<dyn Blob>>;

    /// Returns the bytes of a blob, without opening it.
    ///
    /// # Errors
    /// The blob does not exist, or cannot be examined.
    fn bytes(&self, name: PackId) -> Result<u64>;

    /// Returns the names of all blobs, in no order. Other things beside them are left out.
    ///
    /// # Errors
    /// The blobs cannot be listed.
    fn list(&self) -> Result<Vec<PackId>>;

    /// Removes a blob; a missing one is no error.
    ///
    /// # Errors
    /// The blob still exists.
    fn remove(&self, name: PackId) -> Result<()>;

    /// Removes a damaged blob, but keeps its bytes where people can look at them.
    ///
    /// # Errors
    /// The blob still exists.
    fn set_aside(&self, name: PackId) -> Result<()>;

    /// Returns where the blob is, a path or an address: for messages alone.
    fn location(&self, name: PackId) -> PathBuf;
}

/// A blob that is open for reading.
pub trait Blob: Send + Sync + Debug {
    /// Returns its bytes.
    fn bytes(&self) -> u64;

    /// Returns the bytes of a range, as far as the blob has them: borrowed where they are in memory.
    ///
    /// # Errors
    /// The bytes cannot be read, now or ever.
    fn read(&self, offset: u64, length: usize) -> Result<Cow<'_, [u8]>>;

    /// Says that the `length` bytes at `offset` are not needed for now, so that memory need not hold them.
    fn release(&self, offset: u64, length: usize);
}
