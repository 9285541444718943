//! Reads the packed bytes of an older archive.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::archive_stream::Shared;
use format::recipe::ChunkRef;
use recode::archive::Skip;

/// The bytes of an archive.
#[derive(Debug, Clone, Copy)]
pub enum PackedBytes<'a> {
    /// Chunks of the source that also has its content.
    Chunks(&'a [ChunkRef]),
    /// A file.
    File(&'a File),
}

/// Reads the bytes of an older archive, from any place.
pub(super) struct PackedReader<'a, 'b> {
    packed: PackedBytes<'a>,
    shared: &'b Shared<'a>,
    /// The place of the next byte.
    pub(super) at: u64,
    /// The ends of its chunks, and the one that was read last with its place.
    ends: Vec<u64>,
    chunk: Vec<u8>,
    begin: u64,
}

impl<'a, 'b> PackedReader<'a, 'b> {
    pub(super) fn new(packed: PackedBytes<'a>, shared: &'b Shared<'a>) -> Self {
        let mut end = 0;
        let ends = match packed {
            PackedBytes::File(_) => Vec::new(),
            PackedBytes::Chunks(chunks) => {
                let end_of = |chunk: &ChunkRef| {
                    end += u64::from(chunk.bytes);
                    end
                };
                chunks.iter().map(end_of).collect()
            }
        };
        Self { packed, shared, at: 0, ends, chunk: Vec::new(), begin: 0 }
    }
}

impl Read for PackedReader<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let chunks = match self.packed {
            PackedBytes::File(file) => {
                let read = file.read_at(out, self.at)?;
                self.at += read as u64;
                return Ok(read);
            }
            PackedBytes::Chunks(chunks) => chunks,
        };
        if !(self.begin..self.begin + self.chunk.len() as u64).contains(&self.at) {
            let place = self.ends.partition_point(|end| *end <= self.at);
            let Some(chunk) = chunks.get(place) else { return Ok(0) };
            self.chunk.clear();
            self.begin = self.ends[place] - u64::from(chunk.bytes);
            // It is no error of the archive that is rebuilt.
            self.shared.read(chunk, &mut self.chunk).map_err(io::Error::other)?;
        }
        let here = &self.chunk[usize::try_from(self.at - self.begin).expect("within a chunk")..];
        let length = here.len().min(out.len());
        out[..length].copy_from_slice(&here[..length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Skip for PackedReader<'_, '_> {
    fn skip(&mut self, bytes: u64) {
        self.at = self.at.saturating_add(bytes);
    }
}

/// Reads an older archive while `go_on` returns true.
pub(super) struct Watched<'a, 'b, 'c> {
    pub(super) packed: &'c mut PackedReader<'a, 'b>,
    pub(super) go_on: &'c mut dyn FnMut() -> bool,
}

impl Read for Watched<'_, '_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if (self.go_on)() { self.packed.read(out) } else { Err(io::Error::other("the search was ended")) }
    }
}

impl Skip for Watched<'_, '_, '_> {
    fn skip(&mut self, bytes: u64) {
        self.packed.skip(bytes);
    }
}
