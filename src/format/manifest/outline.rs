//! How the segments of one manifest follow from those of another: runs that stay, and new ones between.

use serde::{Deserialize, Serialize};

use super::NodeRef;
use ground::limits::OUTLINE_STEPS_MAX;
use std::collections::HashMap;
use std::ops::Range;

/// A run of the base's segments that stay, then new segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The first segment that stays, by its place in the base.
    pub first: u32,
    /// The number of segments that stay.
    pub keep: u32,
    /// The number of new segments after them.
    pub new: u32,
}

/// The segments of a manifest, as changes to those of a base that both sides have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline(Vec<Step>);

/// New segments, and the base's segments that they replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Places in the new manifest.
    pub new: Range<usize>,
    /// Places in the base.
    pub base: Range<usize>,
}

impl Outline {
    /// Compares two lists of segments. Time and memory O(n).
    ///
    /// Returns none where so much differs that the outline would not help.
    pub fn between(base: &[NodeRef], new: &[NodeRef]) -> Option<Self> {
        Some(Self::of(base, new.iter().copied().map(Some))).filter(Self::is_bounded)
    }

    /// Returns whether it has no more steps than a message allows.
    pub fn is_bounded(&self) -> bool {
        self.0.len() <= OUTLINE_STEPS_MAX
    }

    /// Finds each of `new` in the base; unknown segments, and those not found, are new. Time and memory O(n).
    pub fn of(base: &[NodeRef], new: impl Iterator<Item = Option<NodeRef>>) -> Self {
        let mut places: HashMap<&NodeRef, Vec<usize>> = HashMap::new();
        for (place, node) in base.iter().enumerate() {
            places.entry(node).or_default().push(place);
        }
        let number = |value: usize| u32::try_from(value).expect("a manifest's segments are bounded");
        let mut steps: Vec<Step> = Vec::new();
        for node in new {
            // A segment may occur twice: the place after the last run comes first.
            let next =
                steps.last().filter(|step| step.new == 0).map(|step| (step.first + step.keep) as usize);
            let goes_on = next.filter(|place| node.is_some() && base.get(*place) == node.as_ref());
            let place = goes_on.or_else(|| {
                let all = places.get(&node?)?;
                // Then the first one after the last that stayed, so that new segments are placed where similar ones were.
                let behind = steps.last().map_or(0, |step| (step.first + step.keep) as usize);
                all.get(all.partition_point(|place| *place < behind)).or(all.first()).copied()
            });
            match (place, steps.last_mut()) {
                (Some(_), Some(step)) if goes_on.is_some() => step.keep += 1,
                (Some(place), _) => steps.push(Step { first: number(place), keep: 1, new: 0 }),
                (None, Some(step)) => step.new += 1,
                (None, None) => steps.push(Step { first: 0, keep: 0, new: 1 }),
            }
        }
        Self(steps)
    }

    /// Returns the new manifest's segments: those of the base that stay, and `None` for each new one.
    ///
    /// Returns none where the outline does not fit a manifest of `count` segments over `base`.
    pub fn apply(&self, base: &[NodeRef], count: usize) -> Option<Vec<Option<NodeRef>>> {
        let mut total = 0u64;
        for step in &self.0 {
            let end = u64::from(step.first) + u64::from(step.keep);
            total += u64::from(step.keep) + u64::from(step.new);
            if end > base.len() as u64 || total > count as u64 {
                return None;
            }
        }
        if total != count as u64 || self.0.len() > OUTLINE_STEPS_MAX {
            return None;
        }
        let mut segments = Vec::with_capacity(count);
        for step in &self.0 {
            let first = step.first as usize;
            segments.extend(base[first..first + step.keep as usize].iter().copied().map(Some));
            segments.extend(std::iter::repeat_n(None, step.new as usize));
        }
        Some(segments)
    }

    /// Returns the indices of new segments, in order, and the segments that they replace. Call after [`Outline::apply`].
    pub fn gaps(&self, base_count: usize) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut place = 0;
        for (at, step) in self.0.iter().enumerate() {
            place += step.keep as usize;
            if step.new > 0 {
                let begin = (step.first + step.keep) as usize;
                let end = self.0.get(at + 1).map_or(base_count, |next| next.first as usize);
                gaps.push(Gap { new: place..place + step.new as usize, base: begin..end.max(begin) });
            }
            place += step.new as usize;
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::ids::ChunkId;
    use proptest::prelude::*;

    fn node(n: u8) -> NodeRef {
        NodeRef { id: ChunkId::of(&[n]), bytes: 1 }
    }

    fn nodes(list: &[u8]) -> Vec<NodeRef> {
        list.iter().map(|n| node(*n)).collect()
    }

    proptest! {
        #[test]
        fn an_outline_gives_back_what_stays_and_where_something_is_new(
            base in proptest::collection::vec(0u8..20, 0..30),
            new in proptest::collection::vec(0u8..40, 0..30),
        ) {
            let (base, new) = (nodes(&base), nodes(&new));
            let outline = Outline::between(&base, &new).expect("few steps");
            let applied = outline.apply(&base, new.len()).expect("its own base");
            prop_assert_eq!(applied.len(), new.len());
            let places: Vec<usize> = outline.gaps(base.len()).into_iter().flat_map(|gap| gap.new).collect();
            for (place, (found, expected)) in applied.iter().zip(&new).enumerate() {
                prop_assert_eq!(found.is_none(), places.contains(&place));
                prop_assert_eq!(found.is_none(), !base.contains(expected));
                prop_assert!(found.is_none_or(|found| found == *expected));
            }
        }

        #[test]
        fn no_outline_reaches_outside_its_base(
            steps in proptest::collection::vec((any::<u32>(), any::<u32>(), 0u32..9), 0..5),
            count in 0usize..20,
        ) {
            let outline = Outline(steps.into_iter().map(|(first, keep, new)| Step { first, keep, new }).collect());
            if let Some(applied) = outline.apply(&nodes(&[1, 2, 3]), count) {
                prop_assert_eq!(applied.len(), count);
                outline.gaps(3);
            }
        }
    }

    #[test]
    fn a_change_in_the_middle_is_told_in_two_steps() {
        let (base, new) = (nodes(&[1, 2, 3, 4, 5]), nodes(&[1, 2, 9, 4, 5]));
        let outline = Outline::between(&base, &new).expect("few steps");
        assert_eq!(outline.0.len(), 2);
        assert_eq!(outline.gaps(5), [Gap { new: 2..3, base: 2..3 }]);
    }
}
