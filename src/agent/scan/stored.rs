//! Lists a release that is in a store, in place of a scan: only its manifest is read.

use std::sync::Arc;

use super::{Error, Spool, Stored, Unpacked};
use crate::restore::{self, SharedSource, leaves};
use format::manifest::{self, Item, NodeRef, Root};
use format::recipe::ChunkRef;

/// A release that is in a store: its segments, and where each chunk is read.
#[derive(Debug)]
pub struct StoredScan {
    /// Its segments, in order.
    pub segments: Vec<NodeRef>,
    /// The segments' bytes.
    pub spool: Spool,
    /// Counts its archives that are stored unpacked.
    pub unpacked: Unpacked,
}

/// Lists a stored release. Time O(manifest); memory as for a scan.
///
/// # Errors
/// The manifest cannot be read, or is damaged.
pub fn list_stored(root: &Root, source: &Arc<dyn SharedSource>) -> Result<StoredScan, Error> {
    let mut reader = Arc::clone(source).shared_reader();
    let segments = leaves(root, &mut *reader)?;
    let spool = Spool::of_stored(Stored(Arc::clone(source)));
    let mut unpacked = Unpacked::default();
    let (mut checker, mut bytes) = (manifest::Reader::new(), Vec::new());
    let mut file = None;
    for NodeRef { id, bytes: length } in &segments {
        bytes.clear();
        let read = reader.read(&ChunkRef { id: *id, bytes: *length }, &mut bytes);
        read.map_err(restore::Error::from)?;
        for item in checker.segment(&bytes)? {
            match &item {
                Item::Chunk(_) => {}
                Item::File { path, size, recipe, .. } => {
                    file = Some((path.clone(), 0));
                    if recipe.container().is_some() {
                        unpacked.files += 1;
                        unpacked.bytes += size;
                    }
                }
                _ => file = None,
            }
            spool.item(&item, file.as_ref().map(|(path, offset)| (path, *offset)));
            if let (Item::Chunk(chunk), Some((_, offset))) = (&item, &mut file) {
                *offset += u64::from(chunk.bytes);
            }
        }
        spool.end_segment(&bytes)?;
    }
    checker.finish(root)?;
    Ok(StoredScan { segments, spool, unpacked })
}
