//! What a watching target remembers beside its directory (FORMAT 9.1).

use serde::{Deserialize, Serialize};

use crate::target::{TargetReport, TargetState};
use crate::value;
use ground::ids::{AppName, Label, ReleaseId, RolloutId};

/// First byte of the value.
const VERSION: u8 = 1;
/// Releases that are remembered as bad; beyond it the oldest are forgotten.
const BAD_MAX: usize = 64;

/// What a watching target remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Names the directory, by chance.
    pub instance: u64,
    /// The application.
    pub app: AppName,
    /// The release that was confirmed last, or that a person put there.
    pub good: Option<ReleaseId>,
    /// The wish that was fulfilled, or turned down, last.
    pub dealt: Option<Wish>,
    /// True if a person has shown another release since that wish: it stays until something else is wished for.
    pub by_hand: bool,
    /// The release that is being shown; none between updates.
    pub trying: Option<Trying>,
    /// Releases that it went back from, the latest last.
    pub bad: Vec<Bad>,
    /// What it said last.
    pub report: TargetReport,
}

/// What the proxy wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The release.
    pub release: ReleaseId,
    /// The rollout that assigned it.
    pub rollout: Option<RolloutId>,
}

/// A release that is shown but not confirmed, or about to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trying {
    /// The release.
    pub wish: Wish,
    /// Its labels.
    pub labels: Vec<Label>,
    /// The release that was shown before.
    pub from: Option<ReleaseId>,
    /// Seconds since 1970 at which it began: for people.
    pub since: u64,
    /// How far it is.
    pub step: Step,
}

/// A step of an update, written down before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// What was there is stopped, the release shown, started and confirmed.
    Switching,
    /// What was there before comes back.
    GoingBack {
        /// Why.
        reason: String,
        /// The last lines of the command that failed.
        output: String,
    },
}

/// A release that is not tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// The release.
    pub release: ReleaseId,
    /// Seconds since 1970 at which it failed.
    pub since: u64,
    /// Why.
    pub reason: String,
}

impl Watched {
    /// Begins with nothing.
    pub fn new(instance: u64, app: AppName) -> Self {
        let report = TargetReport {
            shown: None,
            previous: None,
            about: None,
            rollout: None,
            state: TargetState::Empty,
            fetched_bytes: 0,
            saved_bytes: 0,
            output: String::new(),
        };
        Self { instance, app, good: None, dealt: None, by_hand: false, trying: None, bad: Vec::new(), report }
    }

    /// Returns why a release is bad here, if it is.
    pub fn bad(&self, release: &ReleaseId) -> Option<&Bad> {
        self.bad.iter().find(|bad| bad.release == *release)
    }

    /// Remembers a release as bad.
    pub fn add_bad(&mut self, release: ReleaseId, since: u64, reason: String) {
        self.forget_bad(&release);
        self.bad.push(Bad { release, since, reason });
        let over = self.bad.len().saturating_sub(BAD_MAX);
        self.bad.drain(..over);
    }

    /// Forgets that a release is bad.
    pub fn forget_bad(&mut self, release: &ReleaseId) {
        self.bad.retain(|bad| bad.release != *release);
    }

    /// Encodes the value.
    pub fn encode(&self) -> Vec<u8> {
        value::encode_checked(VERSION, self)
    }

    /// Decodes a value; none if it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        value::decode_checked(VERSION, bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_bad_releases_are_remembered_each_once() {
        let mut watched = Watched::new(7, "web".parse().expect("a name"));
        let release = |number: u8| ReleaseId::of(&[number]);
        for number in (0..=u8::try_from(BAD_MAX).expect("few")).chain([5]) {
            watched.add_bad(release(number), number.into(), format!("reason {number}"));
        }
        assert_eq!((watched.bad.len(), watched.bad(&release(0))), (BAD_MAX, None));
        assert_eq!(watched.bad.last().map(|bad| bad.release), Some(release(5)));
        watched.forget_bad(&release(5));
        assert_eq!(watched.bad(&release(5)), None);
        assert_eq!(Watched::decode(&watched.encode()), Some(watched.clone()));
        let mut bytes = watched.encode();
        bytes[9] ^= 1;
        assert_eq!(Watched::decode(&bytes), None);
    }
}
