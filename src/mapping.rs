//! Read-only memory maps of files that nobody changes: the only unsafe code of the crate.
//!
//! Packs are immutable once sealed, and whit never truncates one in place: a damaged pack is moved
//! aside whole. So a map of a sealed pack stays valid. Whoever truncates a pack behind whit's back can
//! end the process with SIGBUS; what they cannot do is to make wrong bytes pass, as every chunk is
//! verified after it is read.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::files::{OnPath, Result};

/// The whole of a file as bytes.
#[derive(Debug)]
pub struct Mapping(memmap2::Mmap);

impl Mapping {
    /// Maps the file at `path`. Costs no memory until it is read; the pages belong to the page cache.
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).on("open", path)?;
        #[expect(unsafe_code, reason = "a memory map is the one thing that cannot be had otherwise")]
        // SAFETY: the map is read-only and private to whit's data folder, whose sealed packs are never
        // written or truncated by whit (module documentation). Bytes that change nevertheless are seen
        // as damage, since every use verifies a hash; a `&[u8]` of them is never trusted as text or
        // as numbers without a bound.
        let map = unsafe { memmap2::Mmap::map(&file) }.on("map", path)?;
        Ok(Self(map))
    }
}

impl Mapping {
    /// Lets the system take the pages of a range out of this process's memory; reading brings them back.
    ///
    /// Without it, a process that has read every pack would count all of them as its own.
    pub fn release(&self, offset: usize, length: usize) {
        let length = length.min(self.0.len().saturating_sub(offset));
        if length == 0 {
            return;
        }
        #[expect(unsafe_code, reason = "the safe advice has no way to give pages back")]
        // SAFETY: the map is of a file, shared and read-only, so that pages given back are read from the
        // file again at their next use: no content is lost, whoever reads them meanwhile.
        let advised =
            unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, length) };
        // Advice that is not taken costs memory, nothing else.
        drop(advised);
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
