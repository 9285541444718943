//! The batches of a rollout, over sizes, shares and failures: what its page promises.

use protocol::wire::RolloutState;
use whit::delivery::rollout::{Machine, Member, MemberState, OnFailure, Phase, Rules, Share, Sight};

/// How a member takes a release that is not its group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    /// It confirms after some seconds.
    Good,
    /// It goes back from it by itself.
    Refuses,
    /// It never says anything about it.
    Silent,
    /// It is not there.
    Away,
    /// It confirms, and is unsure again, without end.
    Flaps,
}

const BAD: [Nature; 4] = [Nature::Refuses, Nature::Silent, Nature::Away, Nature::Flaps];

/// What became of one rollout.
struct Run {
    machine: Machine,
    /// The members that ever had the release to themselves.
    seen: Vec<bool>,
}

impl Run {
    fn outcome(&self) -> &RolloutState {
        let Phase::Over(outcome) = self.machine.phase() else { panic!("it is over") };
        outcome
    }

    fn seen(&self) -> usize {
        self.seen.iter().filter(|seen| **seen).count()
    }
}

/// Members that wait, and have a release to go back to.
fn members(all: usize) -> Vec<Member> {
    vec![Member::default(); all]
}

fn is_unconfirmed(state: &MemberState) -> bool {
    matches!(state, MemberState::Given { .. } | MemberState::Proving { .. })
}

/// Lets a rollout run to its end, and holds it to its bounds at each step.
fn run(rules: &Rules, natures: &[Nature]) -> Run {
    let all = natures.len();
    let batch = rules.batch.rounded_up(all).max(1).max(rules.canary.rounded_up(all));
    let most = rules.max_failures.rounded_down(all);
    let mut machine = Machine::new(rules.clone(), members(all));
    let (mut seen, mut since) = (vec![false; all], vec![0; all]);
    for step in 0.. {
        assert!(step < 100 * (all + 2), "it ends: {rules:?} {natures:?} {machine:?}");
        let sights: Vec<Sight> = (0..all)
            .map(|place| {
                let state = &machine.members()[place].state;
                let age = machine.age() - since[place];
                let has_it = !matches!(
                    state,
                    MemberState::Waiting
                        | MemberState::Returning { .. }
                        | MemberState::Returned
                        | MemberState::NotReturned { .. }
                );
                let has_new = match natures[place] {
                    Nature::Good => age >= 3,
                    Nature::Flaps => age % 4 == 3,
                    Nature::Refuses | Nature::Silent | Nature::Away => false,
                };
                Sight {
                    reachable: natures[place] != Nature::Away,
                    has_new: has_it && has_new,
                    refused: (has_it && natures[place] == Nature::Refuses && age >= 2)
                        .then(|| "bad".to_owned()),
                    has_old: !has_it && natures[place] != Nature::Away,
                }
            })
            .collect();
        machine.step(&sights);
        let states = || machine.members().iter().map(|member| &member.state);
        for (place, state) in states().enumerate() {
            if is_unconfirmed(state) && !seen[place] {
                (seen[place], since[place]) = (true, machine.age());
            }
        }
        assert!(states().filter(|state| is_unconfirmed(state)).count() <= batch, "{rules:?} {natures:?}");
        if rules.on_failure != OnFailure::Continue {
            let failed = machine.failures();
            assert!(failed <= most + batch, "{failed} failed: {rules:?} {natures:?}");
        }
        if let Some(fewest) = rules.min_healthy.filter(|_| machine.phase() == &Phase::Forward) {
            let lost =
                states().filter(|state| is_unconfirmed(state) || matches!(state, MemberState::Failed { .. }));
            let (lost, failed) = (lost.count(), machine.failures());
            assert!(all - lost >= fewest.rounded_up(all) || failed > 0, "{rules:?} {natures:?}");
        }
        if matches!(machine.phase(), Phase::Over(_)) {
            break;
        }
        if machine.held().is_some() {
            machine.roll_back("a person says so".to_owned());
        }
        machine.pass(1 + step as u64 % 3);
    }
    Run { machine, seen }
}

