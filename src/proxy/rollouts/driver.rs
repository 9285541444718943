//! The thread that makes rollouts.
//!
//! It looks when somebody asks for something, when a target or delivery changes, and each second. What is decided is written
//! down before it is done, and doing it again changes nothing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::TryRecvError;

use super::super::audit::Entry;
use super::super::{Shared, now};
use super::Order;
use super::members::{Error, Known, boxed, deliver, settle, take_back};
use crate::delivery::actions::{Changed, Event, Happened};
use crate::delivery::rollout::{GroupRelease, MEMBERS_MAX, Machine, OnNewer, Outcome, Phase, Rollout};
use crate::net::blocking;
use crate::store::{Mover, Store};
use disk::crash_points;
use disk::files::{self, OnPath as _};
use ground::faults::Fault;
use ground::ids::{RolloutId, UserName};
use protocol::wire::{Refusal, RolloutSteering};

/// How soon a change is seen while rollouts are under way.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How soon, where none is.
const REST_EVERY: Duration = Duration::from_secs(1);
/// How old the age of a rollout may be in the ledger: a proxy that is killed again and again makes none last longer.
const AGE_EVERY: u64 = 20;
/// How long after a start members may take to come back before they are blamed for it.
const COMES_BACK: Duration = Duration::from_secs(30);

/// The thread, which ends when it is told to.
#[derive(Debug)]
pub struct Driver(JoinHandle<()>);

impl Driver {
    /// Starts the thread, which takes up what an earlier run left.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(shared: &Arc<Shared>) -> files::Result<Self> {
        let weak = Arc::downgrade(shared);
        let thread = std::thread::Builder::new().name("whit-rollouts".to_owned());
        Ok(Self(thread.spawn(move || run(&weak)).on("start a thread for", Path::new("rollouts"))?))
    }

    /// Waits for its end, after [`Rollouts::stop`].
    pub async fn join(self) {
        if !matches!(blocking::start(move || self.0.join()).await, Ok(Ok(()))) {
            tracing::error!("the thread of rollouts panicked; they go on at the next start");
        }
    }
}

