//! Opens a push: the form in which its manifest is announced, and the segments that it will send.

use std::collections::VecDeque;

use super::{Action, Agent, Growth, NAMES_PER_MESSAGE, Opening, SEGMENTS_PER_BATCH, State, Window};
use crate::likeness::SegmentsReplaced;
use crate::wire::{FromAgent, Grown, ManifestForm, Open, pack_names, pack_short_names};
use format::manifest::{NodeRef, Outline, SegmentIndex, Totals};
use ground::ids::ReleaseId;
use ground::limits::{ANSWER_BYTES_MAX, OPEN_NAMES_MAX};

impl Agent {
    /// Begins a push of the manifest with these `segments`; completes `open` with them, and returns the actions
    /// to take right after it is sent.
    pub fn new(open: Open, segments: Vec<NodeRef>, opening: Opening) -> (Self, Open, Vec<Action>) {
        Self::with_window(Window::default(), open, segments, opening)
    }

    /// The same with another window.
    pub fn with_window(
        window: Window,
        mut open: Open,
        segments: Vec<NodeRef>,
        opening: Opening,
    ) -> (Self, Open, Vec<Action>) {
        let mut agent = Self {
            segments,
            window,
            dry_run: open.dry_run,
            full: opening == Opening::Full,
            growth: (opening == Opening::Growing).then(Growth::default),
            replaced: None,
            state: State::Opened,
            waiting: VecDeque::new(),
            unanswered: VecDeque::new(),
            block_sums: Vec::new(),
            block_sums_bytes: 0,
            answers: Vec::new(),
            answer_bytes_left: ANSWER_BYTES_MAX,
            eager: matches!(opening, Opening::Base(..)) && !open.dry_run,
            wants_record_queries: false,
            wants_sketches: false,
            pending: VecDeque::new(),
            sending: 0,
            goes_on: false,
            round_trips: 0,
        };
        let fits = agent.segments.len() <= OPEN_NAMES_MAX;
        let names = agent.segments.iter().map(NodeRef::name);
        let by_base = match opening {
            // A dry run ends with the answer to its segments: there must be one.
            Opening::Base(release, base) | Opening::Again(release, base) if !agent.dry_run => {
                Outline::between(&base, &agent.segments).map(|outline| (release, base, outline))
            }
            Opening::Base(..) | Opening::Again(..) | Opening::Short | Opening::Full | Opening::Growing => {
                None
            }
        };
        let Some((release, base, outline)) = by_base else {
            agent.eager = false;
            open.manifest = match (agent.full, fits) {
                _ if agent.is_growing() => ManifestForm::Growing,
                (true, true) => ManifestForm::Full(pack_names(names)),
                (true, false) => ManifestForm::Full(Vec::new()),
                (false, true) => ManifestForm::Short(pack_short_names(names)),
                (false, false) => ManifestForm::Short(Vec::new()),
            };
            return (agent, open, Vec::new());
        };
        let gaps = outline.gaps(base.len());
        agent.queue(gaps.iter().flat_map(|gap| SegmentIndex::range(gap.new.clone())));
        agent.replaced = Some(SegmentsReplaced::new(gaps));
        open.manifest = ManifestForm::Base { release, outline };
        agent.state = State::Sending;
        let actions = agent.proceed();
        (agent, open, actions)
    }

    /// Returns whether more of the manifest will come.
    pub(super) fn is_growing(&self) -> bool {
        self.growth.as_ref().is_some_and(|growth| !growth.is_over)
    }

    /// Takes the next segments of a manifest that is announced while the input is read.
    pub fn grow(&mut self, segments: impl IntoIterator<Item = NodeRef>) -> Vec<Action> {
        self.segments.extend(segments);
        self.proceed()
    }

    /// Takes the end of such a manifest: its release and totals.
    pub fn grown(&mut self, release: ReleaseId, totals: Totals) -> Vec<Action> {
        if let Some(growth) = &mut self.growth {
            growth.is_over = true;
        }
        let segments = u32::try_from(self.segments.len()).expect("a manifest's segments are bounded");
        let mut actions = vec![Action::Send(FromAgent::Grown(Grown { release, totals, segments }))];
        if self.state == State::Named {
            self.growth = None;
            actions.extend(self.names());
        }
        actions.extend(self.proceed());
        actions
    }

    /// Batches new segments where they fill a batch, where nothing else is under way, or where they are the last.
    pub(super) fn batch_grown(&mut self) {
        let Some(Growth { is_over, batched }) = self.growth else { return };
        let bytes: usize = self.segments[batched..].iter().map(|segment| segment.bytes as usize).sum();
        let is_idle = self.waiting.is_empty() && self.unanswered.is_empty() && self.sending == 0;
        if bytes > self.window.step_bytes || is_idle || is_over {
            let end = self.segments.len();
            self.queue(SegmentIndex::range(batched..end));
            self.growth = Some(Growth { is_over, batched: end });
        }
    }

    pub(super) fn names(&self) -> Vec<Action> {
        let pack = |part: &[NodeRef]| {
            let names = part.iter().map(NodeRef::name);
            if self.full { pack_names(names) } else { pack_short_names(names) }
        };
        if self.segments.is_empty() {
            // The proxy waits for an answer.
            return vec![Action::Send(FromAgent::Names(Vec::new()))];
        }
        self.segments
            .chunks(NAMES_PER_MESSAGE)
            .map(|part| Action::Send(FromAgent::Names(pack(part))))
            .collect()
    }

    /// Cuts the wanted segments into batches.
    pub(super) fn queue(&mut self, segments: impl Iterator<Item = SegmentIndex>) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for index in segments {
            let length = self.segments[usize::from(index)].bytes as usize;
            if !batch.is_empty()
                && (bytes + length > self.window.step_bytes || batch.len() == SEGMENTS_PER_BATCH)
            {
                self.waiting.push_back(std::mem::take(&mut batch));
                bytes = 0;
            }
            batch.push(index);
            bytes += length;
        }
        if !batch.is_empty() {
            self.waiting.push_back(batch);
        }
    }
}
