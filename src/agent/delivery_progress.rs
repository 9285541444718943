//! Shows how deliveries go, while an agent follows them.

use format::record::{DeliveryEvent, DeliveryState};
use ground::monitor::{Monitor, Phase};

/// The last states of the deliveries that an agent follows.
#[derive(Debug, Default)]
pub struct DeliveryProgress {
    deliveries: Vec<DeliveryEvent>,
    /// Bytes that the monitor was told of.
    shown_bytes: u64,
}

impl DeliveryProgress {
    /// Takes a delivery's new state, and shows on `monitor` how far all are.
    pub fn take(&mut self, event: DeliveryEvent, monitor: &dyn Monitor) {
        let others_go_on = self
            .deliveries
            .iter()
            .any(|other| other.destination != event.destination && !other.state.is_last());
        let earlier = self.deliveries.iter_mut().find(|earlier| earlier.destination == event.destination);
        if earlier.as_ref().is_none_or(|earlier| earlier.state != event.state) {
            note(&event, others_go_on, monitor);
        }
        match earlier {
            Some(earlier) => *earlier = event,
            None => self.deliveries.push(event),
        }
        let (mut bytes, mut total) = (0_u64, 0_u64);
        for delivery in &self.deliveries {
            let (done, all) = match &delivery.state {
                DeliveryState::Running(progress) => (progress.bytes.min(progress.total), progress.total),
                DeliveryState::Delivered(report) => (report.bytes, report.bytes),
                _ => (0, 0),
            };
            (bytes, total) = (bytes.saturating_add(done), total.saturating_add(all));
        }
        monitor.begin(Phase::Deliver, (total > 0).then_some(total));
        monitor.advance(Phase::Deliver, bytes.saturating_sub(self.shown_bytes));
        self.shown_bytes = self.shown_bytes.max(bytes);
    }

    /// Returns the last state of each delivery.
    pub fn deliveries(&self) -> &[DeliveryEvent] {
        &self.deliveries
    }

    /// Returns the last state of each delivery.
    pub fn into_deliveries(self) -> Vec<DeliveryEvent> {
        self.deliveries
    }
}

/// Says what a person who waits should know at once: a failure, and, while others go on, what has ended.
fn note(event: &DeliveryEvent, others_go_on: bool, monitor: &dyn Monitor) {
    let DeliveryEvent { destination, state, id } = event;
    match state {
        DeliveryState::Delivered(_) if others_go_on => monitor.note(&format!("delivered to {destination}")),
        DeliveryState::Failed { reason, .. } if others_go_on => {
            monitor.note(&format!("delivery {id} to {destination} failed: {reason}"));
        }
        DeliveryState::Retrying { reason, seconds, .. } => {
            monitor
                .note(&format!("delivery {id} to {destination} failed: {reason}; next try in {seconds} s"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use format::record::{DeliveryReport, Progress};
    use ground::faults::Fault;
    use ground::ids::DeliveryId;

    #[derive(Default)]
    struct Heard(Mutex<(u64, Option<u64>, Vec<String>)>);

    impl Monitor for Heard {
        fn begin(&self, _phase: Phase, total: Option<u64>) {
            self.0.lock().expect("no panic").1 = total;
        }

        fn advance(&self, _phase: Phase, bytes: u64) {
            self.0.lock().expect("no panic").0 += bytes;
        }

        fn note(&self, text: &str) {
            self.0.lock().expect("no panic").2.push(text.to_owned());
        }
    }

    #[test]
    fn the_bytes_of_all_deliveries_are_shown_and_a_repeated_state_is_said_once() {
        let (heard, mut shown) = (Heard::default(), DeliveryProgress::default());
        let mut take = |destination: &str, state| {
            let (destination, id) =
                (destination.parse().expect("a name"), DeliveryId { proxy: [0; 4], number: 1 });
            shown.take(DeliveryEvent { destination, state, id }, &heard);
        };
        let running = |bytes| DeliveryState::Running(Progress { bytes, total: 100, files: 1 });
        take("one", running(0));
        take("one", running(40));
        take("other", running(10));
        take("one", DeliveryState::Delivered(DeliveryReport { bytes: 100, ..DeliveryReport::default() }));
        let retrying = DeliveryState::Retrying { reason: "full".to_owned(), seconds: 2, fault: Fault::Full };
        take("other", retrying.clone());
        take("other", retrying);
        let (bytes, total, notes) = heard.0.into_inner().expect("no panic");
        assert_eq!((bytes, total), (110, Some(100)));
        let failed = "delivery 00000000-1 to other failed: full; next try in 2 s";
        assert_eq!(notes, ["delivered to one", failed]);
        assert_eq!(shown.deliveries().len(), 2);
    }
}
