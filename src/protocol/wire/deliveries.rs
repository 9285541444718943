//! Questions about deliveries, and their answers.

use serde::{Deserialize, Serialize};

use crate::token::{Hop, TokenId};
use format::record::DeliveryState;
use ground::ids::{ActionName, AppName, DeliveryId, DestinationName, ReleaseId, UserName};

/// Which deliveries to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveriesWanted {
    /// Only those of this application.
    pub app: Option<AppName>,
    /// Only those to this destination.
    pub destination: Option<DestinationName>,
    /// Then each change, until the agent has heard enough; an empty answer now and then says that the proxy is there.
    pub watch: bool,
}

/// What is done to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Steering {
    /// Try it now, not after its wait.
    Retry,
    /// End it: it is taken out of the queue, or stopped.
    Cancel,
    /// End one whose destination is no longer configured.
    Drop,
}

/// A delivery, whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// Its id.
    pub id: DeliveryId,
    /// Its destination.
    pub destination: DestinationName,
    /// Its application.
    pub app: AppName,
    /// Its release.
    pub release: ReleaseId,
    /// The user who asked for it, if that is known.
    pub user: Option<UserName>,
    /// The token that asked for it, if that is known.
    pub token: Option<TokenId>,
    /// The proxies that the release came through and on whose behalf, the first one first.
    pub behalf: Vec<Hop>,
    /// The actions that are to follow.
    pub then: Vec<ActionName>,
    /// Seconds since 1970 at which it was asked for; 0 if that is not known.
    pub asked: u64,
    /// Seconds since 1970 at which its last try began.
    pub started: Option<u64>,
    /// Seconds since 1970 at which it ended.
    pub ended: Option<u64>,
    /// Failed tries.
    pub tries: u32,
    /// Its state; the seconds of one that waits to be tried again are those that are left.
    pub state: DeliveryState,
}

/// A destination that the token allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// Its name.
    pub name: DestinationName,
    /// Its kind.
    pub kind: String,
    /// Its place, with `{app}` where the application's name goes.
    pub place: String,
    /// Deliveries that have not ended, of applications that the token may see.
    pub waiting: u64,
    /// Those among them that have failed before.
    pub failing: u64,
}

/// What a destination that is not configured any more no longer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationDropped {
    /// Its name.
    pub name: DestinationName,
    /// Deliveries that waited for it, and were ended.
    pub deliveries: u64,
    /// Releases that it showed or kept, which only other rules keep now.
    pub releases: u64,
}

/// The result of trying a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationCheck {
    /// Its name.
    pub name: DestinationName,
    /// The steps, up to the first that failed.
    pub steps: Vec<CheckStep>,
}

/// One step of trying a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStep {
    /// What was tried.
    pub step: String,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// A part of what a delivery would do. Lists go on in the next part of the same destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryPlan {
    /// The destination.
    pub destination: DestinationName,
    /// How many files would be written, would stay and would be removed.
    pub files: [u64; 3],
    /// Bytes of those that would be written, and of those that would stay.
    pub bytes: [u64; 2],
    /// Files that would be written, with their bytes.
    pub put: Vec<(String, u64)>,
    /// Files that would stay as they are.
    pub keep: Vec<(String, u64)>,
    /// Files that would be removed.
    pub delete: Vec<String>,
}
