//! The thread that makes rollouts.
//!
//! It looks when somebody asks for something, when a target or delivery changes, and each second. What is decided is written
//! down before it is done, and doing it again changes nothing.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::TryRecvError;

use super::super::{Shared, now};
use super::Order;
use super::beginning::begin;
use super::ending::{finish, happened, write_told};
use super::members::{Error, Known, boxed, deliver, take_back};
use super::turn::Turn;
use crate::delivery::actions::Event;
use crate::delivery::rollout::{Machine, Member, Noted, Phase, Rollout, Sight};
use crate::net::blocking;
use disk::crash_points;
use disk::files::{self, OnPath as _};
use ground::faults::Fault;
use ground::ids::{RolloutId, UserName};
use protocol::wire::{Refusal, RolloutState, RolloutSteering, RolloutWait};

/// How soon a change is seen while rollouts are under way.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How soon, where none is.
const REST_EVERY: Duration = Duration::from_secs(1);
/// How old the age of a rollout may be in the ledger: a proxy that is killed again and again makes none last longer.
const AGE_EVERY: u64 = 20;
/// How long a rollout rests whose step panicked.
const PANIC_REST: Duration = Duration::from_secs(60);
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
            // Nobody may wait for the answer.
            if let Some(steered) = survived(|| steer(&shared, number, how, &by)) {
                drop(answer.send(steered));
            }
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
                taken_up: rollout.machine.is_some().then(|| (Instant::now(), now())),
                rests_until: None,
            });
            if !is_due && clock.last.elapsed() < REST_EVERY && clock.written > 0 {
                continue;
            }
            if clock.rests_until.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            let (turn, id) = (Turn { shared: &shared, number }, shared.rollouts.book.id(number));
            match survived(|| turn.take(&rollout, clock)) {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%id, %error, "a rollout cannot go on; it is tried again in a second");
                    shared.rollouts.book.note_trouble(number, error.to_string());
                }
                None => {
                    tracing::error!(%id, "a rollout cannot go on: its step panicked; it is tried again in a minute");
                    shared.rollouts.book.note_trouble(number, "its step panicked".to_owned());
                    clock.rests_until = Some(Instant::now() + PANIC_REST);
                }
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
    /// When the proxy found it under way at its start; also in seconds since 1970.
    taken_up: Option<(Instant, u64)>,
    /// When it is looked at again, after a panic.
    rests_until: Option<Instant>,
}

/// Does a step of one rollout; none if it panics: the others go on. What is written down is whole, and the next look begins from there.
fn survived<T>(step: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).ok()
}

impl Turn<'_> {
    fn take(&self, rollout: &Rollout, clock: &mut Clock) -> Result<(), Error> {
        let Some(machine) = &rollout.machine else {
            begin(self, rollout)?;
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
        let comes_back = clock
            .taken_up
            .filter(|(start, _)| start.elapsed() < COMES_BACK && sights.iter().any(|sight| !sight.reachable));
        changed.pass(if comes_back.is_some() { 0 } else { passed });
        changed.step(&sights);
        let age = changed.age();
        let is_changed = !changed.is_like(machine);
        let newly_held = changed.held().filter(|_| machine.held().is_none()).map(str::to_owned);
        if is_changed || clock.written == 0 || age >= clock.written + AGE_EVERY {
            clock.written = age.max(1);
            let held = newly_held.map(|reason| happened(self, &next, Event::Held, Some(&reason)));
            write_told(self, next.clone(), None, held)?;
            crash_points::point("rollout.decided");
        } else if passed > 0 {
            self.book().note_age(self.number, next.clone());
        }
        known.assign(self.shared, self.id(), &next)?;
        crash_points::point("rollout.assigned");
        if deliver(self.shared, &mut next) {
            self.book().write(self.number, next.clone(), None, Vec::new()).map_err(boxed)?;
        }
        let phase = next.machine.as_ref().map(Machine::phase);
        if let Some(Phase::Over(state)) = phase.cloned() {
            let keeps = matches!(state, RolloutState::Succeeded | RolloutState::RolledBack { .. });
            if !keeps {
                take_back(self.shared, self.id(), &next)?;
            }
            return finish(self, next, state);
        }
        let waits =
            comes_back.map(|(_, start)| RolloutWait::ComesBack { until: start + COMES_BACK.as_secs() });
        self.book().note(self.number, Noted { behind: None, waits, away: away(&next, &sights) });
        Ok(())
    }
}

/// Returns the places of the members that are not there while the rollout waits for them.
fn away(rollout: &Rollout, sights: &[Sight]) -> Vec<usize> {
    let members = rollout.machine.iter().flat_map(Machine::members).zip(sights).enumerate();
    let is_away = |(member, sight): (&Member, &Sight)| member.state.is_awaited() && !sight.reachable;
    members.filter(|(_, seen)| is_away(*seen)).map(|(place, _)| place).collect()
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
            let ended = (RolloutState::Aborted { by: by.to_string() }, now());
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
            RolloutSteering::Abort => machine.end(RolloutState::Aborted { by: by.to_string() }),
            RolloutSteering::Rollback if *machine.phase() != Phase::Forward => {
                return Err(input(
                    format!("rollout {id} goes back already"),
                    "`whit rollouts` shows how far it is",
                ));
            }
            RolloutSteering::Rollback => machine.roll_back(format!("asked for by {by}")),
        },
    }
    book.write(number, steered, None, Vec::new()).map_err(|error| Refusal::of(&error))
}

pub(super) fn missing(id: RolloutId) -> Refusal {
    let text = format!("there is no rollout {id}, or it ended long ago");
    Refusal { fault: Fault::Missing, text, hint: Some("`whit rollouts` lists them".to_owned()) }
}
