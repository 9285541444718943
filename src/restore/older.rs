//! An older archive: packed streams that a newer one has too are copied out of it, and not encoded again.
//!
//! Nothing that is copied is believed: who rebuilds an archive compares its hash.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use super::ChunkReader;
use super::archive_stream::{Archive, Head, Shared, read_head};
use super::packed_bytes::{PackedBytes, PackedReader, Watched};
use super::packed_keys::Keys;
use recode::archive::{KnownStream, PackedStreams, StreamName, locate};

/// 262,144 streams of an archive are looked for: 12 MiB. Others are encoded.
const STREAMS_MAX: usize = 256 * 1024;
/// 64 KiB: bytes that are copied at once.
const COPY_BYTES: usize = 64 * 1024;
/// 8: plain bytes of an older archive that may be decoded for each byte of the newer one's stream. A small archive takes no longer for a
/// large older one.
const OLDER_RATIO_MAX: u64 = 8;

/// An archive that may have streams of another.
#[derive(Debug, Clone, Copy)]
pub struct Older<'a> {
    /// The archive, unpacked.
    pub archive: Archive<'a>,
    /// Its bytes.
    pub packed: PackedBytes<'a>,
}

impl Older<'_> {
    /// Plain bytes that it may decode to: those of the streams in its streams come on top.
    fn plain_bytes_max(&self) -> u64 {
        self.archive.container.stream_bytes.saturating_mul(2)
    }
}

/// Returns how the outermost packed streams of an archive were made, by their names; those that were found, where it cannot be read.
///
/// `go_on` is called for each 64 KiB at most, and ends it by false. Time: that of decoding and hashing it, some 250 MB/s. Memory: 60 B for
/// each stream.
pub fn known_streams(
    older: Older<'_>,
    reader: &mut dyn ChunkReader,
    go_on: &mut dyn FnMut() -> bool,
) -> HashMap<StreamName, KnownStream> {
    let (shared, mut known) = (Shared::new(reader), HashMap::new());
    let Ok(head) = read_head(older.archive, &shared) else { return known };
    let mut streams = Vec::new();
    head.plan.each_packed(&mut |piece| {
        if piece.is_outermost && streams.len() < STREAMS_MAX {
            let is_leaf = piece.plain.is_plain();
            let plain = is_leaf.then_some(piece.content.end - piece.content.start);
            streams.push((KnownStream { method: piece.method, plain, is_leaf }, 0..0));
        }
    });
    let mut packed = PackedReader::new(older.packed, &shared);
    let (mut packed, mut located) = (Watched { packed: &mut packed, go_on }, 0);
    let found = locate(&head.plan, &mut packed, older.plain_bytes_max(), &mut |_, place| {
        match streams.get_mut(located) {
            Some((_, at)) => *at = place,
            None => return ControlFlow::Break(()),
        }
        located += 1;
        ControlFlow::Continue(())
    });
    log(found);
    for (stream, place) in &streams[..located] {
        packed.packed.at = place.start;
        if let Some(hash) = hash_of(&mut packed, place.end - place.start) {
            known.insert(StreamName::from_bytes(hash), *stream);
        }
    }
    known
}

/// Streams of an archive that an older one has.
pub(super) struct Copies<'a, 'b> {
    /// In the order of their numbers.
    streams: Vec<Stream>,
    next: usize,
    packed: PackedReader<'a, 'b>,
    buffer: Vec<u8>,
    /// Bytes that were copied.
    pub(super) bytes: u64,
}

/// A packed stream.
struct Stream {
    /// Its number in the newer archive.
    number: u32,
    /// Its place in the older one.
    at: u64,
    bytes: u64,
}

