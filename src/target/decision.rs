//! Decides what is done about a wanted release, before anything is fetched.

use super::error::Result;
use super::hooks::reason;
use super::watched_directory::{Held, Target};
use disk::clock::now;
use format::target::TargetState;
use format::watched::{Trying, WantedRelease, Watched};
use ground::faults::Fault;
use ground::ids::{Label, ReleaseId};

/// What a person can do about a release that is bad here.
const BY_HAND: &str = "`whit pull` by hand tries it again";

/// Switches in a row that are begun for a wanted release: each stops what is shown, and starts it again where the release cannot be shown.
const SWITCHES_MAX: u32 = 3;

/// What is done about a wanted release.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The release is fetched and shown.
    Fetch,
    /// What is shown stays, and is started and confirmed: nobody has seen it work.
    Prove,
    /// What is shown stays, and this is reported of it.
    Stay(TargetState),
}

/// Decides what is done about a wanted release where `shown` is shown. Returns the release that this is about, too. This is the wanted one, unless a person has
/// shown another since.
fn decide(watched: &Watched, shown: Option<ReleaseId>, wanted: WantedRelease) -> (ReleaseId, Decision) {
    let is_proven = shown.is_none() || watched.good == shown;
    let by_hand = shown.filter(|_| watched.by_hand && watched.dealt == Some(wanted));
    let about = by_hand.unwrap_or(wanted.release);
    let is_shown = shown == Some(about);
    let failed = |why: String| {
        let report = &watched.report;
        let has_said = matches!(report.state, TargetState::Failed { .. }) && report.about == Some(about);
        let state = TargetState::Failed { reason: reason(&why), fault: Fault::Input };
        Decision::Stay(if has_said { report.state.clone() } else { state })
    };
    let gone_back = |why: &str| {
        let reason = reason(&format!("it went back from this release before ({why}); {BY_HAND}"));
        Decision::Stay(TargetState::RolledBack { reason })
    };
    let decision = match watched.bad(&about) {
        Some(bad) if is_shown => failed(format!("{}; it stays", bad.reason)),
        Some(bad) if is_proven => gone_back(&bad.reason),
        Some(bad) => failed(format!("{}; what was shown before could not be started again", bad.reason)),
        None if is_shown && !is_proven => Decision::Prove,
        None if is_shown => Decision::Stay(TargetState::Confirmed),
        None if watched.missed(wanted) >= SWITCHES_MAX => {
            failed(format!("{SWITCHES_MAX} times it could not be shown; {BY_HAND}"))
        }
        None => Decision::Fetch,
    };
    (about, decision)
}

impl Target {
    /// Decides what is done about a wanted release; reports and remembers it where nothing is to be fetched.
    ///
    /// # Errors
    /// The place cannot be read, or what was decided cannot be written.
    pub(super) fn begin(&self, held: &mut Held, wanted: WantedRelease, labels: &[Label]) -> Result<Decision> {
        let shown = held.place.shown()?;
        let release = shown.as_ref().map(|(release, _)| *release);
        let (about, decision) = decide(&held.watched, release, wanted);
        held.watched.by_hand = about != wanted.release;
        match (&decision, shown) {
            (Decision::Stay(state), _) => {
                let report = &held.watched.report;
                let gone_back = matches!(report.state, TargetState::RolledBack { .. });
                let (about, state) = match report.about {
                    // Its rollout takes back what it went back from by itself: why, people still want to know.
                    Some(left)
                        if gone_back && wanted.rollout.is_some() && report.rollout == wanted.rollout =>
                    {
                        (left, &report.state.clone())
                    }
                    _ => (about, state),
                };
                let mut watched = held.watched.clone();
                if watched.report.about != Some(about) || watched.report.state != *state {
                    watched.report.output = String::new();
                }
                watched.dealt = Some(wanted);
                self.conclude(held, watched, wanted, Some(about), state.clone())?;
            }
            (Decision::Prove, Some((_, copy))) => {
                held.watched.dealt = Some(wanted);
                let labels = if held.watched.by_hand { &[] } else { labels };
                let wanted = WantedRelease { release: about, ..wanted };
                self.prove(held, Trying::new(wanted, labels, None, now()), copy)?;
            }
            _ => {
                held.watched.report.shown = release;
                held.watched.report.previous = held.place.previous()?.map(|(release, _)| release);
            }
        }
        Ok(decision)
    }
}
