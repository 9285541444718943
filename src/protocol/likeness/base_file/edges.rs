//! Where executables in archives begin and end.

use std::ops::Range;

use super::Release;
use super::walk::{Entry, Listed, Walk, parts};
use crate::likeness::listing::{Edge, Edges};
use crate::wire::Span;
use delta::relink::MAGIC;
use format::manifest::{self, Item, SegmentIndex};
use ground::limits::EXECUTABLE_BYTES_MIN;

/// Returns where executables in archives begin and end, in some runs of a release's segments: they are compared by
/// themselves, wherever in the archive they are.
///
/// Archives whose plan is not there have none. Reads the beginnings of large members, these segments, and those that
/// list the beginnings of their files.
///
/// # Errors
/// An error of `release`; segments that do not decode.
pub fn edges<R: Release>(ranges: &[Range<usize>], release: &mut R) -> Result<Edges, R::Error> {
    let mut edges = Edges::new();
    for range in ranges {
        let mut entries = Vec::new();
        for index in SegmentIndex::range(range.clone()) {
            let Some(bytes) = release.segment(index)? else { break };
            let items = manifest::decode_segment(&bytes)?;
            if usize::from(index) == range.start && matches!(items.first(), Some(Item::Chunk(_))) {
                entries.extend(Entry::before(&Span { segment: index, first: 0, count: 1 }, release)?);
            }
            let mut before = 0;
            for item in &items {
                match item {
                    Item::File { .. } => entries.extend(
                        Entry::last(std::slice::from_ref(item), 1, index)
                            .map(|entry| Entry { first: before, ..entry }),
                    ),
                    Item::Chunk(_) => before += 1,
                    _ => {}
                }
            }
        }
        for entry in entries.into_iter().filter(|entry| entry.is_archive) {
            members(&entry, SegmentIndex::of(range.end), release, &mut edges)?;
        }
    }
    Ok(edges)
}

/// Adds the edges of an archive, as far as segments before `end` list it.
fn members<R: Release>(
    entry: &Entry,
    end: SegmentIndex,
    release: &mut R,
    edges: &mut Edges,
) -> Result<(), R::Error> {
    let mut walk = Walk::new(release, entry, Span { segment: SegmentIndex::default(), first: 0, count: 0 });
    let Some(parts) = parts(&mut walk)? else { return Ok(()) };
    let mut after_executable = false;
    for (length, is_member) in parts.after_plan() {
        let (mut left, mut begin, mut is_executable) = (length, true, false);
        while left > 0 {
            let Some(Listed { at, chunk }) = walk.next()? else { return Ok(()) };
            let Some(rest) = left.checked_sub(u64::from(chunk.bytes)) else { return Ok(()) };
            left = rest;
            if at.segment >= end {
                return Ok(());
            }
            if std::mem::take(&mut begin) {
                let mut bytes = Vec::new();
                is_executable = is_member
                    && length >= EXECUTABLE_BYTES_MIN
                    && walk.release.chunk(&chunk, &mut bytes)
                    && bytes.starts_with(MAGIC);
                let edge = is_executable.then_some(Edge::Begin(length));
                let edge = edge.or(after_executable.then_some(Edge::End));
                edges.extend(edge.map(|edge| (at, edge)));
            }
        }
        after_executable = is_executable;
    }
    Ok(())
}
