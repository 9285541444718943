//! The deliveries that wait for one destination, and their order.
//!
//! Users take turns, so that a user with a hundred deliveries does not hold up a user with one. Releases of one
//! application never overtake one another, whoever asked for them. A delivery that failed gives way to a later one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::pending::Delivery;
use format::record::{DeliveryEvent, DeliveryState};
use ground::ids::{SpaceName, UserName};
use ground::poison::Unpoisoned as _;

/// States that wait for one listener; further ones are dropped, except the last.
const EVENTS_AHEAD: usize = 64;
/// Users whose last turn is remembered; beyond that, only turns of users who wait.
const TURNS_MAX: usize = 1024;

/// The states of one delivery; ends with the delivery.
pub type Events = mpsc::Receiver<DeliveryEvent>;

/// A delivery that waits, or is under way.
#[derive(Debug)]
pub(super) struct Queued {
    /// Its number in the ledger.
    pub number: u64,
    pub delivery: Delivery,
    pub listeners: Vec<mpsc::Sender<DeliveryEvent>>,
    /// The number of failed tries.
    pub tries: u32,
    /// The time of the next try.
    pub not_before: Instant,
}

impl Queued {
    /// Creates one without listeners.
    pub fn new(number: u64, delivery: Delivery) -> Self {
        Self { number, delivery, listeners: Vec::new(), tries: 0, not_before: Instant::now() }
    }

    /// Adds a listener, which first receives the state `Queued`.
    pub fn listen(&mut self) -> Events {
        let (listener, events) = mpsc::channel(EVENTS_AHEAD);
        self.listeners.retain(|listener| !listener.is_closed());
        drop(listener.try_send(self.event(DeliveryState::Queued)));
        self.listeners.push(listener);
        events
    }

    /// Sends a state to the listeners. An agent may be gone; the delivery goes on.
    pub fn report(&self, state: &DeliveryState) {
        let is_last = matches!(state, DeliveryState::Delivered(_) | DeliveryState::Failed { .. });
        for listener in &self.listeners {
            if is_last || listener.capacity() > 1 {
                drop(listener.try_send(self.event(state.clone())));
            }
        }
    }

    fn event(&self, state: DeliveryState) -> DeliveryEvent {
        DeliveryEvent { destination: self.delivery.destination.clone(), state }
    }

    fn is_of_same_application(&self, other: &Delivery) -> bool {
        (&self.delivery.space, &self.delivery.app) == (&other.space, &other.app)
    }

    fn owner(&self) -> Owner {
        (self.delivery.space.clone(), self.delivery.user.clone())
    }
}

/// The user who asked; none for a delivery that an older version wrote down.
pub(super) type Owner = (SpaceName, Option<UserName>);

/// The deliveries that wait for one destination.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// In the order of their arrival.
    entries: VecDeque<Queued>,
    /// The number of each user's last turn.
    turns: HashMap<Owner, u64>,
    turn: u64,
}

impl Queue {
    /// Returns the number of a user's deliveries that wait.
    pub fn waiting_of(&self, owner: &Owner) -> usize {
        self.waiting().entries.iter().filter(|queued| queued.owner() == *owner).count()
    }

    /// Returns the events of the application's last waiting delivery, if that is of the same release.
    pub fn join(&self, delivery: &Delivery) -> Option<Events> {
        let mut waiting = self.waiting();
        let last = waiting.entries.iter_mut().rev().find(|queued| queued.is_of_same_application(delivery))?;
        if last.delivery.release != delivery.release {
            return None;
        }
        // The user may have removed the cause of a failure: try at once.
        last.not_before = Instant::now();
        let events = last.listen();
        drop(waiting);
        self.more.notify_one();
        Some(events)
    }

    /// Adds a delivery at the end. Returns the failed ones that it replaces.
    pub fn push(&self, queued: Queued) -> Vec<Queued> {
        let mut waiting = self.waiting();
        let is_replaced =
            |earlier: &Queued| earlier.tries > 0 && earlier.is_of_same_application(&queued.delivery);
        let mut replaced = Vec::new();
        while let Some(place) = waiting.entries.iter().position(is_replaced) {
            replaced.extend(waiting.entries.remove(place));
        }
        waiting.entries.push_back(queued);
        drop(waiting);
        self.more.notify_one();
        replaced
    }

    /// Adds a failed delivery, to be tried later. Returns it if a later release of its application already waits:
    /// that one may be the fix.
    pub fn push_again(&self, queued: Queued) -> Option<Queued> {
        let mut waiting = self.waiting();
        if waiting.entries.iter().any(|later| later.is_of_same_application(&queued.delivery)) {
            return Some(queued);
        }
        waiting.entries.push_back(queued);
        None
    }

    /// Waits for the next delivery that is due; none once `is_stopped`. Call [`Queue::wake`] when that changes.
    pub fn next(&self, is_stopped: impl Fn() -> bool, wait_max: Duration) -> Option<Queued> {
        let mut waiting = self.waiting();
        loop {
            if is_stopped() {
                return None;
            }
            let now = Instant::now();
            if let Some(queued) = waiting.take(now) {
                return Some(queued);
            }
            let waits = waiting.entries.iter().map(|queued| queued.not_before.saturating_duration_since(now));
            // A delivery that waits for an earlier one of its application comes when that one is done.
            let wait = waits.filter(|wait| !wait.is_zero()).min().unwrap_or(wait_max);
            waiting = self.more.wait_timeout(waiting, wait).unpoisoned().0;
        }
    }

