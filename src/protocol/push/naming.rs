//! Resolves the names of segments, and chooses the release that a push builds on.

use std::collections::{HashMap, HashSet};

use crate::transfer::read_segment;
use crate::wire::{unpack_names, unpack_short_names};
use crate::{Error, SpaceView};
use format::manifest::{self, NodeRef};
use format::recipe::ChunkRef;

/// Segments of one release that are looked at to find out how much a push has of it: 1 MB.
const LOOKED_AT_MAX: usize = 512;

/// Segments that were found by their names.
pub(super) struct Named {
    /// The segments.
    pub segments: Vec<Option<NodeRef>>,
    /// The segments of the release that has most of them; none for full names, which are looked up in the whole space.
    pub base: Vec<NodeRef>,
    /// The segments of other releases, where names alone do not decide on which one the push builds.
    pub others: Vec<Vec<NodeRef>>,
}

/// Resolves names: short ones in the application's latest releases.
pub(super) fn named(names: &[u8], is_full: bool, view: &mut impl SpaceView) -> Result<Named, Error> {
    if is_full {
        let segments = view.resolve(&unpack_names(names)?).map_err(Error::Space)?;
        return Ok(Named { segments, base: Vec::new(), others: Vec::new() });
    }
    let names: Vec<u32> = unpack_short_names(names)?;
    let (mut segments, mut most) = (vec![None; names.len()], 0);
    let mut recent = view.recent().map_err(Error::Space)?;
    let mut best = 0;
    for (at, base) in recent.iter().enumerate() {
        let by_name: HashMap<u32, NodeRef> = base.iter().map(|node| (node.name().short(), *node)).collect();
        let found: Vec<Option<NodeRef>> = names.iter().map(|name| by_name.get(name).copied()).collect();
        let count = found.iter().flatten().count();
        if count > most {
            (segments, most, best) = (found, count, at);
        }
    }
    let base = if recent.is_empty() { Vec::new() } else { recent.remove(best) };
    let others = if most * 2 < names.len() { recent } else { Vec::new() };
    Ok(Named { segments, base, others })
}

/// Chooses the release that has most of the chunks, by their bytes, where another than `base` does. One that cannot be
/// read has none: that costs bytes, not the push.
pub(super) fn choose_base(
    base: &mut Vec<NodeRef>,
    others: Vec<Vec<NodeRef>>,
    known: &HashSet<ChunkRef>,
    view: &mut impl SpaceView,
) {
    let mut shared = |segments: &[NodeRef]| {
        let (mut bytes, mut left) = (0, known.clone());
        for node in segments.iter().take(LOOKED_AT_MAX) {
            let segment = read_segment(node, view).ok()?;
            let chunks = manifest::segment_chunks(&segment).ok()?;
            let found = chunks.iter().filter(|chunk| left.remove(*chunk));
            bytes += found.map(|chunk| u64::from(chunk.bytes)).sum::<u64>();
        }
        Some(bytes)
    };
    let mut most = shared(base);
    for other in others {
        let bytes = shared(&other);
        if bytes > most {
            (most, *base) = (bytes, other);
        }
    }
}
