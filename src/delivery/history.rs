//! The deliveries that ended last, in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ended::Ended;
use ground::ids::{AppName, DestinationName, SpaceName};

/// Deliveries that ended last, of whatever application and destination.
const RECENT: usize = 200;
/// The most with those that are only the last of their application at their destination: some 4 MB.
const ALL_MAX: usize = 4096;

/// An application at a destination.
type Place = (SpaceName, AppName, DestinationName);

/// The deliveries that ended last, by number: the last [`RECENT`], and the last of each application at each destination.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: BTreeMap<u64, Arc<Ended>>,
}

impl History {
    /// Adds deliveries. Returns the numbers of those that are no longer kept.
    pub fn add(&mut self, more: impl IntoIterator<Item = (u64, Ended)>) -> Vec<u64> {
        self.entries.extend(more.into_iter().map(|(number, ended)| (number, Arc::new(ended))));
        if self.entries.len() <= RECENT {
            return Vec::new();
        }
        let mut order: Vec<(u64, u64)> =
            self.entries.iter().map(|(number, ended)| (ended.ended, *number)).collect();
        order.sort_unstable_by(|one, other| other.cmp(one));
        let mut last: HashMap<Place, u64> = HashMap::new();
        for (_, number) in &order {
            last.entry(place(&self.entries[number])).or_insert(*number);
        }
        // The highest number stays, so that the next start gives it to no other.
        let highest = self.entries.last_key_value().map(|(number, _)| *number);
        let mut gone = Vec::new();
        for (rank, (_, number)) in order.into_iter().enumerate() {
            let is_last = last.get(&place(&self.entries[&number])) == Some(&number);
            let stays = rank < RECENT || (is_last && rank < ALL_MAX) || Some(number) == highest;
            if !stays {
                gone.push(number);
            }
        }
        for number in &gone {
            self.entries.remove(number);
        }
        gone
    }

    /// Returns one that is still known.
    pub fn get(&self, number: u64) -> Option<&Arc<Ended>> {
        self.entries.get(&number)
    }

    /// Returns the last that is wanted.
    pub fn last(&self, is_wanted: impl Fn(&Ended) -> bool) -> Option<(u64, &Ended)> {
        let mut latest = self.entries.iter().rev().map(|(number, ended)| (*number, &**ended));
        latest.find(|(_, ended)| is_wanted(ended))
    }

    /// Returns those after a number, in rising order.
    pub fn after(&self, number: u64) -> impl Iterator<Item = (u64, &Arc<Ended>)> {
        self.entries.range(number.saturating_add(1)..).map(|(number, ended)| (*number, ended))
    }
}

fn place(ended: &Ended) -> Place {
    let delivery = &ended.delivery;
    (delivery.space.clone(), delivery.app.clone(), delivery.destination.clone())
}

#[cfg(test)]
mod tests {
    use super::super::pending::Delivery;
    use super::*;
    use format::record::{DeliveryReport, DeliveryState};
    use ground::ids::ReleaseId;

    fn ended(app: &str, time: u64) -> Ended {
        let (space, app) = ("shop".parse().expect("a name"), app.parse().expect("a name"));
        let delivery = Delivery::new(space, app, ReleaseId::of(b"a root"), "edge".parse().expect("a name"));
        let state = DeliveryState::Delivered(DeliveryReport::default());
        Ended { delivery, started: time, ended: time, state }
    }

    #[test]
    fn the_last_of_each_application_stays_and_else_those_that_ended_last() {
        let mut history = History::default();
        assert!(history.add([(1, ended("quiet", 1))]).is_empty());
        for number in 2..=RECENT as u64 {
            assert!(history.add([(number, ended("busy", number))]).is_empty());
        }
        assert!(history.add([(201, ended("busy", 201))]).is_empty(), "the first is its application's last");
        assert_eq!(history.add([(202, ended("busy", 202))]), [2]);
        assert_eq!(history.add([(203, ended("quiet", 203))]), [3, 1]);
        assert!(history.get(1).is_none() && history.get(4).is_some());
        assert_eq!(history.after(202).map(|(number, _)| number).collect::<Vec<_>>(), [203]);
    }

    #[test]
    fn one_that_was_tried_for_long_is_recent_when_it_ends() {
        let mut history = History::default();
        for number in 2..=RECENT as u64 + 1 {
            history.add([(number, ended("busy", number))]);
        }
        assert_eq!(history.add([(1, ended("busy", 10_000))]), [2]);
    }

    #[test]
    fn the_highest_number_stays_however_long_ago_it_ended() {
        let mut history = History::default();
        history.add([(1000, ended("busy", 1))]);
        for number in 1..=2 * RECENT as u64 {
            history.add([(number, ended("busy", 10 + number))]);
        }
        assert!(history.get(1000).is_some());
    }

    #[test]
    fn thousands_of_applications_are_bounded() {
        let mut history = History::default();
        for number in 0..2 * RECENT as u64 {
            history.add([(number, ended(&format!("app{number}"), number))]);
        }
        assert_eq!(history.entries.len(), 2 * RECENT);
    }
}
