//! What the proxy's half of a push needs of the space it pushes into.

use crate::StorageView;
use crate::wire::{Open, Refusal};
use delta::similar::Sketch;
use format::manifest::{EntryPath, NodeRef, Root, SegmentName};
use format::recipe::ChunkRef;
use format::record::{Cost, Record};
use ground::faults::Fault;
use ground::ids::{ChunkId, ShortId};

/// A space, as a push sees it. Errors are the refusals that the agent gets.
pub trait SpaceView: StorageView {
    /// Returns, where the space has the release already, the record for this push, written unless it is
    /// a dry run, and whether the application's latest release was this one already.
    ///
    /// # Errors
    /// The space cannot be read or written.
    fn recognize(&mut self, open: &Open) -> Result<Option<(Record, bool)>, Refusal>;

    /// Returns the segments of the manifest with this root, or of the application's latest release where none is named, if
    /// the space has all of it.
    ///
    /// # Errors
    /// The space cannot be read.
    fn base(&mut self, root: Option<&ChunkId>) -> Result<Option<Vec<NodeRef>>, Refusal>;

    /// Returns the segments of the application's latest releases, the latest first, if the space has all of them: a
    /// push that names no base may build on them.
    ///
    /// # Errors
    /// The space cannot be read.
    fn recent(&mut self) -> Result<Vec<Vec<NodeRef>>, Refusal> {
        Ok(self.base(None)?.into_iter().collect())
    }

    /// Returns the segment of each name, where the space holds it and all chunks it lists.
    ///
    /// # Errors
    /// The space cannot be read.
    fn resolve(&mut self, names: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal>;

    /// Returns whether the token lets the agent read the whole space, so that it has nothing to prove.
    fn reads_all(&self) -> bool {
        true
    }

    /// Returns whether the agent may read a chunk that was found.
    ///
    /// # Errors
    /// The space cannot be read.
    fn may_read(&mut self, _: &ChunkRef) -> Result<bool, Refusal> {
        Ok(true)
    }

    /// Returns random bytes for a challenge.
    ///
    /// # Errors
    /// The system gives none.
    fn nonce(&mut self) -> Result<[u8; 32], Refusal> {
        Ok([0; 32])
    }

    /// Returns whether the link is so fast that what rarely saves bytes takes longer than they would.
    fn is_fast(&self) -> bool {
        false
    }

    /// Takes sketches of chunks that were given to keep.
    fn sketch(&mut self, _: Vec<(ShortId, Sketch)>) {}

    /// Returns whether any chunk of the space was sketched.
    fn has_sketches(&mut self) -> bool {
        false
    }

    /// Returns a chunk that the space may hold and that shares super-features with the sketch, and how many of the
    /// three.
    fn most_similar(&mut self, _: &Sketch) -> Option<(ShortId, usize)> {
        None
    }

    /// Notes that all content of one message was appended: the agent gets a report when it is on stable storage.
    fn kept_message(&mut self);

    /// Stores all that was kept, and rebuilds the archives that the application's latest release does not have;
    /// returns the first that does not become its bytes. Comes before [`SpaceView::commit`].
    ///
    /// # Errors
    /// As [`SpaceView::commit`].
    fn prove(&mut self, _: &Proposal) -> Result<Option<EntryPath>, Refusal> {
        Ok(None)
    }

    /// Stores all that was kept, checks the manifest whole, and records the release.
    ///
    /// # Errors
    /// The manifest is not what its root says, or the disk failed.
    fn commit(&mut self, proposal: Proposal) -> Result<(Record, bool), Refusal>;

    /// Stores all that was kept, and keeps it for a time without a release; returns until when, in seconds since 1970.
    ///
    /// # Errors
    /// As [`SpaceView::commit`]; the space keeps nothing without a release.
    fn cache(&mut self, _: &Proposal) -> Result<u64, Refusal> {
        Err(Refusal {
            fault: Fault::Input,
            text: "this proxy keeps no content without a release".to_owned(),
            hint: Some("push without --cache-only".to_owned()),
        })
    }
}

/// A complete push, to be recorded.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Its first message.
    pub open: Open,
    /// Its root, which makes the release that was named.
    pub root: Root,
    /// All segments of its manifest, in order.
    pub segments: Vec<NodeRef>,
    /// Its cost.
    pub cost: Cost,
}
