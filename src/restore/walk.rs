//! Reads a manifest from its root down to its items, in order.
//!
//! A node tree is input: the number of segments is bounded by [`MANIFEST_SEGMENTS_MAX`], its depth by
//! the root, and since a node is never empty, the nodes by both. Memory is one node's children for each
//! level and one segment's items.

use std::vec;

use super::{ChunkReader, Error};
use format::manifest::{self, Item, NodeRef, Root, decode_node};
use format::recipe::ChunkRef;
use ground::limits::{CHUNK_BYTES_MAX, MANIFEST_SEGMENTS_MAX};

/// A release's items in the manifest's order, each checked by [`manifest::Reader`] before it is given out.
///
/// The manifest is complete only if the iterator ends without an error. After an error it ends.
pub struct Items<'a> {
    root: &'a Root,
    reader: &'a mut dyn ChunkReader,
    segments: Segments,
    /// Checks the manifest's items; none once it has ended or failed.
    checks: Option<manifest::Reader>,
    ready: vec::IntoIter<Item>,
    buffer: Vec<u8>,
}

impl<'a> Items<'a> {
    /// Starts before the first item of `root`; `reader` returns its parts.
    pub fn new(root: &'a Root, reader: &'a mut dyn ChunkReader) -> Self {
        let (segments, checks) = (Segments::new(root), Some(manifest::Reader::new()));
        Self { root, reader, segments, checks, ready: Vec::new().into_iter(), buffer: Vec::new() }
    }

    /// Reads the next segment; false after the last.
    fn refill(&mut self) -> Result<bool, Error> {
        let Some(mut checks) = self.checks.take() else { return Ok(false) };
        let Some(segment) = self.segments.next(self.reader, &mut self.buffer)? else {
            checks.finish(self.root)?;
            return Ok(false);
        };
        read_part(self.reader, segment, &mut self.buffer)?;
        self.ready = checks.segment(&self.buffer)?.into_iter();
        self.checks = Some(checks);
        Ok(true)
    }
}

