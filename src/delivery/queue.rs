//! The deliveries that wait for one destination, and their order.
//!
//! Users take turns, so that a user with a hundred deliveries does not hold up a user with one. Releases of one
//! application never overtake one another, whoever asked for them. A delivery that failed gives way to a later one; where
//! only the latest counts, so does one that was not tried yet.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::listeners::{Events, Listeners};
use super::pending::Delivery;
use format::record::DeliveryState;
use ground::ids::{AppName, SpaceName, UserName};
use ground::poison::Unpoisoned as _;

/// Users whose last turn is remembered; beyond that, only turns of users who wait.
const TURNS_MAX: usize = 1024;

/// A delivery that waits, or is under way.
#[derive(Debug)]
pub(super) struct Queued {
    /// Its number in the ledger.
    pub number: u64,
    pub delivery: Delivery,
    pub listeners: Arc<Listeners>,
    /// The time of the next try.
    pub not_before: Instant,
}

impl Queued {
    /// Creates one that is due at once.
    pub fn new(number: u64, delivery: Delivery, listeners: Listeners) -> Self {
        Self { number, delivery, listeners: Arc::new(listeners), not_before: Instant::now() }
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
    /// Only an application's latest waiting release counts.
    latest_only: bool,
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// In the order of their arrival.
    entries: VecDeque<Queued>,
    /// The one that the worker makes.
    running: Option<Running>,
    /// The number of each user's last turn.
    turns: HashMap<Owner, u64>,
    turn: u64,
}

/// The delivery under way.
#[derive(Debug)]
struct Running {
    number: u64,
    listeners: Arc<Listeners>,
    cancelled: Arc<AtomicBool>,
    /// Who cancelled it.
    by: Option<UserName>,
}

/// The result of cancelling a delivery.
#[derive(Debug)]
pub(super) enum Cancelled {
    /// It waited, and was taken out.
    Waiting(Box<Queued>),
    /// It is under way and will end soon.
    Running(Events),
    /// It is not here.
    Unknown,
}

/// The fate of a delivery that failed.
#[derive(Debug)]
pub(super) enum Again {
    /// It waits for its next try.
    Waits,
    /// A later release of its application already waits: that one may be the fix.
    GivesWay(Queued, u64),
    /// Somebody cancelled it meanwhile.
    Cancelled(Queued, UserName),
}

impl Queue {
    /// Creates a queue; in one with `latest_only`, a delivery replaces all that wait of the same application.
    pub fn new(latest_only: bool) -> Self {
        Self { latest_only, ..Self::default() }
    }

    /// Returns whether only the latest waiting release of an application counts.
    pub fn is_latest_only(&self) -> bool {
        self.latest_only
    }

    /// Returns the number of a user's deliveries that wait.
    pub fn waiting_of(&self, owner: &Owner) -> usize {
        self.waiting().entries.iter().filter(|queued| queued.owner() == *owner).count()
    }

    /// Returns the number and the events of the application's last waiting delivery, if that does all that this one asks for.
    pub fn join(&self, delivery: &Delivery) -> Option<(u64, Events)> {
        let mut waiting = self.waiting();
        let is_of_same = |queued: &&mut Queued| queued.delivery.is_of_same_application(delivery);
        let last = waiting.entries.iter_mut().rev().find(is_of_same)?;
        if !last.delivery.covers(delivery) {
            return None;
        }
        // The user may have removed the cause of a failure: try at once.
        last.not_before = Instant::now();
        let joined = (last.number, last.listeners.listen(DeliveryState::Queued));
        drop(waiting);
        self.more.notify_one();
        Some(joined)
    }

    /// Adds a delivery at the end. Returns those that it replaces.
    pub fn push(&self, queued: Queued) -> Vec<Queued> {
        let mut waiting = self.waiting();
        let is_replaced = |earlier: &Queued| {
            (self.latest_only || earlier.delivery.tries > 0)
                && earlier.delivery.is_of_same_application(&queued.delivery)
        };
        let mut replaced = Vec::new();
        while let Some(place) = waiting.entries.iter().position(is_replaced) {
            replaced.extend(waiting.entries.remove(place));
        }
        waiting.entries.push_back(queued);
        drop(waiting);
        self.more.notify_one();
        replaced
    }