fn check(rules: &Rules, natures: &[Nature]) {
    let all = natures.len();
    let batch = rules.batch.rounded_up(all).max(1).max(rules.canary.rounded_up(all));
    let most = rules.max_failures.rounded_down(all);
    let run = run(rules, natures);
    // One that is to stay well for no time has done so.
    let is_well =
        |nature: Nature| nature == Nature::Good || (nature == Nature::Flaps && rules.healthy_for == 0);
    let bad = natures.iter().filter(|nature| !is_well(**nature)).count();
    let is_bad = |nature: &Nature| !is_well(*nature);
    let canaries = natures.iter().take(rules.canary.rounded_up(all));
    let are_too_many = bad > most || bad == all || canaries.clone().any(is_bad);
    let said = format!("{rules:?} {natures:?} {:?}", run.machine);
    if bad == all {
        let most = if rules.on_failure == OnFailure::Continue { all } else { all.min(most + batch) };
        assert!(run.seen() <= most, "{said}");
    }
    let is_back = |place: usize| {
        let state = &run.machine.members()[place].state;
        match natures[place] {
            Nature::Away => matches!(state, MemberState::NotReturned { .. }),
            _ => *state == MemberState::Returned,
        }
    };
    match run.outcome() {
        RolloutState::Succeeded => {
            let goes_on = rules.on_failure == OnFailure::Continue && bad < all;
            assert!(bad <= most && (goes_on || !are_too_many) && run.seen() == all, "{said}");
        }
        RolloutState::RolledBack { .. } => {
            assert!(are_too_many && rules.on_failure != OnFailure::Continue, "{said}");
            assert!((0..all).filter(|place| run.seen[*place]).all(is_back), "{said}");
        }
        RolloutState::Failed { .. } => {
            assert!(are_too_many && rules.on_failure == OnFailure::Continue, "{said}");
            assert_eq!(run.seen(), all, "{said}");
        }
        outcome => panic!("nobody asked for {outcome:?}"),
    }
}

#[test]
fn whoever_fails_no_bound_is_passed_and_it_ends() {
    let shares = |all: u32| {
        let percent = [1, 2, 3, 7, 25, 33, 50, 100].map(Share::Percent);
        [1, 2, 3, all.div_ceil(2), all].map(Share::Members).into_iter().chain(percent)
    };
    for all in 1..=20_u32 {
        // All sets of failures of few; of many, those that begin, end or are scattered.
        let sets: Vec<u64> = match all {
            1..=6 => (0..1 << all).collect(),
            _ => (0..=all)
                .flat_map(|n| [(1 << n) - 1, ((1 << n) - 1) << (all - n), 0x2_4924 & ((1 << n) - 1)])
                .collect(),
        };
        for (round, set) in sets.into_iter().enumerate() {
            for (place, batch) in shares(all).enumerate() {
                let nature = |member: u32| {
                    let bad = BAD[(round + place + member as usize) % BAD.len()];
                    if set >> member & 1 == 1 { bad } else { Nature::Good }
                };
                let natures: Vec<Nature> = (0..all).map(nature).collect();
                let on_failure =
                    [OnFailure::Rollback, OnFailure::Hold, OnFailure::Continue][(round + place) % 3];
                let rules = Rules {
                    batch,
                    canary: Share::Members([0, 1, 2][place % 3]),
                    max_failures: [Share::Members(0), Share::Members(1), Share::Percent(34)][round % 3],
                    healthy_within: 20,
                    healthy_for: [0, 5][round % 2],
                    bake: [0, 7][place % 2],
                    on_failure,
                    ..Rules::default()
                };
                check(&rules, &natures);
            }
        }
    }
}