impl<'a, 'b> Copies<'a, 'b> {
    /// Finds the streams of an archive with this head that `older` has; none where there are none, or it cannot be read.
    ///
    /// `go_on` is called for each 64 KiB at most, and ends it by false. Time: that of decoding the older archive up to the last of them, at
    /// most [`OLDER_RATIO_MAX`] times the newer one's stream, some 300 MB/s. Memory: 48 B for each stream, and 8 B for each chunk of
    /// the older archive.
    pub(super) fn find(
        archive: Archive<'_>,
        head: &Head,
        older: Older<'a>,
        shared: &'b Shared<'a>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<Self> {
        let found = Self::look(archive, head, older, shared, go_on);
        // Whoever needs what could not be read reads it again.
        shared.forget();
        found
    }

    fn look(
        archive: Archive<'_>,
        head: &Head,
        older: Older<'a>,
        shared: &'b Shared<'a>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<Self> {
        let mut wanted = Vec::new();
        let mut keys = Keys::new(archive, head, shared);
        head.plan.each_packed(&mut |piece| {
            if wanted.len() < STREAMS_MAX
                && let Some(key) = keys.of(&piece)
            {
                wanted.push((key, piece.number));
            }
        });
        wanted.sort_unstable();
        let older_head = read_head(older.archive, shared).ok()?;
        let mut keys = Keys::new(older.archive, &older_head, shared);
        // The streams that are wanted: their numbers in the older archive, and the first place in `wanted`.
        let mut common: Vec<(u32, usize)> = Vec::new();
        let mut is_found = vec![false; wanted.len()];
        older_head.plan.each_packed(&mut |piece| {
            if !piece.is_outermost {
                return;
            }
            if let Some(key) = keys.of(&piece) {
                let first = wanted.partition_point(|(other, _)| *other < key);
                if wanted.get(first).is_some_and(|(other, _)| *other == key)
                    && !std::mem::replace(&mut is_found[first], true)
                {
                    common.push((piece.number, first));
                }
            }
        });
        let mut packed = PackedReader::new(older.packed, shared);
        let (mut streams, mut left) = (Vec::new(), common.iter().peekable());
        left.peek()?;
        let mut watched = Watched { packed: &mut packed, go_on };
        let plain_bytes_max = archive.container.stream_bytes.saturating_mul(OLDER_RATIO_MAX);
        let plain_bytes_max = plain_bytes_max.min(older.plain_bytes_max());
        let located = locate(&older_head.plan, &mut watched, plain_bytes_max, &mut |number, place| {
            if let Some((_, first)) = left.next_if(|(common, _)| *common == number) {
                let key = wanted[*first].0;
                let all = wanted[*first..].iter().take_while(|(other, _)| *other == key);
                let bytes = place.end - place.start;
                streams.extend(all.map(|(_, number)| Stream { number: *number, at: place.start, bytes }));
            }
            if left.peek().is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        log(located);
        streams.sort_unstable_by_key(|stream| stream.number);
        let buffer = vec![0; COPY_BYTES];
        (!streams.is_empty()).then_some(Self { streams, next: 0, packed, buffer, bytes: 0 })
    }
}

impl PackedStreams for Copies<'_, '_> {
    fn write(&mut self, number: u32, out: &mut dyn Write) -> io::Result<bool> {
        self.next += self.streams[self.next..].iter().take_while(|stream| stream.number < number).count();
        let Some(stream) = self.streams.get(self.next).filter(|stream| stream.number == number) else {
            return Ok(false);
        };
        self.packed.at = stream.at;
        let mut left = stream.bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(COPY_BYTES);
            self.packed.read_exact(&mut self.buffer[..length])?;
            out.write_all(&self.buffer[..length])?;
            left -= length as u64;
        }
        self.bytes += stream.bytes;
        Ok(true)
    }
}

fn log(located: io::Result<()>) {
    if let Err(error) = located {
        tracing::debug!(%error, "an older archive was not read to its end; some of its streams are not used");
    }
}

/// Returns the first 16 bytes of the BLAKE3 of the next bytes of a stream; none where it has fewer.
fn hash_of(stream: &mut impl Read, bytes: u64) -> Option<[u8; 16]> {
    let (mut left, mut hasher) = (stream.take(bytes), blake3::Hasher::new());
    io::copy(&mut left, &mut hasher).ok().filter(|read| *read == bytes)?;
    hasher.finalize().as_bytes().first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::restore::{ChunkSource as _, Error, MemorySource, Step, gzips, noise, write_archive_copying};
    use format::manifest::EntryPath;
    use format::recipe::{ChunkRef, Container};
    use recode::archive::{Limits, Memory, Planner};
    use recode::codec::Permits;

    /// Some text that depends on `seed`, of which half can be packed.
    fn text(seed: u64, length: usize) -> Vec<u8> {
        noise(seed, length).iter().map(|byte| b'a' + byte % 16).collect()
    }

    /// Two archives, the newer with a changed, a new and two old members, one of which comes twice.
    struct Pair {
        source: MemorySource,
        old: Vec<u8>,
        new: Vec<u8>,
        old_stored: (Container, Vec<ChunkRef>, Vec<ChunkRef>),
        new_stored: (Container, Vec<ChunkRef>, Vec<ChunkRef>),
    }

    impl Pair {
        fn make() -> Self {
            let [first, second, third] = [1, 2, 3].map(|seed| text(seed, 200_000));
            let changed = [&second[..100_000], b"changed", &second[100_000..]].concat();
            // An archive in an archive, with a short member, and one that changes.
            let inner = |seed| gzips(&[text(seed, 300), text(7, 20_000), text(8, 500)]);
            let old = gzips(&[first.clone(), text(9, 100), inner(6), second, third.clone(), inner(5)]);
            let new = gzips(&[third.clone(), text(9, 100), changed, inner(6), inner(4), first, third]);
            let mut source = MemorySource::default();
            let (old_stored, new_stored) = (source.archive(&old), source.archive(&new));
            Self { source, old, new, old_stored, new_stored }
        }

        fn older(&self) -> Older<'_> {
            let (container, chunks, packed) = &self.old_stored;
            let archive =
                Archive { path: path(), size: self.old.len() as u64, container: *container, chunks };
            Older { archive, packed: PackedBytes::Chunks(packed) }
        }

        /// Rebuilds the newer archive; returns the bytes that were copied, and how often it began anew.
        fn rebuild(&self, older: Older<'_>) -> (u64, usize) {
            let (container, chunks, _) = &self.new_stored;
            let archive =
                Archive { path: path(), size: self.new.len() as u64, container: *container, chunks };
            let (mut out, mut anew) = (Vec::new(), 0);
            let take = &mut |step: Step<'_>| {
                match step {
                    Step::Bytes(bytes) => out.extend_from_slice(bytes),
                    Step::Anew => {
                        out.clear();
                        anew += 1;
                    }
                    Step::Searching => assert!(out.is_empty(), "it was searched before"),
                }
                Ok(())
            };
            let mut reader = self.source.reader();
            let copied = write_archive_copying(archive, Some(older), &mut *reader, &Permits::default(), take);
            assert!(out == self.new, "it differs");
            (copied.expect("rebuilt"), anew)
        }
    }

    fn path() -> &'static EntryPath {
        static PATH: std::sync::OnceLock<EntryPath> = std::sync::OnceLock::new();
        PATH.get_or_init(|| EntryPath::new("app.gz").expect("a path"))
    }