    /// Ends the try of the delivery under way, which failed and is to be tried later.
    pub fn push_again(&self, queued: Queued) -> Again {
        let mut waiting = self.waiting();
        if let Some(by) = waiting.running.take().and_then(|running| running.by) {
            return Again::Cancelled(queued, by);
        }
        let is_later = |later: &&Queued| later.delivery.is_of_same_application(&queued.delivery);
        if let Some(later) = waiting.entries.iter().find(is_later).map(|later| later.number) {
            return Again::GivesWay(queued, later);
        }
        waiting.entries.push_back(queued);
        Again::Waits
    }

    /// Ends the try of the delivery under way, which is not tried again. Returns who cancelled it.
    pub fn finish(&self) -> Option<UserName> {
        self.waiting().running.take().and_then(|running| running.by)
    }

    /// Waits for the next delivery that is due, and its flag that is set when it is to end; none once `is_stopped`. Call
    /// [`Queue::stop`] when that changes.
    pub fn next(
        &self,
        is_stopped: impl Fn() -> bool,
        wait_max: Duration,
    ) -> Option<(Queued, Arc<AtomicBool>)> {
        let mut waiting = self.waiting();
        loop {
            if is_stopped() {
                return None;
            }
            let now = Instant::now();
            if let Some(queued) = waiting.take(now) {
                let (number, listeners) = (queued.number, Arc::clone(&queued.listeners));
                let cancelled = Arc::<AtomicBool>::default();
                let flag = Arc::clone(&cancelled);
                waiting.running = Some(Running { number, listeners, cancelled, by: None });
                return Some((queued, flag));
            }
            let waits = waiting.entries.iter().map(|queued| queued.not_before.saturating_duration_since(now));
            // A delivery that waits for an earlier one of its application comes when that one is done.
            let wait = waits.filter(|wait| !wait.is_zero()).min().unwrap_or(wait_max);
            waiting = self.more.wait_timeout(waiting, wait).unpoisoned().0;
        }
    }

    /// Makes a waiting delivery due. Returns its events; none if it does not wait here.
    pub fn hurry(&self, number: u64) -> Option<Events> {
        let mut waiting = self.waiting();
        let queued = waiting.entries.iter_mut().find(|queued| queued.number == number)?;
        queued.not_before = Instant::now();
        let events = queued.listeners.listen(DeliveryState::Queued);
        drop(waiting);
        self.more.notify_one();
        Some(events)
    }

    /// Takes out a waiting delivery, or tells one under way to end.
    pub fn cancel(&self, number: u64, by: &UserName) -> Cancelled {
        let mut waiting = self.waiting();
        if let Some(place) = waiting.entries.iter().position(|queued| queued.number == number) {
            return waiting
                .entries
                .remove(place)
                .map_or(Cancelled::Unknown, |queued| Cancelled::Waiting(Box::new(queued)));
        }
        match waiting.running.as_mut().filter(|running| running.number == number) {
            Some(running) => {
                running.by = Some(by.clone());
                running.cancelled.store(true, Ordering::Relaxed);
                Cancelled::Running(running.listeners.listen(DeliveryState::Queued))
            }
            None => Cancelled::Unknown,
        }
    }