    /// Wakes the worker.
    pub fn wake(&self) {
        self.more.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unpoisoned()
    }
}

impl Waiting {
    /// Takes the first ready delivery of the user whose last turn is longest ago.
    fn take(&mut self, now: Instant) -> Option<Queued> {
        let mut first: HashMap<Owner, usize> = HashMap::new();
        for (place, queued) in self.entries.iter().enumerate() {
            let mut earlier = self.entries.iter().take(place);
            if queued.not_before <= now
                && !earlier.any(|other| other.is_of_same_application(&queued.delivery))
            {
                first.entry(queued.owner()).or_insert(place);
            }
        }
        let next = first.into_iter().min_by_key(|(owner, place)| (self.turns.get(owner).copied(), *place));
        let (owner, place) = next?;
        self.turn += 1;
        self.turns.insert(owner, self.turn);
        let queued = self.entries.remove(place);
        if self.turns.len() > TURNS_MAX {
            let entries = &self.entries;
            self.turns.retain(|owner, _| entries.iter().any(|queued| queued.owner() == *owner));
        }
        queued
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::faults::Fault;
    use ground::ids::ReleaseId;

    fn queued(user: &str, app: &str, release: u8) -> Queued {
        let delivery = Delivery {
            space: "shop".parse().expect("a name"),
            app: app.parse().expect("a name"),
            release: ReleaseId::of(&[release]),
            destination: "edge".parse().expect("a name"),
            user: Some(user.parse().expect("a name")),
        };
        Queued::new(release.into(), delivery)
    }

    fn names(queue: &Queue) -> Vec<String> {
        let done = || queue.waiting.try_lock().is_ok_and(|waiting| waiting.entries.is_empty());
        let mut names = Vec::new();
        while !done() {
            let next = queue.next(|| false, Duration::ZERO).expect("one is ready");
            let Delivery { user, app, .. } = &next.delivery;
            names.push(format!("{}-{app}-{}", user.as_ref().expect("somebody's"), next.number));
        }
        names
    }

    #[test]
    fn users_take_turns_and_each_applications_releases_keep_their_order() {
        let queue = Queue::default();
        for release in 0..3 {
            queue.push(queued("eve", "web", release));
        }
        queue.push(queued("eve", "api", 0));
        queue.push(queued("bob", "site", 0));
        queue.push(queued("bob", "site", 1));
        queue.push(queued("ada", "web", 3));
        let expected =
            ["eve-web-0", "bob-site-0", "eve-web-1", "bob-site-1", "eve-web-2", "ada-web-3", "eve-api-0"];
        assert_eq!(names(&queue), expected);
    }

    #[test]
    fn the_same_again_is_one_delivery_with_two_listeners() {
        let queue = Queue::default();
        queue.push(queued("eve", "web", 0));
        let again = queued("bob", "web", 0).delivery;
        let mut events = queue.join(&again).expect("it waits already");
        assert!(matches!(events.try_recv(), Ok(DeliveryEvent { state: DeliveryState::Queued, .. })));
        queue.push(queued("eve", "web", 1));
        assert!(queue.join(&again).is_none(), "a release may come back, after the other one");
        let next = queue.next(|| false, Duration::ZERO).expect("one is ready");
        next.report(&DeliveryState::Failed { reason: "full".to_owned(), fault: Fault::Full });
        assert!(matches!(events.try_recv(), Ok(DeliveryEvent { state: DeliveryState::Failed { .. }, .. })));
    }

    #[test]
    fn one_that_failed_never_comes_after_a_later_one() {
        let queue = Queue::default();
        let later = Instant::now() + Duration::from_secs(3600);
        let failed = || Queued { tries: 1, not_before: later, ..queued("eve", "web", 0) };
        assert!(queue.push_again(failed()).is_none());
        let replaced = queue.push(queued("bob", "web", 1));
        assert_eq!(replaced.len(), 1);
        assert!(queue.push_again(failed()).is_some());
        assert_eq!(names(&queue), ["bob-web-1"]);
    }

    #[test]
    fn each_users_deliveries_are_counted_by_themselves() {
        let queue = Queue::default();
        for number in 0..5 {
            queue.push(queued("eve", &format!("app{number}"), 0));
        }
        queue.push(queued("bob", "web", 0));
        assert_eq!(queue.waiting_of(&queued("eve", "more", 0).owner()), 5);
        assert_eq!(queue.waiting_of(&queued("ada", "web", 0).owner()), 0);
    }

    #[test]
    fn a_listener_who_does_not_listen_costs_a_few_states_and_hears_the_last() {
        let mut one = queued("eve", "web", 0);
        let mut events = one.listen();
        for _ in 0..1000 {
            one.report(&DeliveryState::Running);
        }
        one.report(&DeliveryState::Failed { reason: "full".to_owned(), fault: Fault::Full });
        let heard: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        assert_eq!(heard.len(), EVENTS_AHEAD);
        assert!(heard.last().is_some_and(|event| matches!(event.state, DeliveryState::Failed { .. })));
    }
}
