//! Refuses requests before they are read, and pushes whose content went.

use std::time::Duration;

use super::refuse;
use crate::net::link::{Receiver, Sender};
use ground::faults::Fault;
use protocol::wire::Refusal;

/// The time that a refused agent may take to finish its message.
const REFUSED_TIME_MAX: Duration = Duration::from_secs(2);

/// Refuses a request that may not have come whole. Reads up to `bytes_max` more of it, as the agent reads the answer
/// only afterwards.
pub(super) async fn refuse_unread(sender: Sender, receiver: Receiver, refusal: Refusal, bytes_max: u32) {
    let fault = refusal.fault;
    refuse(sender, refusal).await;
    receiver.discard(bytes_max as usize, REFUSED_TIME_MAX, fault).await;
}

/// Returns the refusal for known chunks that were collected since, as the lease had lapsed, or are damaged.
pub(super) fn lapsed() -> Refusal {
    Refusal {
        fault: Fault::Retry,
        text: "chunks that the push counted on are gone or damaged".to_owned(),
        hint: Some("push again: only those chunks are sent".to_owned()),
    }
}
