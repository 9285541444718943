//! Which members of a group are to have which release: one rollout's batches, failures and way back, as a state machine.
//!
//! Time is the rollout's age, in seconds in which the proxy ran: no clock that jumps changes it, and members are not blamed
//! for time in which they could not report. Everything follows from the machine's state, so that a proxy that is killed after
//! it wrote the state, and before it acted, acts after its next start.
//!
//! Promises, held to by `tests/it/rollout_machine.rs`: the members that have the release and have yet to confirm it are at most a batch; a
//! release that every member refuses reaches at most a batch and `max_failures` members, and only the canaries where there are
//! any; none succeeds that no member has confirmed; it always ends, unless a person holds it; a rollback returns each member
//! that had the release.

use serde::{Deserialize, Serialize};

use super::{Member, MemberState, OnFailure, Rules, Sight};
use protocol::wire::RolloutState;

/// Seconds for which a member that has confirmed may be away: its stream begins again, or the proxy has started.
const AWAY_MAX: u64 = 60;

/// Why a member that had no other release before has failed, where others go back.
const STAYS: &str = "it has no release to go back to, and keeps this one";

/// One rollout through a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    rules: Rules,
    /// In the order in which they get the release.
    members: Vec<Member>,
    phase: Phase,
    /// True if some member has a release to go back to.
    can_return: bool,
    /// Why no further batch begins.
    held: Option<String>,
    /// Failures that a person has accepted.
    accepted: u32,
    /// Batches that have begun.
    begun: u32,
    /// Seconds that it has been under way.
    age: u64,
    /// The age at which the last batch came to rest.
    rested: Option<u64>,
}

/// The direction of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Members get the release.
    Forward,
    /// Members go back.
    Back {
        /// Why.
        reason: String,
    },
    /// It is over, in a last state. What follows is done, and then it is written down as ended.
    Over(RolloutState),
}

/// Why no further batch has begun, and for how many seconds more.
pub(super) enum Rest {
    /// The last one is looked at.
    Bakes(u64),
    /// Too few members are well.
    MinHealthy(u64),
}

impl Machine {
    /// Begins a rollout through members that all wait.
    pub fn new(rules: Rules, members: Vec<Member>) -> Self {
        let can_return = members.iter().any(|member| !member.stays);
        Self {
            rules,
            members,
            phase: Phase::Forward,
            can_return,
            held: None,
            accepted: 0,
            begun: 0,
            age: 0,
            rested: None,
        }
    }

    /// Returns the members, in the order in which they get the release.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the direction.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Returns why no further batch begins, if none does.
    pub fn held(&self) -> Option<&str> {
        self.held.as_deref()
    }

    /// Returns the seconds that it has been under way.
    pub fn age(&self) -> u64 {
        self.age
    }

    /// Returns how many batches have begun, and how many there will be.
    pub fn batches(&self) -> (usize, usize) {
        let (begun, waiting) = (self.begun as usize, self.count(|state| *state == MemberState::Waiting));
        let first = self.canaries_left();
        let canaries = usize::from(first > 0);
        (begun, begun + canaries + (waiting - first).div_ceil(self.batch()))
    }

