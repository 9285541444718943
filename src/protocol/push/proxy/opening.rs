//! Opens a push: what the agent announces of its manifest, up to its first segment.

use std::collections::{HashSet, VecDeque};

use super::{Proxy, State};
use crate::likeness::SegmentsReplaced;
use crate::push::block_sums::BlockSumMaker;
use crate::push::naming::{self, Named};
use crate::push::opened::Opener;
use crate::push::proving::Proving;
use crate::push::record_queries::RecordQueries;
use crate::transfer::{Incomplete, Parcels, SegmentBuffer};
use crate::wire::{BatchError, Grown, ManifestForm, Marks, Open, PushReply};
use crate::{Error, SpaceView};
use delta::compression::{Compressor, LEVEL_DEFAULT};
use format::manifest::{NodeRef, Outline, SegmentIndex};
use format::record::Cost;
use ground::ids::ChunkId;
use ground::limits::{LIST_MAX, MANIFEST_SEGMENTS_MAX, PROGRESS_BYTES_MIN};

fn limit(what: &'static str, found: usize, max: usize) -> Result<(), Error> {
    if found > max { Err(Error::Limit { what, max }) } else { Ok(()) }
}

impl Proxy {
    /// Begins with what the agent opened; gives the first replies.
    ///
    /// # Errors
    /// A request out of bounds, or a view that fails.
    pub fn open(mut open: Open, view: &mut impl SpaceView) -> Result<(Self, Vec<PushReply>), Error> {
        limit("labels", open.labels.len(), LIST_MAX)?;
        crate::check_labels(&open.labels)?;
        limit("destinations", open.destinations.len(), LIST_MAX)?;
        if open.cache_only
            && !(open.labels.is_empty() && open.destinations.is_empty() && open.then.is_empty())
        {
            return Err(Error::NoRelease);
        }
        limit("segments", open.segments as usize, MANIFEST_SEGMENTS_MAX)?;
        open.profile.check().map_err(Error::Profile)?;
        let form = std::mem::replace(&mut open.manifest, ManifestForm::Short(Vec::new()));
        let mut proxy = Self {
            state: State::Naming,
            names: Vec::new(),
            segments: Vec::new(),
            wanted: VecDeque::new(),
            base: Vec::new(),
            others: Vec::new(),
            replaced: SegmentsReplaced::default(),
            is_by_base: false,
            block_sum_maker: BlockSumMaker::default(),
            record_queries: RecordQueries::default(),
            base_refused: false,
            waiting: Incomplete::default(),
            proving: (!view.reads_all()).then(Proving::default),
            eager: HashSet::new(),
            parcels: Parcels::default(),
            commit_ordered: false,
            complete: SegmentBuffer::default(),
            cost: Cost::default(),
            progress: 0,
            opener: Opener::default(),
            compressor: Compressor::new(LEVEL_DEFAULT),
            open,
        };
        if form != ManifestForm::Growing
            && let Some(committed) = proxy.recognize(view)?
        {
            return Ok((proxy, vec![committed]));
        }
        let replies = match form {
            ManifestForm::Growing if proxy.open.dry_run => return Err(Error::OutOfTurn("Growing")),
            ManifestForm::Growing => {
                proxy.open.manifest = ManifestForm::Growing;
                proxy.open_growing(view)?
            }
            ManifestForm::Base { root, outline } => proxy.open_by_base(&root, &outline, view)?,
            ManifestForm::Short(names) => proxy.open_by_names(&names, view)?,
            ManifestForm::Full(names) => {
                proxy.open.manifest = ManifestForm::Full(Vec::new());
                proxy.open_by_names(&names, view)?
            }
        };
        Ok((proxy, replies))
    }

    fn open_by_base(
        &mut self,
        root: &ChunkId,
        outline: &Outline,
        view: &mut impl SpaceView,
    ) -> Result<Vec<PushReply>, Error> {
        let base = view.base(Some(root)).map_err(Error::Space)?;
        let applied = base.and_then(|base| {
            let segments = outline.apply(&base, self.open.segments as usize)?;
            Some((base, segments))
        });
        let Some((base, segments)) = applied else {
            self.base_refused = true;
            return Ok(vec![PushReply::WantNames]);
        };
        self.replaced = SegmentsReplaced::new(outline.gaps(base.len()));
        self.base = base;
        self.is_by_base = true;
        self.begin_receiving(segments);
        Ok(Vec::new())
    }

