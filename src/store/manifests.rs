//! The manifests of releases: where a release's root is (FORMAT 4.4).
//!
//! The root of a release without archives has the release's own name. Other releases have a small value in the ledger, which
//! names the roots of the manifests that make them; it is written before the record, and removed once the roots are gone.

use std::collections::{HashMap, HashSet};

use super::{Records, Result, Store, packs, reader};
use crate::ledger::{Change, Key, Table};
use crate::restore::{ChunkSource as _, SourceError};
use format::manifest::{self, NodeRef, Root};
use format::pack::FrameKind;
use format::recipe::ChunkRef;
use format::release_manifests::ReleaseManifests;
use ground::ids::{ChunkId, ReleaseId};

/// How the archives of a manifest are pushed and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveForm {
    /// All as they are.
    Packed,
    /// Some unpacked.
    Unpacked,
}

impl Store {
    /// Returns the root of a release: of its manifest that costs least to read.
    ///
    /// Where a release with a record has none, the store counts as incomplete: a push of it brings what is lost.
    ///
    /// # Errors
    /// The release is missing or damaged.
    pub fn root(&self, release: &ReleaseId) -> Result<Root, SourceError> {
        let found = self.any_root(release);
        if let Err(SourceError::Unknown(_) | SourceError::Damaged { .. }) = &found
            && self.records.has(release, |_| true)
        {
            self.note_incomplete();
        }
        found
    }

    /// Returns whether a release has a root that can be read; true where that cannot be known.
    pub fn has_root(&self, release: &ReleaseId) -> bool {
        !matches!(self.any_root(release), Err(SourceError::Unknown(_) | SourceError::Damaged { .. }))
    }

