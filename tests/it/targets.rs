//! Targets at the proxy: what they hear, what is known of them, and what stays for them.

use std::fs;
use std::time::{Duration, Instant};

use format::record::Progress;
use format::target::{TargetReport, TargetState};
use ground::faults::{Fault, Faulty as _};
use ground::ids::{Label, ReleaseId};
use ground::limits::{TARGET_OUTPUT_BYTES_MAX, TARGET_REASON_BYTES_MAX};
use protocol::token::{Action, claimed};
use protocol::wire::{Answer, FromTarget, ListedTarget, Operation, Watching};
use whit::agent;
use whit::agent::push::PushOptions;

use crate::fake_target::{FakeTarget, access_of, confirmed, hello};
use crate::trees::write;
use crate::world::{World, ask_as, push_options, token, within};

/// Pushes a release that differs by a word, with labels that move to it.
pub async fn push(world: &World, app: &str, word: &str, labels: &[&str]) -> ReleaseId {
    let folder = world.path(&format!("in-{word}"));
    write(&folder, "file", word.as_bytes());
    let labels: Vec<Label> = labels.iter().map(|label| label.parse().expect("a label")).collect();
    let options = PushOptions { labels, moves: true, ..push_options(app, &folder) };
    world.push_with(&options).await.release
}

pub async fn list(world: &World) -> Vec<ListedTarget> {
    let question = Operation::Targets { app: None, watch: false };
    let answers = ask_as(world.access(), &question).await.expect("listed");
    let rows = answers.into_iter().flat_map(|answer| match answer {
        Answer::Targets(rows) => rows,
        other => panic!("{other:?} is no list of targets"),
    });
    rows.collect()
}

