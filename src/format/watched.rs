//! What a watching target remembers beside its directory (FORMAT 9.1).

use serde::{Deserialize, Serialize};

use crate::target::TargetReport;
use crate::value;
use ground::ids::{AppName, Label, ReleaseId, RolloutId};

/// First byte of the value.
const VERSION: u8 = 1;
/// Releases that are remembered as bad; beyond it the oldest are forgotten.
const BAD_MAX: usize = 64;
/// Labels of the release that is being shown; they fit into the environment of a command.
const LABELS_MAX: usize = 64;

/// What a watching target remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Names the directory, by chance.
    pub instance: u64,
    /// Tells the folder that this is in from copies of it: in another one the directory gets another name.
    pub home: String,
    /// The application.
    pub app: AppName,
    /// The release that was confirmed, or started again, last. One that is shown and is not this one has yet to be proven.
    pub good: Option<ReleaseId>,
    /// What was wanted last, and then shown, or turned down.
    pub dealt: Option<WantedRelease>,
    /// True if a person has shown another release since then: it stays until something else is wanted.
    pub by_hand: bool,
    /// How often a person has shown a release: so the process that watches knows a person's writing from its own.
    pub hands: u32,
    /// The release that is being shown; none between updates.
    pub trying: Option<Trying>,
    /// Switches in a row that were begun for a wanted release and did not show it.
    pub missed: Option<Missed>,
    /// Releases that it went back from, the latest last.
    pub bad: Vec<Bad>,
    /// What it said last.
    pub report: TargetReport,
}

/// A release that the proxy wants the target to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedRelease {
    /// The release.
    pub release: ReleaseId,
    /// The rollout that assigned it.
    pub rollout: Option<RolloutId>,
}

/// Switches that were begun and did not show their release: what was shown had been stopped for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// What they were for.
    pub wanted: WantedRelease,
    /// How many they were.
    pub times: u32,
}

/// A release that is shown but not confirmed, or about to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trying {
    /// The release.
    pub wanted: WantedRelease,
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

impl Trying {
    /// Begins: of many labels the first are kept.
    pub fn new(wanted: WantedRelease, labels: &[Label], from: Option<ReleaseId>, since: u64) -> Self {
        let labels = labels.iter().take(LABELS_MAX).cloned().collect();
        Self { wanted, labels, from, since, step: Step::Switching }
    }
}

impl Watched {
    /// Begins with nothing.
    pub fn new(instance: u64, home: String, app: AppName) -> Self {
        Self {
            instance,
            home,
            app,
            good: None,
            dealt: None,
            by_hand: false,
            hands: 0,
            trying: None,
            missed: None,
            bad: Vec::new(),
            report: TargetReport::default(),
        }
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

    /// Notes that a person has shown a release, however it failed before: it is to be proven, and stays until something else is wanted.
    pub fn shown_by_hand(&mut self, release: &ReleaseId) {
        self.forget_bad(release);
        (self.good, self.trying, self.missed) = (None, None, None);
        self.by_hand = true;
        self.hands = self.hands.wrapping_add(1);
    }

    /// Counts a switch that was begun and did not show its release.
    pub fn miss(&mut self, wanted: WantedRelease) {
        self.missed = Some(Missed { wanted, times: self.missed(wanted).saturating_add(1) });
    }

    /// Returns the switches in a row that were begun for a wanted release and did not show it.
    pub fn missed(&self, wanted: WantedRelease) -> u32 {
        self.missed.filter(|missed| missed.wanted == wanted).map_or(0, |missed| missed.times)
    }

    /// Encodes the value.
    pub fn encode(&self) -> Vec<u8> {
        value::encode_checked(VERSION, self)
    }

    /// Decodes a value; none if it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        value::decode_checked(VERSION..=VERSION, bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_bad_releases_are_remembered_each_once() {
        let mut watched = Watched::new(7, "home".to_owned(), "web".parse().expect("a name"));
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
