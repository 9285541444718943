//! A delivery that has not ended, as it is written down.

use serde::{Deserialize, Serialize};

use format::value;
use ground::escape;
use ground::faults::Fault;
use ground::ids::{ActionName, AppName, DestinationName, ReleaseId, SpaceName, UserName};
use protocol::token::{Hop, TokenId};

/// First byte of a delivery's value (FORMAT 5); what earlier versions lack is empty.
const VERSION: u8 = 3;
const VERSION_OLDEST: u8 = 1;
/// Bytes of a failure's reason; more says no more.
const REASON_BYTES_MAX: usize = 4096;

/// One delivery, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The space of the release.
    pub space: SpaceName,
    /// Its application.
    pub app: AppName,
    /// The release to deliver.
    pub release: ReleaseId,
    /// The destination.
    pub destination: DestinationName,
    /// The user who asked for it; none in those that an older whit wrote down.
    #[serde(default)]
    pub user: Option<UserName>,
    /// Seconds since 1970 at which it was asked for; 0 in those that an older whit wrote down.
    #[serde(default)]
    pub asked: u64,
    /// The token that asked for it.
    #[serde(default)]
    pub token: Option<TokenId>,
    /// The number of failed tries.
    #[serde(default)]
    pub tries: u32,
    /// Seconds since 1970 before which it is not tried again; 0 if it never failed.
    #[serde(default)]
    pub not_before: u64,
    /// The actions that are to follow, in order.
    #[serde(default)]
    pub then: Vec<ActionName>,
    /// The proxies that the release came through and on whose behalf, the first one first.
    #[serde(default)]
    pub behalf: Vec<Hop>,
    /// Why the last try failed, while there is to be another.
    #[serde(default)]
    pub failure: Option<LastFailure>,
}

/// Why the last try of a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// The reason, for people.
    pub reason: String,
    /// What can be done about it.
    pub fault: Fault,
}

impl LastFailure {
    /// Creates one; leaves out the end of a long reason.
    pub fn new(mut reason: String, fault: Fault) -> Self {
        reason.truncate(escape::boundary(&reason, REASON_BYTES_MAX));
        Self { reason, fault }
    }
}

impl Delivery {
    /// Creates a delivery that nobody in particular asked for.
    pub fn new(space: SpaceName, app: AppName, release: ReleaseId, destination: DestinationName) -> Self {
        Self {
            space,
            app,
            release,
            destination,
            user: None,
            asked: 0,
            token: None,
            tries: 0,
            not_before: 0,
            then: Vec::new(),
            behalf: Vec::new(),
            failure: None,
        }
    }

    /// Returns whether this delivery, once made, has done all that `other` asks for.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.is_of_same_place(other)
            && self.release == other.release
            && other.then.iter().all(|action| self.then.contains(action))
    }

    /// Returns whether another proxy asks for the same once more, as it did not hear how it went.
    pub(super) fn is_repeated_by(&self, other: &Self) -> bool {
        let is_numbered = self.behalf.last().is_some_and(|hop| hop.delivery.is_some());
        is_numbered
            && self.is_of_same_place(other)
            && (&self.release, &self.behalf, &self.then) == (&other.release, &other.behalf, &other.then)
    }

    /// Returns whether both put a release of one application to one destination.
    pub(super) fn is_of_same_place(&self, other: &Self) -> bool {
        self.is_of_same_application(other) && self.destination == other.destination
    }

    /// Returns whether both put a release of one application somewhere.
    pub(super) fn is_of_same_application(&self, other: &Self) -> bool {
        (&self.space, &self.app) == (&other.space, &other.app)
    }

    /// Encodes a delivery.
    pub fn encode(&self) -> Vec<u8> {
        value::encode(VERSION, self)
    }

    /// Decodes a delivery; none if the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        value::decode(VERSION_OLDEST..=VERSION, bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery() -> Delivery {
        let name = "shop".parse().expect("a name");
        let (app, destination) = ("web".parse().expect("a name"), "edge".parse().expect("a name"));
        Delivery::new(name, app, ReleaseId::of(b"a root"), destination)
    }

    #[test]
    fn a_delivery_that_an_older_version_wrote_down_is_read() {
        let delivery = delivery();
        let Delivery { space, app, release, destination, .. } = &delivery;
        let oldest = rmp_serde::to_vec(&(space, app, release, destination)).expect("bytes");
        assert_eq!(Delivery::decode(&[&[1], oldest.as_slice()].concat()), Some(delivery.clone()));
        let user: Option<UserName> = Some("ada".parse().expect("a name"));
        let older = rmp_serde::to_vec(&(space, app, release, destination, &user)).expect("bytes");
        let expected = Delivery { user, ..delivery };
        assert_eq!(Delivery::decode(&[&[1], older.as_slice()].concat()), Some(expected));
    }

    #[test]
    fn a_delivery_with_everything_is_read_as_it_was_written_and_a_newer_one_is_not() {
        let delivery = Delivery {
            asked: 1_800_000_000,
            token: Some(TokenId::from_bytes([7; 8])),
            tries: 3,
            not_before: 1_800_000_060,
            then: vec!["restart".parse().expect("a name")],
            failure: Some(LastFailure::new("refused".to_owned(), Fault::Retry)),
            ..delivery()
        };
        let mut bytes = delivery.encode();
        assert_eq!(Delivery::decode(&bytes), Some(delivery));
        bytes[0] = VERSION + 1;
        assert_eq!(Delivery::decode(&bytes), None);
    }

    #[test]
    fn a_reason_without_end_is_cut_between_two_characters() {
        let failure = LastFailure::new("ä".repeat(1_000_000), Fault::Full);
        assert_eq!(failure.reason, "ä".repeat(REASON_BYTES_MAX / 2));
    }

    #[test]
    fn a_delivery_covers_another_of_the_same_release_with_no_more_actions() {
        let with = |then: &[&str]| {
            let then = then.iter().map(|action| action.parse().expect("a name")).collect();
            Delivery { then, ..delivery() }
        };
        assert!(with(&["a", "b"]).covers(&with(&["b"])) && with(&[]).covers(&with(&[])));
        assert!(!with(&["a"]).covers(&with(&["b"])));
        assert!(!Delivery { release: ReleaseId::of(b"other"), ..delivery() }.covers(&delivery()));
    }
}
