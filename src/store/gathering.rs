//! Gathers small packs into a larger one.
//!
//! A store that is opened for each of many small pushes seals a pack in each. Every start reads all footers, so packs stay few.

use super::packs::{Pack, visit_frames};
use super::rewriting::{copy, take_out};
use super::{Error, Result, Store};
use format::pack::FrameView;

/// A pack below this part of a full one is small.
const SMALL_PACK_PART: u64 = 16;
/// This many small packs are gathered.
const SMALL_PACKS_MIN: usize = 16;

impl Store {
    /// Returns whether a pack is so small that it is worth gathering with others.
    pub(super) fn is_small(&self, pack: &Pack) -> bool {
        pack.bytes().is_ok_and(|bytes| bytes < self.options.pack_bytes / SMALL_PACK_PART)
    }

    /// Returns whether so many packs are small that they should be gathered.
    pub(super) fn has_many_small<'a>(&self, packs: impl Iterator<Item = &'a Pack>) -> bool {
        packs.filter(|pack| self.is_small(pack)).take(SMALL_PACKS_MIN).count() == SMALL_PACKS_MIN
    }

    /// Closes the store as [`Store::close`] does; where many of its packs are small, it puts all their frames into one pack
    /// first.
    ///
    /// For a store that one process uses, whose frames are all needed or all worthless. Copies frames as they are, and leaves
    /// out packs with a damaged one. Cost: reads and writes at most 64 MiB, at every 16th small pack.
    ///
    /// # Errors
    /// The disk's. Every frame is still in some pack; the store is closed.
    pub fn close_gathered(&self) -> Result<()> {
        let packs = self.shared.packs.sealed();
        if !self.has_many_small(packs.iter().map(|(_, pack)| &**pack)) {
            self.close();
            return Ok(());
        }
        let mut gathered = Vec::new();
        for (number, pack) in packs.into_iter().filter(|(_, pack)| self.is_small(pack)) {
            match self.append_frames(&pack) {
                Ok(()) => gathered.push((number, pack)),
                Err(error) => tracing::debug!(%error, "a small pack stays by itself"),
            }
        }
        // Before the index gets what is sealed, so that it does not take them in. Copies that a crash leaves in an open pack are
        // sealed by the next start.
        let taken_out = gathered.into_iter().try_for_each(|(number, pack)| take_out(self, number, &pack));
        self.close();
        taken_out
    }

    /// Appends all frames of a pack as they are.
    fn append_frames(&self, pack: &Pack) -> Result<()> {
        let mut offsets = Vec::new();
        visit_frames(pack, &mut |frame| offsets.push(frame.offset))?;
        for offset in offsets {
            let bytes = pack.frame(offset)?;
            let damaged = |source| Error::Pack { path: pack.location(), source };
            self.append(&copy(&FrameView::parse(&bytes, offset).map_err(damaged)?))?;
        }
        Ok(())
    }
}
