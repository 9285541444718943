//! The errors of a conversation.

use crate::wire::{BatchError, ParcelError, Refusal};
use format::manifest::EntryPath;
use format::{chunking, manifest};
use ground::faults::{Fault, faulty};
use ground::ids::{ChunkId, Label};

/// The errors of a conversation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer sent a message that is not allowed in this state.
    #[error("the peer sent an unexpected message: {0}")]
    OutOfTurn(&'static str),
    /// A batch that breaks its bounds or does not decode.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A parcel that breaks its bounds or does not decode.
    #[error(transparent)]
    Parcel(#[from] ParcelError),
    /// A manifest that no honest agent makes.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// Chunks cut in a way that this side does not know.
    #[error(transparent)]
    Profile(chunking::Error),
    /// A chunk whose hash was not requested.
    #[error("chunk {0:?} was not requested, or its bytes do not match its id")]
    Unasked(ChunkId),
    /// A segment that states a wrong length for a chunk.
    #[error("chunk {id:?}: expected {expected} B, found {found} B in a segment")]
    Length {
        /// The chunk.
        id: ChunkId,
        /// Its plain bytes.
        expected: u32,
        /// The length in the segment.
        found: u32,
    },
    /// The agent named content that its token may not read, and could not prove that it has it.
    #[error("the agent did not prove that it has the content it named")]
    NotProven,
    /// A shortened id is ambiguous at the proxy: the push is repeated with full ids.
    #[error("a shortened id is ambiguous at the proxy")]
    Mismatch,
    /// The proxy cannot rebuild an archive: the push is repeated without unpacking any.
    #[error("the proxy does not rebuild the archive `{0}` byte for byte")]
    Unproven(EntryPath),
    /// Beyond a limit.
    #[error("the peer sent more than allowed: at most {max} {what}")]
    Limit {
        /// The limited quantity.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A label that would be read as an id, or as the first digits of one.
    #[error("the label `{0}` looks like a release id (6 to 64 hexadecimal digits)")]
    Label(Label),
    /// A label that a selector would take for something else.
    #[error("`{0}` is no label: `APP@{0}` always means the application's {0} release")]
    Reserved(Label),
    /// A push that only fills the cache and asks for what a release has.
    #[error("a push that only fills the cache makes no release: it has no labels, destinations or actions")]
    NoRelease,
    /// The commit came before all segments that were wanted.
    #[error("{0} segments are still missing at the commit")]
    Incomplete(usize),
    /// The proxy said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error("{0}")]
    Space(Refusal),
}

/// Refuses labels that a selector would read as a release's id, or as a word for the current or the latest release.
///
/// # Errors
/// [`Error::Label`] or [`Error::Reserved`] names the first.
pub fn check_labels(labels: &[Label]) -> Result<(), Error> {
    for label in labels {
        if label.reads_as_id() {
            return Err(Error::Label(label.clone()));
        }
        if label.is_reserved() {
            return Err(Error::Reserved(label.clone()));
        }
    }
    Ok(())
}

faulty! {
    Error passes on Batch, Parcel, Manifest, Refused;
    Self::Space(refusal) => refusal.fault, refusal.hint.clone();
    Self::Profile(chunking::Error::Algorithm(_)) => Fault::Version;
    Self::Profile(chunking::Error::Bounds(_)) => Fault::Input;
    Self::Label(label) => Fault::Input,
        format!("add a character that is no hexadecimal digit, like `v-{label}`");
    Self::Reserved(_) => Fault::Input, "choose another word";
    Self::NoRelease => Fault::Input;
    Self::Limit { .. } => Fault::Full;
    Self::Mismatch | Self::Unproven(_) => Fault::Retry;
    Self::Unasked(_) | Self::Length { .. } => Fault::Corrupt;
    Self::NotProven => Fault::Denied;
    Self::OutOfTurn(_) | Self::Incomplete(_) => Fault::Bug;
}
