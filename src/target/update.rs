//! One update of a target: fetch, stop, switch, start, confirm; or go back.
//!
//! What is about to be done is written down before it is done ([`Watched`](format::watched::Watched)), so that whoever opens the place
//! after a crash knows: a release that was shown without being confirmed is left by itself, without the proxy, and not tried again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::decision::Decision;
use super::error::{Error, Result};
use super::gate::Gate;
use super::going_back::{Broken, with_hint};
use super::hooks::{Event, Failure, Hooks, reason};
use super::place::{self, Place};
use super::watched_directory::{Held, Target};
use crate::agent::pull::{BeforeSwitch, PullOptions};
use crate::agent::{self, Session};
use crate::net::blocking::start_whole;
use disk::clock::now;
use disk::crash_points;
use format::record::Progress;
use format::target::{TargetReport, TargetState};
use format::watched::{Trying, WantedRelease};
use ground::faults::Faulty as _;
use ground::ids::{ReleaseId, Selector};
use ground::poison::Unpoisoned as _;
use protocol::wire::Wanted;

/// How an update ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is to be done until something else is wanted.
    Settled,
    /// It is to be tried again.
    Again,
}

/// The shown copy, and the one before.
const COPIES_MIN: usize = 2;

impl Target {
    /// Shows the release that the proxy wants last, starts and confirms it, or goes back. Dropped before the gate was passed, nothing has
    /// changed.
    ///
    /// # Errors
    /// The place cannot be opened, or what was begun before cannot be finished. Failures of the update itself are reported.
    pub async fn update(
        self: &Arc<Self>,
        session: &Session,
        newest: &Wanted,
        gate: &Arc<Gate>,
    ) -> Result<Outcome> {
        let rollout = newest.assigned.as_ref().map(|assigned| assigned.rollout);
        let wanted = WantedRelease { release: newest.record.release, rollout };
        let (target, labels) = (Arc::clone(self), newest.record.labels.clone());
        let begun = start_whole(move || {
            let mut held = target.hold()?;
            let decision = target.begin(&mut held, wanted, &labels)?;
            let shown = held.place.shown()?;
            Ok::<_, Error>((held, decision, shown))
        });
        let (mut held, decision, from) = begun.await??;
        // Until here it finishes what was begun before, which nobody ends.
        if decision != Decision::Fetch || !gate.open() {
            return Ok(Outcome::Settled);
        }
        let record = &newest.record;
        let selector = Selector {
            app: record.app.clone(),
            at: Some(record.release.to_string().parse().expect("64 digits are a word")),
        };
        let total = Progress { bytes: 0, total: record.totals.bytes, files: record.totals.files };
        let report = TargetReport {
            about: Some(wanted.release),
            rollout,
            state: TargetState::Fetching(total),
            fetched_bytes: 0,
            saved_bytes: 0,
            output: String::new(),
            ..held.watched.report.clone()
        };
        self.reports.say(&TargetReport { held_up: self.held_up(wanted), ..report.clone() });
        let monitor = self.reports.fetching(report.clone(), total, Arc::clone(gate));
        let options = self.pull_options(&held.place);
        let stopped = Arc::new(Mutex::new(None));
        let shown = from.as_ref().map(|(release, _)| *release);
        let trying = Trying::new(wanted, &record.labels, shown, now());
        let before = self.before_switch(from, trying.clone(), report, gate, &stopped);
        let pulled = held.place.pull(session, &selector, options, Some(before), &monitor).await;
        // What follows is short, or has begun.
        gate.pass();
        let target = Arc::clone(self);
        let ended = start_whole(move || {
            held.watched = target.read();
            held.watched.by_hand = false;
            match pulled {
                Ok(pulled) => {
                    crash_points::point("update.switched");
                    let report = &mut held.watched.report;
                    report.fetched_bytes = pulled.fetched_bytes;
                    report.saved_bytes = pulled.bytes.saturating_sub(pulled.fetched_bytes);
                    target.prove(&mut held, trying, pulled.copy)?;
                    Ok(Outcome::Settled)
                }
                Err(error) => {
                    let failure = stopped.lock().unpoisoned().take();
                    target.not_shown(held, wanted, &error, failure)?;
                    Ok(Outcome::Again)
                }
            }
        });
        ended.await?
    }

    /// Returns why the last try to fetch what is wanted ended, if that is what was reported last.
    fn held_up(&self, wanted: WantedRelease) -> Option<String> {
        let report = self.reports.newest()?;
        let is_same = (report.about, report.rollout) == (Some(wanted.release), wanted.rollout);
        report.held_up.filter(|_| is_same && matches!(report.state, TargetState::Fetching(_)))
    }

