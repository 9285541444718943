//! Read-only memory maps of files that nobody changes: the only unsafe code of the crate.
//!
//! Packs are immutable once sealed, and whit never truncates one in place: a damaged pack is moved
//! aside whole. So a map of a sealed pack stays valid. A page that the disk no longer gives, or that somebody
//! truncated by someone else, would end the process with SIGBUS where it is touched: [`Mapping::range`] asks
//! the system for the pages first and turns that into an error. Wrong bytes pass nowhere, as every chunk is
//! verified after it is read.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Advice;
use rustix::io::Errno;

use crate::files::{OnPath, Result};

/// 4 KiB: the smallest page there is; [`Mapping::readable`] reads as much at once.
const PAGE_BYTES: usize = 4096;
/// 1 MiB: Linux maps 64 KiB around a page that is read, and pages that it read ahead together as a whole.
const AROUND_BYTES: usize = 1024 * 1024;

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
    /// Maps a temporary file without a name, which only this process has; `place` is for errors.
    ///
    /// # Errors
    /// The file cannot be mapped.
    pub fn of_own(file: &File, place: &Path) -> Result<Self> {
        #[expect(unsafe_code, reason = "a memory map is the one thing that cannot be had otherwise")]
        // SAFETY: nobody else can open the file, and its owner writes it before and not after this.
        let map = unsafe { memmap2::Mmap::map(file) }.on("map", place)?;
        Ok(Self(map))
    }
}

impl Mapping {
    /// Returns the bytes of a range, as far as the file has them, after loading them: no SIGBUS follows, unless the system
    /// drops the pages and the disk fails in between.
    ///
    /// Cost: one system call and the disk's time. Linux before 5.14 does not load them.
    ///
    /// # Errors
    /// `EIO` where a page cannot be read, or the system's other errors.
    pub fn range(&self, offset: usize, length: usize) -> io::Result<&[u8]> {
        let rest = self.0.get(offset..).unwrap_or_default();
        let bytes = &rest[..length.min(rest.len())];
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let asked = self.0.advise_range(Advice::PopulateRead, offset, bytes.len());
        match asked.as_ref().err().and_then(Errno::from_io_error) {
            None if asked.is_ok() => Ok(bytes),
            // This system lacks the call.
            Some(Errno::INVAL) => Ok(bytes),
            Some(Errno::FAULT | Errno::HWPOISON) => Err(Errno::IO.into()),
            _ => asked.map(|()| bytes),
        }
    }

    /// Returns all bytes; a copy with zeros for pages that cannot be read.
    pub fn readable(&self) -> Cow<'_, [u8]> {
        if let Ok(bytes) = self.range(0, self.0.len()) {
            return Cow::Borrowed(bytes);
        }
        let mut copy = vec![0; self.0.len()];
        for (number, page) in copy.chunks_mut(PAGE_BYTES).enumerate() {
            if let Ok(bytes) = self.range(number * PAGE_BYTES, page.len()) {
                page.copy_from_slice(bytes);
            }
        }
        Cow::Owned(copy)
    }

    /// Releases the pages of a range from this process's memory, and those around it that reading it has mapped; reading
    /// maps them again.
    ///
    /// Without it, all packs that a process has read would count as its memory.
    pub fn release(&self, offset: usize, length: usize) {
        let end = offset.saturating_add(length).saturating_add(AROUND_BYTES).min(self.0.len());
        let offset = offset.saturating_sub(AROUND_BYTES);
        let length = end.saturating_sub(offset);
        if length == 0 {
            return;
        }
        #[expect(unsafe_code, reason = "the safe advice has no way to give pages back")]
        // SAFETY: the map is of a file, shared and read-only, so that pages given back are read from the
        // file again at their next use: no content is lost, whoever reads them meanwhile.
        let advised =
            unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, length) };
        // Advice that is not followed only costs memory.
        drop(advised);
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_piece_by_piece_and_released_takes_no_memory() {
        // There the system maps what is around a page, whatever was read before.
        let shared = Path::new("/dev/shm");
        let folder = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
        let folder = folder.expect("a temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, vec![7; 4 * 1024 * 1024]).expect("written");
        let map = Mapping::open(&path).expect("mapped");
        let piece = 150_001;
        for offset in (0..map.len()).step_by(piece) {
            assert!(map.range(offset, piece).expect("it is there").iter().all(|byte| *byte == 7));
            map.release(offset, piece);
        }
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux");
        let name = path.to_str().expect("text");
        let resident = maps.lines().skip_while(|line| !line.ends_with(name));
        let resident = resident.skip(1).find_map(|line| line.strip_prefix("Rss:")).expect("it is mapped");
        assert_eq!(resident.trim(), "0 kB");
    }

    #[test]
    fn pages_that_are_cut_off_behind_a_map_are_an_error_and_no_signal() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        let page = 64 * 1024;
        std::fs::write(&path, vec![7; 3 * page]).expect("written");
        let map = Mapping::open(&path).expect("mapped");
        assert_eq!(map.range(page, 2 * page).expect("it is there"), vec![7; 2 * page]);
        assert_eq!(map.range(2 * page, 5 * page).expect("up to the end").len(), page);
        assert_eq!(map.range(9 * page, 1).expect("nothing").len(), 0);
        let file = File::options().write(true).open(&path).expect("opened");
        file.set_len(page as u64).expect("cut");
        if map.range(0, 3 * page).is_ok() {
            println!("skipped: this system cannot be asked for pages");
            return;
        }
        assert_eq!(
            map.range(page, 1).expect_err("it is gone").raw_os_error(),
            Some(Errno::IO.raw_os_error())
        );
        assert_eq!(map.range(0, page).expect("it is there"), vec![7; page]);
        let mut expected = vec![7; page];
        expected.resize(3 * page, 0);
        assert_eq!(map.readable(), expected);
    }
}
