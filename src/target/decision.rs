//! What a wish comes to, before anything is fetched.

use super::error::Result;
use super::hooks::reason;
use super::watched_directory::{Held, Target};
use format::target::TargetState;
use format::watched::{Watched, Wish};
use ground::faults::Fault;
use ground::ids::ReleaseId;

/// What a person can do about a release that is bad here.
const BY_HAND: &str = "`whit pull` by hand tries it again";

/// What a wish comes to, before anything is fetched.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The release is fetched and shown.
    Fetch,
    /// What is shown stays, and this is reported of it.
    Stay(TargetState),
}

/// Decides what a wish comes to where `shown` is shown.
fn decide(watched: &Watched, shown: Option<ReleaseId>, wish: Wish) -> Decision {
    let is_shown = shown == Some(wish.release);
    match watched.bad(&wish.release) {
        Some(bad) if is_shown => {
            let reason = reason(&format!("{}; there is no copy before it to go back to", bad.reason));
            Decision::Stay(TargetState::Failed { reason, fault: Fault::Input })
        }
        Some(bad) => {
            let reason =
                reason(&format!("it went back from this release before ({}); {BY_HAND}", bad.reason));
            Decision::Stay(TargetState::RolledBack { reason })
        }
        None if is_shown => Decision::Stay(TargetState::Confirmed),
        None if watched.by_hand && watched.dealt == Some(wish) && shown.is_some() => {
            Decision::Stay(TargetState::Confirmed)
        }
        None => Decision::Fetch,
    }
}

impl Target {
    /// Decides what a wish comes to; reports and remembers it where nothing is to be fetched.
    pub(super) fn begin(&self, held: &mut Held, wish: Wish) -> Result<Decision> {
        let shown = held.place.shown()?.map(|(release, _)| release);
        let decision = decide(&held.watched, shown, wish);
        let Decision::Stay(state) = &decision else {
            held.watched.by_hand = false;
            held.watched.report.shown = shown;
            held.watched.report.previous = held.place.previous()?.map(|(release, _)| release);
            return Ok(decision);
        };
        let stays_by_hand = held.watched.by_hand && shown != Some(wish.release);
        let about = if stays_by_hand { shown } else { Some(wish.release) };
        let is_known = held.watched.report.about == about && held.watched.report.state == *state;
        let mut watched = held.watched.clone();
        if !is_known {
            watched.report.output = String::new();
        }
        if *state == TargetState::Confirmed {
            // A release that a person put there counts as good.
            watched.good = shown;
        }
        watched.dealt = Some(wish);
        watched.by_hand = stays_by_hand;
        self.conclude(held, watched, wish, about, state.clone())?;
        Ok(decision)
    }
}
