//! Records what a push brought: the manifest's upper nodes, then the record and what comes with it.

use super::StoreView;
use crate::proxy::granted::Queued;
use crate::store::{CurrentAfter, Error, Intent};
use delta::compression::{Compressor, LEVEL_DEFAULT};
use format::manifest::Totals;
use format::pack::{FrameEnd, FrameKind, Framer};
use format::recipe::ChunkRef;
use format::record::{Cost, Record};
use protocol::wire::{Open, Refusal};
use protocol::{Proposal, StorageView};

/// Returns what a push without a token asks.
pub(super) fn intent(open: &Open) -> Intent<'static> {
    let current = if open.keeps_current { CurrentAfter::Kept } else { CurrentAfter::Pushed };
    Intent { token: "", current, moves: open.moves }
}

impl StoreView {
    /// Writes the record of the push and, in one transaction with it, the deliveries that it asks for.
    pub(super) fn write_record(
        &mut self,
        open: &Open,
        totals: Totals,
        cost: Cost,
    ) -> Result<Record, Refusal> {
        let record = Record {
            app: open.app.clone(),
            release: open.release,
            sequence: 0,
            created: self.now,
            user: self.user.clone(),
            labels: open.labels.clone(),
            // The root has the folder mode; a record has only counts.
            totals: Totals { folder_mode: None, ..totals },
            cost,
            behalf: open.behalf.clone(),
        };
        let records = self.store.records();
        let Some(granted) = &self.granted else {
            let added = records.add_with(record, intent(open), Vec::new);
            return added.map_err(|error| Refusal::of(&error));
        };
        let (record, queued) = granted.record(records, record, open)?;
        self.queued = Some(queued);
        Ok(record)
    }

    /// Returns whether a push leaves the current release as it is, at least until its rollout has succeeded.
    pub(super) fn keeps_current(&self, open: &Open) -> bool {
        let is_group =
            |name| self.granted.as_ref().is_some_and(|it| it.shared.rollouts.group(name).is_some());
        open.keeps_current || open.destinations.iter().any(is_group)
    }

    pub(super) fn is_current(&self, record: &Record) -> bool {
        self.store.records().standing(&record.app).current == Some(record.release)
    }

    /// Takes the deliveries and the rollout that were recorded with the push; none where it wrote no record.
    pub(in crate::proxy) fn take_queued(&mut self) -> Option<Queued> {
        self.queued.take()
    }

    /// Stores the manifest of what was pushed without a release, and keeps it for a time.
    pub(super) fn fill_cache(&mut self, proposal: &Proposal) -> Result<u64, Refusal> {
        let refusal = |error: Error| Refusal::of(&error);
        self.keep_promise(&proposal.segments)?;
        self.keep_nodes(proposal)?;
        self.store.sync().map_err(refusal)?;
        self.report();
        // No longer than the token is good, and only where all of it is there.
        self.granted.as_ref().map_or(Ok(()), |granted| granted.still_holds())?;
        self.keep_promise(&proposal.segments)?;
        let (app, root) = (&proposal.open.app, proposal.root.id());
        let bytes = [proposal.root.totals.bytes, proposal.cost.sent_bytes];
        let until = self.store.cache(app, &root, &self.user, bytes).map_err(refusal)?;
        self.store.sketches().flush();
        Ok(until)
    }

    /// Stores the nodes between the segments and the root, and the root.
    pub(super) fn keep_nodes(&mut self, proposal: &Proposal) -> Result<(), Refusal> {
        let mut nodes = Vec::new();
        let (root, segments) = (&proposal.root, proposal.segments.clone());
        root.over(segments, |node| nodes.push(node.bytes)).map_err(|error| Refusal::of(&error))?;
        nodes.push(root.encode());
        let mut compressor = Compressor::new(LEVEL_DEFAULT);
        let framer = Framer::new(FrameKind::Manifest, FrameEnd::Below, &mut compressor);
        framer.frame_all(nodes.iter().map(|node| (ChunkRef::of(node), node.as_slice())), |frame| {
            self.keep(frame)
        })
    }
}