impl Iterator for Items<'_> {
    type Item = Result<Item, Error>;

    fn next(&mut self) -> Option<Result<Item, Error>> {
        loop {
            if let Some(item) = self.ready.next() {
                return Some(Ok(item));
            }
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Hands each item of `root` to `visit`, in order.
///
/// # Errors
/// The manifest's first fault, or the first error of `visit`. Until the end, what `visit` has seen may be
/// the beginning of a manifest that turns out to be damaged.
pub fn walk<E: From<Error>>(
    root: &Root,
    reader: &mut dyn ChunkReader,
    visit: &mut dyn FnMut(Item) -> Result<(), E>,
) -> Result<(), E> {
    Items::new(root, reader).try_for_each(|item| visit(item?))
}

/// Lists the segments of `root` in order without reading them, and proves that `root` is the one above them.
///
/// Memory: 36 B for each, 18 MiB at most.
///
/// # Errors
/// A node that cannot be read, too many segments, or a node tree that no builder makes of these segments.
pub fn leaves(root: &Root, reader: &mut dyn ChunkReader) -> Result<Vec<NodeRef>, Error> {
    let (mut segments, mut buffer, mut found) = (Segments::new(root), Vec::new(), Vec::new());
    while let Some(segment) = segments.next(reader, &mut buffer)? {
        found.push(segment);
    }
    let rebuilt = root.over(found.clone(), |_| {})?;
    if rebuilt == *root {
        Ok(found)
    } else {
        let (expected, found) = (root.id(), rebuilt.id());
        Err(manifest::Error::OtherRoot { expected, found }.into())
    }
}

/// Appends a chunk to `out` and checks that it is as long as `chunk` says: offsets are computed from that.
///
/// # Errors
/// The chunk cannot be read, or has another length.
pub(super) fn read_chunk(
    reader: &mut dyn ChunkReader,
    chunk: &ChunkRef,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let before = out.len();
    reader.read(chunk, out)?;
    let found = out.len() - before;
    if found == chunk.bytes as usize {
        Ok(())
    } else {
        Err(Error::Length { id: chunk.id, expected: chunk.bytes, found })
    }
}

/// Replaces `buffer` by a node or segment.
fn read_part(reader: &mut dyn ChunkReader, part: NodeRef, buffer: &mut Vec<u8>) -> Result<(), Error> {
    if part.bytes > CHUNK_BYTES_MAX {
        let offset = part.bytes as usize;
        return Err(manifest::Error::Malformed { part: "node", id: part.id, offset }.into());
    }
    buffer.clear();
    read_chunk(reader, &part.into(), buffer)
}

/// Finds the segments below a root, one node of each level at a time.
struct Segments {
    /// The children left of the open nodes, the root's own first.
    levels: Vec<vec::IntoIter<NodeRef>>,
    depth: usize,
    found: usize,
}

impl Segments {
    fn new(root: &Root) -> Self {
        Self { levels: vec![root.children.clone().into_iter()], depth: usize::from(root.depth), found: 0 }
    }

    fn next(&mut self, reader: &mut dyn ChunkReader, buffer: &mut Vec<u8>) -> Result<Option<NodeRef>, Error> {
        while let Some(level) = self.levels.last_mut() {
            let Some(child) = level.next() else {
                self.levels.pop();
                continue;
            };
            if self.levels.len() > self.depth {
                self.found += 1;
                if self.found > MANIFEST_SEGMENTS_MAX {
                    return Err(manifest::Error::TooLarge(MANIFEST_SEGMENTS_MAX).into());
                }
                return Ok(Some(child));
            }
            read_part(reader, child, buffer)?;
            self.levels.push(decode_node(buffer)?.into_iter());
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChunkSource, Entry, MemorySource, noise};
    use super::*;
    use format::manifest::{Profile, Shape, Totals};
    use ground::ids::ChunkId;

    fn many_files() -> Vec<Entry> {
        (0..6000).map(|n| Entry::file(format!("{n:05}"), 0o644, n.to_string().into_bytes())).collect()
    }

    #[test]
    fn a_walk_gives_every_item_in_order_through_several_levels() {
        let (root, source) = MemorySource::of(Shape::Tree, &many_files());
        assert!(root.depth >= 1, "the sample has nodes");
        let mut names = Vec::new();
        walk::<Error>(&root, &mut *source.reader(), &mut |item| {
            if let Item::File { path, .. } = item {
                names.push(path.to_string());
            }
            Ok(())
        })
        .expect("an honest manifest");
        assert_eq!(names, (0..6000).map(|n| format!("{n:05}")).collect::<Vec<_>>());
    }

    #[test]
    fn leaves_are_the_segments_that_the_builder_made() {
        let (root, source) = MemorySource::of(Shape::Tree, &many_files());
        let segments = leaves(&root, &mut *source.reader()).expect("an honest manifest");
        assert_eq!(segments, source.segments);
    }

    #[test]
    fn a_root_over_another_tree_of_the_same_segments_is_refused() {
        let (mut root, mut source) = MemorySource::of(Shape::Tree, &many_files());
        let node = source.add_node(&root.children);
        root.children = vec![node];
        root.depth += 1;
        let error = leaves(&root, &mut *source.reader()).expect_err("no builder makes this");
        assert!(matches!(error, Error::Manifest(manifest::Error::OtherRoot { .. })), "{error}");
    }

    /// Twenty levels of nodes, each naming the one below 64 times: 2^120 segments.
    fn bomb(source: &mut MemorySource, segment: NodeRef) -> Root {
        let mut child = segment;
        for _ in 0..20 {
            child = source.add_node(&[child; 64]);
        }
        let totals = Totals { files: 1, ..Totals::default() };
        Root {
            profile: Profile::DEFAULT,
            shape: Shape::Tree,
            totals,
            depth: 20,
            children: vec![child],
            named: None,
        }
    }

    #[test]
    fn a_node_tree_that_names_itself_over_and_over_ends_at_the_limit() {
        let (_, mut source) = MemorySource::of(Shape::Tree, &many_files()[..1]);
        let root = bomb(&mut source, NodeRef { id: ChunkId::of(b"never read"), bytes: 10 });
        let error = leaves(&root, &mut *source.reader()).expect_err("too many");
        assert!(matches!(error, Error::Manifest(manifest::Error::TooLarge(_))), "{error}");
    }

    #[test]
    fn a_segment_named_twice_is_refused_at_its_second_appearance() {
        let (honest, mut source) = MemorySource::of(Shape::Tree, &many_files()[..1]);
        let segment = honest.children[0];
        let root = bomb(&mut source, segment);
        let error = walk::<Error>(&root, &mut *source.reader(), &mut |_| Ok(())).expect_err("twice");
        assert!(matches!(error, Error::Manifest(manifest::Error::Order(_))), "{error}");
    }

    #[test]
    fn a_part_that_is_no_node_or_lies_about_its_length_is_refused() {
        let (honest, mut source) = MemorySource::of(Shape::Tree, &many_files()[..1]);
        let garbage = source.add(noise(1, 500));
        let short = NodeRef { bytes: honest.children[0].bytes - 1, ..honest.children[0] };
        let huge = NodeRef { bytes: u32::MAX, ..honest.children[0] };
        for (depth, child) in [(1, garbage), (0, garbage), (1, honest.children[0]), (0, short), (0, huge)] {
            let root = Root { depth, children: vec![child], ..honest.clone() };
            let result = walk::<Error>(&root, &mut *source.reader(), &mut |_| Ok(()));
            assert!(result.is_err(), "depth {depth}, {child:?}");
        }
    }
}