    fn file_of(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().expect("a temporary file");
        file.write_all_at(bytes, 0).expect("written");
        file
    }

    #[test]
    fn streams_that_an_older_archive_has_are_copied_and_their_content_is_not_read() {
        let pair = Pair::make();
        let packed = |plain| (gzips(&[plain]).len() - 18) as u64;
        let inner = gzips(&[text(6, 300), text(7, 20_000), text(8, 500)]);
        let common = 2 * packed(text(3, 200_000)) + packed(text(1, 200_000)) + packed(inner);
        pair.source.content_reads();
        let file = file_of(&pair.old);
        assert_eq!(pair.rebuild(Older { packed: PackedBytes::File(&file), ..pair.older() }), (common, 0));
        let copying = pair.source.content_reads();
        assert_eq!(pair.rebuild(pair.older()), (common, 0));
        pair.source.content_reads();
        let none = Older { packed: PackedBytes::Chunks(&[]), ..pair.older() };
        assert_eq!(pair.rebuild(none), (0, 0));
        assert!(copying * 2 < pair.source.content_reads(), "{copying}");
    }

    #[test]
    fn a_search_ends_where_it_is_told_and_at_a_multiple_of_the_newer_archive() {
        let pair = Pair::make();
        let (container, chunks, _) = &pair.new_stored;
        let archive = Archive { path: path(), size: pair.new.len() as u64, container: *container, chunks };
        let (mut reader, mut steps) = (pair.source.reader(), 0);
        let take = &mut |step: Step<'_>| {
            steps += 1;
            if matches!(step, Step::Searching) && steps > 1 { Err(Error::Cancelled) } else { Ok(()) }
        };
        let older = Some(pair.older());
        let ended = write_archive_copying(archive, older, &mut *reader, &Permits::default(), take);
        assert!(matches!(ended, Err(Error::Cancelled)) && steps == 2, "{steps}");
        assert!(known_streams(pair.older(), &mut *reader, &mut || false).is_empty());
        drop(reader);
        for (before, is_copied) in [(10_000, true), (200_000, false)] {
            let mut source = MemorySource::default();
            let [old, new] = [gzips(&[text(1, before), text(2, 5000)]), gzips(&[text(2, 5000)])];
            let (old_stored, new_stored) = (source.archive(&old), source.archive(&new));
            let pair = Pair { source, old, new, old_stored, new_stored };
            assert_eq!(pair.rebuild(pair.older()).0 > 0, is_copied);
        }
    }

    #[test]
    fn what_is_known_of_its_streams_changes_no_plan() {
        let pair = Pair::make();
        let known = known_streams(pair.older(), &mut *pair.source.reader(), &mut || true);
        // One short one is no stream that pays.
        assert_eq!(known.len(), 6);
        for archive in [&pair.old, &pair.new] {
            let plan = |known| Planner::default().plan(archive, &Limits::default(), &mut Memory, known);
            assert_eq!(plan(Some(&known)), plan(None));
        }
        let file = file_of(&pair.old[..pair.old.len() / 2]);
        let cut = Older { packed: PackedBytes::File(&file), ..pair.older() };
        assert!((1..6).contains(&known_streams(cut, &mut *pair.source.reader(), &mut || true).len()));
    }

    #[test]
    fn a_file_that_was_changed_costs_time_alone() {
        let pair = Pair::make();
        let mut anew = 0;
        for at in (0..pair.old.len()).step_by(pair.old.len() / 60) {
            let mut bytes = pair.old.clone();
            bytes[at] ^= 0x10;
            let (flipped, cut) = (file_of(&bytes), file_of(&bytes[..at]));
            for file in [flipped, cut] {
                anew += pair.rebuild(Older { packed: PackedBytes::File(&file), ..pair.older() }).1;
            }
        }
        assert!(anew > 0, "some changes show only in the hash of the whole");
    }

    #[test]
    fn chunks_that_are_lost_cost_time_alone() {
        let mut pair = Pair::make();
        let (_, chunks, packed) = pair.old_stored.clone();
        let whole = pair.rebuild(pair.older()).0;
        pair.source.lose_chunk(&packed[packed.len() / 2]);
        assert!((1..whole).contains(&pair.rebuild(pair.older()).0));
        pair.source.lose_chunk(&packed[0]);
        assert_eq!(pair.rebuild(pair.older()), (0, 0));
        // Its plan.
        pair.source.lose_chunk(&chunks[0]);
        assert_eq!(pair.rebuild(pair.older()), (0, 0));
    }

    #[test]
    fn a_recipe_of_another_archive_costs_time_alone() {
        let pair = Pair::make();
        let (container, chunks, packed) = &pair.new_stored;
        let other = Older { packed: PackedBytes::Chunks(packed), ..pair.older() };
        pair.rebuild(other);
        let archive = Archive { container: *container, chunks, ..pair.older().archive };
        pair.rebuild(Older { archive, ..pair.older() });
    }
}
