//! The messages of `whit/1`: what agent and proxy say on a stream (PROTOCOL 2).
//!
//! A request is one bidirectional stream: a [`Request`], then what its operation asks for. Every list
//! is bounded by `limits`, and whatever a peer sends is checked by the types here or by the state
//! machines in `push` before it is believed.

mod marks;
mod batch;
mod deliveries;
mod head;
mod operation;
mod parcel;
mod possession;
mod sketches;
mod targets;
mod groups;
mod query;
mod reply;

pub use batch::{
    Batch, BatchError, SegmentBatch, pack_names, pack_short_names, unpack_names, unpack_short_names,
};
pub use deliveries::{
    CheckStep, DeliveriesWanted, DeliveryPlan, DeliveryStatus, DestinationCheck, DestinationDropped,
    DestinationStatus, Steering,
};
pub use groups::{GroupApp, GroupMember, GroupStatus};
pub use head::RequestHead;
pub use marks::Marks;
pub use operation::Operation;
pub use parcel::{Basis, BlockSums, Cut, Parcel, ParcelError, RecordAnswer, RecordQuery, Section, Span};
pub use possession::{Challenge, Possession};
pub use query::{
    Answer, ArchiveStatistics, ArchivesMet, Change, ChangeKind, GroupHas, LogEntry, MethodStatistics, Moved,
    Primed, ProxyInfo, PushHint, SizeClass, Statistics, UserStatistics,
};
pub use sketches::Sketches;
pub use targets::{
    FromTarget, ListedTarget, MemberName, RolloutMember, RolloutMemberState, RolloutState, RolloutStatus,
    RolloutSteering, RolloutWait, TargetStatus, ToTarget, Wanted, Watching,
};

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::token::Hop;
use format::manifest::{Outline, Profile, SegmentIndex, Shape, Totals};
use format::record::{DeliveryEvent, Record};
use ground::faults::{Fault, Faulty, faulty};
use ground::ids::{ActionName, AppName, ChunkId, DestinationName, Label, ReleaseId, RolloutId};

/// The version of these messages; ALPN `whit/1` agrees on the framing, this on the content.
pub const VERSION: u16 = 11;

/// The first message of every stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the agent.
    pub version: u16,
    /// The agent's token, checked on every request.
    pub token: String,
    /// An [`Operation`] in MessagePack, read only after the version is known to be ours.
    #[serde(with = "serde_bytes")]
    pub operation: Vec<u8>,
}

/// Refuses versions that are not ours.
fn check_version(version: u16) -> Result<(), Refusal> {
    if version == VERSION {
        return Ok(());
    }
    let text = format!("the agent speaks version {version}, this proxy version {VERSION}");
    Err(Refusal { fault: Fault::Version, text, hint: None })
}

impl Request {
    /// Asks for `operation`.
    pub fn new(token: &str, operation: &Operation) -> Self {
        let operation = rmp_serde::to_vec(operation).expect("a Vec takes every write");
        Self { version: VERSION, token: token.to_owned(), operation }
    }

    /// Returns the operation asked for.
    ///
    /// # Errors
    /// A refusal that says which version this side speaks, or that the request is malformed.
    pub fn operation(&self) -> Result<Operation, Refusal> {
        check_version(self.version)?;
        rmp_serde::from_slice(&self.operation).map_err(|_| Refusal {
            fault: Fault::Version,
            text: "this proxy does not know the request".to_owned(),
            hint: None,
        })
    }
}

/// The first message of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is an element of the message")]
pub struct Open {
    /// The application.
    pub app: AppName,
    /// Words for the release.
    pub labels: Vec<Label>,
    /// Where to deliver it.
    pub destinations: Vec<DestinationName>,
    /// The release.
    pub release: ReleaseId,
    /// How the content was cut.
    pub profile: Profile,
    /// Tree or file.
    pub shape: Shape,
    /// Totals of all entries.
    pub totals: Totals,
    /// How many segments the manifest has.
    pub segments: u32,
    /// How the segments are listed.
    pub manifest: ManifestForm,
    /// Negotiate only: nothing is stored.
    pub dry_run: bool,
    /// The proxies that the release came through and on whose behalf, the first one first; none of an agent that reads files.
    #[serde(default)]
    pub behalf: Vec<Hop>,
    /// The actions that are to follow each delivery, in order.
    #[serde(default)]
    pub then: Vec<ActionName>,
    /// Leave the application's current release as it is, where there is one.
    pub keeps_current: bool,
    /// Make the release current although it was rolled back, and move labels that name others.
    pub moves: bool,
    /// Only fill the cache: the content is kept for a time, and no release is made. Without labels, destinations and actions.
    pub cache_only: bool,
    /// The root that both sides compute from the segments, where the release is not named by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<ChunkId>,
}

