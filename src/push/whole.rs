//! A whole file of a release, found from one of its chunks.

use crate::limits::{EXECUTABLE_BYTES_MAX, EXECUTABLE_CHUNKS_MAX};
use crate::manifest::{self, Item};
use crate::recipe::{ChunkRef, Recipe};
use crate::wire::Span;

/// A file of a release: where it is listed, and all its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Its path.
    pub path: Vec<u8>,
    /// Where its chunks are listed.
    pub span: Span,
    /// Its chunks in order.
    pub chunks: Vec<ChunkRef>,
}

impl Whole {
    /// The file that the chunk is of which is the reference `number` of `segment`; `read` gives segments by place.
    ///
    /// None where it is no file that can be told as an executable: too large, or not listed whole. Reads the
    /// segments that list the file, and no others.
    ///
    /// # Errors
    /// What `read` gives, and segments that do not decode.
    pub fn around<E: From<manifest::Error>>(
        segment: u32,
        number: u32,
        mut read: impl FnMut(u32) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Self>, E> {
        let mut items = |place: u32| -> Result<Option<Vec<Item>>, E> {
            Ok(read(place)?.map(|bytes| manifest::decode_segment(&bytes)).transpose()?)
        };
        let (mut place, mut before) = (segment, number as usize);
        let mut passed = 0;
        let (path, bytes, first) = loop {
            let Some(items) = items(place)? else { return Ok(None) };
            if let Some(begin) = last_file(&items, before) {
                break begin;
            }
            passed += items.len();
            if place == 0 || passed > EXECUTABLE_CHUNKS_MAX {
                return Ok(None);
            }
            (place, before) = (place - 1, usize::MAX);
        };
        if bytes > EXECUTABLE_BYTES_MAX as u64 {
            return Ok(None);
        }
        let (mut left, mut chunks, mut next, mut skipped) = (bytes, Vec::new(), place, first);
        while left > 0 {
            let Some(items) = items(next)? else { return Ok(None) };
            let listed = items.into_iter().filter_map(|item| match item {
                Item::Chunk(chunk) => Some(chunk),
                _ => None,
            });
            let found = chunks.len();
            for chunk in listed.skip(skipped) {
                let Some(rest) = left.checked_sub(u64::from(chunk.bytes)) else { return Ok(None) };
                left = rest;
                chunks.push(chunk);
                if left == 0 {
                    break;
                }
            }
            if chunks.len() > EXECUTABLE_CHUNKS_MAX || (next > place && chunks.len() == found) {
                return Ok(None);
            }
            (next, skipped) = (next + 1, 0);
        }
        let count = u32::try_from(chunks.len()).expect("chunks of an executable are bounded");
        let first = u32::try_from(first).expect("segments' references are bounded");
        Ok(Some(Self { path, span: Span { segment: place, first, count }, chunks }))
    }
}

/// The last file that begins before the chunk with the number `before`: its path, its bytes, and how many chunks
/// there are before it.
fn last_file(items: &[Item], before: usize) -> Option<(Vec<u8>, u64, usize)> {
    let (mut chunks, mut file) = (0, None);
    for item in items {
        match item {
            Item::File { path, size, recipe: Recipe::Chunks, .. } => {
                file = Some((path.as_bytes().to_vec(), *size, chunks));
            }
            Item::File { .. } => file = None,
            Item::Chunk(_) if chunks == before => break,
            Item::Chunk(_) => chunks += 1,
            Item::Directory { .. } | Item::Symlink { .. } => {}
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ArtifactId, ChunkId};
    use crate::manifest::EntryPath;
    use crate::recipe::Container;

    fn chunk(number: u32, bytes: u32) -> Item {
        Item::Chunk(ChunkRef { id: ChunkId::of(&number.to_le_bytes()), bytes })
    }

    fn file(path: &str, size: u64) -> Item {
        let path = EntryPath::new(path).expect("a path");
        Item::File { path, mode: 0o755, size, recipe: Recipe::Chunks }
    }

    fn segment(items: &[Item]) -> Vec<u8> {
        let mut bytes = vec![0x11];
        for item in items {
            item.encode(&mut bytes);
        }
        bytes
    }

    /// Three files in four segments; the second, of 10 chunks of 7 B, goes on in three of them.
    fn segments() -> Vec<Vec<u8>> {
        let chunks = |range: std::ops::Range<u32>| range.map(|number| chunk(number, 7)).collect::<Vec<_>>();
        let directory = Item::Directory { path: EntryPath::new("d").expect("a path"), mode: 0o755 };
        vec![
            segment(&[vec![file("a", 14)], chunks(0..2), vec![file("b", 70)], chunks(2..5)].concat()),
            segment(&chunks(5..9)),
            segment(&[chunks(9..12), vec![directory], vec![file("e", 21)], chunks(12..14)].concat()),
            segment(&chunks(14..15)),
        ]
    }

    type Found = Result<Option<Whole>, manifest::Error>;

    fn around(segments: &[Vec<u8>], segment: u32, number: u32) -> Found {
        Whole::around(segment, number, |place| Ok(segments.get(place as usize).cloned()))
    }

    #[test]
    fn a_file_is_found_from_each_of_its_chunks() {
        let segments = segments();
        let files = [
            ("a", Span { segment: 0, first: 0, count: 2 }, 0..2),
            ("b", Span { segment: 0, first: 2, count: 10 }, 2..12),
            ("e", Span { segment: 2, first: 3, count: 3 }, 12..15),
        ];
        // The number of each segment's first chunk.
        let firsts = [0, 5, 9, 14];
        for (path, span, chunks) in files {
            let listed: Vec<ChunkId> =
                chunks.clone().map(|number: u32| ChunkId::of(&number.to_le_bytes())).collect();
            for number in chunks {
                let place = firsts.iter().rposition(|first| *first <= number).expect("from 0 on");
                let segment = u32::try_from(place).expect("few");
                let whole = around(&segments, segment, number - firsts[place]).expect("it decodes");
                let whole = whole.unwrap_or_else(|| panic!("chunk {number} is of {path}"));
                assert_eq!((whole.path.as_slice(), whole.span), (path.as_bytes(), span));
                let found: Vec<ChunkId> = whole.chunks.iter().map(|chunk| chunk.id).collect();
                assert_eq!(found, listed);
            }
        }
    }

    #[test]
    fn what_is_not_listed_whole_is_none() {
        let all = segments();
        assert_eq!(around(&all, 9, 0), Ok(None), "no such segment");
        assert_eq!(around(&all, u32::MAX, u32::MAX), Ok(None), "no such segment");
        assert_eq!(around(&all[..2], 0, 2), Ok(None), "the file's end is missing");
        assert_eq!(around(&all[1..2], 0, 0), Ok(None), "the file's entry is missing");
        let listed = |items: &[Item]| around(&[segment(items)], 0, 0);
        assert_eq!(listed(&[file("a", 10), chunk(0, 7)]), Ok(None), "fewer bytes than the file has");
        assert_eq!(listed(&[file("a", 10), chunk(0, 11)]), Ok(None), "more bytes than the file has");
        let container = Container { stream_bytes: 7, artifact: ArtifactId::of(b"an archive") };
        let path = EntryPath::new("a").expect("a path");
        let archive = Item::File { path, mode: 0o644, size: 9, recipe: Recipe::Container(container) };
        assert_eq!(listed(&[archive, chunk(0, 7)]), Ok(None), "an archive's stream is no file");
        assert_eq!(listed(&[file("a", EXECUTABLE_BYTES_MAX as u64 + 1), chunk(0, 7)]), Ok(None), "too large");
    }

    #[test]
    fn a_chunk_behind_the_last_counts_as_of_the_last_file() {
        let whole = around(&segments(), 2, 99).expect("it decodes").expect("a file");
        assert_eq!(whole.path, b"e");
    }

    #[test]
    fn what_does_not_decode_is_an_error() {
        assert!(around(&[vec![0xff; 9]], 0, 0).is_err());
        let mut behind = segments();
        behind[2] = vec![0xff; 9];
        assert!(around(&behind, 0, 2).is_err(), "the file goes on there");
        assert_eq!(around(&behind, 0, 0).map(|whole| whole.map(|whole| whole.path)), Ok(Some(b"a".to_vec())));
    }

    #[test]
    fn no_more_is_read_than_a_file_of_the_most_chunks_takes() {
        // A manifest without end, of segments of 40 chunks, each of one byte.
        let chunks: Vec<Item> = (0..40).map(|number| chunk(number, 1)).collect();
        let (entry, rest) = (segment(&[file("a", 1 << 26)]), segment(&chunks));
        let most = EXECUTABLE_CHUNKS_MAX / 40 + 4;
        for (begin, at) in [(0, 0), (500_000, 0), (500_000, u32::MAX)] {
            let mut read = 0;
            let found: Found = Whole::around(begin, at, |place| {
                read += 1;
                Ok(Some(if place == 0 { entry.clone() } else { rest.clone() }))
            });
            assert_eq!(found, Ok(None));
            assert!(read <= most, "{read} segments");
        }
    }
}
