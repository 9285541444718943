//! What moves the current release, and what that keeps in the store.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use format::current::{MovedBy, Standing};
use format::record::Record;
use ground::faults::{Fault, Faulty as _};
use ground::ids::{AppName, ReleaseId};
use ground::pattern::Pattern;
use protocol::token::Action;
use protocol::wire::{Answer, Operation};
use whit::agent::push::PushOptions;
use whit::ledger::{Change, FileLedger, Key, Ledger};
use whit::store::Records;
use whit::store::retention::{Eviction, Retention, Rules, expire};

use super::{options, promote, pulled, push, rollback_as, standing};
use crate::trees::{noise, write};
use crate::world::{World, ask_as, delivered, push_as, push_options, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_follows_what_a_push_a_promote_and_a_rollback_make_current() {
    within(async {
        let world = World::start();
        let [one, two, three] = [push(&world, "1").await, push(&world, "2").await, push(&world, "3").await];
        assert_eq!(pulled(&world).await, "3");
        let back = rollback_as(world.access()).await.expect("rolled back");
        assert_eq!((back.record.release, back.from, back.rolled_back), (two, Some(three), true));
        assert_eq!(pulled(&world).await, "2");
        let back = rollback_as(world.access()).await.expect("rolled back");
        assert_eq!((back.record.release, pulled(&world).await.as_str()), (one, "1"));
        let error = rollback_as(world.access()).await.expect_err("nothing is before");
        assert_eq!(error.fault(), Fault::Missing, "{error}");
        let (found, log) = standing(&world).await;
        assert_eq!(found, Standing { current: Some(one), previous: None, bad: vec![two, three] });
        let expected = [
            (MovedBy::Rollback, one),
            (MovedBy::Rollback, two),
            (MovedBy::Push, three),
            (MovedBy::Push, two),
            (MovedBy::Push, one),
        ];
        assert_eq!(log, expected);
        // A promoted release is good again, and the one before is the last good one.
        promote(&world, &format!("app@{three}")).await.expect("promoted");
        assert_eq!(pulled(&world).await, "3");
        assert_eq!(standing(&world).await.0.previous, Some(one));
        assert_eq!(rollback_as(world.access()).await.expect("rolled back").record.release, one);
        let again = promote(&world, &format!("app@{one}")).await.expect("it is current already");
        assert_eq!(again.number, None);
        // The latest push can still be named.
        world.pull("app@latest", &world.path("latest")).await.expect("pulled");
        assert_eq!(fs::read_to_string(world.path("latest/file")).expect("a file"), "3");
        let audit = fs::read_to_string(world.path("data/audit.log")).expect("a log");
        assert_eq!(audit.matches(r#""action":"rollback""#).count(), 3, "{audit}");
        assert_eq!(audit.matches(r#""because":"it is slow""#).count(), 3, "{audit}");
        assert_eq!(audit.matches(r#""action":"promote""#).count(), 2, "{audit}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_was_rolled_back_is_pushed_again_only_where_that_is_meant() {
    within(async {
        let world = World::start();
        push(&world, "good").await;
        let bad = push(&world, "bad").await;
        rollback_as(world.access()).await.expect("rolled back");
        let error = push_as(world.access(), &options(&world, "bad")).await.expect_err("it was rolled back");
        assert!(error.fault() == Fault::Input && error.to_string().contains("was rolled back"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("--move")), "{:?}", error.hint());
        assert_eq!(
            (pulled(&world).await.as_str(), world.releases("app").await.expect("listed").len()),
            ("good", 2)
        );
        let kept = PushOptions { keeps_current: true, ..options(&world, "bad") };
        assert_eq!(world.push_with(&kept).await.release, bad);
        assert_eq!(standing(&world).await.0.bad, [bad]);
        let meant = PushOptions { moves: true, ..options(&world, "bad") };
        assert_eq!(world.push_with(&meant).await.release, bad);
        assert_eq!(pulled(&world).await, "bad");
        assert!(standing(&world).await.0.bad.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_leaves_the_current_release_where_it_is_told_to() {
    within(async {
        let world = World::start();
        let first = PushOptions { keeps_current: true, ..options(&world, "first") };
        let first = world.push_with(&first).await.release;
        assert_eq!(standing(&world).await.0.current, Some(first), "there was none before");
        let second = PushOptions { keeps_current: true, ..options(&world, "second") };
        let second = world.push_with(&second).await.release;
        assert_eq!(pulled(&world).await, "first");
        // The same content again, to become current now: one more record, and no chunk.
        let again = push_as(world.access(), &options(&world, "second")).await.expect("pushed");
        assert!(again.unchanged && again.chunks.unseen == 0 && again.sequence == Some(3), "{again:?}");
        assert_eq!(standing(&world).await.0.current, Some(second));
        let again = push_as(world.access(), &options(&world, "second")).await.expect("pushed");
        assert_eq!(again.sequence, Some(3), "nothing changes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pushes_at_once_leave_a_log_in_the_order_of_their_records() {
    within(async {
        let world = World::start();
        let pushes = (0..8).map(|number| {
            let tree = world.path(&format!("tree{number}"));
            write(&tree, "file", format!("{number}"));
            let (access, options) = (world.access().clone(), push_options("app", &tree));
            tokio::spawn(async move { push_as(&access, &options).await.expect("pushed").release })
        });
        for push in pushes.collect::<Vec<_>>() {
            push.await.expect("no panic");
        }
        let records = world.releases("app").await.expect("listed");
        let (found, log) = standing(&world).await;
        let releases: Vec<ReleaseId> = records.iter().map(|record| record.release).collect();
        assert_eq!(log.iter().map(|(_, release)| *release).collect::<Vec<_>>(), releases);
        assert_eq!((found.current, found.previous), (Some(releases[0]), Some(releases[1])));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_passes_over_what_was_removed_and_delivers_what_it_finds() {
    within(async {
        let mut world = World::start();
        let one = push(&world, "1").await;
        let two = push(&world, "2").await;
        push(&world, "3").await;
        let remove = |release: ReleaseId, force| Operation::Remove {
            release: format!("app@{release}").parse().expect("a selector"),
            all_labels: true,
            force,
        };
        for held in [two, standing(&world).await.0.current.expect("current")] {
            let error = ask_as(world.access(), &remove(held, false)).await.expect_err("it is held");
            assert!(error.hint().is_some_and(|hint| hint.contains("--force")), "{error}");
        }
        ask_as(world.access(), &remove(two, true)).await.expect("removed");
        let app = || "app".parse().expect("a name");
        let (destinations, because) = (vec![crate::world::web()], None);
        let rollback = Operation::Rollback { app: app(), destinations, because, then: Vec::new() };
        let answers = ask_as(world.access(), &rollback).await.expect("rolled back");
        let events: Vec<_> = answers
            .iter()
            .filter_map(|answer| match answer {
                Answer::Delivery(event) => Some(event.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(delivered(&events[events.len() - 1..]).files, 1);
        assert_eq!(fs::read_to_string(world.path("web/current/file")).expect("a file"), "1");
        assert_eq!(standing(&world).await.0.current, Some(one));
        // The next start knows it all, and a removed current release gives way to the one before.
        world.stop().await;
        world.again();
        assert_eq!(standing(&world).await.0.current, Some(one));
        push(&world, "4").await;
        ask_as(world.access(), &remove(standing(&world).await.0.current.expect("one"), true))
            .await
            .expect("removed");
        assert_eq!(pulled(&world).await, "1");
        let error = ask_as(world.access(), &remove(one, false)).await.expect_err("it is delivered");
        assert!(error.to_string().contains("current"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_moves_and_delivers_only_what_it_names() {
    within(async {
        let world = World::start();
        push(&world, "1").await;
        push(&world, "2").await;
        let with = |actions: &[Action], to: &[&str]| {
            let destinations: Vec<Pattern> = to.iter().map(|to| to.parse().expect("a pattern")).collect();
            let actions = actions.to_vec();
            world.access_with(|grant| (grant.actions, grant.destinations) = (actions, destinations))
        };
        let promote = |to: &[&str]| Operation::Promote {
            release: "app@latest".parse().expect("a selector"),
            destinations: to.iter().map(|to| to.parse().expect("a name")).collect(),
            because: None,
            then: Vec::new(),
        };
        let cases: [(&[Action], &[&str], bool); 6] = [
            (&[Action::Push, Action::Read], &["*"], false),
            (&[Action::Promote], &["*"], true),
            (&[Action::Deliver], &["*"], true),
            (&[Action::Promote], &["other"], false),
            (&[Action::Deliver], &["other"], false),
            (&[Action::Admin], &["*"], false),
        ];
        for (actions, to, is_good) in cases {
            let asked = ask_as(&with(actions, to), &promote(&["web"])).await;
            let is_denied = asked.as_ref().is_err_and(|error| error.fault() == Fault::Denied);
            assert_eq!((asked.is_ok(), is_denied), (is_good, !is_good), "{actions:?} {to:?} {asked:?}");
        }
        let error = rollback_as(&with(&[Action::Push], &["*"])).await.expect_err("not allowed");
        assert_eq!(error.fault(), Fault::Denied, "{error}");
        let long = Operation::Promote {
            release: "app@latest".parse().expect("a selector"),
            destinations: Vec::new(),
            because: Some("x".repeat(1001)),
            then: Vec::new(),
        };
        assert_eq!(ask_as(world.access(), &long).await.expect_err("too long").fault(), Fault::Input);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_current_and_the_one_before_survive_rules_and_a_full_store() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        let mut releases = Vec::new();
        for seed in 0..6 {
            write(&tree, "file", noise(seed, 200_000));
            releases.push(world.push("app", &tree).await.release);
        }
        // The third is current, the sixth before it.
        promote(&world, &format!("app@{}", releases[2])).await.expect("promoted");
        world.stop().await;
        let store = world.store();
        // A delivery of the fifth is queued while usage is counted.
        let is_queued = |_: &AppName, release: &ReleaseId| *release == releases[4];
        let mut eviction = Eviction::of(&store, 1, &[releases[0]]).expect("usage");
        let mut gone = Vec::new();
        while let Some((_, release)) = eviction.next(&store, &is_queued).expect("evicted") {
            gone.push(release);
        }
        gone.sort_by_key(|release| releases.iter().position(|other| other == release));
        assert_eq!(gone, [releases[1], releases[3]]);
        let app: Pattern = "app".parse().expect("a pattern");
        let rules = Rules {
            apps: vec![(app, Retention { keep_last: Some(1), ..Retention::default() })],
            size_max: None,
        };
        let waits = |app: &AppName, release: &ReleaseId| *release == releases[0] || is_queued(app, release);
        assert!(expire(&store, &rules, &waits).expect("expired").is_empty(), "deliveries wait");
        // One is queued after the rules have chosen what goes.
        let asked = Cell::new(0);
        let waits_now = |app: &AppName, release: &ReleaseId| {
            asked.set(asked.get() + u32::from(*release == releases[0]));
            (*release == releases[0] && asked.get() > 1) || is_queued(app, release)
        };
        assert!(expire(&store, &rules, &waits_now).expect("expired").is_empty());
        assert_eq!(asked.get(), 2, "it is asked for again at the last moment");
        let expired: Vec<ReleaseId> = expire(&store, &rules, &is_queued)
            .expect("expired")
            .into_iter()
            .map(|(_, release)| release)
            .collect();
        assert_eq!(expired, [releases[0]]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_the_time_of_its_releases_first_push_however_often_it_is_pushed() {
    within(async {
        let mut world = World::start();
        let first = push(&world, "1").await;
        push(&world, "2").await;
        assert_eq!(push(&world, "1").await, first);
        world.stop().await;
        // As if the first push had been long ago.
        let ledger = FileLedger::of_data(&world.path("data"), Instant::now);
        let (space, app) = ("default".parse().expect("a name"), "app".parse().expect("a name"));
        let key = Key::Record { space, app, number: 1 };
        let record = Records::decode(&ledger.read(&key).expect("read").expect("a record")).expect("whole");
        assert_eq!((record.sequence, record.release), (1, first));
        let value = Records::encode(&Record { created: 1_000_000_000, ..record });
        ledger.apply(&[Change::Put { key, value }]).expect("written");
        fs::remove_file(world.space().join("releases/app/history")).expect("removed");
        world.again();
        let release = format!("app@{first}").parse().expect("a selector");
        let destinations = vec![crate::world::web()];
        ask_as(world.access(), &Operation::Deliver { release, destinations, then: Vec::new() })
            .await
            .expect("delivered");
        let file = fs::metadata(world.path("web/current/file")).expect("a file");
        assert_eq!(file.mtime(), 1_000_000_000);
    })
    .await;
}