/// How a push lists the segments of its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestForm {
    /// As changes to a release that the agent remembers; the new segments follow at once.
    Base {
        /// Its root.
        root: ChunkId,
        /// Its segments that the new manifest keeps.
        outline: Outline,
    },
    /// By short names ([`pack_short_names`]), or by none yet where they are too many to send unasked. They are
    /// looked for in the application's latest releases.
    Short(#[serde(with = "serde_bytes")] Vec<u8>),
    /// By names ([`pack_names`]) and segments in full, after a short name or id matched something else.
    Full(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Not yet: the agent still reads its input, and says [`Grown`] at the end. `Open` names the manifest without any
    /// entry. Where the application has no release, the segments follow as they come; else names do, after `Grown`.
    Growing,
}

/// The end of a manifest that was listed while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grown {
    /// As in [`Open`].
    pub release: ReleaseId,
    /// As in [`Open`].
    pub totals: Totals,
    /// As in [`Open`].
    pub segments: u32,
    /// As in [`Open`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<ChunkId>,
}

/// A message of the agent after `Open`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAgent {
    /// More names of segments, in order; as many messages as it takes.
    Names(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The input is read: no more segments follow.
    Grown(Grown),
    /// Names records of an executable whose chunks the next `Segments` lists, or continues to list.
    #[serde(rename = "Offer")]
    RecordQuery(RecordQuery),
    /// The next of the wanted segments, in order.
    Segments(SegmentBatch),
    /// Sketches of chunks that the last `Missing`s marked and that have no block sums.
    Sketches(Sketches),
    /// Some of the missing chunks, stored as they come.
    Chunks(Batch),
    /// More missing chunks; their bytes follow in pieces.
    Parcel(Parcel),
    /// The next piece of the parcel.
    Piece(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The answer to the next `Prove` ([`Possession`]).
    Proof(ByteArray<32>),
    /// A newer token of the same user and space, which allows no less and replaces the old one. Comes at any
    /// time, and is not answered.
    Renew(String),
    /// Commit as soon as nothing is missing.
    Commit,
    /// What the agent has measured of the link, for the next agent. Comes at any time, and is not answered.
    LinkSeen(LinkSeen),
}

/// A link, as a push has measured it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSeen {
    /// 1000 bytes a second.
    pub rate: u32,
    /// Microseconds.
    pub round_trip: u32,
}

impl FromAgent {
    /// Returns the message's name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Names(_) => "Names",
            Self::Grown(_) => "Grown",
            Self::RecordQuery(_) => "RecordQuery",
            Self::Segments(_) => "Segments",
            Self::Sketches(_) => "Sketches",
            Self::Chunks(_) => "Chunks",
            Self::Parcel(_) => "Parcel",
            Self::Piece(_) => "Piece",
            Self::Proof(_) => "Proof",
            Self::Renew(_) => "Renew",
            Self::Commit => "Commit",
            Self::LinkSeen(_) => "LinkSeen",
        }
    }
}

/// A message of the proxy during a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushReply {
    /// The release is unknown, and so is its base, if any: send the segments' names.
    WantNames,
    /// There is a release before this one: executables may be sent by their records.
    #[serde(rename = "WantOffers")]
    WantRecordQueries,
    /// The space has sketches, and there is no other basis for some chunks that are missing: they may be sketched.
    WantSketches,
    /// Which segments, of all in order, the proxy must see.
    WantSegments(Marks),
    /// The records of a queried file that the proxy has, before the `Missing` for its first chunks; without one, the
    /// file is sent as others are.
    #[serde(rename = "Answer")]
    RecordAnswer(RecordAnswer),
    /// Block sums of older content that resembles some chunks that the next `Missing` marks, or the one that the next
    /// `Alike` is about.
    #[serde(rename = "Signature")]
    BlockSums(BlockSums),
    /// Ends the answer to one `Sketches`: no more block sums follow for it.
    Alike,
    /// The space has some chunks of the `Segments` that the next `Missing` is about, and the token does not let the
    /// agent read them: it is to prove that it has them. Several may come.
    Prove(Challenge),
    /// For one `Segments`: which of its chunk references, in order, the space lacks.
    Missing(Marks),
    /// This number of `Chunks` and `Parcel`s is on stable storage.
    Stored(u64),
    /// A shortened id is ambiguous at the proxy: push again, with full ids.
    Mismatch,
    /// The archive of that path is not rebuilt byte for byte here: push again, without unpacking archives.
    Unproven(ByteBuf),
    /// The release is on stable storage, its deliveries durably queued.
    Committed {
        /// The written record.
        record: Record,
        /// True if the application's latest release was this one already.
        existing: bool,
    },
    /// A delivery's new state.
    Delivery(DeliveryEvent),
    /// The rollout that was written down with the release. Comes before news of deliveries.
    RollsOut(RolloutId),
    /// All deliveries have ended.
    Done,
    /// No.
    Refused(Refusal),
    /// The content is on stable storage, without a release, and is kept until then: seconds since 1970.
    Cached(u64),
}