fn run(weak: &Weak<Shared>) {
    let Some(shared) = weak.upgrade() else { return };
    let Some(orders) = shared.rollouts.orders() else { return };
    let mut changes = shared.targets.changes();
    let mut deliveries = shared.deliveries.watch();
    drop(shared);
    let mut clocks: HashMap<u64, Clock> = HashMap::new();
    loop {
        let wait = if clocks.is_empty() { REST_EVERY } else { LOOK_EVERY };
        let order = match orders.recv_timeout(wait) {
            Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
        };
        let Some(shared) = weak.upgrade() else { return };
        let mut is_due = order.is_some();
        if let Some(Order::Steer { number, how, by, answer }) = order {
            // Nobody may wait.
            drop(answer.send(steer(&shared, number, how, &by)));
        }
        is_due |= !matches!(changes.try_recv(), Err(TryRecvError::Empty));
        is_due |= !matches!(deliveries.try_recv(), Err(TryRecvError::Empty));
        while !matches!(changes.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
        while !matches!(deliveries.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
        let under_way = shared.rollouts.book.under_way();
        clocks.retain(|number, _| under_way.iter().any(|(other, _)| other == number));
        for (number, rollout) in under_way {
            let clock = clocks.entry(number).or_insert_with(|| Clock {
                last: Instant::now(),
                written: 0,
                taken_up: rollout.machine.is_some().then(Instant::now),
            });
            if !is_due && clock.last.elapsed() < REST_EVERY && clock.written > 0 {
                continue;
            }
            let turn = Turn { shared: &shared, number };
            if let Err(error) = turn.take(&rollout, clock) {
                let id = shared.rollouts.book.id(number);
                tracing::warn!(%id, %error, "a rollout cannot go on; it is tried again in a second");
            }
        }
    }
}

/// The time of one rollout.
struct Clock {
    /// When the last whole second of its age ended.
    last: Instant,
    /// Its age as the ledger has it; at least 1 once it was looked at.
    written: u64,
    /// When the proxy found it under way at its start.
    taken_up: Option<Instant>,
}

/// One look at one rollout.
struct Turn<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Turn<'_> {
    fn book(&self) -> &super::Book {
        &self.shared.rollouts.book
    }

    fn id(&self) -> RolloutId {
        self.book().id(self.number)
    }

    fn take(&self, rollout: &Rollout, clock: &mut Clock) -> Result<(), Error> {
        let Some(machine) = &rollout.machine else {
            self.begin(rollout)?;
            clock.last = Instant::now();
            return Ok(());
        };
        let mut next = rollout.clone();
        let passed = clock.last.elapsed().as_secs();
        clock.last += Duration::from_secs(passed);
        let known = Known::of(self.shared, rollout)?;
        let sights = known.look(self.shared, self.id(), rollout);
        let Some(changed) = &mut next.machine else { return Ok(()) };
        // Nobody is blamed for the proxy's start.
        let come_back = clock.taken_up.is_some_and(|start| start.elapsed() < COMES_BACK)
            && sights.iter().any(|sight| !sight.reachable);
        changed.pass(if come_back { 0 } else { passed });
        changed.step(&sights);
        let age = changed.age();
        let is_changed = !changed.is_like(machine);
        let newly_held = changed.held().filter(|_| machine.held().is_none()).map(str::to_owned);
        if is_changed || clock.written == 0 || age >= clock.written + AGE_EVERY {
            clock.written = age.max(1);
            self.book().write(self.number, next.clone(), None).map_err(boxed)?;
            crash_points::point("rollout.decided");
        } else if passed > 0 {
            self.book().note_age(self.number, next.clone());
        }
        if let Some(reason) = newly_held {
            tell_actions(self.shared, self.id(), &next, Event::Held, Some(&reason));
        }
        known.assign(self.shared, self.id(), &next)?;
        crash_points::point("rollout.assigned");
        if deliver(self.shared, &mut next) {
            self.book().write(self.number, next.clone(), None).map_err(boxed)?;
        }
        let phase = next.machine.as_ref().map(Machine::phase);
        if let Some(Phase::Over(outcome)) = phase.cloned() {
            let keeps = matches!(outcome, Outcome::Succeeded | Outcome::RolledBack { .. });
            if !keeps {
                take_back(self.shared, self.id(), &next)?;
            }
            self.finish(next, outcome)?;
        }
        Ok(())
    }

    /// Begins a rollout that waits, unless one of its group or members is under way.
    fn begin(&self, rollout: &Rollout) -> Result<(), Error> {
        let under_way = self.book().under_way();
        let of_group = |other: &Rollout| other.is_of_same_group(rollout);
        if let Some((newer, _)) =
            under_way.iter().find(|(number, other)| *number > self.number && of_group(other))
        {
            let by = self.book().id(*newer).to_string();
            return self.finish(rollout.clone(), Outcome::Superseded { by });
        }
        let before = under_way.iter().find(|(number, other)| *number < self.number && of_group(other));
        if let Some((number, other)) = before {
            if let (Some(machine), Some(OnNewer::Supersede)) = (&other.machine, other.on_newer()) {
                // One that goes back does so first.
                if *machine.phase() == Phase::Forward {
                    let mut ended = (**other).clone();
                    let by = self.id().to_string();
                    ended.machine.iter_mut().for_each(|machine| {
                        machine.end(Outcome::Superseded { by: by.clone() });
                    });
                    self.book().write(*number, ended, None).map_err(boxed)?;
                }
            }
            return Ok(());
        }
        let Some(group) = self.shared.rollouts.group(&rollout.group) else {
            let reason = "the group is not configured any more".to_owned();
            return self.finish(rollout.clone(), Outcome::Failed { reason });
        };
        let store = self.store(rollout)?;
        if !store.records().has(&rollout.release, |app| *app == rollout.app) {
            let reason = "the release was removed".to_owned();
            return self.finish(rollout.clone(), Outcome::Failed { reason });
        }
        let Rollout { space, app, group: name, .. } = rollout;
        let release = self.book().release(space, app, name).map_err(boxed)?;
        let current = || store.records().standing(app).current.filter(|it| *it != rollout.release);
        // One that was removed all the same is none to go back to.
        let is_stored = |release: &_| store.records().has(release, |other| other == app);
        let previous = release.map(|it| it.release).filter(is_stored).or_else(current);
        let left = self.book().last_ended(rollout).filter(|last| {
            last.ended.as_ref().is_some_and(|(outcome, _)| {
                !matches!(outcome, Outcome::Succeeded | Outcome::RolledBack { .. })
            })
        });
        let known = Known::of(self.shared, rollout)?;
        let members = known.members(group, name, previous, left.as_deref());
        let is_taken = |other: &Rollout| {
            let mut theirs = other.members.iter();
            other.machine.is_some()
                && (&other.space, &other.app) == (space, app)
                && theirs.any(|theirs| members.iter().any(|(ours, _)| ours.name == theirs.name))
        };
        if under_way.iter().any(|(_, other)| is_taken(other)) {
            return Ok(());
        }
        if members.is_empty() || members.len() > MEMBERS_MAX {
            let reason = format!("the group has {} members, expected 1 to {MEMBERS_MAX}", members.len());
            return self.finish(rollout.clone(), Outcome::Failed { reason });
        }
        let can_return = previous.is_some_and(|previous| previous != rollout.release);
        let (members, strayed): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        let machine = Some(Machine::new(group.rules.clone(), can_return, strayed));
        let begun = Rollout { previous, members, machine, ..rollout.clone() };
        if !begun.fits() {
            let count = begun.members.len();
            let reason = format!("the names of the group's {count} members are too long together");
            return self.finish(rollout.clone(), Outcome::Failed { reason });
        }
        // From now on, no member overtakes the first ones.
        let id = self.id();
        let first =
            previous.filter(|_| release.is_none()).map(|release| GroupRelease { release, rollout: id });
        self.book().write(self.number, begun, first).map_err(boxed)?;
        self.shared.targets.moved(space, app);
        crash_points::point("rollout.begun");
        Ok(())
    }

    /// Does what follows from a rollout's end, and writes that down last.
    fn finish(&self, mut rollout: Rollout, mut outcome: Outcome) -> Result<(), Error> {
        let mut release = None;
        if outcome == Outcome::Succeeded {
            if let Err(reason) = self.move_current(&rollout)? {
                outcome = Outcome::Failed { reason };
            } else {
                if let Some(group) = self.shared.rollouts.group(&rollout.group) {
                    settle(self.shared, self.id(), group, &rollout)?;
                }
                release = Some(GroupRelease { release: rollout.release, rollout: self.id() });
            }
            crash_points::point("rollout.current");
        }
        rollout.ended = Some((outcome.clone(), now()));
        self.book().write(self.number, rollout.clone(), release).map_err(boxed)?;
        crash_points::point("rollout.ended");
        self.shared.targets.moved(&rollout.space, &rollout.app);
        let id = self.id();
        tracing::info!(%id, group = %rollout.group, app = %rollout.app, ?outcome, "a rollout has ended");
        self.tell(&rollout, &outcome);
        Ok(())
    }

    /// Makes the release current. Returns why it cannot be, if the release is gone.
    fn move_current(&self, rollout: &Rollout) -> Result<Result<(), String>, Error> {
        let Rollout { app, release, user, token, group, because, .. } = rollout;
        let store = self.store(rollout)?;
        let records = store.records();
        let _turn = records.turn();
        if !records.has(release, |other| other == app) {
            return Ok(Err("the release was removed before it could be made current".to_owned()));
        }
        if !rollout.moves_current || records.standing(app).current == Some(*release) {
            return Ok(Ok(()));
        }
        let id = self.id();
        let moved = records.log(app, u64::MAX, 1).map_err(boxed)?;
        if moved.iter().any(|(_, last)| {
            let is_ours = |last| self.book().came_before(self.number, rollout, last);
            last.time > rollout.asked && last.release.is_some_and(|last| !is_ours(last))
        }) {
            tracing::warn!(%id, %app, "the current release was moved after the rollout was asked for, and stays");
            return Ok(Ok(()));
        }
        let said = because.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
        let because = format!("rollout {id} to {group}{said}");
        let token = token.to_string();
        let mover = Mover { user, token: &token, time: now(), because: Some(&because) };
        records.promote(app, release, &mover, Vec::new).map_err(boxed)?;
        Ok(Ok(()))
    }

    fn store(&self, rollout: &Rollout) -> Result<Arc<Store>, Error> {
        self.shared.spaces.open(&rollout.space).map_err(boxed)
    }

    /// Writes the end to the audit log, and lets the actions follow that are configured for it.
    fn tell(&self, rollout: &Rollout, outcome: &Outcome) {
        let (action, event, reason) = match outcome {
            Outcome::Succeeded => ("rollout", None, None),
            Outcome::RolledBack { reason } => ("rolled_back", Some(Event::RolledBack), Some(reason)),
            Outcome::Failed { reason } => ("rollout_failed", Some(Event::GivenUp), Some(reason)),
            Outcome::Aborted { .. } => ("rollout_aborted", None, None),
            Outcome::Superseded { .. } => ("rollout_superseded", None, None),
        };
        let Rollout { space, app, group, release, user, token, .. } = rollout;
        self.shared.audit.write(&Entry {
            time: now(),
            action,
            user,
            space,
            app,
            release: *release,
            destinations: std::slice::from_ref(group),
            token: *token,
            behalf: &[],
            labels: &[],
            because: reason.map(String::as_str),
        });
        if let Some(event) = event {
            tell_actions(self.shared, self.id(), rollout, event, reason.map(String::as_str));
        }
    }
}

/// Lets the hooks and webhooks follow that are configured for an event.
fn tell_actions(shared: &Shared, id: RolloutId, rollout: &Rollout, event: Event, reason: Option<&str>) {
    let happened = Happened {
        event,
        time: now(),
        id: id.to_string(),
        space: rollout.space.clone(),
        app: rollout.app.clone(),
        release: rollout.release,
        labels: Vec::new(),
        previous: rollout.previous,
        destination: Some(rollout.group.clone()),
        place: None,
        user: Some(rollout.user.clone()),
        reason: reason.map(str::to_owned),
        changed: Changed::default(),
    };
    if shared.actions.follows(&happened, &[]) {
        shared.actions.follow(&happened, &[], &std::sync::atomic::AtomicBool::new(false));
    }
}

impl Rollout {
    fn on_newer(&self) -> Option<OnNewer> {
        self.machine.as_ref().map(|machine| machine.rules().on_newer)
    }
}

/// Holds, resumes or ends a rollout, durably.
fn steer(shared: &Shared, number: u64, how: RolloutSteering, by: &UserName) -> Result<(), Refusal> {
    let book = &shared.rollouts.book;
    let id = book.id(number);
    let rollout = book.get(number).ok_or_else(|| missing(id))?;
    let input = |text: String, hint: &str| {
        let hint = Some(hint.to_owned());
        Refusal { fault: Fault::Input, text, hint }
    };
    let is_over = |machine: &Machine| matches!(machine.phase(), Phase::Over(_));
    if rollout.ended.is_some() || rollout.machine.as_ref().is_some_and(is_over) {
        let text = format!("rollout {id} has ended");
        return Err(input(text, "`whit promote APP@RELEASE --to GROUP` rolls another release out"));
    }
    let mut steered = (*rollout).clone();
    match &mut steered.machine {
        None if how == RolloutSteering::Abort || how == RolloutSteering::Rollback => {
            let ended = (Outcome::Aborted { by: by.to_string() }, now());
            steered.ended = Some(ended);
        }
        None => {
            let text = format!("rollout {id} has not begun");
            return Err(input(text, "`abort` ends it"));
        }
        Some(machine) => match how {
            RolloutSteering::Hold => machine.hold(format!("held by {by}")),
            RolloutSteering::Resume if machine.held().is_none() => {
                return Err(input(
                    format!("rollout {id} is not held"),
                    "`whit rollouts` shows how far it is",
                ));
            }
            RolloutSteering::Resume => machine.resume(),
            RolloutSteering::Abort => machine.end(Outcome::Aborted { by: by.to_string() }),
            RolloutSteering::Rollback if *machine.phase() != Phase::Forward => {
                return Err(input(
                    format!("rollout {id} goes back already"),
                    "`whit rollouts` shows how far it is",
                ));
            }
            RolloutSteering::Rollback => machine.roll_back(format!("asked for by {by}")),
        },
    }
    book.write(number, steered, None).map_err(|error| Refusal::of(&error))
}

pub(super) fn missing(id: RolloutId) -> Refusal {
    let text = format!("there is no rollout {id}, or it ended long ago");
    Refusal { fault: Fault::Missing, text, hint: Some("`whit rollouts` lists them".to_owned()) }
}
