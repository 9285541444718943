//! Records of pushes: who pushed a release, when, under which labels, at what cost.

use serde::{Deserialize, Serialize};

use crate::hop::Hop;
use crate::manifest::Totals;
use ground::faults::Fault;
use ground::ids::{ActionName, AppName, DeliveryId, DestinationName, Label, ReleaseId, Selector, UserName};

/// The cost of a push: bytes and counts as the proxy saw them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Chunks that the space did not have.
    pub unseen_chunks: u64,
    /// Their plain bytes.
    pub unseen_bytes: u64,
    /// Their compressed bytes on the link.
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
    /// The user on whose behalf it was made.
    pub user: UserName,
    /// Its labels.
    pub labels: Vec<Label>,
    /// The totals of the content.
    pub totals: Totals,
    /// The cost of the push.
    pub cost: Cost,
    /// The proxies that the release came through and on whose behalf, the first one first; none of a push from a build host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behalf: Vec<Hop>,
}

impl Record {
    /// Returns whether `selector` can mean this record, as far as the agent can know.
    ///
    /// A whole id means only its release. Fewer digits mean a release whose id begins with them, or one with that label,
    /// from before such labels were refused. Only the proxy knows which release a label means, is current, or is the latest.
    pub fn is_meant_by(&self, selector: &Selector) -> bool {
        let is_word = selector.is_current() || selector.is_latest();
        let is_labelled = is_word || selector.at.as_ref().is_some_and(|at| self.labels.contains(at));
        let is_release = match (selector.release(), selector.digits()) {
            (Some(release), _) => self.release == release,
            (None, Some(digits)) => is_labelled || self.release.to_string().starts_with(&digits),
            (None, None) => is_labelled,
        };
        self.app == selector.app && is_release
    }
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

/// The state of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Durably queued.
    Queued,
    /// Under way.
    Running(Progress),
    /// Complete and verified.
    Delivered(DeliveryReport),
    /// Failed for now; it will be tried again.
    Retrying {
        /// The failure.
        reason: String,
        /// Seconds until the next try.
        seconds: u64,
        /// What can be done about it.
        fault: Fault,
    },
    /// Given up.
    Failed {
        /// The failure.
        reason: String,
        /// What can be done about it.
        fault: Fault,
    },
    /// Left out, as the destination takes only an application's latest release.
    Skipped {
        /// The delivery of the later release.
        by: DeliveryId,
    },
    /// Ended by somebody.
    Cancelled {
        /// By whom.
        by: UserName,
    },
    /// Its destination is not configured any more.
    Stranded,
}

impl DeliveryState {
    /// Returns whether the delivery has ended, so that no other state follows.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Queued | Self::Running(_) | Self::Retrying { .. } | Self::Stranded => false,
            Self::Delivered(_) | Self::Failed { .. } | Self::Skipped { .. } | Self::Cancelled { .. } => true,
        }
    }
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes that are done, reused ones included.
    pub bytes: u64,
    /// Bytes of the release; 0 while that is not known.
    pub total: u64,
    /// Files of the release.
    pub files: u64,
}

/// A delivery and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryEvent {
    /// Its destination.
    pub destination: DestinationName,
    /// Its state.
    pub state: DeliveryState,
    /// Its id.
    pub id: DeliveryId,
}

/// The result of a finished delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// The path of the copy on the proxy's host.
    pub place: String,
    /// Files of the complete copy.
    pub files: u64,
    /// Bytes of the complete copy.
    pub bytes: u64,
    /// Bytes among them that came from the destination's earlier release.
    pub reused_bytes: u64,
    /// True if the destination had this release already.
    pub already: bool,
    /// Milliseconds from the beginning of the try that succeeded to its end.
    #[serde(default)]
    pub millis: u64,
    /// Bytes that were sent to a service, or written.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Requests to a service.
    #[serde(default)]
    pub requests: u64,
    /// The service's own answer.
    #[serde(default)]
    pub answer: Option<String>,
    /// What followed the delivery.
    #[serde(default)]
    pub actions: Vec<ActionReport>,
    /// Notes, for example about an old copy that could not be removed.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The result of a hook or webhook that followed a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionReport {
    /// The action.
    pub action: ActionName,
    /// Milliseconds that it took.
    pub millis: u64,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// The end of what it printed, or the receiver's answer.
    pub output: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::ids::ChunkId;

    #[test]
    fn an_id_means_its_release_whatever_other_releases_are_labelled() {
        let release = ReleaseId::from(ChunkId::of(b"good"));
        let record = |release: ReleaseId, labels: &[&str]| Record {
            app: "web".parse().expect("a name"),
            release,
            sequence: 1,
            created: 0,
            user: "ada".parse().expect("a name"),
            labels: labels.iter().map(|label| label.parse().expect("a word")).collect(),
            totals: Totals::default(),
            cost: Cost::default(),
            behalf: Vec::new(),
        };
        let means = |at: &str, record: &Record| record.is_meant_by(&at.parse().expect("a selector"));
        let whole = release.to_string();
        let good = record(release, &["v1"]);
        let evil = record(ReleaseId::from(ChunkId::of(b"evil")), &[&whole, "20261130"]);
        assert!(means(&format!("web@{whole}"), &good) && !means(&format!("web@{whole}"), &evil));
        assert!(means(&format!("web@{}", &whole[..12]), &good));
        assert!(!means(&format!("web@{}", &whole[..12]), &evil));
        assert!(means("web@20261130", &evil) && !means("web@20261130", &good));
        assert!(means("web@v1", &good) && !means("web@v1", &evil) && !means("api@v1", &good));
        assert!(means("web", &good) && !means("api", &good));
        assert!(means("web@latest", &good) && means("web@current", &evil) && !means("api@latest", &good));
    }
}
