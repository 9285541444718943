//! Going back from a release that was not confirmed: by itself, without the proxy, also by a process that finds it so at its start.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::Result;
use super::hooks::{Event, reason};
use super::place::{self, Place};
use super::watched_directory::{Held, Target};
use crate::net::blocking::start_whole;
use disk::clock::now;
use disk::crash_points;
use format::target::TargetState;
use format::watched::{Step, Trying, WantedRelease};
use ground::faults::{Fault, Faulty as _};
use ground::ids::ReleaseId;

/// Why a switch has not come to its end.
pub(super) struct Broken {
    pub why: String,
    /// The last lines of the command that failed.
    pub output: String,
    pub fault: Fault,
}

impl Target {
    /// Finishes what an earlier process had begun: goes back from a release that was not confirmed. Needs no proxy.
    ///
    /// # Errors
    /// The place cannot be opened, or what it needs cannot be written.
    pub async fn recover(self: &Arc<Self>) -> Result<()> {
        let target = Arc::clone(self);
        start_whole(move || target.hold().map(drop)).await?
    }

    /// Opens the place, and finishes what was begun.
    pub(super) fn hold(&self) -> Result<Held> {
        self.hold_after(None)
    }

    /// Opens the place, and finishes what was begun; `broken` says why that has not come to its end, if this process knows.
    pub(super) fn hold_after(&self, broken: Option<Broken>) -> Result<Held> {
        let place = Place::open(&self.options.directory, &self.options.place, &self.reports)?;
        let mut held = Held { place, watched: self.read() };
        self.finish(&mut held, broken)?;
        Ok(held)
    }

    fn finish(&self, held: &mut Held, broken: Option<Broken>) -> Result<()> {
        let Some(trying) = held.watched.trying.clone() else { return Ok(()) };
        if let Step::GoingBack { reason, output } = trying.step.clone() {
            return self.go_back(held, &trying, &reason, output);
        }
        let wanted = trying.wanted;
        let shown = held.place.shown()?;
        let is_shown = shown.as_ref().is_some_and(|(shown, _)| *shown == wanted.release);
        let broken = broken.unwrap_or_else(|| Broken {
            why: format!(
                "whit or the machine stopped before the release was {}",
                if is_shown { "confirmed" } else { "shown" }
            ),
            output: String::new(),
            fault: Fault::Retry,
        });
        if is_shown {
            return self.leave(held, trying, &broken.why, broken.output);
        }
        let more = self.start_again(shown.as_ref(), wanted, &broken.why);
        if self.is_ending() {
            return Ok(());
        }
        let mut watched = held.watched.clone();
        (watched.trying, watched.dealt) = (None, Some(wanted));
        watched.miss(wanted);
        watched.report.output = broken.output;
        let state =
            TargetState::Failed { reason: reason(&format!("{}{more}", broken.why)), fault: broken.fault };
        self.conclude(held, watched, wanted, Some(wanted.release), state)
    }

    /// Remembers the shown release as bad, and goes back from it.
    pub(super) fn leave(&self, held: &mut Held, mut trying: Trying, why: &str, output: String) -> Result<()> {
        let why = reason(why);
        trying.step = Step::GoingBack { reason: why.clone(), output: output.clone() };
        held.watched.trying = Some(trying.clone());
        held.watched.add_bad(trying.wanted.release, now(), why.clone());
        self.write(&held.watched);
        crash_points::point("update.failed");
        self.go_back(held, &trying, &why, output)
    }

