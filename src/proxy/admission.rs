//! Waits for a stranger's first request with a good token.
//!
//! Until then a peer has one stream, a window of a few KiB and a few seconds; the proxy reads only the head of its
//! requests, and touches nothing of a space.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::refusal::refuse_unread;
use super::{Owner, Shared, now, owner};
use crate::net::link::{self, Connection, Receiver, Sender};
use ground::faults::Fault;
use ground::limits::{REQUEST_HEAD_BYTES_MAX, STRANGER_TRIES_MAX, STRANGER_WINDOW, WINDOW_BYTES_MIN};
use ground::shares::Share;
use protocol::token::{Action, Grant};
use protocol::wire::{Refusal, RequestHead};

/// A connection on which a valid token was shown, and its shares.
#[derive(Debug)]
pub(super) struct Admitted {
    /// The request that showed the token.
    pub first: (Sender, Receiver, Grant),
    /// The connection itself. The targets of a user have a share of their own: they stay.
    pub share: Share<(Owner, OfTarget)>,
    /// The share for its window, where that is wider than the least.
    pub window: Option<Share<Owner>>,
}

/// True for the connection of a target.
pub(super) type OfTarget = bool;

/// Waits for a good token, and ends the connection where none comes in time.
pub(super) async fn admit(shared: &Arc<Shared>, connection: &Connection) -> Option<Admitted> {
    let deadline = Instant::now() + shared.stranger_patience;
    let admitted = async {
        for _ in 0..STRANGER_TRIES_MAX {
            let (sender, mut receiver) = connection.accept().await.ok()??;
            match check_head(shared, &mut receiver).await {
                Ok(Some(grant)) => match shared.connections.take(&holder(&grant), 1) {
                    Some(share) => return Some((sender, receiver, grant, share)),
                    None => refuse_unread(sender, receiver, too_many(shared, &grant), STRANGER_WINDOW).await,
                },
                Ok(None) => {}
                Err(refusal) => refuse_unread(sender, receiver, refusal, STRANGER_WINDOW).await,
            }
        }
        None
    };
    if let Some((sender, receiver, grant, share)) = timeout_at(deadline, admitted).await.ok().flatten() {
        let window = window(shared, connection, &grant);
        let bytes = window.as_ref().map_or(WINDOW_BYTES_MIN, |window| {
            u32::try_from(window.units()).expect("no more than was asked for")
        });
        connection.prove(bytes).ok()?;
        return Some(Admitted { first: (sender, receiver, grant), share, window });
    }
    // The agent may still read why its token was refused; most end the connection then.
    if timeout_at(deadline, connection.closed()).await.is_err() {
        let seconds = shared.stranger_patience.as_secs();
        tracing::info!(seconds, "closed a connection without a valid token");
        connection.close(Fault::Denied, &format!("no valid token came within {seconds} s"));
    }
    None
}

/// Returns whose share the requests and the connection of a token are.
pub(super) fn holder(grant: &Grant) -> (Owner, OfTarget) {
    (owner(grant), grant.target.is_some())
}

/// Takes the widest window that there is a share for. A target that pushes nothing sends little, and takes none: those who
/// push need it.
fn window(shared: &Shared, connection: &Connection, grant: &Grant) -> Option<Share<Owner>> {
    if grant.target.is_some() && !grant.actions.contains(&Action::Push) {
        return None;
    }
    let (widest, owner) = (connection.window(), &owner(grant));
    let wide = [widest, widest / 4, widest / 16].into_iter().filter(|bytes| *bytes > WINDOW_BYTES_MIN);
    wide.map(u64::from).find_map(|bytes| shared.windows.take(owner, bytes))
}

fn too_many(shared: &Shared, grant: &Grant) -> Refusal {
    let held = shared.connections.held_by(&holder(grant));
    let user = &grant.user;
    let text = format!("user `{user}` has {held} connections, the limit while others need some");
    Refusal { fault: Fault::Retry, text, hint: None }
}

/// Reads the head of a request and checks its token; the rest is still to be received. None where the stream ends.
pub(super) async fn check_head(shared: &Shared, receiver: &mut Receiver) -> Result<Option<Grant>, Refusal> {
    let head = match receiver.peek(REQUEST_HEAD_BYTES_MAX, RequestHead::read).await {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(None),
        Err(link::Error::Malformed { .. }) => {
            let text = "the request does not begin with a version and a token".to_owned();
            return Err(Refusal { fault: Fault::Denied, text, hint: None });
        }
        Err(error) => return Err(Refusal::of(&error)),
    };
    head.check_version()?;
    let grant = shared.identity.check(&head.token, now()).map_err(|error| Refusal::of(&error))?;
    Ok(Some(grant))
}