    /// Tells the delivery under way to end, and wakes the worker.
    pub fn stop(&self) {
        if let Some(running) = &self.waiting().running {
            running.cancelled.store(true, Ordering::Relaxed);
        }
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
        let mut seen: HashSet<(&SpaceName, &AppName)> = HashSet::new();
        for (place, queued) in self.entries.iter().enumerate() {
            let is_first = seen.insert((&queued.delivery.space, &queued.delivery.app));
            if is_first && queued.not_before <= now {
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
    use format::record::DeliveryEvent;
    use ground::faults::Fault;
    use ground::ids::{DeliveryId, ReleaseId};

    fn queued(user: &str, app: &str, release: u8) -> Queued {
        let name = |text: &str| text.parse().expect("a name");
        let (app, destination) = (app.parse().expect("a name"), "edge".parse().expect("a name"));
        let user = Some(user.parse().expect("a name"));
        let delivery = Delivery::new(name("shop"), app, ReleaseId::of(&[release]), destination);
        let listeners = Listeners::new(
            DeliveryId { proxy: [0; 4], number: release.into() },
            delivery.destination.clone(),
        );
        Queued::new(release.into(), Delivery { user, ..delivery }, listeners)
    }

    fn failed(user: &str, app: &str, release: u8) -> Queued {
        let later = Instant::now() + Duration::from_secs(3600);
        let queued = queued(user, app, release);
        Queued { delivery: Delivery { tries: 1, ..queued.delivery.clone() }, not_before: later, ..queued }
    }

    fn next(queue: &Queue) -> Queued {
        queue.next(|| false, Duration::ZERO).expect("one is ready").0
    }

    fn names(queue: &Queue) -> Vec<String> {
        let done = || queue.waiting.try_lock().is_ok_and(|waiting| waiting.entries.is_empty());
        let mut names = Vec::new();
        while !done() {
            let next = next(queue);
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
        let (_, mut events) = queue.join(&again).expect("it waits already");
        assert!(matches!(events.try_recv(), Ok(DeliveryEvent { state: DeliveryState::Queued, .. })));
        let more = Delivery { then: vec!["restart".parse().expect("a name")], ..again.clone() };
        assert!(queue.join(&more).is_none(), "it asks for more");
        queue.push(queued("eve", "web", 1));
        assert!(queue.join(&again).is_none(), "a release may come back, after the other one");
        next(&queue)
            .listeners
            .report(&DeliveryState::Failed { reason: "full".to_owned(), fault: Fault::Full });
        assert!(matches!(events.try_recv(), Ok(DeliveryEvent { state: DeliveryState::Failed { .. }, .. })));
    }

    #[test]
    fn one_that_failed_never_comes_after_a_later_one() {
        let queue = Queue::default();
        assert!(matches!(queue.push_again(failed("eve", "web", 0)), Again::Waits));
        let replaced = queue.push(queued("bob", "web", 1));
        assert_eq!(replaced.len(), 1);
        assert!(matches!(queue.push_again(failed("eve", "web", 0)), Again::GivesWay(_, 1)));
        assert_eq!(names(&queue), ["bob-web-1"]);
    }

    #[test]
    fn one_applications_failure_delays_no_other() {
        let queue = Queue::default();
        queue.push_again(failed("eve", "web", 0));
        queue.push(queued("eve", "api", 1));
        assert_eq!(next(&queue).number, 1);
    }

    #[test]
    fn where_only_the_latest_counts_it_replaces_what_waits_of_its_application() {
        let queue = Queue::new(true);
        for (app, release) in [("web", 1), ("api", 2), ("web", 3), ("web", 4)] {
            let replaced = queue.push(queued("eve", app, release));
            assert_eq!(replaced.len(), usize::from(release > 2));
        }
        assert_eq!(names(&queue), ["eve-api-2", "eve-web-4"]);
    }

    #[test]
    fn a_delivery_is_cancelled_while_it_waits_and_while_it_runs() {
        let (queue, ada) = (Queue::default(), "ada".parse().expect("a name"));
        queue.push(queued("eve", "web", 1));
        queue.push(queued("eve", "web", 2));
        assert!(matches!(queue.cancel(2, &ada), Cancelled::Waiting(queued) if queued.number == 2));
        let (queued, cancelled) = queue.next(|| false, Duration::ZERO).expect("one is ready");
        assert!(matches!(queue.cancel(1, &ada), Cancelled::Running(_)));
        assert!(cancelled.load(Ordering::Relaxed));
        assert!(matches!(queue.push_again(queued), Again::Cancelled(_, by) if by == ada));
        assert!(matches!(queue.cancel(1, &ada), Cancelled::Unknown));
    }

    #[test]
    fn a_failed_delivery_is_due_at_once_when_somebody_asks() {
        let queue = Queue::default();
        queue.push_again(failed("eve", "web", 1));
        assert!(queue.hurry(2).is_none() && queue.hurry(1).is_some());
        assert_eq!(next(&queue).number, 1);
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
}