    fn pull_options(&self, place: &Place) -> PullOptions {
        let options = self.options.pull;
        // The copy before is what it goes back to.
        let keep = Some(options.keep.unwrap_or(place.keeps()).max(COPIES_MIN));
        PullOptions { keep, ..options }
    }

    /// Returns what is done once the release is here and before it is shown: it is written down, and the shown one stopped.
    fn before_switch(
        self: &Arc<Self>,
        from: Option<(ReleaseId, PathBuf)>,
        trying: Trying,
        report: TargetReport,
        gate: &Arc<Gate>,
        stopped: &Arc<Mutex<Option<Failure>>>,
    ) -> BeforeSwitch {
        let (target, gate, stopped) = (Arc::clone(self), Arc::clone(gate), Arc::clone(stopped));
        Box::new(move |_| {
            if !gate.pass() {
                return Err(agent::Error::HeldBack);
            }
            let report = TargetReport { state: TargetState::Switching, ..report };
            target.reports.say(&report);
            target.state.hold_room();
            let (wanted, labels) = (trying.wanted, trying.labels.clone());
            let mut watched = target.read();
            watched.trying = Some(trying);
            watched.by_hand = false;
            watched.report = report;
            target.write_now(&watched)?;
            if let (Some(line), Some((from, copy))) = (&target.options.hooks.before_release, from) {
                let mut occasion = target.occasion(Event::BeforeRelease, wanted.release, &labels, copy);
                occasion.previous = Some(from);
                if let Err(failure) = target.options.hooks.run(line, &occasion, &target.ending) {
                    *stopped.lock().unpoisoned() = Some(failure);
                    return Err(agent::Error::HeldBack);
                }
            }
            crash_points::point("update.stopped");
            Ok(())
        })
    }

    /// Starts and confirms the release that is shown now; goes back where that fails.
    pub(super) fn prove(&self, held: &mut Held, trying: Trying, copy: PathBuf) -> Result<()> {
        let wanted = trying.wanted;
        held.watched.report.shown = Some(wanted.release);
        held.watched.report.previous = held.place.previous()?.map(|(release, _)| release);
        let report = TargetReport {
            about: Some(wanted.release),
            rollout: wanted.rollout,
            state: TargetState::Confirming,
            output: String::new(),
            ..held.watched.report.clone()
        };
        self.reports.say(&report);
        held.watched.report = report;
        let Hooks { on_release, .. } = &self.options.hooks;
        let mut occasion = self.occasion(Event::Released, wanted.release, &trying.labels, copy);
        occasion.previous = trying.from;
        let proven = match on_release {
            Some(line) => self.options.hooks.run(line, &occasion, &self.ending).map_err(|failure| Failure {
                reason: format!("the command after the switch failed: {}", failure.reason),
                ..failure
            }),
            None => Ok(()),
        };
        crash_points::point("update.started");
        occasion.event = Event::Confirming;
        let proven = proven.and_then(|()| self.options.hooks.confirm(&occasion, &self.ending));
        if self.is_ending() {
            // What was begun is finished at the next start.
            return Ok(());
        }
        if let Err(failure) = proven {
            return self.leave(held, trying, &failure.reason, failure.output);
        }
        crash_points::point("update.confirmed");
        let mut watched = held.watched.clone();
        (watched.trying, watched.missed) = (None, None);
        watched.good = Some(wanted.release);
        if !watched.by_hand {
            watched.dealt = Some(wanted);
        }
        self.conclude(held, watched, wanted, Some(wanted.release), TargetState::Confirmed)
    }

    /// Reports why a release was not shown. Where its switch had begun, finishes that.
    fn not_shown(
        &self,
        mut held: Held,
        wanted: WantedRelease,
        error: &place::Error,
        failure: Option<Failure>,
    ) -> Result<()> {
        let (why, output) = match failure {
            Some(Failure { reason, output, .. }) => {
                (format!("the command before the switch failed: {reason}"), output)
            }
            None => (with_hint(error), String::new()),
        };
        if held.watched.trying.is_some() {
            // It may have failed after its exchange: once the place is opened again, what is shown is known.
            drop(held);
            return self.hold_after(Some(Broken { why, output, fault: error.fault() })).map(drop);
        }
        if error.is_of_link() {
            if let Some(report) = self.reports.newest() {
                self.reports.say(&TargetReport { held_up: Some(reason(&why)), ..report });
            }
            if held.watched.dealt != Some(wanted) {
                held.watched.dealt = Some(wanted);
                self.write(&held.watched);
            }
            return Ok(());
        }
        let mut watched = held.watched.clone();
        watched.report.output = output;
        watched.dealt = Some(wanted);
        let state = TargetState::Failed { reason: reason(&why), fault: error.fault() };
        self.conclude(&mut held, watched, wanted, Some(wanted.release), state)
    }
}
