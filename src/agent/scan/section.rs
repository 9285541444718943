//! Writes and reads parts of files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

/// 64 KiB: bytes written or read at a time.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Writes from an offset of a file on.
pub struct OffsetWriter<'a> {
    /// The file.
    pub file: &'a File,
    /// Where the next bytes go.
    pub offset: u64,
}

impl Write for OffsetWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.offset)?;
        self.offset += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads some bytes of a file.
pub struct FileSection<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl<'a> FileSection<'a> {
    /// Begins `bytes` bytes that start at `offset`.
    pub fn new(file: &'a File, offset: u64, bytes: u64) -> Self {
        Self { file, offset, left: bytes }
    }
}

impl Read for FileSection<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let read = self.file.read_at(&mut out[..length], self.offset)?;
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