    fn any_root(&self, release: &ReleaseId) -> Result<Root, SourceError> {
        let mut failed = SourceError::Unknown((*release).into());
        for id in self.records.roots(release)? {
            match self.root_at(&id) {
                Ok(root) => return Ok(root),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Returns the root in a chunk.
    ///
    /// # Errors
    /// The chunk is missing or damaged, or no root.
    pub fn root_at(&self, id: &ChunkId) -> Result<Root, SourceError> {
        let place = self.find(id).map_err(|error| reader::unanswered(&error))?;
        let place = place.ok_or(SourceError::Unknown(*id))?;
        let mut bytes = Vec::new();
        self.reader().read(&ChunkRef { id: *id, bytes: place.bytes }, &mut bytes)?;
        Root::decode(&bytes).map_err(|error| SourceError::Damaged { id: *id, location: error.to_string() })
    }

    /// Notes a manifest that was proven to make its release, and is durable. Before the record, under a lease.
    ///
    /// The release's other manifest stays only if the store has all of it: of a release that was removed and is pushed again, or
    /// that is damaged, it may lack chunks that nobody will send. Reads that manifest, where there is one.
    ///
    /// # Errors
    /// The ledger's; the index's.
    pub fn keep_root(&self, root: &Root, archives: ArchiveForm) -> Result<()> {
        let Some(release) = root.named else { return Ok(()) };
        let id = Some(root.id());
        // One that is damaged is made anew.
        let kept = || self.records.manifests(&release).ok().flatten();
        loop {
            let before = kept();
            let manifests = before.unwrap_or_default();
            let other = match archives {
                ArchiveForm::Packed => manifests.unpacked,
                ArchiveForm::Unpacked => manifests.packed,
            };
            let is_kept = match &other {
                Some(other) => id == Some(*other) || self.holds_manifest(other)?,
                None => false,
            };
            let other = other.filter(|_| is_kept);
            let manifests = match archives {
                ArchiveForm::Packed => ReleaseManifests { packed: id, unpacked: other },
                ArchiveForm::Unpacked => ReleaseManifests { packed: other, unpacked: id },
            };
            if before == Some(manifests) {
                return Ok(());
            }
            let _turn = self.records.turn_of_manifests();
            // Another push of the release may have been faster.
            if kept() == before {
                let key = self.records.manifests_key(&release);
                return Ok(self.records.ledger.apply(&[Change::Put { key, value: manifests.encode() }])?);
            }
        }
    }

    /// Returns the roots among all chunks that name one of the releases. Nothing of what they say is proven.
    ///
    /// Time: reads the heads of all frames, and all manifests. Packs that cannot be read are left out.
    ///
    /// # Errors
    /// The index's.
    pub fn find_roots(&self, releases: &HashSet<ReleaseId>) -> Result<Vec<Root>> {
        let (mut reader, mut bytes, mut roots) = (self.reader(), Vec::new(), HashMap::new());
        for (_, pack) in self.shared.packs.all() {
            let mut chunks = Vec::new();
            let read = packs::visit_frames(&pack, &mut |frame| {
                if frame.kind == FrameKind::Manifest {
                    chunks.extend_from_slice(&frame.chunks);
                }
            });
            if let Err(error) = read {
                tracing::warn!(%error, "a pack cannot be read; no roots are looked for in its rest");
            }
            for chunk in chunks {
                bytes.clear();
                if self.holds(&chunk)?
                    && reader.read(&chunk, &mut bytes).is_ok()
                    && let Ok(root) = Root::decode(&bytes)
                    && root.named.is_some_and(|release| releases.contains(&release))
                {
                    roots.insert(chunk.id, root);
                }
            }
        }
        Ok(roots.into_values().collect())
    }

    /// Returns whether a push may count on a whole manifest: its root, nodes, segments and chunks of content.
    ///
    /// # Errors
    /// The index's.
    pub fn holds_manifest(&self, root: &ChunkId) -> Result<bool> {
        let (Some(place), Ok(read)) = (self.find(root)?, self.root_at(root)) else { return Ok(false) };
        let is_held = self.holds(&ChunkRef { id: *root, bytes: place.bytes })?;
        Ok(is_held && self.holds_below(&read.children, read.depth)?)
    }

    /// Returns whether a push may count on nodes of a level, and on all below them.
    fn holds_below(&self, nodes: &[NodeRef], depth: u8) -> Result<bool> {
        let (mut reader, mut bytes) = (self.reader(), Vec::new());
        for node in nodes {
            let node = ChunkRef::from(*node);
            bytes.clear();
            if !self.holds(&node)? || reader.read(&node, &mut bytes).is_err() {
                return Ok(false);
            }
            let is_held = if depth > 0 {
                let Ok(children) = manifest::decode_node(&bytes) else { return Ok(false) };
                self.holds_below(&children, depth - 1)?
            } else {
                let Ok(chunks) = manifest::segment_chunks(&bytes) else { return Ok(false) };
                let mut held = chunks.iter().map(|chunk| self.holds(chunk));
                held.try_fold(true, |all, held| held.map(|held| all && held))?
            };
            if !is_held {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the root of the manifest that has a release's archives as they are, where no other was made yet.
    pub fn packed_only(&self, release: &ReleaseId) -> Option<ChunkId> {
        let manifests = self.records.manifests(release).ok().flatten()?;
        manifests.packed.filter(|_| manifests.unpacked.is_none())
    }

    /// Returns the root of the manifest that has a release's archives unpacked, where no other was made yet.
    pub fn unpacked_only(&self, release: &ReleaseId) -> Option<ChunkId> {
        let manifests = self.records.manifests(release).ok().flatten()?;
        manifests.unpacked.filter(|_| manifests.packed.is_none())
    }

    /// Returns the root of the manifest that has some of a release's archives unpacked, where there is one.
    pub fn unpacked(&self, release: &ReleaseId) -> Option<ChunkId> {
        self.records.manifests(release).ok().flatten()?.unpacked
    }

    /// Forgets the manifest that has a release's archives as they are, where there is one that has some unpacked: collecting then
    /// frees their packed bytes.
    ///
    /// # Errors
    /// The ledger's.
    pub fn forget_packed(&self, release: &ReleaseId) -> Result<()> {
        let _turn = self.records.turn_of_manifests();
        match self.records.manifests(release) {
            Ok(Some(manifests @ ReleaseManifests { packed: Some(packed), unpacked: Some(unpacked) }))
                if packed != unpacked =>
            {
                let key = self.records.manifests_key(release);
                let manifests = ReleaseManifests { packed: None, ..manifests };
                Ok(self.records.ledger.apply(&[Change::Put { key, value: manifests.encode() }])?)
            }
            _ => Ok(()),
        }
    }

    /// Forgets the manifests of releases whose roots are all gone. Returns their number.
    ///
    /// # Errors
    /// The ledger's; the index's.
    pub(super) fn forget_manifests(&self, live: impl Fn(&ReleaseId) -> bool) -> Result<usize> {
        let _turn = self.records.turn_of_manifests();
        let mut forgotten = 0;
        let table = Table::Manifests { space: self.records.space.clone() };
        for key in self.records.ledger.list(&table)? {
            let Key::Manifests { release, .. } = &key else { continue };
            let Some(manifests) = self.records.manifests(release).ok().flatten().filter(|_| !live(release))
            else {
                continue;
            };
            // A push that is under way has brought the root and has no record yet.
            let mut is_gone = true;
            for root in manifests.roots() {
                is_gone &= self.find(&root)?.is_none();
            }
            if is_gone {
                self.records.ledger.apply(&[Change::Remove { key }])?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }
}

impl Records {
    /// Returns the names of the roots that make a release, the one that costs less to read first. Some may be gone.
    ///
    /// # Errors
    /// Their list cannot be read, or is damaged.
    pub fn roots(&self, release: &ReleaseId) -> Result<Vec<ChunkId>, SourceError> {
        let manifests = self.manifests(release)?;
        let own = manifests.is_none().then(|| ChunkId::from(*release));
        Ok(manifests.iter().flat_map(ReleaseManifests::roots).chain(own).collect())
    }

    fn manifests(&self, release: &ReleaseId) -> Result<Option<ReleaseManifests>, SourceError> {
        let key = self.manifests_key(release);
        let value = self.ledger.read(&key).map_err(|error| reader::unanswered(&error.into()))?;
        let damaged =
            |_| SourceError::Damaged { id: (*release).into(), location: self.ledger.describe(&key) };
        value.map(|value| ReleaseManifests::decode(&value).map_err(damaged)).transpose()
    }

    fn manifests_key(&self, release: &ReleaseId) -> Key {
        Key::Manifests { space: self.space.clone(), release: *release }
    }
}
