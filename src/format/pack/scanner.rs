//! Walks a pack's frames from the start, trusting nothing but their checksums.

use super::frame::MAGIC;
use super::{Error, FrameView, HEADER_BYTES, read_header};

/// Iterates over whole frames in order and stops at the first damaged one: for a pack that was cut short.
#[derive(Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Scanner<'a> {
    /// Starts after the header.
    ///
    /// # Errors
    /// Bytes that are no header of a known version.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        read_header(bytes)?;
        Ok(Self { bytes, offset: HEADER_BYTES })
    }

    /// Starts after damage at the first whole frame from `offset` on; `None` if there is none.
    pub fn behind(bytes: &'a [u8], offset: u64) -> Option<Self> {
        let mut offset = usize::try_from(offset).ok()?;
        loop {
            let next = bytes.get(offset..)?.windows(MAGIC.len()).position(|window| window == MAGIC)?;
            offset += next;
            let found = FrameView::parse(&bytes[offset..], offset as u64);
            if found.is_ok_and(|frame| frame.is_whole()) {
                return Some(Self { bytes, offset });
            }
            offset += 1;
        }
    }

    /// Returns the end of the last returned frame; all bytes from the start of the scan up to it are whole.
    pub fn valid_bytes(&self) -> u64 {
        self.offset as u64
    }
}

impl<'a> Iterator for Scanner<'a> {
    /// A frame's offset, and the frame.
    type Item = (u64, FrameView<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset as u64;
        let view = FrameView::parse(&self.bytes[self.offset..], offset).ok()?;
        if !view.is_whole() {
            return None;
        }
        self.offset += view.bytes().len();
        Some((offset, view))
    }
}
