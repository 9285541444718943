//! The names of a push's replies, and the memory that they take while they wait.

use super::PushReply;

impl PushReply {
    /// Returns the message's name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::WantNames => "WantNames",
            Self::WantRecordQueries => "WantRecordQueries",
            Self::WantSketches => "WantSketches",
            Self::RecordAnswer(_) => "RecordAnswer",
            Self::WantSegments(_) => "WantSegments",
            Self::BlockSums(_) => "BlockSums",
            Self::Prove(_) => "Prove",
            Self::Missing(_) => "Missing",
            Self::Alike => "Alike",
            Self::Stored(_) => "Stored",
            Self::Mismatch => "Mismatch",
            Self::Unproven(_) => "Unproven",
            Self::Committed { .. } => "Committed",
            Self::Delivery(_) => "Delivery",
            Self::RollsOut(_) => "RollsOut",
            Self::Done => "Done",
            Self::Refused(_) => "Refused",
            Self::Cached(_) => "Cached",
        }
    }

    /// Returns roughly the bytes of memory that it takes while it waits to be sent or read.
    pub fn weight(&self) -> usize {
        /// For a message of its kind, and its place in a queue.
        const REST: usize = 64;
        REST + match self {
            Self::BlockSums(signed) => signed.signature.len(),
            Self::RecordAnswer(answer) => answer.answer.len(),
            Self::Missing(marks) | Self::WantSegments(marks) => marks.bytes(),
            Self::Unproven(path) => path.len(),
            Self::Refused(refusal) => refusal.text.len(),
            _ => 0,
        }
    }
}
