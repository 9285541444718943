//! What may be under way between the halves of a transfer, so that none waits for a peer that itself waits.
//!
//! The half that asks has so many questions unanswered at most, and both halves hold all answers to these: so each reads on
//! whatever its own writing waits for, and a queue between a machine and its link never fills in both directions. The
//! bounds are in PROTOCOL 3 and 4, *Credit*; docs/decisions/0021 says why.

use ground::limits::{PULL_REQUESTS_OPEN, PUSH_REPLIES_MAX, PUSH_STEPS_OPEN};

/// The bounds of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Questions that may be unanswered.
    pub questions: usize,
    /// Bytes of answers that may wait, on either side.
    pub bytes: usize,
}

impl Bounds {
    /// Those of a push: an agent's steps, and the proxy's answers.
    pub const PUSH: Self = Self { questions: PUSH_STEPS_OPEN, bytes: PUSH_REPLIES_MAX };
    /// Those of a pull: an agent's requests. Answers wait on the link, which a proxy that sends does not read from.
    pub const PULL: Self = Self { questions: PULL_REQUESTS_OPEN, bytes: 0 };
}

/// The peer has more under way than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more is under way than allowed: {questions} questions, {bytes} B of answers")]
pub struct BeyondCredit {
    /// Questions that may be unanswered.
    pub questions: usize,
    /// Bytes that may wait.
    pub bytes: usize,
}

/// Counts what is under way.
#[derive(Debug)]
pub struct Credit {
    bounds: Bounds,
    questions: usize,
    bytes: usize,
}

impl Credit {
    /// Begins with nothing under way.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, questions: 0, bytes: 0 }
    }

    /// Returns whether another question may be asked.
    pub fn may_ask(&self) -> bool {
        self.questions < self.bounds.questions
    }

    /// Notes a question.
    ///
    /// # Errors
    /// [`BeyondCredit`] where it may not be asked: the peer breaks the bound.
    pub fn ask(&mut self) -> Result<(), BeyondCredit> {
        if !self.may_ask() {
            return Err(self.beyond());
        }
        self.questions += 1;
        Ok(())
    }

    /// Notes that a question was answered whole.
    pub fn answered(&mut self) {
        debug_assert!(self.questions > 0, "an answer to no question");
        self.questions = self.questions.saturating_sub(1);
    }

    /// Notes an answer that waits.
    ///
    /// # Errors
    /// [`BeyondCredit`] where there is no room: the peer asks, and does not read.
    pub fn hold(&mut self, bytes: usize) -> Result<(), BeyondCredit> {
        let held = self.bytes + bytes;
        if held > self.bounds.bytes {
            return Err(self.beyond());
        }
        self.bytes = held;
        Ok(())
    }

    /// Notes that an answer was taken.
    pub fn release(&mut self, bytes: usize) {
        debug_assert!(self.bytes >= bytes, "more is released than was held");
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Returns the bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn beyond(&self) -> BeyondCredit {
        let Bounds { questions, bytes } = self.bounds;
        BeyondCredit { questions, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_may_be_used_again_and_no_more_than_that() {
        let mut credit = Credit::new(Bounds { questions: 1, bytes: 10 });
        credit.ask().expect("the first");
        assert!(!credit.may_ask() && credit.ask().is_err());
        credit.hold(10).expect("all there is");
        assert!(credit.hold(1).is_err());
        credit.answered();
        credit.release(4);
        credit.ask().expect("again");
        assert!(credit.hold(5).is_err());
        credit.hold(4).expect("what was given back");
        assert_eq!((credit.may_ask(), credit.bytes()), (false, 10));
    }
}