/// A message of the agent after its request to pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullRequest {
    /// Which segments, of all in order, the agent must see, after `Names`.
    WantSegments(Marks),
    /// Asks for the executables of the release that can be encoded against those that the agent has; sent before chunks
    /// are requested, if the release came as an outline. The agent's link is slow: more may come as patches.
    WantExecutables,
    /// Which chunk references of `count` segments from `first` on, in order, the agent lacks.
    WantChunks {
        /// The first segment.
        first: SegmentIndex,
        /// How many segments.
        count: u32,
        /// Over all their chunk references.
        marks: Marks,
    },
    /// As [`FromAgent::Renew`].
    Renew(String),
}

/// A message of the proxy during a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullReply {
    /// The release that was asked for.
    Release {
        /// Its record.
        record: Record,
        /// Its root's bytes.
        #[serde(with = "serde_bytes")]
        root: Vec<u8>,
        /// How many segments its manifest has; an outline of them follows, or their names.
        segments: u32,
    },
    /// The segments as changes to those that the agent has; the new ones follow.
    Outline(Outline),
    /// The next of the new segments, thin.
    Thin(SegmentBatch),
    /// More names of segments, in order.
    Names(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The next of the wanted segments.
    Segments(Batch),
    /// This number of executables follows, a `Parcel` and its pieces each.
    Executables(u32),
    /// The next of the wanted chunks.
    Chunks(Batch),
    /// More of the wanted chunks, encoded against those that the agent has; their bytes follow in pieces.
    Parcel(Parcel),
    /// The next piece of the parcel.
    Piece(#[serde(with = "serde_bytes")] Vec<u8>),
    /// No.
    Refused(Refusal),
}

impl PullReply {
    /// Returns the message's name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Release { .. } => "Release",
            Self::Outline(_) => "Outline",
            Self::Thin(_) => "Thin",
            Self::Names(_) => "Names",
            Self::Segments(_) => "Segments",
            Self::Executables(_) => "Executables",
            Self::Chunks(_) => "Chunks",
            Self::Parcel(_) => "Parcel",
            Self::Piece(_) => "Piece",
            Self::Refused(_) => "Refused",
        }
    }
}

/// Why a proxy does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What its reader can do about it.
    pub fault: Fault,
    /// One clause.
    pub text: String,
    /// A hint at the next step, where the proxy knows more than the fault says.
    pub hint: Option<String>,
}

impl Refusal {
    /// Makes a refusal of an error: its text and its causes, none of its values.
    pub fn of(error: &dyn Faulty) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text_of_cause = error.to_string();
            // Some errors include their cause in their text.
            if !text.contains(&text_of_cause) {
                text = format!("{text}: {text_of_cause}");
            }
            cause = error.source();
        }
        Self { fault: error.fault(), text, hint: error.hint() }
    }
}

faulty! {
    Refusal;
    Self { fault, hint, .. } => *fault, hint.clone();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not write a: {source}")]
    struct ManifestForm {
        source: std::io::Error,
    }

    impl Faulty for ManifestForm {
        fn fault(&self) -> Fault {
            Fault::of_io(&self.source)
        }
    }

    #[test]
    fn a_refusal_tells_each_cause_once() {
        let refusal = Refusal::of(&ManifestForm { source: std::io::Error::other("no room") });
        assert_eq!(refusal.text, "could not write a: no room");
    }
}
