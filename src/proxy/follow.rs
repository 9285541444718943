//! Reports to an agent how its deliveries go.

use std::future::poll_fn;
use std::task::Poll;

use tokio::time::{Interval, timeout};

use super::Granted;
use super::current_token::checks;
use crate::delivery::Events;
use crate::net::link::Sender;
use format::record::{DeliveryEvent, DeliveryState};
use ground::limits::{ALIVE_EVERY, WORK_TIME_MAX};
use protocol::wire::{Answer, Refusal};

/// Failed tries of a delivery that are reported to an agent before its command ends; the delivery continues.
const TRIES_REPORTED: u32 = 3;

/// The deliveries that an agent follows, all at a time.
#[derive(Debug)]
pub(super) struct Following {
    deliveries: Vec<Followed>,
    /// Number of repetitions since the last event.
    again: u32,
}

#[derive(Debug)]
struct Followed {
    events: Events,
    last: Option<DeliveryEvent>,
    failures: u32,
}

/// The reason to stop reporting deliveries, which continue.
pub(super) enum Unheard {
    /// The agent is gone.
    Gone,
    /// The agent's token is no longer valid.
    Refused(Refusal),
}

impl Following {
    /// Begins to follow deliveries.
    pub fn new(events: Vec<Events>) -> Self {
        let followed = |events| Followed { events, last: None, failures: 0 };
        Self { deliveries: events.into_iter().map(followed).collect(), again: 0 }
    }

    /// Returns the next event to report, while the token is good; none when each delivery has ended, or has failed a few times.
    pub async fn next(
        &mut self,
        granted: &Granted,
        checks: &mut Interval,
    ) -> Result<Option<DeliveryEvent>, Unheard> {
        let next = self.next_event();
        tokio::pin!(next);
        loop {
            tokio::select! {
                event = &mut next => return Ok(event),
                _ = checks.tick() => granted.still_holds().map_err(Unheard::Refused)?,
            }
        }
    }

    /// Returns the next event; repeats a last one if nothing happens for a while, so that the agent knows that the proxy is at
    /// work.
    async fn next_event(&mut self) -> Option<DeliveryEvent> {
        // Do not follow a hanging delivery without end.
        while !self.deliveries.is_empty() && ALIVE_EVERY * self.again < WORK_TIME_MAX {
            let Ok((place, event)) = timeout(ALIVE_EVERY, first(&mut self.deliveries)).await else {
                self.again += 1;
                match self.deliveries.iter().find_map(|followed| followed.last.clone()) {
                    Some(last) => return Some(last),
                    None => continue,
                }
            };
            self.again = 0;
            let Some(event) = event else {
                self.deliveries.remove(place);
                continue;
            };
            let followed = &mut self.deliveries[place];
            followed.last = Some(event.clone());
            followed.failures += u32::from(matches!(event.state, DeliveryState::Retrying { .. }));
            if event.state.is_last() || followed.failures == TRIES_REPORTED {
                self.deliveries.remove(place);
            }
            return Some(event);
        }
        None
    }
}

/// Waits for the next event of any delivery. Returns the delivery's place, and the event; none when it has no more.
async fn first(deliveries: &mut [Followed]) -> (usize, Option<DeliveryEvent>) {
    poll_fn(|context| {
        for (place, followed) in deliveries.iter_mut().enumerate() {
            if let Poll::Ready(event) = followed.events.poll_recv(context) {
                return Poll::Ready((place, event));
            }
        }
        Poll::Pending
    })
    .await
}

/// Reports the progress of deliveries until each has ended, or has failed a few times.
pub(super) async fn follow(
    events: Vec<Events>,
    granted: &Granted,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    let (mut following, mut checks) = (Following::new(events), checks());
    loop {
        let event = match following.next(granted, &mut checks).await {
            Ok(Some(event)) => event,
            Ok(None) | Err(Unheard::Gone) => return Ok(()),
            Err(Unheard::Refused(refusal)) => return Err(refusal),
        };
        if sender.send(&Answer::Delivery(event)).await.is_err() {
            // The agent is gone; the delivery continues.
            return Ok(());
        }
    }
}
