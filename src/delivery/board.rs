//! The states of all deliveries, for those who ask: what waits, what is under way, and what ended last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::broadcast;

use super::ended::Ended;
use super::history::History;
use super::listeners::{Events, Listeners};
use super::pending::Delivery;
use super::queue::Queued;
use disk::clock::now;
use format::record::DeliveryState;
use ground::ids::{AppName, DeliveryId, DestinationName, ReleaseId, SpaceName};
use ground::poison::Unpoisoned as _;
use protocol::wire::DeliveryStatus;

/// Changes that wait for one watcher; one who falls behind lists everything again.
const CHANGES_AHEAD: usize = 256;

/// A delivery's new state, and its space.
pub type Change = Arc<(SpaceName, DeliveryStatus)>;

/// The states of a proxy's deliveries.
#[derive(Debug)]
pub(super) struct Board {
    proxy: [u8; 4],
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug, Default)]
struct State {
    pending: BTreeMap<u64, Entry>,
    history: History,
}

/// One that has not ended.
#[derive(Debug)]
struct Entry {
    delivery: Delivery,
    state: DeliveryState,
    listeners: Arc<Listeners>,
    started: Option<u64>,
}

impl Board {
    /// Creates the board of the proxy whose fingerprint begins with `proxy`.
    pub fn new(proxy: [u8; 4]) -> Self {
        Self { proxy, state: Mutex::default(), changes: broadcast::channel(CHANGES_AHEAD).0 }
    }

    /// Returns the id of the delivery with a number.
    pub fn id(&self, number: u64) -> DeliveryId {
        DeliveryId { proxy: self.proxy, number }
    }

    /// Adds a delivery that has not ended.
    pub fn add(&self, queued: &Queued, state: DeliveryState) {
        let (delivery, listeners) = (queued.delivery.clone(), Arc::clone(&queued.listeners));
        let entry = Entry { delivery, state, listeners, started: None };
        let mut board = self.state();
        self.tell(queued.number, &entry);
        board.pending.insert(queued.number, entry);
    }

    /// Adds deliveries that an earlier run ended. Returns the numbers of those that are no longer kept.
    pub fn take_up(&self, ended: Vec<(u64, Ended)>) -> Vec<u64> {
        self.state().history.add(ended)
    }

    /// Notes that a try begins.
    pub fn begin(&self, number: u64, state: DeliveryState) {
        self.change(number, |entry| (entry.state, entry.started) = (state, Some(now())));
    }

    /// Notes the state of a delivery that has not ended.
    pub fn set(&self, number: u64, state: DeliveryState) {
        self.change(number, |entry| entry.state = state);
    }

    /// Notes that a delivery has failed, with its number of tries.
    pub fn failed(&self, number: u64, delivery: &Delivery, state: DeliveryState) {
        self.change(number, |entry| (entry.state, entry.delivery) = (state, delivery.clone()));
    }

    /// Notes that a delivery is tried as soon as its worker is free.
    pub fn hurry(&self, number: u64) {
        self.change(number, |entry| entry.delivery.not_before = 0);
    }

