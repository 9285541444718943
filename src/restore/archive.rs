//! Rebuilds an archive from the chunks of its stream.

use std::cell::RefCell;
use std::io::{self, BufWriter, Read, Write};

use super::walk::{read_chunk, walk};
use super::{ChunkReader, Error};
use format::manifest::{EntryPath, Item, Root};
use format::recipe::{ChunkRef, Container};
use recode::archive::{self, PREFIX_BYTES, Plan, decode_head, head_bytes, rebuild};
use recode::codec::Permits;

/// 256 KiB: the most that is hashed and passed on at once.
const WRITE_BYTES: usize = 256 * 1024;

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

/// Passes the archive's bytes to `take`, in order, at most `size` of them.
///
/// They are verified only once this has returned without an error: their hash is known at their end. Memory: 5 MB,
/// some 100 B for each piece of the plan, and what [`Permits`] allow where xz or zstd is in it. Time: what encoding the stream
/// takes, some 30 MB/s, 3 to 5 for xz and high levels of zstd.
///
/// # Errors
/// A chunk that cannot be read, a malformed stream, an archive other than the recipe's; the first error of `take`.
pub fn write_archive(
    archive: Archive<'_>,
    reader: &mut dyn ChunkReader,
    turns: &Permits,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let Archive { path, size, container, chunks } = archive;
    let shared = Shared(RefCell::new((reader, None)));
    let Head { plan, bytes: begin, framing_bytes, content_bytes } = read_head(archive, &shared)?;
    let _turn = plan.is_heavy().then(|| turns.wait());
    let mut framing = StreamSection::new(&shared, chunks, begin, framing_bytes);
    let mut content = StreamSection::new(&shared, chunks, begin + framing_bytes, content_bytes);
    let mut checked = Checked { take, hasher: blake3::Hasher::new(), left: size, shared: &shared };
    let mut out = BufWriter::with_capacity(WRITE_BYTES, &mut checked);
    let other = || Error::OtherArtifact(path.clone());
    let written = rebuild(&plan, &mut framing, &mut content, &mut out).and_then(|()| out.flush());
    shared.settle(written, other)?;
    // Nothing is left in it; dropping it would try to write again after an error.
    drop(out);
    let same = checked.left == 0 && checked.hasher.finalize().as_bytes() == container.artifact.as_bytes();
    if same { Ok(()) } else { Err(other()) }
}

/// Reads the plan at the beginning of an archive's stream.
///
/// # Errors
/// A chunk that cannot be read, a malformed stream.
pub fn read_plan(archive: Archive<'_>, reader: &mut dyn ChunkReader) -> Result<Plan, Error> {
    read_head(archive, &Shared(RefCell::new((reader, None)))).map(|head| head.plan)
}

/// The beginning of a stream.
struct Head {
    plan: Plan,
    /// Its bytes, and those after them.
    bytes: u64,
    framing_bytes: u64,
    content_bytes: u64,
}

fn read_head(archive: Archive<'_>, shared: &Shared<'_>) -> Result<Head, Error> {
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

/// Passes each archive of a release to `each`, with its chunks.
///
/// # Errors
/// A damaged manifest; the first of `each`.
pub fn each_archive(
    root: &Root,
    reader: &mut dyn ChunkReader,
    each: &mut dyn FnMut(Archive<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut open: Option<(EntryPath, u64, Container)> = None;
    let mut chunks = Vec::new();
    let mut end = |open: &mut Option<(EntryPath, u64, Container)>, chunks: &mut Vec<ChunkRef>| {
        if let Some((path, size, container)) = open.take() {
            each(Archive { path: &path, size, container, chunks })?;
            chunks.clear();
        }
        Ok::<(), Error>(())
    };
    walk::<Error>(root, reader, &mut |item| {
        if let Item::Chunk(chunk) = item {
            if open.is_some() {
                chunks.push(chunk);
            }
            return Ok(());
        }
        end(&mut open, &mut chunks)?;
        if let Item::File { path, size, recipe, .. } = item {
            open = recipe.container().map(|container| (path, size, container));
        }
        Ok(())
    })?;
    end(&mut open, &mut chunks)
}

/// The one reader of both sections, and the first error, which an [`io::Error`] cannot carry.
struct Shared<'a>(RefCell<(&'a mut dyn ChunkReader, Option<Error>)>);

impl Shared<'_> {
    fn fail(&self, error: Error) -> io::Error {
        self.0.borrow_mut().1.get_or_insert(error);
        io::ErrorKind::Other.into()
    }

    /// Replaces an [`io::Error`] by the error that caused it, if there is one.
    fn settle<T>(&self, result: io::Result<T>, otherwise: impl FnOnce() -> Error) -> Result<T, Error> {
        result.map_err(|_| self.0.borrow_mut().1.take().unwrap_or_else(otherwise))
    }
}

/// Some adjacent bytes of a stream.
struct StreamSection<'a, 'b> {
    shared: &'a Shared<'b>,
    chunks: std::slice::Iter<'a, ChunkRef>,
    chunk: Vec<u8>,
    /// The place of the next byte in `chunk`; after its end if it is not read yet.
    at: usize,
    left: u64,
}

impl<'a, 'b> StreamSection<'a, 'b> {
    fn new(shared: &'a Shared<'b>, chunks: &'a [ChunkRef], mut offset: u64, bytes: u64) -> Self {
        let mut before = 0;
        for chunk in chunks {
            if offset < u64::from(chunk.bytes) {
                break;
            }
            offset -= u64::from(chunk.bytes);
            before += 1;
        }
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        Self { shared, chunks: chunks[before..].iter(), chunk: Vec::new(), at, left: bytes }
    }
}

impl Read for StreamSection<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || out.is_empty() {
            return Ok(0);
        }
        while self.at >= self.chunk.len() {
            let Some(next) = self.chunks.next() else { return Ok(0) };
            self.at -= self.chunk.len();
            self.chunk.clear();
            let read = read_chunk(self.shared.0.borrow_mut().0, next, &mut self.chunk);
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

/// Hashes the output, and lets no more bytes through than the archive has.
struct Checked<'a, 'b> {
    take: &'a mut dyn FnMut(&[u8]) -> Result<(), Error>,
    hasher: blake3::Hasher,
    left: u64,
    shared: &'a Shared<'b>,
}

impl Write for Checked<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
        self.hasher.update(bytes);
        (self.take)(bytes).map_err(|error| self.shared.fail(error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
