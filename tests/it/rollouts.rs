//! Rollouts over real QUIC: groups of targets that confirm or refuse as they are told, and of destinations.

use std::collections::BTreeMap;

use ground::faults::{Fault, Faulty as _};
use ground::ids::{ReleaseId, RolloutId};
use protocol::wire::{Operation, RolloutMemberState, RolloutState, RolloutStatus, RolloutSteering};
use whit::agent;
use whit::agent::push::PushOptions;
use whit::delivery::destination;
use whit::delivery::rollout::{Group, OnFailure, OnNewer, Rules, Share};
use whit::restore::OutsideLinks;

use crate::fleet::{Fleet, Watcher, name, rules, scan};
use crate::program::Home;
use crate::trees::write;
use crate::world::{World, ask_as, push_options, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_release_goes_through_in_batches_and_is_current_last() {
    within(async {
        let (fleet, first) = Fleet::start(rules(), 5).await;
        assert_eq!(fleet.current().await, first);
        let second = fleet.push("second", &["all"]).await.expect("pushed");
        let status = fleet.ended(1).await;
        assert_eq!(status.state, RolloutState::Succeeded);
        assert_eq!((status.batch, status.batches, status.release), (3, 3, second));
        assert!(status.members.iter().all(|member| member.state == RolloutMemberState::Confirmed));
        let names: Vec<&str> = status.members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["web-1", "web-2", "web-3", "web-4", "web-5"]);
        assert!(fleet.all_show(second));
        assert_eq!(fleet.current().await, second);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_refuses_a_release_keeps_it_from_all_others_also_under_a_new_number() {
    within(async {
        let (fleet, first) = Fleet::start(rules(), 4).await;
        let folder = fleet.world.path("in-bad");
        write(&folder, "file", b"bad");
        fleet.watcher("web-1").refuses(scan(&fleet, "bad").await);
        for number in [1, 2] {
            let bad = fleet.push("bad", &["all"]).await.expect("pushed");
            let status = fleet.ended(number).await;
            assert!(matches!(&status.state, RolloutState::RolledBack { reason } if reason == "1 of 4 members failed"));
            assert_eq!((status.batch, status.previous, status.release), (1, Some(first), bad));
            let failed = &status.members[0];
            assert_eq!((&failed.state, failed.failure()), (&RolloutMemberState::Returned, Some("the check failed")));
            assert!(status.members[1..].iter().all(|member| member.failure().is_none() && member.before.is_none()));
            assert_eq!(fleet.current().await, first);
            for (target, watcher) in &fleet.watchers {
                let machine = watcher.machine();
                assert_eq!(machine.shown, Some(first));
                assert_eq!(machine.told.contains(&bad), target == "web-1", "{target}");
            }
        }
        let good = fleet.push("good", &["all"]).await.expect("pushed");
        assert_eq!(fleet.ended(3).await.state, RolloutState::Succeeded);
        assert!(fleet.all_show(good));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_had_it_go_back_where_a_later_one_fails() {
    within(async {
        let (fleet, first) = Fleet::start(rules(), 5).await;
        let bad = scan(&fleet, "bad").await;
        fleet.watcher("web-3").refuses(bad);
        assert_eq!(fleet.push("bad", &["all"]).await.expect("pushed"), bad);
        let status = fleet.ended(1).await;
        assert!(matches!(status.state, RolloutState::RolledBack { .. }), "{status:?}");
        assert!(fleet.all_show(first));
        assert!(fleet.watcher("web-1").machine().told.contains(&bad));
        assert!(!fleet.watcher("web-5").machine().told.contains(&bad));
        // All refuse it.
        fleet.watchers.values().for_each(|watcher| watcher.refuses(bad));
        fleet.push("bad", &["all"]).await.expect("pushed");
        let status = fleet.ended(2).await;
        assert!(matches!(status.state, RolloutState::RolledBack { .. }) && status.batch == 1, "{status:?}");
        assert_eq!(fleet.current().await, first);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_holds_resumes_takes_back_and_ends_a_rollout() {
    within(async {
        let (fleet, first) = Fleet::start(Rules { bake: 3600, ..rules() }, 3).await;
        let second = fleet.push("second", &["all"]).await.expect("pushed");
        let canary = |status: &RolloutStatus| {
            status.members.first().is_some_and(|member| member.state == RolloutMemberState::Confirmed)
        };
        let id = fleet.rollout(1, canary).await.id;
        fleet.steer(id, RolloutSteering::Hold).await.expect("held");
        let held = fleet.rollout(1, |status| matches!(status.state, RolloutState::Held { .. })).await;
        assert_eq!(held.state, RolloutState::Held { reason: "held by ada".to_owned() });
        fleet.steer(id, RolloutSteering::Resume).await.expect("resumed");
        let error = fleet.steer(id, RolloutSteering::Resume).await.expect_err("it is not held");
        assert!(error.to_string().contains("not held"), "{error}");
        assert_eq!(fleet.watcher("web-1").shown(), Some(second));
        fleet.steer(id, RolloutSteering::Rollback).await.expect("taken back");
        let status = fleet.ended(1).await;
        assert!(matches!(status.state, RolloutState::RolledBack { .. }), "{status:?}");
        assert!(fleet.all_show(first));
        let error = fleet.steer(id, RolloutSteering::Abort).await.expect_err("it has ended");
        assert!(error.to_string().contains("has ended"), "{error}");
        let third = fleet.push("third", &["all"]).await.expect("pushed");
        let id = fleet.rollout(2, canary).await.id;
        fleet.steer(id, RolloutSteering::Abort).await.expect("ended");
        assert_eq!(fleet.ended(2).await.state, RolloutState::Aborted { by: "ada".to_owned() });
        assert_eq!(fleet.watcher("web-1").shown(), Some(third));
        assert_eq!((fleet.watcher("web-2").shown(), fleet.current().await), (Some(first), first));
        // What was left behind goes back with the next one.
        let fourth = scan(&fleet, "fourth").await;
        fleet.watcher("web-1").refuses(fourth);
        fleet.watcher("web-1").machine().shown = Some(third);
        fleet.push("fourth", &["all"]).await.expect("pushed");
        fleet.until(|fleet| fleet.watcher("web-1").shown() == Some(first)).await;
        assert!(matches!(fleet.ended(3).await.state, RolloutState::RolledBack { .. }));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_fails_in_its_batch_and_catches_up_to_what_its_group_has_then() {
    within(async {
        let tolerant = Rules { max_failures: Share::Members(1), healthy_within: 1, ..rules() };
        let (mut fleet, first) = Fleet::start(tolerant, 4).await;
        fleet.leave("web-3");
        let second = fleet.push("second", &["all"]).await.expect("pushed");
        let status = fleet.ended(1).await;
        assert_eq!(status.state, RolloutState::Succeeded);
        let away = &status.members[2].state;
        assert!(
            matches!(away, RolloutMemberState::Failed { reason } if reason.contains("unreachable")),
            "{away:?}"
        );
        let third = fleet.push("third", &["all"]).await.expect("pushed");
        assert_eq!(fleet.ended(2).await.state, RolloutState::Succeeded);
        assert_eq!(fleet.watcher("web-3").shown(), Some(first));
        fleet.join("web-3");
        fleet.until(|fleet| fleet.watcher("web-3").shown() == Some(third)).await;
        assert!(!fleet.watcher("web-3").machine().told.contains(&second));
        // A new member gets it too, whatever is current.
        fleet.push("fourth", &[]).await.expect("pushed");
        fleet.watchers.insert("web-5".to_owned(), Watcher::default());
        fleet.join("web-5");
        fleet.until(|fleet| fleet.watcher("web-5").shown() == Some(third)).await;
        assert_eq!(fleet.watcher("web-5").machine().told, [third]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_yet_to_begin_is_told_to_stay_where_another_refuses() {
    within(async {
        let at_once = Rules { canary: Share::Members(0), batch: Share::Percent(100), ..rules() };
        let (fleet, first) = Fleet::start(at_once, 2).await;
        let bad = scan(&fleet, "bad").await;
        fleet.watcher("web-2").machine().ignores.insert(bad);
        fleet.push("bad", &["all"]).await.expect("pushed");
        fleet.until(|fleet| fleet.watcher("web-2").machine().told.contains(&bad)).await;
        let id = fleet.rollout(1, |status| status.batch == 1).await.id;
        fleet.steer(id, RolloutSteering::Rollback).await.expect("taken back");
        assert!(matches!(fleet.ended(1).await.state, RolloutState::RolledBack { .. }));
        fleet.until(|fleet| fleet.watcher("web-2").machine().told.last() == Some(&first)).await;
        // One that is ended takes it back from who never showed it.
        let other = scan(&fleet, "other").await;
        fleet.watcher("web-2").machine().ignores.insert(other);
        fleet.push("other", &["all"]).await.expect("pushed");
        fleet.until(|fleet| fleet.watcher("web-2").machine().told.contains(&other)).await;
        let id = fleet.rollout(2, |status| status.batch == 1).await.id;
        fleet.steer(id, RolloutSteering::Abort).await.expect("ended");
        fleet.until(|fleet| fleet.watcher("web-2").machine().told.last() == Some(&first)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_makes_current_meanwhile_stays_current() {
    within(async {
        let (mut fleet, _) = Fleet::start(rules(), 2).await;
        let second = scan(&fleet, "second").await;
        fleet.watcher("web-2").machine().ignores.insert(second);
        fleet.push("second", &["all"]).await.expect("pushed");
        fleet.rollout(1, |status| status.batch == 2).await;
        // Moves are told from one another by the second.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let third = fleet.push("third", &[]).await.expect("pushed");
        fleet.leave("web-2");
        fleet.watcher("web-2").machine().ignores.clear();
        fleet.join("web-2");
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
        assert!(fleet.all_show(second) && fleet.current().await == third);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_rollout_takes_the_place_of_one_under_way_or_waits_for_it() {
    within(async {
        let (fleet, first) = Fleet::start(rules(), 3).await;
        let second = scan(&fleet, "second").await;
        fleet.watcher("web-1").machine().ignores.insert(second);
        fleet.push("second", &["all"]).await.expect("pushed");
        fleet.rollout(1, |status| status.batch == 1).await;
        // The same again is the same.
        fleet.push("second", &["all"]).await.expect("pushed");
        assert_eq!(fleet.rollouts().await.len(), 1);
        let third = fleet.push("third", &["all"]).await.expect("pushed");
        assert!(matches!(fleet.ended(1).await.state, RolloutState::Superseded { .. }));
        assert_eq!(fleet.ended(2).await.state, RolloutState::Succeeded);
        assert!(fleet.all_show(third) && fleet.current().await == third && first != third);
    })
    .await;
    within(async {
        let waits = Rules { on_newer: OnNewer::Wait, on_failure: OnFailure::Hold, ..rules() };
        let (fleet, _) = Fleet::start(waits, 2).await;
        let second = scan(&fleet, "second").await;
        fleet.watcher("web-1").refuses(second);
        fleet.push("second", &["all"]).await.expect("pushed");
        let held = fleet.rollout(1, |status| matches!(status.state, RolloutState::Held { .. })).await;
        for word in ["third", "fourth"] {
            fleet.push(word, &["all"]).await.expect("pushed");
        }
        let waits = |status: &RolloutStatus| status.state == RolloutState::Waiting { behind: Some(held.id) };
        fleet.rollout(3, waits).await;
        assert!(matches!(fleet.ended(2).await.state, RolloutState::Superseded { .. }));
        fleet.steer(held.id, RolloutSteering::Resume).await.expect("resumed");
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
        assert_eq!(fleet.ended(3).await.state, RolloutState::Succeeded);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_starts_again_goes_on_with_its_rollouts_and_keeps_what_they_need() {
    within(async {
        let rules = Rules { batch: Share::Members(1), ..rules() };
        let (mut fleet, _) = Fleet::start(rules, 4).await;
        let second = scan(&fleet, "second").await;
        for watcher in fleet.watchers.values() {
            watcher.machine().ignores.insert(second);
        }
        fleet.push("second", &["all"]).await.expect("pushed");
        let remove = |force| Operation::Remove {
            release: format!("app@{second}").parse().expect("a selector"),
            all_labels: true,
            force,
        };
        let error = ask_as(fleet.world.access(), &remove(false)).await.expect_err("it is rolled out");
        assert!(error.to_string().contains("may not be removed"), "{error}");
        for batch in 1..=4 {
            fleet.rollout(1, |status| status.batch == batch).await;
            for target in fleet.watchers.keys().cloned().collect::<Vec<_>>() {
                fleet.leave(&target);
            }
            fleet.world.stop().await;
            fleet.world.again();
            fleet.watchers[&format!("web-{batch}")].machine().ignores.clear();
            for target in fleet.watchers.keys().cloned().collect::<Vec<_>>() {
                fleet.join(&target);
            }
        }
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
        assert!(fleet.all_show(second) && fleet.current().await == second);
        for target in fleet.watchers.keys().cloned().collect::<Vec<_>>() {
            fleet.leave(&target);
        }
        fleet.world.stop().await;
        fleet.world.again();
        assert_eq!(fleet.rollouts().await[0].state, RolloutState::Succeeded);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_whatever_fails_reaches_all_and_moves_nothing_where_too_many_fail() {
    within(async {
        let goes_on = Rules { on_failure: OnFailure::Continue, max_failures: Share::Members(1), ..rules() };
        let (fleet, first) = Fleet::start(goes_on, 4).await;
        let second = scan(&fleet, "second").await;
        fleet.watcher("web-1").refuses(second);
        fleet.push("second", &["all"]).await.expect("pushed");
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
        assert_eq!((fleet.watcher("web-4").shown(), fleet.current().await), (Some(second), second));
        let third = scan(&fleet, "third").await;
        fleet.watcher("web-1").refuses(third);
        fleet.watcher("web-2").refuses(third);
        fleet.push("third", &["all"]).await.expect("pushed");
        let status = fleet.ended(2).await;
        assert_eq!(status.state, RolloutState::Failed { reason: "2 of 4 members failed".to_owned() });
        assert_eq!((fleet.watcher("web-4").shown(), fleet.current().await), (Some(third), second));
        assert_eq!(fleet.watcher("web-1").shown(), Some(first));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_of_a_group_get_a_release_in_their_batch_and_go_back_with_it() {
    within(async {
        let world = World::start_with(|options| {
            let place = |word: &str| options.data.with_file_name(word);
            let (good, broken) = (place("good"), place("broken"));
            std::fs::write(&broken, "no folder").expect("written");
            let local = |path| destination::local(path, OutsideLinks::Refuse);
            options.destinations.insert(name("edge-1"), local(good));
            options.destinations.insert(name("edge-2"), local(broken));
            let edges = |names: &[&str]| Group {
                destinations: names.iter().map(|edge| name(edge)).collect(),
                rules: Rules { healthy_within: 3, ..Rules::default() },
                ..Group::default()
            };
            options.groups.insert(name("one"), edges(&["edge-1"]));
            options.groups.insert(name("both"), edges(&["edge-1", "edge-2"]));
        });
        let fleet = Fleet { world, watchers: BTreeMap::new(), tasks: BTreeMap::new() };
        let first = fleet.push("first", &["one"]).await.expect("pushed");
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
        let shown = || std::fs::read_to_string(fleet.world.path("good/current/file")).expect("it is there");
        assert_eq!(shown(), "first");
        fleet.push("second", &["both"]).await.expect("pushed");
        let status = fleet.ended(2).await;
        assert!(matches!(status.state, RolloutState::RolledBack { .. }), "{status:?}");
        assert_eq!((shown(), fleet.current().await), ("first".to_owned(), first));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rolled_out_is_refused_with_the_reason() {
    within(async {
        let (fleet, _) = Fleet::start(rules(), 1).await;
        let refused = |result: agent::Result<ReleaseId>| {
            let error = result.expect_err("it is refused");
            (error.fault(), error.to_string())
        };
        let folder = fleet.world.path("in-first");
        let options = PushOptions { destinations: vec![name("all")], ..push_options("other", &folder) };
        let other =
            crate::world::push_as(fleet.world.access(), &options).await.map(|receipt| receipt.release);
        let (fault, text) = refused(other);
        assert!(text.contains("no target of `other`") && fault == Fault::Input, "{text}");
        let deliver = Operation::Deliver {
            release: "app".parse().expect("a selector"),
            destinations: vec![name("all")],
            then: Vec::new(),
        };
        let error = ask_as(fleet.world.access(), &deliver).await.expect_err("it is a group");
        assert!(error.to_string().contains("is a group"), "{error}");
        let few = fleet.world.access_with(|grant| grant.destinations = Vec::new());
        let options = PushOptions { destinations: vec![name("all")], ..push_options("app", &folder) };
        let denied = crate::world::push_as(&few, &options).await.map(|receipt| receipt.release);
        assert_eq!(refused(denied).0, Fault::Denied);
        let missing = RolloutId { proxy: [0; 4], number: 1 };
        let error = fleet.steer(missing, RolloutSteering::Abort).await.expect_err("it is not there");
        assert!(error.to_string().contains("no rollout"), "{error}");
    })
    .await;
}

#[test]
fn a_push_and_a_promotion_to_a_group_say_which_rollout_they_began_and_what_became_of_it() {
    let home = Home::new();
    let srv = home.path("srv").display().to_string();
    let config = format!(
        "[destinations.web]\nkind = 'dir'\npath = '{srv}/{{app}}'\n[groups.edges]\ndestinations = ['web']\n"
    );
    std::fs::write(home.path("whit.toml"), config).expect("written");
    let proxy = home.serve(&["--data", "data", "--config", "whit.toml"]);
    let login = proxy.line(|line| line.contains("whit login"));
    home.run(&login.split_whitespace().skip(1).collect::<Vec<_>>()).good();
    let ask = |arguments: &[&str]| home.run(&[arguments, &["--to", "edges", "--json"]].concat()).json();
    for version in ["v1", "v2"] {
        write(&home.path("tree"), "index.html", version);
        let pushed = ask(&["push", "app", "tree", "--label", version]);
        assert_eq!(
            (&pushed["rolled_out"]["state"], &pushed["rolled_out"]["id"]),
            (&"succeeded".into(), &pushed["rollout"])
        );
    }
    let promoted = ask(&["promote", "app@v1"]);
    assert_eq!((&promoted["rolled_out"]["state"], &promoted["app"]), (&"succeeded".into(), &"app".into()));
    let shown = || std::fs::read_to_string(home.path("srv/app/current/index.html")).expect("it is there");
    assert_eq!(shown(), "v1");
    let left = ask(&["promote", "app@v2", "--no-wait"]);
    assert!(left["rollout"].is_string() && left["rolled_out"].is_null(), "{left}");
}
