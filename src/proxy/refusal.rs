//! Refuses requests before they are read.

use std::time::Duration;

use super::refuse;
use crate::net::link::{Receiver, Sender};
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