/// Returns how many members each batch had, where all go well.
fn batches(rules: &Rules, all: usize) -> Vec<usize> {
    let mut machine = Machine::new(rules.clone(), members(all));
    let mut batches = Vec::new();
    while !matches!(machine.phase(), Phase::Over(_)) {
        let is_new = |state: &MemberState| *state != MemberState::Waiting;
        let sight = |has_new| Sight { reachable: true, has_new, ..Sight::default() };
        let sights: Vec<Sight> =
            machine.members().iter().map(|member| sight(is_new(&member.state))).collect();
        machine.step(&sights);
        let under_way = machine.members().iter().filter(|member| is_unconfirmed(&member.state)).count();
        if under_way > 0 {
            let (begun, of) = machine.batches();
            batches.push(under_way);
            assert!(begun == batches.len() && of >= begun);
        }
        machine.pass(1);
    }
    assert_eq!(machine.batches(), (batches.len(), batches.len()));
    batches
}

#[test]
fn a_percentage_of_one_two_three_seven_and_a_hundred_members() {
    let quarter = Rules { batch: Share::Percent(25), canary: Share::Members(1), ..Rules::default() };
    assert_eq!(batches(&quarter, 1), [1]);
    assert_eq!(batches(&quarter, 2), [1, 1]);
    assert_eq!(batches(&quarter, 3), [1, 1, 1]);
    assert_eq!(batches(&quarter, 7), [1, 2, 2, 2]);
    assert_eq!(batches(&quarter, 100), [1, 25, 25, 25, 24]);
    let all = Rules { batch: Share::Percent(100), ..Rules::default() };
    assert_eq!(batches(&all, 7), [7]);
}

#[test]
fn what_must_stay_healthy_bounds_a_batch_as_elsewhere() {
    // CodeDeploy: of 9 hosts, HOST_COUNT 6 lets 3 be updated at a time, FLEET_PERCENT 40 lets 5.
    let at_most = |min_healthy| {
        let (batch, min_healthy) = (Share::Percent(100), Some(min_healthy));
        Rules { batch, min_healthy, ..Rules::default() }
    };
    assert_eq!(batches(&at_most(Share::Members(6)), 9), [3, 3, 3]);
    assert_eq!(batches(&at_most(Share::Percent(40)), 9), [5, 4]);
    let rules = Rules { max_failures: Share::Members(3), healthy_within: 20, ..at_most(Share::Members(6)) };
    let natures = |bad: usize| {
        let nature = |place: usize| {
            if place.is_multiple_of(3) && place / 3 < bad { Nature::Refuses } else { Nature::Good }
        };
        (0..9).map(nature).collect::<Vec<_>>()
    };
    assert_eq!(run(&rules, &natures(1)).outcome(), &RolloutState::Succeeded);
    let none_may_fail = Rules { max_failures: Share::Members(0), ..rules };
    assert!(matches!(run(&none_may_fail, &natures(1)).outcome(), RolloutState::RolledBack { .. }));
}

#[test]
fn too_few_healthy_members_are_waited_for_and_then_it_fails() {
    let rules = Rules { min_healthy: Some(Share::Percent(75)), healthy_within: 20, ..Rules::default() };
    let mut natures = [Nature::Good; 8];
    natures[6..].fill(Nature::Away);
    let run = run(&rules, &natures);
    assert!(
        matches!(run.outcome(), RolloutState::RolledBack { reason } if reason.contains("fewer than 6 of 8"))
    );
    assert_eq!(run.seen(), 0);
}

#[test]
fn a_person_holds_resumes_and_aborts_and_a_failure_that_was_accepted_counts_no_more() {
    let rules = Rules { on_failure: OnFailure::Hold, healthy_within: 20, ..Rules::default() };
    let mut machine = Machine::new(rules, members(3));
    let well = Sight { reachable: true, has_new: true, ..Sight::default() };
    let bad = Sight { reachable: true, refused: Some("bad".to_owned()), ..Sight::default() };
    let sights = [bad, well.clone(), well];
    for _ in 0..5 {
        machine.step(&sights);
        machine.pass(1);
    }
    assert_eq!((machine.held(), machine.batches()), (Some("1 of 3 members failed"), (1, 3)));
    machine.resume();
    machine.step(&sights);
    machine.hold("ada".to_owned());
    for _ in 0..5 {
        machine.step(&sights);
    }
    assert_eq!(machine.batches(), (2, 3));
    let mut aborted = machine.clone();
    aborted.end(RolloutState::Aborted { by: "ada".to_owned() });
    aborted.step(&sights);
    assert!(matches!(aborted.phase(), Phase::Over(RolloutState::Aborted { .. })));
    machine.resume();
    for _ in 0..5 {
        machine.step(&sights);
    }
    assert_eq!(machine.phase(), &Phase::Over(RolloutState::Succeeded));
}

