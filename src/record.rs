//! What is known of a release besides its content: who pushed it, when, under which labels, at what cost.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, DestinationName, Label, ReleaseId, UserName};
use crate::manifest::Totals;

/// What a push brought to the store; all are bytes or counts as the proxy saw them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Chunks that the space did not have.
    pub unseen_chunks: u64,
    /// Their plain bytes.
    pub unseen_bytes: u64,
    /// Their bytes as they crossed, compressed.
    pub sent_bytes: u64,
}

/// One push of one release, immutable once written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The application.
    pub app: AppName,
    /// The content: the root's BLAKE3.
    pub release: ReleaseId,
    /// Counts the application's pushes from 1.
    pub sequence: u64,
    /// Seconds since 1970, by the proxy's clock.
    pub created: u64,
    /// On whose behalf.
    pub user: UserName,
    /// What people call it.
    pub labels: Vec<Label>,
    /// What it holds.
    pub totals: Totals,
    /// What the push cost.
    pub cost: Cost,
}

/// An application and its releases, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSummary {
    /// The application.
    pub app: AppName,
    /// Its pushes.
    pub releases: u64,
    /// The latest of them.
    pub latest: Record,
}

/// How a delivery stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Durably queued.
    Queued,
    /// Being made.
    Running,
    /// Complete and verified.
    Delivered(DeliveryReport),
    /// Failed for now; it will be tried again.
    Retrying {
        /// What failed.
        reason: String,
        /// Seconds until the next try.
        seconds: u64,
    },
    /// Given up.
    Failed {
        /// What failed.
        reason: String,
    },
}

/// A delivery and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryEvent {
    /// Where to.
    pub destination: DestinationName,
    /// How it stands.
    pub state: DeliveryState,
}

/// What a finished delivery did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// Where the copy lies, as the proxy's host names it.
    pub place: String,
    /// Files of the complete copy.
    pub files: u64,
    /// Bytes of the complete copy.
    pub bytes: u64,
    /// Bytes of them that were taken over from the destination's earlier release.
    pub reused_bytes: u64,
    /// Whether the destination had this release already.
    pub already: bool,
}