    /// Returns the number of the latest delivery that is wanted, and its further states; of one that has ended, the last state.
    pub fn follow(&self, is_wanted: impl Fn(&Delivery) -> bool) -> Option<(u64, Events)> {
        let board = self.state();
        let mut pending = board.pending.iter().rev();
        if let Some((number, entry)) = pending.find(|(_, entry)| is_wanted(&entry.delivery)) {
            return Some((*number, entry.listeners.listen(entry.state.clone())));
        }
        let (number, ended) = board.history.last(|ended| is_wanted(&ended.delivery))?;
        let listeners = Listeners::new(self.id(number), ended.delivery.destination.clone());
        Some((number, listeners.listen(ended.state.clone())))
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Entry)) {
        let mut board = self.state();
        if let Some(entry) = board.pending.get_mut(&number) {
            change(entry);
            self.tell(number, entry);
        }
    }

    /// Notes that a delivery has ended. Returns the numbers of those that are no longer kept.
    pub fn end(&self, number: u64, ended: Ended) -> Vec<u64> {
        let mut board = self.state();
        board.pending.remove(&number);
        let space = ended.delivery.space.clone();
        // Nobody may watch.
        drop(self.changes.send(Arc::new((space, self.ended(number, &ended)))));
        board.history.add([(number, ended)])
    }

    /// Returns when the last try of a delivery that has not ended began.
    pub fn started(&self, number: u64) -> Option<u64> {
        self.state().pending.get(&number).and_then(|entry| entry.started)
    }

    /// Returns a delivery that has not ended, and its state.
    pub fn pending(&self, number: u64) -> Option<(Delivery, DeliveryState)> {
        let board = self.state();
        board.pending.get(&number).map(|entry| (entry.delivery.clone(), entry.state.clone()))
    }

    /// Returns the status of a delivery that has not ended, or not long ago, and its space.
    pub fn status(&self, number: u64) -> Option<(SpaceName, DeliveryStatus)> {
        let board = self.state();
        let pending = board.pending.get(&number);
        let pending = pending.map(|entry| (entry.delivery.space.clone(), self.waiting(number, entry)));
        let ended = || {
            let ended = board.history.get(number)?;
            Some((ended.delivery.space.clone(), self.ended(number, ended)))
        };
        pending.or_else(ended)
    }

    /// Returns the releases of a space whose deliveries have not ended.
    pub fn releases(&self, space: &SpaceName) -> Vec<ReleaseId> {
        let board = self.state();
        let ours = board.pending.values().filter(|entry| entry.delivery.space == *space);
        ours.map(|entry| entry.delivery.release).collect()
    }

    /// Returns whether a delivery of a release of a space has not ended.
    pub fn has(&self, space: &SpaceName, release: &ReleaseId) -> bool {
        let board = self.state();
        board
            .pending
            .values()
            .any(|entry| (&entry.delivery.space, &entry.delivery.release) == (space, release))
    }

    /// Returns the release that was delivered last where a delivery goes, if that is remembered.
    pub fn delivered_last(&self, delivery: &Delivery) -> Option<ReleaseId> {
        let is_there = |ended: &Ended| {
            matches!(ended.state, DeliveryState::Delivered(_))
                && ended.delivery.is_of_same_application(delivery)
                && ended.delivery.destination == delivery.destination
        };
        self.state().history.last(is_there).map(|(_, ended)| ended.delivery.release)
    }

    /// Returns, of the deliveries of a space after a number, the first `most` for which `is_wanted`, in rising order.
    pub fn page(
        &self,
        space: &SpaceName,
        after: u64,
        most: usize,
        is_wanted: impl Fn(&AppName, &DestinationName) -> bool,
    ) -> Vec<DeliveryStatus> {
        let is_ours =
            |delivery: &Delivery| delivery.space == *space && is_wanted(&delivery.app, &delivery.destination);
        let board = self.state();
        let mut pending = board.pending.range(after.saturating_add(1)..).peekable();
        let mut ended = board.history.after(after).peekable();
        let mut page = Vec::new();
        while page.len() < most {
            let next = match (pending.peek(), ended.peek()) {
                (None, None) => break,
                (Some((first, _)), Some((other, _))) => *first < other,
                (first, _) => first.is_some(),
            };
            if next {
                page.extend(
                    pending
                        .next()
                        .filter(|(_, entry)| is_ours(&entry.delivery))
                        .map(|(number, entry)| self.waiting(*number, entry)),
                );
            } else {
                let ended = ended.next().filter(|(_, ended)| is_ours(&ended.delivery));
                page.extend(ended.map(|(number, ended)| self.ended(number, ended)));
            }
        }
        page
    }

    /// Counts the deliveries to a destination that wait or are under way, and those among them that have failed before, of
    /// the applications for which `is_wanted`.
    pub fn count(
        &self,
        space: &SpaceName,
        destination: &DestinationName,
        is_wanted: impl Fn(&AppName) -> bool,
    ) -> (usize, usize) {
        let board = self.state();
        let ours = board.pending.values().map(|entry| &entry.delivery).filter(|delivery| {
            (&delivery.space, &delivery.destination) == (space, destination) && is_wanted(&delivery.app)
        });
        ours.fold((0, 0), |(waiting, failing), delivery| {
            (waiting + 1, failing + usize::from(delivery.tries > 0))
        })
    }

    /// Returns what receives each further change.
    pub fn watch(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn tell(&self, number: u64, entry: &Entry) {
        if self.changes.receiver_count() > 0 {
            let space = entry.delivery.space.clone();
            drop(self.changes.send(Arc::new((space, self.waiting(number, entry)))));
        }
    }

    fn waiting(&self, number: u64, entry: &Entry) -> DeliveryStatus {
        let Entry { delivery, state, started, .. } = entry;
        let mut state = state.clone();
        if let DeliveryState::Retrying { seconds, .. } = &mut state {
            *seconds = delivery.not_before.saturating_sub(now());
        }
        status(self.id(number), delivery, *started, None, state)
    }

    fn ended(&self, number: u64, ended: &Ended) -> DeliveryStatus {
        let started = (ended.started > 0).then_some(ended.started);
        status(self.id(number), &ended.delivery, started, Some(ended.ended), ended.state.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unpoisoned()
    }
}

fn status(
    id: DeliveryId,
    delivery: &Delivery,
    started: Option<u64>,
    ended: Option<u64>,
    state: DeliveryState,
) -> DeliveryStatus {
    let Delivery { app, release, destination, user, asked, token, tries, then, behalf, .. } =
        delivery.clone();
    DeliveryStatus {
        id,
        destination,
        app,
        release,
        user,
        token,
        behalf,
        then,
        asked,
        started,
        ended,
        tries,
        state,
    }
}
