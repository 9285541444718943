//! What a rollout says that it waits for, who comes first, and which release is current after rollouts that overlap.

use std::collections::BTreeMap;
use std::time::Duration;

use format::current::Standing;
use protocol::wire::{Answer, Operation, RolloutState, RolloutSteering, RolloutWait};
use whit::delivery::destination;
use whit::delivery::rollout::{Group, Rules, Share};
use whit::restore::OutsideLinks;

use crate::fleet::{Fleet, Watcher, name, rules, scanned};
use crate::world::{World, ask_as, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_says_that_it_bakes_or_who_is_away_and_until_when() {
    within(async {
        let (mut fleet, _) = Fleet::start(Rules { bake: 600, ..rules() }, 2).await;
        fleet.push("second", &["all"]).await.expect("pushed");
        let bakes = fleet.rollout(1, |status| status.waits.is_some()).await;
        let Some(RolloutWait::Bakes { until }) = bakes.waits else { panic!("{bakes:?}") };
        assert!((bakes.asked + 590..bakes.asked + 700).contains(&until), "{bakes:?}");
        assert_eq!((bakes.canaries, bakes.state), (1, RolloutState::Running));
        fleet.steer(bakes.id, RolloutSteering::Abort).await.expect("ended");
        fleet.leave("web-1");
        fleet.push("third", &["all"]).await.expect("pushed");
        let away = fleet.rollout(2, |status| status.members.iter().any(|member| member.away)).await;
        let until = away.members[0].until.expect("it is waited for");
        assert!((away.asked + 50..away.asked + 130).contains(&until), "{away:?}");
        assert!(!away.members[1].away && away.members[1].until.is_none(), "its turn has not come: {away:?}");
        fleet.join("web-1");
        fleet.rollout(2, |status| status.members.iter().all(|member| !member.away)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_rollouts_that_overlap_the_one_that_was_asked_for_last_is_current() {
    within(async {
        let (mut fleet, _) =
            Fleet::start_with(&[("one", "web-1"), ("two", "web-2")], Rules::default(), 2).await;
        for (number, is_last) in [(1, true), (3, false)] {
            let words = [format!("older-{number}"), format!("newer-{number}")];
            for (word, target) in words.iter().zip(["web-1", "web-2"]) {
                let release = scanned(&fleet, word).await;
                fleet.watcher(target).machine().ignores.insert(release);
            }
            let older = fleet.push(&words[0], &["one"]).await.expect("pushed");
            // Times are whole seconds.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            let newer = fleet.push(&words[1], &["two"]).await.expect("pushed");
            tokio::time::sleep(Duration::from_millis(1100)).await;
            let mut ends = [("web-1", number), ("web-2", number + 1)];
            if is_last {
                ends.reverse();
            }
            for (target, rollout) in ends {
                fleet.watcher(target).machine().ignores.clear();
                fleet.leave(target);
                fleet.join(target);
                assert_eq!(fleet.ended(rollout).await.state, RolloutState::Succeeded);
            }
            assert_eq!(fleet.current().await, newer);
            let stays = [number, number + 1].map(|number| fleet.ended(number));
            let [of_older, of_newer] = stays;
            let stays = (of_older.await.current_stays, of_newer.await.current_stays);
            assert_eq!(stays, (is_last.then_some(newer), None), "{older} is said not to be current");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_come_before_destinations() {
    within(async {
        let world = World::start_with(|options| {
            let edge = destination::local(options.data.with_file_name("edge"), OutsideLinks::Refuse);
            options.destinations.insert(name("an-edge"), edge);
            let targets = vec!["web-*".parse().expect("a pattern")];
            let group = Group { targets, destinations: vec![name("an-edge")], rules: rules() };
            options.groups.insert(name("all"), group);
        });
        let mut fleet = Fleet { world, watchers: BTreeMap::new(), tasks: BTreeMap::new() };
        fleet.push("first", &[]).await.expect("pushed");
        fleet.watchers.insert("web-1".to_owned(), Watcher::default());
        fleet.join("web-1");
        fleet.until(|fleet| fleet.watcher("web-1").shown().is_some()).await;
        fleet.push("second", &["all"]).await.expect("pushed");
        let status = fleet.ended(1).await;
        let names: Vec<&str> = status.members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!((status.state, names), (RolloutState::Succeeded, vec!["web-1", "an-edge"]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_a_group_names_is_a_member_also_where_it_never_came() {
    within(async {
        let world = World::start_with(|options| {
            let targets = ["web-1", "web-9"].map(|target| target.parse().expect("a pattern")).to_vec();
            let rules = Rules { batch: Share::Percent(100), healthy_within: 1, ..Rules::default() };
            options.groups.insert(name("all"), Group { targets, rules, ..Group::default() });
        });
        let mut fleet = Fleet { world, watchers: BTreeMap::new(), tasks: BTreeMap::new() };
        let first = fleet.push("first", &[]).await.expect("pushed");
        fleet.watchers.insert("web-1".to_owned(), Watcher::default());
        fleet.join("web-1");
        fleet.until(|fleet| fleet.watcher("web-1").shown().is_some()).await;
        fleet.push("second", &["all"]).await.expect("pushed");
        let status = fleet.ended(1).await;
        assert!(matches!(status.state, RolloutState::RolledBack { .. }), "{status:?}");
        let failures: Vec<_> =
            status.members.iter().map(|member| (member.name.as_str(), member.failure())).collect();
        assert_eq!(failures, [("web-1", None), ("web-9", Some("unreachable within 1 s"))]);
        let answers = ask_as(fleet.world.access(), &Operation::Groups(None)).await.expect("listed");
        let [Answer::Groups(groups)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!((groups[0].rules["batch"].as_str(), groups[0].targets.len()), ("100%", 2));
        let app = &groups[0].apps[0];
        let members: Vec<_> = app.members.iter().map(|member| (member.name.as_str(), member.away)).collect();
        assert_eq!((app.release, members), (Some(first), vec![("web-1", false), ("web-9", true)]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_of_a_group_rolls_out_what_it_had_before_and_the_other_is_bad() {
    within(async {
        let (fleet, first) = Fleet::start(rules(), 3).await;
        let rollback = |to: &[&str]| Operation::Rollback {
            app: "app".parse().expect("a name"),
            destinations: to.iter().map(|to| name(to)).collect(),
            because: Some("it is slow".to_owned()),
            then: Vec::new(),
        };
        ask_as(fleet.world.access(), &rollback(&["all"])).await.expect_err("the group has had nothing");
        let second = fleet.push("second", &["all"]).await.expect("pushed");
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
        ask_as(fleet.world.access(), &rollback(&["all"])).await.expect("it goes back");
        let status = fleet.ended(2).await;
        assert_eq!((status.state, status.release), (RolloutState::Succeeded, first));
        assert!(fleet.all_show(first));
        let question = Operation::Current { app: "app".parse().expect("a name"), log: false };
        let answers = ask_as(fleet.world.access(), &question).await.expect("it is known");
        let Some(Answer::Standing(standing)) = answers.first() else { panic!("{answers:?}") };
        assert_eq!(*standing, Standing { current: Some(first), previous: None, bad: vec![second] });
        ask_as(fleet.world.access(), &rollback(&["all"])).await.expect_err("there is nothing before");
        // A rollback without the group says what its members keep.
        let third = fleet.push("third", &["all"]).await.expect("pushed");
        assert_eq!(fleet.ended(3).await.state, RolloutState::Succeeded);
        let answers = ask_as(fleet.world.access(), &rollback(&[])).await.expect("it goes back");
        let moved = answers.iter().find_map(|answer| match answer {
            Answer::Moved(moved) => Some(moved),
            _ => None,
        });
        let keeps = &moved.expect("it moved").groups[0];
        assert_eq!((&keeps.group, keeps.release), (&name("all"), third));
        // After one that a person ended it is not known which release is to go: the group's is not made bad.
        let fourth = scanned(&fleet, "fourth").await;
        fleet.watcher("web-1").machine().ignores.insert(fourth);
        fleet.push("fourth", &["all"]).await.expect("pushed");
        let id = fleet.rollout(4, |status| status.batch == 1).await.id;
        fleet.steer(id, RolloutSteering::Abort).await.expect("ended");
        fleet.ended(4).await;
        let refused =
            ask_as(fleet.world.access(), &rollback(&["all"])).await.expect_err("which one is to go?");
        assert!(refused.to_string().contains("did not come to its end"), "{refused}");
    })
    .await;
}
