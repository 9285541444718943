//! What a reply of a push is called, and what it takes while it waits.

use super::PushReply;

impl PushReply {
    /// The message's name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::WantNames => "WantNames",
            Self::WantOffers => "WantOffers",
            Self::WantSketches => "WantSketches",
            Self::Answer(_) => "Answer",
            Self::WantSegments(_) => "WantSegments",
            Self::Signature(_) => "Signature",
            Self::Prove(_) => "Prove",
            Self::Missing(_) => "Missing",
            Self::Alike => "Alike",
            Self::Stored(_) => "Stored",
            Self::Mismatch => "Mismatch",
            Self::Unproven(_) => "Unproven",
            Self::Committed { .. } => "Committed",
            Self::Delivery(_) => "Delivery",
            Self::Done => "Done",
            Self::Refused(_) => "Refused",
        }
    }

    /// About what it takes while it waits to be sent or to be looked at, bytes.
    pub fn weight(&self) -> usize {
        /// For a message of its kind, and its place in a queue.
        const REST: usize = 64;
        REST + match self {
            Self::Signature(signed) => signed.signature.len(),
            Self::Answer(answer) => answer.answer.len(),
            Self::Missing(marks) | Self::WantSegments(marks) => marks.bytes(),
            Self::Unproven(path) => path.len(),
            Self::Refused(refusal) => refusal.text.len(),
            _ => 0,
        }
    }
}
