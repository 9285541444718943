//! The files of a pulled directory that look as the last pull left them.

use std::cell::{Cell, RefCell};

use rustix::fs::{AtFlags, Statx};

use super::mark::{Entries, Placed, stat_of};
use crate::agent::Result;
use crate::restore::Linkable;
use disk::files::{self, Folder};
use format::manifest::{EntryPath, Item};

/// Compares files with a mark, so that those which look as it says are linked into the new tree instead of read.
#[derive(Debug)]
pub struct Unchanged<'a> {
    placed: &'a Placed,
    entries: RefCell<Entries>,
    /// Other copies, whose files of the same path may be the same ones.
    others: Vec<Folder>,
    has_any: Cell<bool>,
}

impl<'a> Unchanged<'a> {
    /// Begins before the first file of the mark. `others` are further copies that share files.
    ///
    /// # Errors
    /// The mark cannot be read.
    pub(super) fn new(placed: &'a Placed, others: Vec<Folder>) -> Result<Self> {
        Ok(Self { placed, entries: RefCell::new(placed.entries()?), others, has_any: Cell::new(false) })
    }

    /// Returns whether there was any.
    pub(super) fn has_any(&self) -> bool {
        self.has_any.get()
    }
}

impl Linkable for Unchanged<'_> {
    fn begin(&self) {
        // Where the mark cannot be read any more, the rest of it says what it can.
        if let Ok(entries) = self.placed.entries() {
            *self.entries.borrow_mut() = entries;
        }
    }

    fn names(&self, path: &EntryPath, found: &Statx) -> u32 {
        let id = |found: &Statx| (found.stx_ino, found.stx_dev_major, found.stx_dev_minor);
        let has_it = |other: &&Folder| {
            files::examine(other, path.as_bytes(), AtFlags::empty())
                .is_ok_and(|there| id(&there) == id(found))
        };
        let others = self.others.iter().filter(has_it).count();
        u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1)
    }

    fn may_be_linked(&self, path: &EntryPath, found: &Statx) -> bool {
        // A mark that cannot be read any more says nothing.
        let Ok(Some((Item::File { size, .. }, put))) = self.entries.borrow_mut().at(path.as_bytes()) else {
            return false;
        };
        let looks_same = self.placed.is_same(&put, &stat_of(found)) && found.stx_size == size;
        let is_so = looks_same && self.placed.is_settled(&put);
        self.has_any.set(self.has_any.get() || is_so);
        is_so
    }
}
