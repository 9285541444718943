//! Where the chunks of an archive's stream end, wherever else they do (FORMAT 2.5).

use super::known::StreamName;
use super::plan::Plan;

/// 1 KiB: shorter members are cut together with their neighbours.
const MEMBER_BYTES_MIN: u64 = 1024;

/// The parts of an archive's stream, each of which begins with a chunk of its own: the plan, the framing, and the
/// content of each member that is not short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    plan: u64,
    framing: u64,
    /// With the name of the packed stream that a member comes from.
    members: Vec<(u64, Option<StreamName>)>,
}

impl Parts {
    /// Returns the parts of the stream that begins with `head` bytes of plan.
    pub fn of(plan: &Plan, head: u64) -> Self {
        let (mut members, mut short) = (Vec::new(), 0);
        for (length, name) in plan.named_contents() {
            if length < MEMBER_BYTES_MIN {
                short += length;
            } else {
                members.extend([(std::mem::take(&mut short), None), (length, name)]);
            }
        }
        members.push((short, None));
        members.retain(|(length, _)| *length > 0);
        Self { plan: head, framing: plan.framing_bytes(), members }
    }

    /// Returns their lengths in bytes, in order; none is empty.
    pub fn lengths(&self) -> impl Iterator<Item = u64> {
        let plan = Some(self.plan).filter(|bytes| *bytes > 0);
        plan.into_iter().chain(self.after_plan().map(|(length, _)| length))
    }

    /// Returns the same, each with the name of the packed stream that decodes to it, where it has one.
    pub fn named(&self) -> impl Iterator<Item = (u64, Option<StreamName>)> {
        let head =
            [self.plan, self.framing].into_iter().filter(|bytes| *bytes > 0).map(|bytes| (bytes, None));
        head.chain(self.members.iter().copied())
    }

    /// Returns the lengths of the parts after the plan, with true for those that hold members.
    pub fn after_plan(&self) -> impl Iterator<Item = (u64, bool)> {
        let framing = Some((self.framing, false)).filter(|(bytes, _)| *bytes > 0);
        framing.into_iter().chain(self.members.iter().map(|(length, _)| (*length, true)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Piece;
    use super::*;

    #[test]
    fn each_member_is_a_part_and_short_ones_share_one() {
        let mut plan = Plan::default();
        for content in [5000, 10, 20, 1024, 7] {
            plan.push(Piece::Framing(30));
            plan.push(Piece::Content(content));
        }
        let lengths = |plan, head| Parts::of(plan, head).lengths().collect::<Vec<u64>>();
        assert_eq!(lengths(&plan, 60), [60, 150, 5000, 30, 1024, 7]);
        assert_eq!(lengths(&Plan::plain(9), 0), [9]);
        let of = |number| Parts::of(&plan, 60).after_plan().nth(number);
        assert_eq!((of(0), of(1)), (Some((150, false)), Some((5000, true))));
    }
}
