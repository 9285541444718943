//! Pulls of targets, which all begin in the moment in which a release becomes theirs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval, sleep_until};

use crate::net::link::Sender;
use crate::proxy::current_token::checks;
use crate::proxy::granted::Granted;
use crate::proxy::stopping::stopping;
use crate::proxy::{Owner, owner};
use ground::faults::Fault;
use ground::shares::Share;
use protocol::wire::Refusal;

/// How often one that waits looks whether it is its turn.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// 10 min: less than [`PEER_PAUSE_MAX`](ground::limits::PEER_PAUSE_MAX), after which a target gives up without knowing why.
const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// Waits for a share for a target's pull; none where the target has gone.
///
/// # Errors
/// The token's, the proxy stops, or there was no share for 10 min.
pub(in crate::proxy) async fn queue(
    granted: &Arc<Granted>,
    sender: &mut Sender,
) -> Result<Option<Share<Owner>>, Refusal> {
    let (shared, owner) = (&granted.shared, owner(&granted.grant));
    let deadline = Instant::now() + WAIT_MAX;
    let (mut looks, mut checks, mut stops) = (interval(LOOK_EVERY), checks(), shared.targets.stopping());
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let share = shared.targets.pulls.take(&owner, 1);
                if share.is_some() {
                    return Ok(share);
                }
            }
            _ = checks.tick() => granted.still_holds()?,
            () = sender.unwanted() => return Ok(None),
            () = stops.begun() => return Err(stopping()),
            () = sleep_until(deadline) => return Err(Refusal {
                fault: Fault::Retry,
                text: format!("as many targets pull as may at a time, for {} s", WAIT_MAX.as_secs()),
                hint: None,
            }),
        }
    }
}
