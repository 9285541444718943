//! Those who wait to hear how one delivery goes.

use std::sync::Mutex;

use tokio::sync::mpsc;

use format::record::{DeliveryEvent, DeliveryState};
use ground::ids::{DeliveryId, DestinationName};
use ground::poison::Unpoisoned as _;

/// States that wait for one listener; further ones are dropped, except the last.
const EVENTS_AHEAD: usize = 64;

/// The states of one delivery; ends with the delivery.
pub type Events = mpsc::Receiver<DeliveryEvent>;

/// The listeners of one delivery.
#[derive(Debug)]
pub(super) struct Listeners {
    id: DeliveryId,
    destination: DestinationName,
    senders: Mutex<Vec<mpsc::Sender<DeliveryEvent>>>,
}

impl Listeners {
    /// Creates a delivery's listeners: none yet.
    pub fn new(id: DeliveryId, destination: DestinationName) -> Self {
        Self { id, destination, senders: Mutex::default() }
    }

    /// Adds a listener, which first receives the present state.
    pub fn listen(&self, state: DeliveryState) -> Events {
        let (sender, events) = mpsc::channel(EVENTS_AHEAD);
        drop(sender.try_send(self.event(state)));
        let mut senders = self.senders.lock().unpoisoned();
        senders.retain(|sender| !sender.is_closed());
        senders.push(sender);
        events
    }

    /// Sends a state to the listeners. An agent may be gone; the delivery goes on.
    pub fn report(&self, state: &DeliveryState) {
        let mut senders = self.senders.lock().unpoisoned();
        senders.retain(|sender| !sender.is_closed());
        for sender in senders.iter() {
            if state.is_last() || sender.capacity() > 1 {
                drop(sender.try_send(self.event(state.clone())));
            }
        }
        if state.is_last() {
            senders.clear();
        }
    }

    fn event(&self, state: DeliveryState) -> DeliveryEvent {
        DeliveryEvent { destination: self.destination.clone(), state, id: self.id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::faults::Fault;

    #[test]
    fn a_listener_who_does_not_listen_costs_a_few_states_and_hears_the_last() {
        let id = DeliveryId { proxy: [0; 4], number: 1 };
        let listeners = Listeners::new(id, "edge".parse().expect("a name"));
        let mut events = listeners.listen(DeliveryState::Queued);
        for _ in 0..1000 {
            listeners.report(&DeliveryState::Running(format::record::Progress::default()));
        }
        listeners.report(&DeliveryState::Failed { reason: "full".to_owned(), fault: Fault::Full });
        let heard: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        assert_eq!(heard.len(), EVENTS_AHEAD);
        assert!(heard.last().is_some_and(|event| event.state.is_last() && event.id == id));
    }
}
