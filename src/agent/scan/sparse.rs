//! Cuts files that may have holes into chunks, without reading the holes.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use format::chunking::Profile;
use format::recipe::ChunkRef;
use ground::ids::ChunkId;

/// 1 MiB: one read; many times the largest chunk.
const READ_BYTES: usize = 1024 * 1024;

/// A chunk of a file.
pub(super) enum Piece<'a> {
    /// The bytes of a chunk that was read.
    Data(&'a [u8]),
    /// A chunk of zeros in a hole, which was not read.
    Zeros(ChunkRef),
}

/// Cuts a file of `size` bytes as [`Profile::cut_all`] does, and hands each chunk to `take`; returns the bytes passed.
///
/// Memory: `buffer`, which grows to 1 MiB and may be used again. A hole costs one step a chunk of 64 KiB.
///
/// # Errors
/// The first error of the file or of `take`.
pub(super) fn cut_all<E: From<io::Error>>(
    file: &File,
    size: u64,
    profile: Profile,
    buffer: &mut Vec<u8>,
    mut take: impl FnMut(Piece<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let max = u64::from(profile.max);
    let mut holes = Holes::new(file, size, max);
    let mut zeros = None;
    buffer.resize(READ_BYTES, 0);
    // The next chunk begins at `at`; the buffer holds what follows, up to `end`.
    let (mut at, mut begin, mut end) = (0, 0, 0);
    loop {
        let hole_end = holes.end(at);
        if hole_end.saturating_sub(at) >= max
            && let Some(chunk) = *zeros.get_or_insert_with(|| zero_chunk(profile))
        {
            // A chunk's end depends on its own bytes alone, so each chunk of a hole is the same.
            for _ in 0..(hole_end - at) / max {
                take(Piece::Zeros(chunk))?;
                at += max;
            }
            (begin, end) = (0, 0);
        }
        buffer.copy_within(begin..end, 0);
        (begin, end) = (0, end - begin);
        let mut last = false;
        while end < buffer.len() && !last {
            match file.read_at(&mut buffer[end..], at + end as u64) {
                Ok(count) => (end, last) = (end + count, count == 0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        while end - begin >= profile.max as usize || (last && begin < end) {
            let length = profile.cut(&buffer[begin..end]);
            take(Piece::Data(&buffer[begin..begin + length]))?;
            begin += length;
            at += length as u64;
            if holes.end(at).saturating_sub(at) >= max {
                break;
            }
        }
        if last && begin == end && holes.end(at).saturating_sub(at) < max {
            return Ok(at);
        }
    }
}

/// Returns a chunk of zeros, if `profile` cuts zeros at its greatest length only.
fn zero_chunk(profile: Profile) -> Option<ChunkRef> {
    let bytes = vec![0; profile.max as usize];
    let whole = profile.cut(&bytes) == bytes.len();
    whole.then(|| ChunkRef { id: ChunkId::of(&bytes), bytes: profile.max })
}

/// The holes of a file, in order.
struct Holes<'a> {
    file: &'a File,
    size: u64,
    /// Shorter holes are read as data.
    bytes_min: u64,
    /// The next hole.
    begin: u64,
    end: u64,
}

impl<'a> Holes<'a> {
    fn new(file: &'a File, size: u64, bytes_min: u64) -> Self {
        // A file that takes as many blocks as its length needs has no hole worth a search.
        let has_holes = file.metadata().is_ok_and(|metadata| {
            use std::os::unix::fs::MetadataExt;
            metadata.blocks().saturating_mul(512).saturating_add(bytes_min) <= size
        });
        Self { file, size, bytes_min, begin: if has_holes { 0 } else { u64::MAX }, end: 0 }
    }

    /// Returns the end of the hole that holds `at`, or `at` where none does. Offsets must rise.
    fn end(&mut self, at: u64) -> u64 {
        while self.begin != u64::MAX && at >= self.end {
            (self.begin, self.end) = self.after(at).unwrap_or((u64::MAX, u64::MAX));
        }
        if (self.begin..self.end).contains(&at) { self.end } else { at }
    }

    /// Finds the next hole that is long enough and ends after `at`.
    fn after(&self, mut at: u64) -> Option<(u64, u64)> {
        while at < self.size {
            let begin =
                rustix::fs::seek(self.file, SeekFrom::Hole(at)).ok().filter(|begin| *begin < self.size)?;
            let end = match rustix::fs::seek(self.file, SeekFrom::Data(begin)) {
                Ok(end) => end.min(self.size),
                Err(Errno::NXIO) => self.size,
                Err(_) => return None,
            };
            if end.saturating_sub(begin) >= self.bytes_min {
                return Some((begin, end));
            }
            at = end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    /// Returns a file with these runs of data; what is between is holes.
    fn sparse(size: u64, runs: &[(u64, usize)]) -> File {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(size).expect("a length");
        for (offset, length) in runs {
            let mut bytes = vec![0; *length];
            blake3::Hasher::new().update(&offset.to_le_bytes()).finalize_xof().fill(&mut bytes);
            file.write_all_at(&bytes, *offset).expect("written");
        }
        file
    }

    #[test]
    fn a_file_with_holes_is_cut_as_one_with_zeros() {
        const MIB: u64 = 1024 * 1024;
        for (size, runs) in [
            (0, &[][..]),
            (10, &[]),
            (65_536, &[]),
            (65_537, &[]),
            (50 * MIB + 17, &[]),
            (50 * MIB + 17, &[(0, 5000), (10 * MIB + 3, 200_000), (30 * MIB, 1)]),
            (3 * MIB, &[(2 * MIB + 70_000, 300_000)]),
            (20 * MIB, &[(0, 3_000_000), (20 * MIB - 5, 5)]),
            (9 * MIB, &[(MIB, 100), (MIB + 70_000, 100), (MIB + 200_000, 4096)]),
        ] {
            let file = sparse(size, runs);
            let (mut found, mut unread) = (Vec::new(), 0);
            let total = cut_all::<io::Error>(&file, size, Profile::DEFAULT, &mut Vec::new(), |piece| {
                found.push(match piece {
                    Piece::Data(bytes) => {
                        ChunkRef { id: ChunkId::of(bytes), bytes: u32::try_from(bytes.len()).expect("short") }
                    }
                    Piece::Zeros(chunk) => {
                        unread += u64::from(chunk.bytes);
                        chunk
                    }
                });
                Ok(())
            });
            assert_eq!(total.expect("it can be read"), size);
            let mut expected = Vec::new();
            (&file).rewind().expect("a file can be read again");
            let cut = Profile::DEFAULT.cut_all::<io::Error>(&file, &mut Vec::new(), |bytes| {
                let bytes_count = u32::try_from(bytes.len()).expect("short");
                expected.push(ChunkRef { id: ChunkId::of(bytes), bytes: bytes_count });
                Ok(())
            });
            assert_eq!(cut.expect("it can be read"), size);
            assert_eq!(found, expected, "{size} {runs:?}");
            // Not every file system has holes.
            if size > 40 * MIB
                && file
                    .metadata()
                    .is_ok_and(|metadata| std::os::unix::fs::MetadataExt::blocks(&metadata) < 2000)
            {
                assert!(unread > size / 2, "{unread} of {size} B are not read");
            }
        }
    }
}
