//! Collects bytes and passes them on in large pieces.

use std::io::{self, Write};

/// 1 MiB: from here on the bytes are passed on.
const PIECE_BYTES: usize = 1024 * 1024;

/// A writer's bytes that were not passed on yet. What is left when it is dropped is lost: it is the end of a stream that failed.
pub(super) struct Pieces<'a> {
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
}

impl<'a> Pieces<'a> {
    /// Starts with nothing collected.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, buffer: Vec::with_capacity(PIECE_BYTES) }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The writer's.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < PIECE_BYTES { Ok(()) } else { self.pass_on() }
    }

    /// Passes on the rest, and flushes the writer.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self) -> io::Result<()> {
        self.pass_on()?;
        self.out.flush()
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        written
    }
}
