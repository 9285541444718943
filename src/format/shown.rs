//! The releases that a destination shows, or has shown and still holds (FORMAT 5.1).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::value;
use ground::ids::ReleaseId;

/// First byte of the value.
const VERSION: u8 = 1;
/// 64: more releases than a place holds at a time; the oldest complete ones are dropped.
pub const SHOWN_ENTRIES_MAX: usize = 64;

/// The releases of one application at one destination, the latest delivery first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// One for each delivery whose files may still be there.
    pub entries: Vec<ShownEntry>,
}

/// One release at a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownEntry {
    /// The release.
    pub release: ReleaseId,
    /// Seconds since 1970 at which the delivery began or, once complete, ended.
    pub since: u64,
    /// The delivery's number.
    pub delivery: u64,
    /// BLAKE3 of what else the destination makes of a release, like metadata; zeros where that is nothing.
    pub rules: ByteArray<32>,
    /// How much of it is there.
    pub state: ShownState,
}

/// How much of a release is at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShownState {
    /// All of it.
    Complete,
    /// A delivery began and has not ended well: its first steps, in the order of its plan.
    Partial {
        /// Steps from this one on were not begun.
        started: u64,
        /// Steps before this one are done.
        done: u64,
    },
}

impl Shown {
    /// Returns the release that readers see: the latest complete one.
    pub fn current(&self) -> Option<&ShownEntry> {
        self.complete().next()
    }

    /// Returns the complete releases, the latest first.
    pub fn complete(&self) -> impl Iterator<Item = &ShownEntry> {
        self.entries.iter().filter(|entry| entry.state == ShownState::Complete)
    }

    /// Returns the entries of deliveries that began and have not ended well, the latest first.
    pub fn partial(&self) -> impl Iterator<Item = &ShownEntry> {
        self.entries.iter().filter(|entry| entry.state != ShownState::Complete)
    }

    /// Notes that a delivery begins; one that was begun before goes on where it was if its rules are the same.
    pub fn begin(&mut self, release: ReleaseId, delivery: u64, rules: [u8; 32], now: u64) {
        let is_same = |entry: &ShownEntry| {
            entry.delivery == delivery && entry.state != ShownState::Complete && *entry.rules == rules
        };
        if !self.entries.first().is_some_and(is_same) {
            let state = ShownState::Partial { started: 0, done: 0 };
            let entry = ShownEntry { release, since: now, delivery, rules: ByteArray::new(rules), state };
            self.entries.insert(0, entry);
            self.entries.truncate(SHOWN_ENTRIES_MAX);
        }
    }

    /// Notes how far the delivery that began last has come.
    pub fn note(&mut self, started: u64, done: u64) {
        if let Some(entry) = self.entries.first_mut().filter(|entry| entry.state != ShownState::Complete) {
            entry.state = ShownState::Partial { started, done };
        }
    }

    /// Notes that the delivery that began last has written nothing.
    pub fn withdraw_first(&mut self) {
        if self.entries.first().is_some_and(|entry| entry.state != ShownState::Complete) {
            self.entries.remove(0);
        }
    }

    /// Notes that readers see the release of the delivery that began last, and that what only earlier releases had begins to
    /// go, but for those that are kept: a later delivery must not take them for whole.
    pub fn switch(&mut self, kept: &[ReleaseId], now: u64) {
        for entry in self.entries.iter_mut().skip(1) {
            if entry.state == ShownState::Complete && !kept.contains(&entry.release) {
                entry.state = ShownState::Partial { started: u64::MAX, done: 0 };
            }
        }
        if let Some(first) = self.entries.first_mut() {
            (first.state, first.since) = (ShownState::Complete, now);
        }
    }

    /// Notes that the delivery that began last ended well, and which earlier releases are still there.
    pub fn complete_first(&mut self, kept: &[ReleaseId], now: u64) {
        let Some(first) = self.entries.first_mut() else { return };
        (first.state, first.since) = (ShownState::Complete, now);
        let release = first.release;
        let mut seen = vec![release];
        let mut at_first = true;
        self.entries.retain(|entry| {
            if std::mem::take(&mut at_first) {
                return true;
            }
            let stays = entry.state == ShownState::Complete
                && kept.contains(&entry.release)
                && !seen.contains(&entry.release);
            seen.push(entry.release);
            stays
        });
    }

    /// Encodes the value.
    pub fn encode(&self) -> Vec<u8> {
        value::encode(VERSION, self)
    }

    /// Decodes a value; none if it is damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        value::decode(VERSION..=VERSION, bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_goes_on_where_it_was_and_ends_with_what_is_kept() {
        let [one, two, three] = [1_u8, 2, 3].map(|number| ReleaseId::of(&[number]));
        let mut shown = Shown::default();
        shown.begin(one, 1, [0; 32], 10);
        shown.complete_first(&[one], 11);
        shown.begin(two, 2, [0; 32], 20);
        shown.withdraw_first();
        assert_eq!(shown.partial().count(), 0);
        shown.withdraw_first();
        shown.begin(two, 2, [0; 32], 20);
        shown.note(5, 3);
        assert_eq!(shown.current().map(|entry| entry.release), Some(one));
        shown.begin(two, 2, [0; 32], 30);
        assert_eq!(shown.entries[0].state, ShownState::Partial { started: 5, done: 3 });
        shown.begin(three, 3, [0; 32], 40);
        assert_eq!(shown.partial().count(), 2);
        shown.complete_first(&[three, one], 41);
        let releases: Vec<_> = shown.complete().map(|entry| entry.release).collect();
        assert_eq!((releases, shown.partial().count()), (vec![three, one], 0));
        assert_eq!(Shown::decode(&shown.encode()), Some(shown));
    }

    #[test]
    fn a_release_whose_files_begin_to_go_is_whole_no_more() {
        let [one, two, three] = [1_u8, 2, 3].map(|number| ReleaseId::of(&[number]));
        let mut shown = Shown::default();
        for (number, release) in [(1, one), (2, two)] {
            shown.begin(release, number, [0; 32], 10);
            shown.complete_first(&[two, one], 11);
        }
        shown.begin(three, 3, [0; 32], 20);
        shown.switch(&[three, two], 21);
        let complete = |shown: &Shown| shown.complete().map(|entry| entry.release).collect::<Vec<_>>();
        assert_eq!((complete(&shown), shown.partial().count()), (vec![three, two], 1));
        shown.complete_first(&[three, two], 22);
        assert_eq!((complete(&shown), shown.partial().count()), (vec![three, two], 0));
    }
}