/// Lists until the only target is as it is to be.
pub async fn listed(world: &World, is_right: impl Fn(&ListedTarget) -> bool) -> ListedTarget {
    loop {
        let rows = list(world).await;
        if let [row] = &rows[..]
            && is_right(row)
        {
            return row.clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn remove(world: &World, selector: &str) -> agent::Result<Vec<Answer>> {
    let release = selector.parse().expect("a selector");
    ask_as(world.access(), &Operation::Remove { release, all_labels: true, force: false }).await
}

async fn forget(world: &World, target: &str) -> agent::Result<Vec<Answer>> {
    let target = target.parse().expect("a name");
    ask_as(world.access(), &Operation::ForgetTarget { target, app: None }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_hears_of_each_move_of_what_it_follows() {
    within(async {
        let world = World::start();
        let access = access_of(&world, "web-1");
        // It may watch before there is anything.
        let mut current = FakeTarget::watch(&access, "app", 1).await;
        assert!(current.hears_nothing().await);
        let one = push(&world, "app", "one", &["stable"]).await;
        assert_eq!(current.wanted_release().await, one);
        let mut stable = FakeTarget::watch_label(&access_of(&world, "web-2"), "app", "stable", 1).await;
        assert_eq!(stable.wanted_release().await, one);
        let two = push(&world, "app", "two", &["next"]).await;
        let begin = Instant::now();
        assert_eq!(current.wanted_release().await, two);
        assert!(begin.elapsed() < Duration::from_secs(1));
        assert!(stable.hears_nothing().await);
        let label = Operation::Label {
            release: "app@next".parse().expect("a selector"),
            labels: vec!["stable".parse().expect("a label")],
            moves: true,
        };
        ask_as(world.access(), &label).await.expect("labelled");
        assert_eq!(stable.wanted_release().await, two);
        let rollback = Operation::Rollback {
            app: "app".parse().expect("a name"),
            destinations: Vec::new(),
            because: None,
            then: Vec::new(),
        };
        ask_as(world.access(), &rollback).await.expect("rolled back");
        assert_eq!(current.wanted_release().await, one);
        let promote = Operation::Promote {
            release: "app@next".parse().expect("a selector"),
            destinations: Vec::new(),
            because: None,
            then: Vec::new(),
        };
        ask_as(world.access(), &promote).await.expect("promoted");
        assert_eq!(current.wanted_release().await, two);
        // What does not concern it wakes nobody.
        push(&world, "other", "three", &[]).await;
        assert!(current.hears_nothing().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_says_is_listed_and_outlives_the_proxy() {
    within(async {
        let mut world = World::start();
        let one = push(&world, "app", "one", &["v1"]).await;
        let mut target = FakeTarget::watch(&access_of(&world, "web-1"), "app", 1).await;
        assert_eq!(target.wanted_release().await, one);
        let row = listed(&world, |row| row.status.reachable).await;
        assert_eq!((row.status.target.as_str(), row.wants), ("web-1", Some(one)));
        let progress = Progress { bytes: 1, total: 2, files: 1 };
        let state = TargetState::Fetching(progress);
        target
            .report(TargetReport { about: Some(one), state: state.clone(), ..TargetReport::default() })
            .await;
        listed(&world, |row| row.status.known.report.state == state).await;
        target.report(confirmed(one, None)).await;
        let row = listed(&world, |row| row.status.known.report.state == TargetState::Confirmed).await;
        assert_eq!(row.labels[0].as_str(), "v1");
        assert!(row.status.known.since > 0 && row.status.known.seen >= row.status.known.since);
        world.stop().await;
        assert!(target.refused().await.text.contains("stopping"));
        world.again();
        let after = listed(&world, |_| true).await;
        assert!(!after.status.reachable);
        assert_eq!(after.status.known.report, row.status.known.report);
        assert_eq!(after.status.known.since, row.status.known.since);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_takes_the_place_of_itself_and_of_no_other() {
    within(async {
        let world = World::start();
        let one = push(&world, "app", "one", &[]).await;
        let access = access_of(&world, "web-1");
        let mut first = FakeTarget::watch(&access, "app", 1).await;
        assert_eq!(first.wanted_release().await, one);
        let other = FakeTarget::watch(&access, "app", 2).await.refused().await;
        assert_eq!(other.fault, Fault::Retry);
        assert!(other.text.contains("`web-1` is watched from another"), "{other}");
        let mut second = FakeTarget::watch(&access, "app", 1).await;
        assert_eq!(second.wanted_release().await, one);
        assert!(first.refused().await.text.contains("newer stream"));
        // The end of the first is not that of the second.
        second.report(confirmed(one, None)).await;
        let row = listed(&world, |row| row.status.known.report.shown == Some(one)).await;
        assert!(row.status.reachable);
        second.leave().await;
        listed(&world, |row| !row.status.reachable).await;
        let mut third = FakeTarget::watch(&access, "app", 2).await;
        assert_eq!(third.wanted_release().await, one);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_needs_a_token_of_its_own_and_says_little() {
    within(async {
        let world = World::start();
        push(&world, "app", "one", &[]).await;
        let refused = FakeTarget::watch(world.access(), "app", 1).await.refused().await;
        assert_eq!(refused.fault, Fault::Denied);
        assert!(refused.hint.expect("a hint").contains("--target"));
        let reads = world.access_with(|grant| {
            (grant.target, grant.actions) = (Some("web-1".parse().expect("a name")), vec![Action::Read]);
        });
        assert_eq!(FakeTarget::watch(&reads, "app", 1).await.refused().await.fault, Fault::Denied);
        let access = access_of(&world, "web-1");
        let long = |bytes| "x".repeat(bytes);
        let reason = long(TARGET_REASON_BYTES_MAX + 1);
        let report = TargetReport { state: TargetState::RolledBack { reason }, ..TargetReport::default() };
        for hostile in
            [Watching { version: long(65), ..hello("app", 1) }, Watching { report, ..hello("app", 1) }]
        {
            assert_eq!(FakeTarget::begin(&access, hostile).await.refused().await.fault, Fault::Input);
        }
        let output = |bytes| TargetReport { output: long(bytes), ..TargetReport::default() };
        let mut target = FakeTarget::watch(&access, "app", 1).await;
        target.report(output(TARGET_OUTPUT_BYTES_MAX)).await;
        target.report(output(TARGET_OUTPUT_BYTES_MAX + 1)).await;
        assert_eq!(target.refused().await.fault, Fault::Input);
        // A message that is longer than any is not read.
        let mut target = FakeTarget::watch(&access, "app", 1).await;
        target.report(output(100_000)).await;
        assert!(target.refused().await.text.contains("100"));
        // What it is refused for is not remembered.
        assert!(list(&world).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_ends_with_its_token_and_goes_on_with_a_newer_one() {
    within(async {
        let world = World::start();
        let one = push(&world, "app", "one", &[]).await;
        let access = access_of(&world, "web-1");
        let mut target = FakeTarget::watch(&access, "app", 1).await;
        assert_eq!(target.wanted_release().await, one);
        let newer = access_of(&world, "web-1");
        target.send(&FromTarget::Renew(newer.token.clone())).await;
        // A report is taken after it.
        target.report(confirmed(one, None)).await;
        listed(&world, |row| row.status.known.report.shown == Some(one)).await;
        let id = |token: &str| claimed(token).expect("a token").id;
        world.identity().revoke(id(&access.token)).expect("revoked");
        let two = push(&world, "app", "two", &[]).await;
        assert_eq!(target.wanted_release().await, two);
        world.identity().revoke(id(&newer.token)).expect("revoked");
        assert_eq!(target.refused().await.fault, Fault::Denied);
        let other = token(world.identity(), |grant| grant.target = Some("web-2".parse().expect("a name")));
        let mut target = FakeTarget::watch(&access_of(&world, "web-1"), "app", 1).await;
        target.send(&FromTarget::Renew(other)).await;
        assert_eq!(target.refused().await.fault, Fault::Denied);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_needs_stays_until_it_is_forgotten() {
    within(async {
        let mut world = World::start();
        let mut releases = Vec::new();
        for word in ["one", "two", "three", "four", "five"] {
            releases.push(push(&world, "app", word, &[word]).await);
        }
        let mut target = FakeTarget::watch(&access_of(&world, "web-1"), "app", 1).await;
        target.report(confirmed(releases[1], Some(releases[0]))).await;
        listed(&world, |row| row.status.known.report.shown == Some(releases[1])).await;
        let watched = forget(&world, "web-1").await.expect_err("it watches");
        assert_eq!(watched.fault(), Fault::Input);
        target.leave().await;
        // What it said last is written before the proxy ends.
        world.stop().await;
        world.again();
        for held in ["app@one", "app@two"] {
            let refused = remove(&world, held).await.expect_err("a target has it");
            assert!(refused.to_string().contains("target `web-1` has it"), "{refused}");
            assert!(refused.hint().expect("a hint").contains("whit targets forget web-1"));
        }
        remove(&world, "app@three").await.expect("nobody has it");
        assert_eq!(forget(&world, "web-9").await.expect_err("none").fault(), Fault::Missing);
        let forgotten = forget(&world, "web-1").await.expect("forgotten");
        assert!(matches!(&forgotten[..], [Answer::Targets(rows)] if rows.len() == 1), "{forgotten:?}");
        assert!(list(&world).await.is_empty());
        remove(&world, "app@one").await.expect("nobody has it any more");
        let audit = fs::read_to_string(world.path("data/audit.log")).expect("a log");
        assert_eq!(audit.matches(r#""action":"forget""#).count(), 1, "{audit}");
        world.stop().await;
        world.again();
        assert!(list(&world).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_target_is_unreachable_and_one_that_says_that_it_is_there_is_not() {
    within(async {
        let patience = Duration::from_millis(500);
        let world = World::start_with(|options| options.target_patience = patience);
        let one = push(&world, "app", "one", &[]).await;
        let mut target = FakeTarget::watch(&access_of(&world, "web-1"), "app", 1).await;
        target.report(confirmed(one, None)).await;
        for _ in 0..8 {
            tokio::time::sleep(patience / 5).await;
            target.send(&FromTarget::Alive).await;
        }
        assert!(list(&world).await[0].status.reachable);
        assert!(target.refused().await.text.contains("nothing was heard"));
        assert!(!listed(&world, |row| !row.status.reachable).await.status.reachable);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_take_no_requests_connections_or_windows_from_those_who_push() {
    within(async {
        let world = World::start_with(|options| (options.requests_max, options.connections_max) = (2, 8));
        push(&world, "app", "one", &[]).await;
        let mut targets = Vec::new();
        for number in 0..4 {
            let access = access_of(&world, &format!("web-{number}"));
            let mut target = FakeTarget::watch(&access, "app", 1).await;
            target.wanted().await;
            targets.push(target);
        }
        // All of a user's targets have come to half of the connections: one more is refused, a push is not.
        let more = FakeTarget::watch(&access_of(&world, "web-4"), "app", 1).await.refused().await;
        assert_eq!(more.fault, Fault::Retry, "{more}");
        let two = push(&world, "app", "two", &[]).await;
        for target in &mut targets {
            assert_eq!(target.wanted_release().await, two);
        }
    })
    .await;
}