    /// Ends the push where the space has the release already. What fills the cache makes no release.
    fn recognize(&mut self, view: &mut impl SpaceView) -> Result<Option<PushReply>, Error> {
        if self.open.cache_only {
            return Ok(None);
        }
        let recognized = view.recognize(&self.open).map_err(Error::Space)?;
        Ok(recognized.map(|(record, existing)| {
            self.state = State::Finished;
            PushReply::Committed { record, existing }
        }))
    }

    /// Returns whether the agent still reads its input.
    pub(super) fn is_growing(&self) -> bool {
        self.open.manifest == ManifestForm::Growing
    }

    /// Takes segments as they come where there is nothing to compare them with; else waits for all.
    fn open_growing(&mut self, view: &mut impl SpaceView) -> Result<Vec<PushReply>, Error> {
        if view.base(None).map_err(Error::Space)?.is_some_and(|base| !base.is_empty()) {
            return Ok(vec![PushReply::WantNames]);
        }
        self.begin_receiving(Vec::new());
        Ok(vec![PushReply::WantSegments(Marks::default())])
    }

    /// Hears what the whole manifest is.
    pub(super) fn grown(&mut self, grown: Grown, view: &mut impl SpaceView) -> Result<Vec<PushReply>, Error> {
        let Grown { release, totals, segments, root } = grown;
        self.progress += PROGRESS_BYTES_MIN;
        if (segments as usize) < self.segments.len() {
            return Err(Error::OutOfTurn("Grown"));
        }
        limit("segments", segments as usize, MANIFEST_SEGMENTS_MAX)?;
        (self.open.release, self.open.root) = (release, root);
        (self.open.totals, self.open.segments) = (totals, segments);
        self.open.manifest = ManifestForm::Short(Vec::new());
        if self.state == State::Naming {
            return Ok(self.recognize(view)?.into_iter().collect());
        }
        self.grow_to(segments as usize)?;
        Ok(Vec::new())
    }

    /// Wants further segments, until there are `count`.
    pub(super) fn grow_to(&mut self, count: usize) -> Result<(), Error> {
        limit("segments", count, MANIFEST_SEGMENTS_MAX)?;
        self.wanted.extend(SegmentIndex::range(self.segments.len()..count));
        self.segments.resize(count, None);
        Ok(())
    }

    fn open_by_names(&mut self, names: &[u8], view: &mut impl SpaceView) -> Result<Vec<PushReply>, Error> {
        if names.is_empty() && self.open.segments > 0 {
            return Ok(vec![PushReply::WantNames]);
        }
        self.named(names, view)
    }

    /// Answers once all names are there.
    pub(super) fn named(&mut self, names: &[u8], view: &mut impl SpaceView) -> Result<Vec<PushReply>, Error> {
        let is_full = matches!(self.open.manifest, ManifestForm::Full(_));
        let width = if is_full { 8 } else { 4 };
        self.names.extend_from_slice(names);
        self.progress += names.len() as u64;
        let expected = self.open.segments as usize * width;
        if self.names.len() > expected || (names.is_empty() && expected > 0) {
            return Err(Error::OutOfTurn("Names"));
        }
        if !names.len().is_multiple_of(width) {
            return Err(BatchError::Names(names.len()).into());
        }
        if self.names.len() < expected {
            return Ok(Vec::new());
        }
        let names = std::mem::take(&mut self.names);
        let Named { segments, base, others } = naming::named(&names, is_full, view)?;
        (self.base, self.others) = (base, others);
        let marks: Marks = segments.iter().map(Option::is_none).collect();
        self.begin_receiving(segments);
        let mut replies = Vec::new();
        if !self.base.is_empty() && !self.open.dry_run {
            replies.push(PushReply::WantRecordQueries);
        }
        replies.push(PushReply::WantSegments(marks));
        Ok(replies)
    }

    fn begin_receiving(&mut self, segments: Vec<Option<NodeRef>>) {
        self.state = State::Receiving;
        self.wanted = SegmentIndex::enumerate(&segments)
            .filter(|(_, node)| node.is_none())
            .map(|(index, _)| index)
            .collect();
        self.segments = segments;
    }
}
