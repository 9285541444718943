//! Opens a push: the form in which its manifest is announced.

use std::collections::VecDeque;

use super::exchange::{Base, Exchange};
use super::{Action, Agent, Known, Names, State, Window};
use crate::likeness::SegmentsReplaced;
use crate::wire::{FromAgent, ManifestForm, Open, pack_names, pack_short_names};
use format::manifest::{NodeRef, Outline, SegmentIndex};
use ground::ids::ChunkId;
use ground::limits::{MESSAGE_ITEMS_MAX, OPEN_NAMES_MAX};

/// Names in one message: 256 KiB at most.
const NAMES_PER_MESSAGE: usize = MESSAGE_ITEMS_MAX;

/// How an agent opens a push. The machine makes the [`ManifestForm`] to send from it and the segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// By the manifest that the proxy confirmed last time: its root, and its segments.
    Base(ChunkId, Vec<NodeRef>),
    /// The same after a push that broke off: new chunks may have crossed, so that none is sent unasked.
    Again(ChunkId, Vec<NodeRef>),
    /// By short names.
    Short,
    /// In full, after an [`Error::Mismatch`](crate::Error::Mismatch).
    Full,
    /// As it is read: segments come by [`Agent::grow`], the end by [`Agent::grown`].
    Growing,
}

impl Names {
    fn pack(self, segments: &[NodeRef]) -> Vec<u8> {
        let names = segments.iter().map(NodeRef::name);
        match self {
            Self::Short => pack_short_names(names),
            Self::Full => pack_names(names),
        }
    }

    /// Returns the names of all `segments`, in as many messages as it takes.
    pub(super) fn messages(self, segments: &[NodeRef]) -> Vec<Action> {
        if segments.is_empty() {
            // The proxy waits for an answer.
            return vec![Action::Send(FromAgent::Names(Vec::new()))];
        }
        let parts = segments.chunks(NAMES_PER_MESSAGE);
        parts.map(|part| Action::Send(FromAgent::Names(self.pack(part)))).collect()
    }

    fn form(self, segments: &[NodeRef]) -> ManifestForm {
        let fits = segments.len() <= OPEN_NAMES_MAX;
        let names = if fits { self.pack(segments) } else { Vec::new() };
        match self {
            Self::Short => ManifestForm::Short(names),
            Self::Full => ManifestForm::Full(names),
        }
    }
}

impl Agent {
    /// Creates a push of the manifest with these `segments`, and completes `open` with them. Once that is sent, call
    /// [`Agent::begin`].
    pub fn new(open: Open, segments: Vec<NodeRef>, opening: Opening) -> (Self, Open) {
        Self::with_window(Window::default(), open, segments, opening)
    }

    /// The same with another window.
    pub fn with_window(
        window: Window,
        mut open: Open,
        segments: Vec<NodeRef>,
        opening: Opening,
    ) -> (Self, Open) {
        let is_dry_run = open.dry_run;
        let names = if opening == Opening::Full { Names::Full } else { Names::Short };
        let (form, state) = match opening {
            Opening::Growing => (ManifestForm::Growing, State::Growing { is_over: false }),
            Opening::Short | Opening::Full => (names.form(&segments), State::Opened),
            // A dry run ends with the answer to its segments: there must be one.
            Opening::Base(..) | Opening::Again(..) if is_dry_run => (names.form(&segments), State::Opened),
            Opening::Base(root, base) => by_base(root, &base, &segments, window, true),
            Opening::Again(root, base) => by_base(root, &base, &segments, window, false),
        };
        open.manifest = form;
        let known = Known {
            segments,
            window,
            names,
            is_dry_run,
            takes_record_queries: false,
            encoding: 0,
            round_trips: 0,
        };
        (Self { known, state }, open)
    }
}

/// Opens by a base; by short names where the base and the new manifest differ too much.
fn by_base(
    root: ChunkId,
    base: &[NodeRef],
    segments: &[NodeRef],
    window: Window,
    is_eager: bool,
) -> (ManifestForm, State) {
    let Some(outline) = Outline::between(base, segments) else {
        return (Names::Short.form(segments), State::Opened);
    };
    let gaps = outline.gaps(base.len());
    let new = gaps.iter().flat_map(|gap| SegmentIndex::range(gap.new.clone()));
    let waiting: VecDeque<_> = window.batches(segments, new).collect();
    let base = Base { replaced: SegmentsReplaced::new(gaps), is_eager };
    (ManifestForm::Base { root, outline }, State::Exchanging(Box::new(Exchange::by_base(base, waiting))))
}
