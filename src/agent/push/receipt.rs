//! The receipt of a push: its costs and savings (docs/RECEIPT.md).

use serde::Serialize;

use super::encode::explain::Explained;
use crate::agent::pace::Choice;
use crate::agent::scan::{Dropped, Unpacked};
use crate::net::link_estimate::LinkEstimate;
use format::record::DeliveryEvent;
use ground::ids::{AppName, ReleaseId, RolloutId};

/// The costs and savings of one push. Its JSON form is stable: fields are added, never changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Receipt {
    /// The release's id: the BLAKE3 of its manifest's root.
    pub release: ReleaseId,
    /// The application.
    pub app: AppName,
    /// Counts the application's pushes from 1; none for a dry run.
    pub sequence: Option<u64>,
    /// Seconds since 1970 until which the content is kept, where it only filled the proxy's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_until: Option<u64>,
    /// True if the application's latest release was this one already.
    pub unchanged: bool,
    /// True if nothing was stored.
    pub dry_run: bool,
    /// Files of the release.
    pub files: u64,
    /// Files that were not read, as they look unchanged since the last push from here.
    pub files_remembered: u64,
    /// Counts the archives that were unpacked.
    pub archives: Unpacked,
    /// Counts by kind what the release does not keep of the input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
    /// Bytes of content.
    pub bytes: ReceiptBytes,
    /// Chunks of content.
    pub chunks: ReceiptChunks,
    /// Bytes on the wire.
    pub wire: ReceiptWire,
    /// Dependent exchanges with the proxy, the handshake's included, deliveries not.
    pub round_trips: u32,
    /// Seconds from the start of the scan to the commit.
    pub seconds: f64,
    /// The agent process's largest resident memory, in bytes; 0 where the system does not say.
    pub peak_rss: u64,
    /// The link, as it was estimated in the end.
    pub link: LinkEstimate,
    /// How many times the predicted seconds a processor takes here: by this push, or an earlier one; 1 where that is not known.
    pub slowness: f64,
    /// What was chosen to save bytes, and what was not.
    pub choices: Vec<Choice>,
    /// Why bytes crossed, where that was asked for (`--explain`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explained: Vec<Explained>,
    /// The deliveries that the push asked for, as they ended.
    pub delivered: Vec<DeliveryEvent>,
    /// The rollout to the group that the push named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutId>,
}

/// Bytes of content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReceiptBytes {
    /// All files.
    pub logical: u64,
    /// The chunks that the space did not have, plain.
    pub unseen: u64,
    /// The same chunks as they were sent, compressed.
    pub sent: u64,
}

/// Chunks of content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReceiptChunks {
    /// All references of the release.
    pub total: u64,
    /// References to chunks that the space did not have.
    pub unseen: u64,
}

/// UDP payload bytes of the connection, handshake and retransmissions included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReceiptWire {
    /// Sent by the agent.
    pub up: u64,
    /// Received by the agent.
    pub down: u64,
}

/// Returns the process's largest resident memory so far, in bytes; 0 where the system does not say.
pub fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.map_or(0, |kilobytes| kilobytes * 1024)
}