#[test]
fn those_that_an_unfinished_rollout_left_behind_go_back_too() {
    let mut all = members(3);
    all[2].strayed = true;
    let mut machine = Machine::new(Rules { healthy_within: 20, ..Rules::default() }, all);
    machine.step(&[(); 3].map(|()| Sight { reachable: true, ..Sight::default() }));
    machine.roll_back("ada".to_owned());
    let back = [(); 3].map(|()| Sight { reachable: true, has_old: true, ..Sight::default() });
    for _ in 0..5 {
        machine.step(&back);
    }
    let states: Vec<_> = machine.members().iter().map(|member| &member.state).collect();
    assert_eq!(states, [&MemberState::Returned, &MemberState::Waiting, &MemberState::Returned]);
    let mut first = Machine::new(Rules::default(), vec![Member { stays: true, ..Member::default() }]);
    first.roll_back("ada".to_owned());
    assert!(
        matches!(first.phase(), Phase::Over(RolloutState::Failed { .. })),
        "there is nothing to go back to"
    );
}

#[test]
fn one_that_had_no_release_before_keeps_the_new_one_and_has_failed_where_others_go_back() {
    let mut all = members(3);
    all[0].stays = true;
    let rules = Rules { batch: Share::Members(2), healthy_within: 20, ..Rules::default() };
    let mut machine = Machine::new(rules, all);
    let there = Sight { reachable: true, ..Sight::default() };
    machine.step(&[there.clone(), there.clone(), there.clone()]);
    let well = Sight { has_new: true, ..there.clone() };
    let bad = Sight { refused: Some("bad".to_owned()), ..there.clone() };
    machine.step(&[well.clone(), bad, there.clone()]);
    let back = Sight { has_old: true, ..there.clone() };
    machine.step(&[well, back, there]);
    assert!(matches!(machine.phase(), Phase::Over(RolloutState::RolledBack { .. })), "{machine:?}");
    let states: Vec<_> = machine.members().iter().map(|member| &member.state).collect();
    assert!(
        matches!(states[0], MemberState::Failed { reason } if reason.contains("no release to go back to")),
        "{states:?}"
    );
    assert_eq!(states[1..], [&MemberState::Returned, &MemberState::Waiting]);
}

#[test]
fn a_canary_that_had_no_room_in_the_first_batch_is_one_all_the_same() {
    let rules = Rules {
        canary: Share::Members(2),
        batch: Share::Percent(100),
        min_healthy: Some(Share::Members(3)),
        max_failures: Share::Members(1),
        healthy_within: 20,
        ..Rules::default()
    };
    let mut machine = Machine::new(rules, members(4));
    let there = Sight { reachable: true, ..Sight::default() };
    let well = Sight { has_new: true, ..there.clone() };
    let bad = Sight { refused: Some("bad".to_owned()), ..there.clone() };
    machine.step(&[there.clone(), there.clone(), there.clone(), there.clone()]);
    assert_eq!(machine.batches(), (1, 3), "one canary, the other, and the rest");
    machine.step(&[well.clone(), there.clone(), there.clone(), there.clone()]);
    machine.step(&[well, bad, there.clone(), there]);
    assert!(matches!(machine.phase(), Phase::Back { .. }), "{machine:?}");
    assert_eq!(machine.members()[2].state, MemberState::Waiting);
}
