//! Makes a manifest: items in, segments and nodes out, a root at the end.

use super::content::Content;
use super::root::{self, NodeRef, Profile, Root, Shape, Totals};
use super::{Error, Item};
use ground::ids::ChunkId;

/// First byte of a segment.
pub(super) const SEGMENT_VERSION: u8 = 0x11;
/// First byte of a segment with a hard link, a file that has some, or a link that may lead outside: a whit that does not
/// know these names the version it lacks, and the ids of all other releases stay.
pub(super) const SEGMENT_VERSION_LINKS: u8 = 0x15;
/// The fewest bytes of a segment, except a manifest's last, so that tiny ones do not pile up.
const SEGMENT_BYTES_MIN: usize = 512;
/// 2 KiB on average: about 55 chunk references, the unit in which a manifest changes.
const SEGMENT_BYTES_AVERAGE: u32 = 2 * 1024;
/// A segment that has reached this ends, whatever its items.
const SEGMENT_BYTES_FULL: usize = 8 * 1024;
/// A segment never exceeds this: a full one, plus one item of the longest path and target.
pub(super) const SEGMENT_BYTES_MAX: usize = SEGMENT_BYTES_FULL + 9 * 1024;

/// A finished part of a manifest, to be stored as a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its name and length.
    pub node: NodeRef,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Segment {
    fn new(bytes: Vec<u8>) -> Self {
        let length = u32::try_from(bytes.len()).expect("segments and nodes are at most some KiB");
        Self { node: NodeRef { id: ChunkId::of(&bytes), bytes: length }, bytes }
    }
}

/// Cuts a stream of items into segments. Memory: one segment and 36 B for each finished one.
#[derive(Debug)]
pub struct Builder {
    profile: Profile,
    open: Vec<u8>,
    segments: Vec<NodeRef>,
    totals: Totals,
    content: Content,
}

impl Builder {
    /// Starts a manifest whose content is cut by `profile`.
    pub fn new(profile: Profile) -> Self {
        let (open, totals) = (vec![SEGMENT_VERSION], Totals::default());
        Self { profile, open, segments: Vec::new(), totals, content: Content::default() }
    }

    /// Adds the next item; returns the segment that it ends, if any.
    ///
    /// Items must come in the order that [`super::Reader`] asks for; the reader, not the builder, checks.
    pub fn push(&mut self, item: &Item) -> Option<Segment> {
        let start = self.open.len();
        item.encode(&mut self.open);
        if item.is_of_second_version() {
            self.open[0] = SEGMENT_VERSION_LINKS;
        }
        let added = self.open.len() - start;
        self.content.push(item, &self.open[start..]);
        match item {
            Item::Directory { .. } => self.totals.directories += 1,
            Item::Symlink { .. } | Item::OutsideLink { .. } => self.totals.symlinks += 1,
            // Further names do not count as files.
            Item::Linked | Item::HardLink { .. } => {}
            Item::File { size, .. } => {
                self.totals.files += 1;
                self.totals.bytes += size;
            }
            Item::Chunk(_) => self.totals.chunks += 1,
        }
        // An item ends its segment with a probability of its own bytes divided by the average.
        let chance = u64::from(u32::MAX) / u64::from(SEGMENT_BYTES_AVERAGE) * added as u64;
        let chosen = u64::from(item.cut_bits(&self.open[start..])) < chance;
        let long = self.open.len() >= SEGMENT_BYTES_MIN;
        ((chosen && long) || self.open.len() >= SEGMENT_BYTES_FULL).then(|| self.end_segment())
    }

    fn end_segment(&mut self) -> Segment {
        let segment = Segment::new(std::mem::replace(&mut self.open, vec![SEGMENT_VERSION]));
        self.segments.push(segment.node);
        segment
    }

    /// Sets the permission bits of the top directory; [`super::FOLDER_MODE`] by default.
    pub fn folder_mode(&mut self, mode: u16) {
        self.totals = self.totals.with_folder_mode(mode);
    }

    /// Returns the totals of the items so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Ends the manifest: its last segment, if any items are left, its root, and the list of all segments.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond the limit on segments.
    pub fn finish(mut self, shape: Shape) -> Result<(Option<Segment>, Root, Vec<NodeRef>), Error> {
        let last = (self.open.len() > 1).then(|| self.end_segment());
        let root = Root::above(self.profile, shape, self.totals, self.segments.clone(), |_| {})?;
        let named = self.content.finish(&root);
        Ok((last, Root { named, ..root }, self.segments))
    }
}

impl Root {
    /// Computes the root over `segments`, and passes each node between them to `keep`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond the limit on segments.
    pub fn above(
        profile: Profile,
        shape: Shape,
        totals: Totals,
        segments: Vec<NodeRef>,
        mut keep: impl FnMut(Segment),
    ) -> Result<Self, Error> {
        let (depth, children) = root::gather(segments, |bytes| {
            let node = Segment::new(bytes);
            let reference = node.node;
            keep(node);
            reference
        })?;
        Ok(Self { profile, shape, totals, depth, children, named: None })
    }

    /// Computes the root of the same release over `segments`, and passes each node between them to `keep`.
    ///
    /// # Errors
    /// As [`Root::above`].
    pub fn over(&self, segments: Vec<NodeRef>, keep: impl FnMut(Segment)) -> Result<Self, Error> {
        let root = Self::above(self.profile, self.shape, self.totals, segments, keep)?;
        Ok(Self { named: self.named, ..root })
    }
}
