//! Rebuilds an archive from the chunks of its stream.

use std::io::{self, BufWriter, Write};

use super::archive_stream::{Archive, Head, Shared, StreamSection, read_head};
use super::older::{Copies, Older};
use super::walk::walk;
use super::{ChunkReader, Error};
use format::manifest::{EntryPath, Item, Root};
use format::recipe::{ChunkRef, Container};
use recode::archive::{Plan, rebuild, rebuild_copying};
use recode::codec::Permits;

/// 256 KiB: the most that is hashed and passed on at once.
const WRITE_BYTES: usize = 256 * 1024;

/// What comes of an archive next.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// Its next bytes.
    Bytes(&'a [u8]),
    /// Its beginning: what came so far is wrong.
    Anew,
    /// Nothing yet: an older archive is searched. Comes before the first bytes, often.
    Searching,
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
    let shared = Shared::new(reader);
    let head = read_head(archive, &shared)?;
    write_once(archive, &head, &shared, turns, None, take)
}

/// Does the same, but copies what an older archive has too: time for that is decoding's, some 300 MB/s. Where this gives another
/// archive, it begins anew and encodes everything. Returns the bytes that were copied.
///
/// Memory: also 60 B for each stream, and 8 B for each chunk of the older archive's bytes.
///
/// # Errors
/// Those of [`write_archive`]; nothing that is wrong with the older archive.
pub fn write_archive_copying(
    archive: Archive<'_>,
    older: Option<Older<'_>>,
    reader: &mut dyn ChunkReader,
    turns: &Permits,
    take: &mut dyn FnMut(Step<'_>) -> Result<(), Error>,
) -> Result<u64, Error> {
    let shared = Shared::new(reader);
    let head = read_head(archive, &shared)?;
    let mut searching = Ok(());
    let copies = older.and_then(|older| {
        let go_on = &mut || {
            searching = take(Step::Searching);
            searching.is_ok()
        };
        Copies::find(archive, &head, older, &shared, go_on)
    });
    searching?;
    if let Some(mut copies) = copies {
        let mut bytes = |bytes: &[u8]| take(Step::Bytes(bytes));
        match write_once(archive, &head, &shared, turns, Some(&mut copies), &mut bytes) {
            Err(Error::OtherArtifact(_)) => take(Step::Anew)?,
            written => return written.map(|()| copies.bytes),
        }
    }
    write_once(archive, &head, &shared, turns, None, &mut |bytes| take(Step::Bytes(bytes)))?;
    Ok(0)
}

fn write_once(
    archive: Archive<'_>,
    head: &Head,
    shared: &Shared<'_>,
    turns: &Permits,
    copies: Option<&mut Copies<'_, '_>>,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let Archive { path, size, container, chunks } = archive;
    let Head { plan, bytes: begin, framing_bytes, content_bytes } = head;
    let _turn = plan.is_heavy().then(|| turns.wait());
    let mut framing = StreamSection::new(shared, chunks, *begin, *framing_bytes);
    let mut content = StreamSection::new(shared, chunks, begin + framing_bytes, *content_bytes);
    let mut checked = Checked { take, hasher: blake3::Hasher::new(), left: size, shared };
    let mut out = BufWriter::with_capacity(WRITE_BYTES, &mut checked);
    let other = || Error::OtherArtifact(path.clone());
    let rebuilt = match copies {
        Some(copies) => rebuild_copying(plan, &mut framing, &mut content, copies, &mut out),
        None => rebuild(plan, &mut framing, &mut content, &mut out),
    };
    let written = rebuilt.and_then(|()| out.flush());
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
    read_head(archive, &Shared::new(reader)).map(|head| head.plan)
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
