//! Rollouts of the proxy's groups: asked for by a push or promotion, made by a driver, listed and steered by people.
//!
//! A rollout is in the ledger before anybody hears of it. One thread, the driver, changes those that are under way: it looks at
//! members, lets each rollout's machine decide, writes that down, and then does it; what a crash left undone is done after the
//! next start, as all of it may be done twice.

mod asked;
mod members;
mod turn;
mod ending;
mod beginning;
mod driver;
mod groups;
mod list;

use std::sync::{Mutex, mpsc};

use tokio::sync::broadcast;

use super::stopping::stopping;
use crate::delivery::rollout::{Book, Changed, Group, GroupRelease, Groups, Machine, Phase, Rollout};
use crate::ledger::{self, Change};
use format::target::Assignment;
use ground::ids::{AppName, DestinationName, ReleaseId, RolloutId, SpaceName, TargetName, UserName};
use ground::poison::Unpoisoned as _;
use protocol::wire::{MemberName, Refusal, RolloutSteering};

pub(super) use asked::split;
pub(super) use driver::Driver;
pub(super) use groups::{before, groups, others};
pub(super) use list::{list, steer};

/// The rollouts of a proxy, and its groups.
pub struct Rollouts {
    groups: Groups,
    book: Book,
    orders: mpsc::Sender<Order>,
    /// Taken by the driver.
    received: Mutex<Option<mpsc::Receiver<Order>>>,
}

/// What wakes the driver.
enum Order {
    /// There is something new.
    Look,
    /// Somebody steers a rollout.
    Steer { number: u64, how: RolloutSteering, by: UserName, answer: mpsc::SyncSender<Result<(), Refusal>> },
    /// End.
    Stop,
}

/// Rollouts that are to be written down, by themselves or together with something else.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// One that is under way already.
    joined: Option<u64>,
    /// A new one, with the number that it was last given.
    new: Option<(u64, Rollout)>,
}

impl std::fmt::Debug for Rollouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rollouts").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Rollouts {
    /// Takes over the groups and what an earlier run left in the book.
    pub fn new(groups: Groups, book: Book) -> Self {
        let (orders, received) = mpsc::channel();
        Self { groups, book, orders, received: Mutex::new(Some(received)) }
    }

    /// Returns a group that is configured.
    pub fn group(&self, name: &DestinationName) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Returns a group that is configured and has the target.
    pub fn group_of(&self, target: &TargetName) -> Option<&DestinationName> {
        self.groups.iter().find(|(_, group)| group.has_target(target)).map(|(name, _)| name)
    }

    /// Returns a rollout under way that counts a target: it may be of a configuration of before.
    pub fn under_way_with(&self, space: &SpaceName, app: &AppName, target: &TargetName) -> Option<RolloutId> {
        let member = MemberName::Target(target.clone());
        let counts = |rollout: &Rollout| {
            (&rollout.space, &rollout.app) == (space, app)
                && rollout.members.iter().any(|other| other.name == member)
        };
        let under_way = self.book.under_way();
        under_way.iter().find(|(_, rollout)| counts(rollout)).map(|(number, _)| self.book.id(*number))
    }

    /// Returns what a target without an assignment of its own is to have, where it is in a group that has a release: a new
    /// member overtakes nobody. Blocks for the ledger.
    ///
    /// # Errors
    /// The ledger's: it is not known whether a group has a release.
    pub fn unassigned(
        &self,
        space: &SpaceName,
        app: &AppName,
        target: &TargetName,
    ) -> ledger::Result<Option<Assignment>> {
        for (name, _) in self.groups.iter().filter(|(_, group)| group.has_target(target)) {
            if let Some(GroupRelease { release, rollout }) = self.book.release(space, app, name)? {
                return Ok(Some(Assignment { release, rollout, group: name.clone() }));
            }
        }
        Ok(None)
    }

    /// Returns the releases of a space that must stay: those of groups, and of rollouts under way with the ones before. Blocks.
    ///
    /// # Errors
    /// The ledger's.
    pub fn pending(&self, space: &SpaceName) -> ledger::Result<Vec<ReleaseId>> {
        Ok(self.book.releases(space, |name| self.group(name).is_some())?.into_iter().collect())
    }

    /// Plans a rollout: one of the same release that is the group's last and on its way is followed.
    pub fn plan(&self, rollout: Option<Rollout>) -> Plan {
        let Some(rollout) = rollout else { return Plan::default() };
        let under_way = self.book.under_way();
        let last = under_way.iter().rev().find(|(_, other)| other.is_of_same_group(&rollout));
        let is_same = |other: &Rollout| {
            let phase = other.machine.as_ref().map(Machine::phase);
            (other.release, other.moves_current, &other.then)
                == (rollout.release, rollout.moves_current, &rollout.then)
                && matches!(phase, None | Some(Phase::Forward))
        };
        match last {
            Some((number, other)) if is_same(other) => Plan { joined: Some(*number), new: None },
            _ => Plan { joined: None, new: Some((0, rollout)) },
        }
    }

    /// Returns the changes that write a plan down, each time under another number.
    pub fn changes(&self, plan: &mut Plan) -> Vec<Change> {
        let change = |(number, rollout): &mut (u64, Rollout)| {
            let (new_number, change) = self.book.change(rollout);
            *number = new_number;
            change
        };
        plan.new.iter_mut().map(change).collect()
    }

    /// Begins the rollout of a plan whose last changes were applied. Returns its id.
    pub fn enter(&self, plan: Plan) -> Option<RolloutId> {
        let Some((number, rollout)) = plan.new else {
            return plan.joined.map(|number| self.book.id(number));
        };
        self.book.enter(number, rollout);
        self.order(Order::Look);
        Some(self.book.id(number))
    }

    /// Begins a rollout that was written down although the last changes of its plan failed: it would begin after the next start
    /// otherwise.
    pub fn enter_written(&self, mut plan: Plan) {
        plan.new = plan.new.filter(|(number, rollout)| self.book.has(*number, rollout));
        self.enter(plan);
    }

    /// Writes a rollout down by itself, and begins it.
    ///
    /// # Errors
    /// The ledger's.
    pub fn add(&self, rollout: Option<Rollout>) -> ledger::Result<Option<RolloutId>> {
        let mut plan = self.plan(rollout);
        loop {
            match self.book.apply(&self.changes(&mut plan)) {
                Ok(()) => return Ok(self.enter(plan)),
                // Another proxy has taken the number.
                Err(ledger::Error::Exists(_)) => {}
                Err(error) => {
                    self.enter_written(plan);
                    return Err(error);
                }
            }
        }
    }

    /// Returns what receives each further change of any rollout.
    fn watch(&self) -> broadcast::Receiver<Changed> {
        self.book.watch()
    }

    /// Holds, resumes or ends a rollout. Blocks until that is written down.
    fn steer(&self, number: u64, how: RolloutSteering, by: &UserName) -> Result<(), Refusal> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.order(Order::Steer { number, how, by: by.clone(), answer });
        answered.recv().unwrap_or_else(|_| Err(stopping()))
    }

    /// Tells the driver to end.
    pub fn stop(&self) {
        self.order(Order::Stop);
    }

    fn order(&self, order: Order) {
        // The proxy stops where nobody receives it; the next start finds what is written down.
        drop(self.orders.send(order));
    }

    fn orders(&self) -> Option<mpsc::Receiver<Order>> {
        self.received.lock().unpoisoned().take()
    }
}
