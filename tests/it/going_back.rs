//! What members of a group go back to, and what a rollout waits for.

use protocol::wire::{Operation, RolloutMemberState, RolloutState, RolloutSteering};
use whit::delivery::rollout::{OnFailure, Rules, Share};
use whit::proxy::Options;

use crate::fleet::{Fleet, Watcher, name, rules, scanned};
use crate::world::{ask_as, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_goes_back_to_what_it_had_whatever_its_group_had() {
    within(async {
        let groups = [("all", "web-*"), ("one", "web-1")];
        let (mut fleet, first) = Fleet::start_with(&groups, rules(), 2).await;
        let own = fleet.store("own", None, &["one"]).await;
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
        let labelled = fleet.store("labelled", Some("calm"), &[]).await;
        let follower = Watcher::default();
        follower.machine().follows = Some("calm".parse().expect("a label"));
        fleet.watchers.insert("web-3".to_owned(), follower);
        fleet.join("web-3");
        fleet.until(|fleet| fleet.watcher("web-3").shown() == Some(labelled)).await;
        assert_eq!((fleet.watcher("web-1").shown(), fleet.current().await), (Some(own), first));
        // The canary and one of the next batch confirm, the other of the batch refuses.
        let bad = scanned(&fleet, "bad").await;
        fleet.watcher("web-2").refuses(bad);
        fleet.push("bad", &["all"]).await.expect("pushed");
        let status = fleet.ended(2).await;
        assert!(matches!(status.state, RolloutState::RolledBack { .. }), "{status:?}");
        assert!(fleet.watcher("web-3").machine().told.contains(&bad), "it had the release");
        let shown = ["web-1", "web-2", "web-3"].map(|target| fleet.watcher(target).shown());
        assert_eq!(shown, [Some(own), Some(first), Some(labelled)]);
        assert_eq!(fleet.current().await, first);
        let rows = fleet.targets().await;
        let groups: Vec<_> = rows.iter().filter_map(|row| row.status.known.assigned.as_ref()).collect();
        assert_eq!(groups[0].group, name("one"), "it is its own group's again");
        assert!(groups[1..].iter().all(|assigned| assigned.group == name("all")) && groups.len() == 3);
        // Nor does one more rollout that fails take what its label named from it, though the group told it that.
        let worse = scanned(&fleet, "worse").await;
        fleet.watcher("web-1").refuses(worse);
        fleet.push("worse", &["all"]).await.expect("pushed");
        let status = fleet.ended(3).await;
        assert!(matches!(status.state, RolloutState::RolledBack { .. }), "{status:?}");
        let shown = ["web-1", "web-2", "web-3"].map(|target| fleet.watcher(target).shown());
        assert_eq!(shown, [Some(own), Some(first), Some(labelled)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_had_before_stays_in_the_store_while_it_may_go_back_to_it() {
    within(async {
        let groups = [("all", "web-*"), ("one", "web-1")];
        let (mut fleet, _) = Fleet::start_with(&groups, rules(), 2).await;
        let own = fleet.store("own", None, &["one"]).await;
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
        let second = fleet.store("second", None, &["one"]).await;
        assert_eq!(fleet.ended(2).await.state, RolloutState::Succeeded);
        let bad = scanned(&fleet, "bad").await;
        fleet.watcher("web-2").machine().ignores.insert(bad);
        fleet.push("bad", &["all"]).await.expect("pushed");
        fleet.rollout(3, |status| status.batch == 2).await;
        // Neither the target nor its group name it any more.
        let remove = |release| Operation::Remove {
            release: format!("app@{release}").parse().expect("a selector"),
            all_labels: true,
            force: false,
        };
        ask_as(fleet.world.access(), &remove(own)).await.expect("nobody needs it");
        ask_as(fleet.world.access(), &remove(second)).await.expect_err("web-1 may go back to it");
        for target in ["web-1", "web-2"] {
            fleet.leave(target);
        }
        fleet.world.stop().await;
        fleet.world.again();
        for target in ["web-1", "web-2"] {
            fleet.join(target);
        }
        let id = fleet.rollout(3, |status| status.batch == 2).await.id;
        fleet.steer(id, RolloutSteering::Rollback).await.expect("taken back");
        assert!(matches!(fleet.ended(3).await.state, RolloutState::RolledBack { .. }));
        assert_eq!(fleet.watcher("web-1").shown(), Some(second));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_for_another_groups_rollout_says_for_which() {
    within(async {
        let holds = Rules { on_failure: OnFailure::Hold, ..rules() };
        let (fleet, _) = Fleet::start_with(&[("all", "web-*"), ("one", "web-1")], holds, 2).await;
        let bad = scanned(&fleet, "bad").await;
        fleet.watcher("web-1").refuses(bad);
        fleet.push("bad", &["one"]).await.expect("pushed");
        let held = fleet.rollout(1, |status| matches!(status.state, RolloutState::Held { .. })).await;
        fleet.push("good", &["all"]).await.expect("pushed");
        let waits = RolloutState::Waiting { behind: Some(held.id) };
        fleet.rollout(2, |status| status.state == waits).await;
        fleet.steer(held.id, RolloutSteering::Abort).await.expect("ended");
        assert_eq!(fleet.ended(2).await.state, RolloutState::Succeeded);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_forgotten_while_it_waits_stays_forgotten() {
    within(async {
        let tolerant = Rules { max_failures: Share::Members(1), healthy_within: 1, ..rules() };
        let (mut fleet, _) = Fleet::start(tolerant, 3).await;
        let second = scanned(&fleet, "second").await;
        fleet.watcher("web-1").machine().ignores.insert(second);
        let held = fleet.push("second", &["all"]).await.expect("pushed");
        assert_eq!(held, second);
        fleet.leave("web-3");
        let forget = Operation::ForgetTarget { target: "web-3".parse().expect("a name"), app: None };
        while ask_as(fleet.world.access(), &forget).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        fleet.watcher("web-1").machine().ignores.clear();
        fleet.leave("web-1");
        fleet.join("web-1");
        let status = fleet.ended(1).await;
        let gone = &status.members[2].state;
        assert!(matches!(gone, RolloutMemberState::Failed { .. }), "{gone:?}");
        let names: Vec<_> =
            fleet.targets().await.into_iter().map(|row| row.status.target.to_string()).collect();
        assert_eq!(names, ["web-1", "web-2"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_has_left_its_group_wants_the_current_release_once_it_is_unassigned() {
    within(async {
        let holds = Rules { on_failure: OnFailure::Hold, ..rules() };
        let (mut fleet, _) = Fleet::start(holds, 2).await;
        let second = fleet.push("second", &["all"]).await.expect("pushed");
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
        let unassign = |target: &str| {
            let (target, app) = (target.parse().expect("a name"), Some("app".parse().expect("a name")));
            Operation::UnassignTarget { target, app }
        };
        let refused = async |fleet: &Fleet, target: &str| {
            let error = ask_as(fleet.world.access(), &unassign(target)).await.expect_err("it is refused");
            error.to_string()
        };
        assert!(refused(&fleet, "web-1").await.contains("is in group `all`"));
        assert!(refused(&fleet, "web-9").await.contains("no target"));
        let bad = scanned(&fleet, "bad").await;
        fleet.watcher("web-1").refuses(bad);
        fleet.push("bad", &["all"]).await.expect("pushed");
        let held = fleet.rollout(2, |status| matches!(status.state, RolloutState::Held { .. })).await;
        again(&mut fleet, |options| {
            let group = options.groups.get_mut(&name("all")).expect("it is there");
            group.targets = vec!["web-2".parse().expect("a pattern")];
        })
        .await;
        assert!(refused(&fleet, "web-1").await.contains("counts target `web-1`"));
        fleet.steer(held.id, RolloutSteering::Abort).await.expect("ended");
        fleet.ended(2).await;
        let third = fleet.push("third", &[]).await.expect("pushed");
        fleet.until(|fleet| fleet.watcher("web-1").machine().told.last() == Some(&second)).await;
        ask_as(fleet.world.access(), &unassign("web-1")).await.expect("it has left the group");
        fleet.until(|fleet| fleet.watcher("web-1").shown() == Some(third)).await;
        again(&mut fleet, |_| {}).await;
        fleet.until(|fleet| fleet.watcher("web-1").machine().told.last() == Some(&third)).await;
        assert_eq!(fleet.watcher("web-2").shown(), Some(second));
    })
    .await;
}

/// Starts the proxy again, with other options, and lets its targets come back.
async fn again(fleet: &mut Fleet, change: impl FnOnce(&mut Options)) {
    let targets: Vec<String> = fleet.watchers.keys().cloned().collect();
    for target in &targets {
        fleet.leave(target);
    }
    fleet.world.stop().await;
    fleet.world.change(change);
    fleet.world.again();
    for target in &targets {
        fleet.join(target);
    }
}
