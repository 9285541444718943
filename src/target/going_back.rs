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
use format::watched::{Step, Wish};
use ground::faults::{Fault, Faulty as _};
use ground::ids::ReleaseId;

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
        let place = Place::open(&self.options.directory, &self.options.place, &self.reports)?;
        let watched = self.read()?;
        let mut held = Held { place, watched };
        self.finish(&mut held)?;
        Ok(held)
    }

    /// Finishes what the state file says was begun.
    pub(super) fn finish(&self, held: &mut Held) -> Result<()> {
        let Some(trying) = held.watched.trying.clone() else { return Ok(()) };
        let shown = held.place.shown()?;
        let is_shown = shown.as_ref().is_some_and(|(shown, _)| *shown == trying.wish.release);
        match trying.step {
            Step::GoingBack { reason, output } => self.go_back(held, &reason, output),
            Step::Switching if is_shown => {
                let why = "whit or the machine stopped before the release was confirmed";
                self.leave(held, why, String::new())
            }
            Step::Switching => {
                let why = "whit or the machine stopped before the release was shown";
                let more = self.start_again(shown.as_ref(), trying.wish, why);
                if self.is_ending() {
                    return Ok(());
                }
                let mut watched = held.watched.clone();
                watched.trying = None;
                watched.report.shown = shown.map(|(release, _)| release);
                let state =
                    TargetState::Failed { reason: reason(&format!("{why}{more}")), fault: Fault::Retry };
                self.conclude(held, watched, trying.wish, Some(trying.wish.release), state)
            }
        }
    }

    /// Remembers the shown release as bad, and goes back from it.
    pub(super) fn leave(&self, held: &mut Held, why: &str, output: String) -> Result<()> {
        let why = reason(why);
        let Some(trying) = &mut held.watched.trying else { return Ok(()) };
        trying.step = Step::GoingBack { reason: why.clone(), output: output.clone() };
        let release = trying.wish.release;
        held.watched.add_bad(release, now(), why.clone());
        self.write(&held.watched);
        crash_points::point("update.failed");
        self.go_back(held, &why, output)
    }

    /// Shows the copy before again, and starts it.
    pub(super) fn go_back(&self, held: &mut Held, why: &str, output: String) -> Result<()> {
        let Some(trying) = held.watched.trying.clone() else { return Ok(()) };
        let wish = trying.wish;
        let is_good = |release: &ReleaseId| held.watched.bad(release).is_none();
        let mut watched = held.watched.clone();
        watched.trying = None;
        watched.dealt = Some(wish);
        watched.report.output = output;
        if !trying.from.as_ref().is_some_and(is_good) {
            let why = reason(&format!("{why}; there is no copy before it to go back to"));
            let state = TargetState::Failed { reason: why, fault: Fault::Input };
            return self.conclude(held, watched, wish, Some(wish.release), state);
        }
        let back = match held.place.go_back(Some(&wish.release), &self.reports) {
            Ok(back) => back,
            // Nobody can: a newer release still may come.
            Err(error) if !matches!(error.fault(), Fault::Retry | Fault::Full | Fault::Interrupted) => {
                let state = TargetState::Failed {
                    reason: reason(&format!("{why}; and it cannot go back: {}", with_hint(&error))),
                    fault: error.fault(),
                };
                return self.conclude(held, watched, wish, Some(wish.release), state);
            }
            Err(error) => return Err(error.into()),
        };
        crash_points::point("update.back");
        let more = match &self.options.hooks.on_release {
            Some(line) => self.run_going_back(line, back.release, back.copy, wish, why),
            None => String::new(),
        };
        crash_points::point("update.restarted");
        if self.is_ending() {
            return Ok(());
        }
        watched.good = Some(back.release);
        watched.report.shown = Some(back.release);
        watched.report.previous = held.place.previous()?.map(|(release, _)| release);
        let state = TargetState::RolledBack { reason: reason(&format!("{why}{more}")) };
        self.conclude(held, watched, wish, Some(wish.release), state)
    }

    /// Runs the start command of the copy that stays shown, if it may have been stopped. Returns what is to be added to the reason.
    pub(super) fn start_again(&self, shown: Option<&(ReleaseId, PathBuf)>, left: Wish, why: &str) -> String {
        let hooks = &self.options.hooks;
        let (Some(_), Some(line), Some((shown, copy))) = (&hooks.before_release, &hooks.on_release, shown)
        else {
            return String::new();
        };
        self.run_going_back(line, *shown, copy.clone(), left, why)
    }

    pub(super) fn run_going_back(
        &self,
        line: &str,
        shown: ReleaseId,
        copy: PathBuf,
        left: Wish,
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
