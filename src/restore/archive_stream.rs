//! Reads the stream of an archive: its plan, then its sections.

use std::cell::RefCell;
use std::io::{self, Read};

use super::walk::read_chunk;
use super::{ChunkReader, Error};
use format::manifest::EntryPath;
use format::recipe::{ChunkRef, Container};
use recode::archive::{self, PREFIX_BYTES, Plan, Skip, decode_head, head_bytes};

/// An archive's entry and its chunks.
#[derive(Debug, Clone, Copy)]
pub struct Archive<'a> {
    /// The entry's path, for errors.
    pub path: &'a EntryPath,
    /// Its bytes.
    pub size: u64,
    /// Its recipe.
    pub container: Container,
    /// The chunks of its stream, which add up to what the recipe says.
    pub chunks: &'a [ChunkRef],
}

/// The beginning of a stream.
pub(super) struct Head {
    pub(super) plan: Plan,
    /// Its bytes, and those after them.
    pub(super) bytes: u64,
    pub(super) framing_bytes: u64,
    pub(super) content_bytes: u64,
}

pub(super) fn read_head(archive: Archive<'_>, shared: &Shared<'_>) -> Result<Head, Error> {
    let Archive { path, container, chunks, .. } = archive;
    let malformed = |source| Error::Plan { path: path.clone(), source };
    let all = container.stream_bytes;
    let mut stream = StreamSection::new(shared, chunks, 0, all);
    let mut head = vec![0; PREFIX_BYTES];
    shared.settle(stream.read_exact(&mut head), || malformed(archive::Error::Malformed))?;
    let prefix = *head.first_chunk().expect("as many bytes");
    let length = head_bytes(prefix).map_err(malformed)?;
    head.resize(length, 0);
    let read = stream.read_exact(&mut head[PREFIX_BYTES..]);
    shared.settle(read, || malformed(archive::Error::Malformed))?;
    let (plan, framing_bytes, content_bytes) = decode_head(&head).map_err(malformed)?;
    let bytes = length as u64;
    if bytes + framing_bytes + content_bytes != all {
        return Err(malformed(archive::Error::Length));
    }
    Ok(Head { plan, bytes, framing_bytes, content_bytes })
}

/// The one reader of both sections, and the first error, which an [`io::Error`] cannot carry.
pub(super) struct Shared<'a>(RefCell<(&'a mut dyn ChunkReader, Option<Error>)>);

impl<'a> Shared<'a> {
    pub(super) fn new(reader: &'a mut dyn ChunkReader) -> Self {
        Self(RefCell::new((reader, None)))
    }

    /// Drops an error that nobody asked for.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().1 = None;
    }

    /// Appends a chunk to `out`.
    pub(super) fn read(&self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Error> {
        read_chunk(self.0.borrow_mut().0, chunk, out)
    }

    pub(super) fn fail(&self, error: Error) -> io::Error {
        self.0.borrow_mut().1.get_or_insert(error);
        io::ErrorKind::Other.into()
    }

    /// Replaces an [`io::Error`] by the error that caused it, if there is one.
    pub(super) fn settle<T>(
        &self,
        result: io::Result<T>,
        otherwise: impl FnOnce() -> Error,
    ) -> Result<T, Error> {
        result.map_err(|_| self.0.borrow_mut().1.take().unwrap_or_else(otherwise))
    }
}

/// Some adjacent bytes of a stream.
pub(super) struct StreamSection<'a, 'b> {
    shared: &'a Shared<'b>,
    chunks: std::slice::Iter<'a, ChunkRef>,
    chunk: Vec<u8>,
    /// The place of the next byte in `chunk`; after its end if it is not read yet.
    at: usize,
    left: u64,
}

impl<'a, 'b> StreamSection<'a, 'b> {
    pub(super) fn new(shared: &'a Shared<'b>, chunks: &'a [ChunkRef], offset: u64, bytes: u64) -> Self {
        let mut section = Self { shared, chunks: chunks.iter(), chunk: Vec::new(), at: 0, left: u64::MAX };
        section.skip(offset);
        section.left = bytes;
        section
    }
}

impl Skip for StreamSection<'_, '_> {
    fn skip(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.at = self.at.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.left -= bytes;
    }
}

impl Read for StreamSection<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || out.is_empty() {
            return Ok(0);
        }
        while self.at >= self.chunk.len() {
            self.at -= self.chunk.len();
            self.chunk.clear();
            let Some(next) = self.chunks.next() else { return Ok(0) };
            if self.at >= next.bytes as usize {
                self.at -= next.bytes as usize;
                continue;
            }
            let read = self.shared.read(next, &mut self.chunk);
            read.map_err(|error| self.shared.fail(error))?;
        }
        let here = &self.chunk[self.at..];
        let length = here.len().min(out.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        out[..length].copy_from_slice(&here[..length]);
        self.at += length;
        self.left -= length as u64;
        Ok(length)
    }
}