    /// Returns how the group is updated.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns whether both are alike but for their ages.
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { rules, members, phase, can_return, held, accepted, begun, age: _, rested } = self;
        (phase, held, accepted, begun, rested)
            == (&other.phase, &other.held, &other.accepted, &other.begun, &other.rested)
            && (rules, can_return, members) == (&other.rules, &other.can_return, &other.members)
    }

    /// Lets `seconds` pass.
    pub fn pass(&mut self, seconds: u64) {
        self.age = self.age.saturating_add(seconds);
    }

    /// Notes what is seen of each member, in their order, and decides.
    pub fn step(&mut self, sights: &[Sight]) {
        debug_assert_eq!(sights.len(), self.members.len(), "one for each");
        match self.phase {
            Phase::Forward => {
                self.look_forward(sights);
                self.go_forward(sights);
            }
            Phase::Back { .. } => {}
            Phase::Over(_) => return,
        }
        // At once, where it has just turned.
        if let Phase::Back { reason } = self.phase.clone() {
            self.look_back(sights);
            self.go_back(reason);
        }
    }

    /// Begins no further batch.
    pub fn hold(&mut self, because: String) {
        self.held = Some(because);
    }

    /// Goes on, whatever has failed so far.
    pub fn resume(&mut self) {
        self.held = None;
        self.accepted = u32::try_from(self.failures()).unwrap_or(u32::MAX);
        self.rested = self.rested.map(|_| self.age);
    }

    /// Lets who has the release go back.
    pub fn roll_back(&mut self, reason: String) {
        if self.phase != Phase::Forward {
            return;
        }
        self.held = None;
        if !self.can_return {
            let reason = format!("{reason}; there is no release to go back to");
            self.phase = Phase::Over(RolloutState::Failed { reason });
            return;
        }
        for member in &mut self.members {
            let (strayed, stays) = (member.strayed, member.stays);
            if !stays && (strayed || member.state != MemberState::Waiting) {
                member.leave();
            }
            member.state = match std::mem::take(&mut member.state) {
                MemberState::Waiting if !strayed || stays => MemberState::Waiting,
                MemberState::Failed { reason } if stays => MemberState::Failed { reason },
                _ if stays => MemberState::Failed { reason: STAYS.to_owned() },
                // Those that serve go a batch at a time.
                MemberState::Waiting | MemberState::Confirmed => MemberState::Leaving,
                _ => MemberState::Returning { at: self.age },
            };
        }
        self.phase = Phase::Back { reason };
    }

    /// Ends it in a last state: who has the release keeps it.
    pub fn end(&mut self, state: RolloutState) {
        debug_assert!(state.is_last(), "{state:?} is no end");
        if !matches!(self.phase, Phase::Over(_)) {
            self.phase = Phase::Over(state);
        }
    }

    /// Leaves out the reasons why members failed, but for the first `most`.
    pub(super) fn forget_reasons(&mut self, most: usize) {
        let reasons = self.members.iter_mut().flat_map(|member| {
            let state = match &mut member.state {
                MemberState::Failed { reason } | MemberState::NotReturned { reason } => Some(reason),
                _ => None,
            };
            state.into_iter().chain([&mut member.left_because])
        });
        reasons.filter(|reason| !reason.is_empty()).skip(most).for_each(String::clear);
    }

    /// Returns why no further batch has begun although all members of the last one are through, and for how many seconds more.
    pub(super) fn rest(&self) -> Option<Rest> {
        let (rested, bake) = (self.rested?, self.rules.bake);
        let is_waiting = self.phase == Phase::Forward
            && self.held.is_none()
            && self.count(|state| *state == MemberState::Waiting) > 0;
        let passed = self.age.saturating_sub(rested);
        let most = bake.saturating_add(self.rules.healthy_within);
        match is_waiting {
            true if self.begun > 0 && passed < bake => Some(Rest::Bakes(bake - passed)),
            true => Some(Rest::MinHealthy(most.saturating_sub(passed))),
            false => None,
        }
    }

    /// Returns for how many seconds more a member in a state is waited for, if it is.
    pub(super) fn time_left(&self, state: &MemberState) -> Option<u64> {
        let Rules { healthy_within, healthy_for, .. } = self.rules;
        let (since, within) = match state {
            MemberState::Given { at } | MemberState::Returning { at } => (*at, healthy_within),
            MemberState::Proving { since, .. } => (*since, healthy_for),
            _ => return None,
        };
        Some(within.saturating_sub(self.age.saturating_sub(since)))
    }

    /// Returns how many of the first members are canaries.
    pub fn canaries(&self) -> usize {
        self.rules.canary.rounded_up(self.members.len())
    }

    /// Returns how many canaries have yet to get the release: a batch may have had no room for all of them.
    fn canaries_left(&self) -> usize {
        let waiting = self.count(|state| *state == MemberState::Waiting);
        self.canaries().saturating_sub(self.members.len() - waiting)
    }

    /// The most members at a time.
    fn batch(&self) -> usize {
        self.rules.batch.rounded_up(self.members.len()).max(1)
    }

    fn count(&self, is_counted: impl Fn(&MemberState) -> bool) -> usize {
        self.members.iter().filter(|member| is_counted(&member.state)).count()
    }

    /// Returns how many members have failed.
    pub fn failures(&self) -> usize {
        self.count(|state| matches!(state, MemberState::Failed { .. }))
    }

    fn look_forward(&mut self, sights: &[Sight]) {
        let (age, rules) = (self.age, &self.rules);
        for (Member { state, .. }, sight) in self.members.iter_mut().zip(sights) {
            let is_sure = sight.has_new && sight.reachable;
            if let Some(reason) = sight.refused.clone().filter(|_| *state != MemberState::Waiting) {
                *state = MemberState::Failed { reason };
                continue;
            }
            *state = match std::mem::take(state) {
                MemberState::Given { .. } | MemberState::Proving { .. }
                    if is_sure && rules.healthy_for == 0 =>
                {
                    MemberState::Confirmed
                }
                MemberState::Proving { since, .. }
                    if is_sure && age.saturating_sub(since) >= rules.healthy_for =>
                {
                    MemberState::Confirmed
                }
                MemberState::Proving { at, since } if is_sure => MemberState::Proving { at, since },
                MemberState::Proving { at, since }
                    if !sight.reachable
                        && age.saturating_sub(since)
                            < rules.healthy_for.saturating_add(AWAY_MAX.min(rules.healthy_within)) =>
                {
                    MemberState::Proving { at, since }
                }
                MemberState::Given { at } if is_sure => MemberState::Proving { at, since: age },
                MemberState::Given { at } | MemberState::Proving { at, .. } => {
                    if age.saturating_sub(at) < rules.healthy_within {
                        MemberState::Given { at }
                    } else {
                        let is = if sight.reachable { "not confirmed" } else { "unreachable" };
                        MemberState::Failed { reason: format!("{is} within {} s", rules.healthy_within) }
                    }
                }
                state => state,
            };
        }
    }

    fn go_forward(&mut self, sights: &[Sight]) {
        let (all, failures) = (self.members.len(), self.failures());
        let most = self.rules.max_failures.rounded_down(all);
        let fewest = self.rules.min_healthy.map_or(0, |share| share.rounded_up(all));
        let new_failures = failures.saturating_sub(self.accepted as usize);
        // While no other has begun.
        let are_canaries = all - self.count(|state| *state == MemberState::Waiting) <= self.canaries();
        let is_failed = new_failures > most
            || (new_failures > 0 && (are_canaries || failures == all || all - failures < fewest));
        if is_failed && self.on_failure(self.failure_text(failures)) {
            return;
        }
        if self.held.is_some() || self.count(MemberState::is_under_way) > 0 {
            return;
        }
        let rested = *self.rested.get_or_insert(self.age);
        if self.count(|state| *state == MemberState::Waiting) == 0 {
            self.phase = Phase::Over(if is_failed || failures == all {
                RolloutState::Failed { reason: self.failure_text(failures) }
            } else {
                RolloutState::Succeeded
            });
            return;
        }
        if self.begun > 0 && self.age.saturating_sub(rested) < self.rules.bake {
            return;
        }
        let healthy =
            self.members.iter().zip(sights).filter(|(member, sight)| {
                sight.reachable && !matches!(member.state, MemberState::Failed { .. })
            });
        // Each that is well and gets the release may be lost.
        let mut room = healthy.count().saturating_sub(fewest);
        let canaries = self.canaries_left();
        let mut left = if canaries > 0 { canaries } else { self.batch() };
        let (mut given, age) = (0, self.age);
        for (member, sight) in self.members.iter_mut().zip(sights) {
            if left == 0 || member.state != MemberState::Waiting {
                continue;
            }
            if self.rules.min_healthy.is_some() && sight.reachable {
                if room == 0 {
                    break;
                }
                room -= 1;
            }
            member.state = MemberState::Given { at: age };
            (given, left) = (given + 1, left - 1);
        }
        if given > 0 {
            self.begun = self.begun.saturating_add(1);
            self.rested = None;
        } else if age.saturating_sub(rested) >= self.rules.bake.saturating_add(self.rules.healthy_within) {
            let text = format!("fewer than {fewest} of {all} members would be healthy during the next batch");
            if !self.on_failure(text.clone()) {
                self.phase = Phase::Over(RolloutState::Failed { reason: text });
            }
        }
    }

    /// Does what the rules say about a failure. Returns whether that is all for now.
    fn on_failure(&mut self, reason: String) -> bool {
        match self.rules.on_failure {
            OnFailure::Rollback => self.roll_back(reason),
            OnFailure::Hold => {
                self.held.get_or_insert(reason);
            }
            OnFailure::Continue => return false,
        }
        true
    }

    fn failure_text(&self, failures: usize) -> String {
        let of = self.members.len();
        format!("{failures} of {of} members failed")
    }

    fn look_back(&mut self, sights: &[Sight]) {
        let (age, within) = (self.age, self.rules.healthy_within);
        for (Member { state, .. }, sight) in self.members.iter_mut().zip(sights) {
            let at = match state {
                MemberState::Returning { at } => *at,
                MemberState::NotReturned { .. } => age,
                _ => continue,
            };
            if sight.has_old && sight.reachable {
                *state = MemberState::Returned;
            } else if age.saturating_sub(at) >= within {
                let is = if sight.reachable { "not back" } else { "unreachable" };
                *state = MemberState::NotReturned { reason: format!("{is} within {within} s") };
            }
        }
    }

    fn go_back(&mut self, reason: String) {
        let is_returning = |state: &MemberState| matches!(state, MemberState::Returning { .. });
        if self.held.is_some() || self.count(is_returning) > 0 {
            return;
        }
        let (mut left, age) = (self.batch(), self.age);
        for Member { state, .. } in &mut self.members {
            if left > 0 && *state == MemberState::Leaving {
                *state = MemberState::Returning { at: age };
                left -= 1;
            }
        }
        if self.count(is_returning) == 0 {
            self.phase = Phase::Over(RolloutState::RolledBack { reason });
        }
    }
}