    /// Stops the shown release, shows the copy before again, and starts it.
    fn go_back(&self, held: &mut Held, trying: &Trying, why: &str, output: String) -> Result<()> {
        let wanted = trying.wanted;
        let mut watched = held.watched.clone();
        (watched.trying, watched.missed) = (None, None);
        if !watched.by_hand {
            watched.dealt = Some(wanted);
        }
        watched.report.output = output;
        let failed = |held: &mut Held, more: &str, fault| {
            let state = TargetState::Failed { reason: reason(&format!("{why}; {more}")), fault };
            self.conclude(held, watched.clone(), wanted, Some(wanted.release), state)
        };
        let is_good = |release: &ReleaseId| held.watched.bad(release).is_none();
        let shown = held.place.shown()?;
        let is_shown = shown.as_ref().is_some_and(|(shown, _)| *shown == wanted.release);
        let Some(from) = trying.from.filter(is_good) else {
            let by_hand = held.watched.by_hand;
            let more = if by_hand {
                "a person has put it there"
            } else {
                "there is no copy before it to go back to"
            };
            return failed(held, more, Fault::Input);
        };
        let mut more = match &shown {
            Some((_, copy)) if is_shown && held.place.previous()?.is_some() => {
                self.stop(from, copy.clone(), wanted, why)
            }
            _ => String::new(),
        };
        if self.is_ending() {
            return Ok(());
        }
        let back = match held.place.go_back(Some(&wanted.release), &self.reports) {
            Ok(back) => back,
            // Nobody can: a newer release still may come.
            Err(error) if !matches!(error.fault(), Fault::Retry | Fault::Full | Fault::Interrupted) => {
                let again = self.start_again(shown.as_ref(), wanted, why);
                return failed(
                    held,
                    &format!("and it cannot go back: {}{again}", with_hint(&error)),
                    error.fault(),
                );
            }
            Err(error) => return Err(error.into()),
        };
        crash_points::point("update.back");
        let failure = match &self.options.hooks.on_release {
            Some(line) => self.run_going_back(line, back.release, back.copy, wanted, why),
            None => String::new(),
        };
        crash_points::point("update.restarted");
        if self.is_ending() {
            return Ok(());
        }
        more.push_str(&failure);
        let text = reason(&format!("{why}{more}"));
        let is_back = failure.is_empty();
        watched.good = is_back.then_some(back.release);
        let state = if is_back {
            TargetState::RolledBack { reason: text }
        } else {
            TargetState::Failed { reason: text, fault: Fault::Input }
        };
        self.conclude(held, watched, wanted, Some(wanted.release), state)
    }

    /// Stops the release that is left. Returns what is to be added to the reason.
    fn stop(&self, back: ReleaseId, copy: PathBuf, left: WantedRelease, why: &str) -> String {
        let Some(line) = &self.options.hooks.before_release else { return String::new() };
        let mut occasion = self.occasion(Event::BeforeRelease, back, &[], copy);
        occasion.previous = Some(left.release);
        occasion.reason = Some(why.to_owned());
        match self.options.hooks.run(line, &occasion, &self.ending) {
            Ok(()) => String::new(),
            Err(failure) => format!("; and the command that stops it failed: {}", failure.reason),
        }
    }

    /// Runs the start command of the copy that stays shown, if it may have been stopped. Returns what is to be added to the reason.
    fn start_again(&self, shown: Option<&(ReleaseId, PathBuf)>, left: WantedRelease, why: &str) -> String {
        let hooks = &self.options.hooks;
        let (Some(_), Some(line), Some((shown, copy))) = (&hooks.before_release, &hooks.on_release, shown)
        else {
            return String::new();
        };
        self.run_going_back(line, *shown, copy.clone(), left, why)
    }

    fn run_going_back(
        &self,
        line: &str,
        shown: ReleaseId,
        copy: PathBuf,
        left: WantedRelease,
        why: &str,
    ) -> String {
        let mut occasion = self.occasion(Event::RolledBack, shown, &[], copy);
        occasion.previous = Some(left.release);
        occasion.reason = Some(why.to_owned());
        match self.options.hooks.run(line, &occasion, &self.ending) {
            Ok(()) => String::new(),
            Err(failure) => format!("; and the command of the copy before failed: {}", failure.reason),
        }
    }
}

/// Returns an error's text, with its hint.
pub(super) fn with_hint(error: &place::Error) -> String {
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{error}{hint}")
}
