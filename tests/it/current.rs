//! The current release: what moves it, what follows it, and what it keeps in the store.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use format::current::{CurrentEntry, ENTRIES_MAX, MovedBy, Standing};
use format::manifest::Totals;
use format::record::{Cost, Record};
use ground::faults::{Fault, Faulty};
use ground::ids::{Label, ReleaseId, UserName};
use ground::pattern::Pattern;
use protocol::token::Action;
use protocol::wire::{Answer, Moved, Operation};
use whit::agent;
use whit::agent::Access;
use whit::agent::push::PushOptions;
use whit::ledger::{Change, FileLedger, Key, Ledger};
use whit::store::retention::{Eviction, Retention, Rules, expire};
use whit::store::{self, Intent, Mover, Records};

use crate::trees::{noise, write};
use crate::world::{World, ask_as, delivered, push_as, push_options, records, within};

fn label(text: &str) -> Label {
    text.parse().expect("a label")
}

fn options(world: &World, content: &str) -> PushOptions {
    let tree = world.path("tree");
    write(&tree, "file", content);
    push_options("app", &tree)
}

/// Pushes content; returns its release.
async fn push(world: &World, content: &str) -> ReleaseId {
    world.push_with(&options(world, content)).await.release
}

/// Returns what a bare pull brings.
async fn pulled(world: &World) -> String {
    world.pull("app", &world.path("pulled")).await.expect("pulled");
    fs::read_to_string(world.path("pulled/file")).expect("a file")
}

fn labelled(world: &World, content: &str, text: &str, moves: bool) -> PushOptions {
    PushOptions { labels: vec![label(text)], moves, ..options(world, content) }
}

async fn rollback_as(access: &Access) -> agent::Result<Moved> {
    let app = "app".parse().expect("a name");
    let because = Some("it is slow".to_owned());
    Ok(moved(
        ask_as(access, &Operation::Rollback { app, destinations: Vec::new(), because, then: Vec::new() })
            .await?,
    ))
}

fn moved(answers: Vec<Answer>) -> Moved {
    let mut moved = answers.into_iter().filter_map(|answer| match answer {
        Answer::Moved(moved) => Some(*moved),
        _ => None,
    });
    moved.next().expect("it says what moved")
}

async fn promote(world: &World, selector: &str) -> agent::Result<Moved> {
    let release = selector.parse().expect("a selector");
    let promote = Operation::Promote { release, destinations: Vec::new(), because: None, then: Vec::new() };
    Ok(moved(ask_as(world.access(), &promote).await?))
}

async fn standing(world: &World) -> (Standing, Vec<(MovedBy, ReleaseId)>) {
    let app = "app".parse().expect("a name");
    let answers = ask_as(world.access(), &Operation::Current { app, log: true }).await.expect("answered");
    let (mut standing, mut log) = (Standing::default(), Vec::new());
    for answer in answers {
        match answer {
            Answer::Standing(found) => standing = found,
            Answer::Log(entries) => log.extend(entries.iter().map(|entry| (entry.by, entry.release))),
            other => panic!("{other:?}"),
        }
    }
    (standing, log)
}

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
async fn a_label_is_a_fixed_name_that_moves_only_where_that_is_meant() {
    within(async {
        let mut world = World::start();
        let one = world.push_with(&labelled(&world, "1", "v1", false)).await.release;
        let refused =
            push_as(world.access(), &labelled(&world, "2", "v1", false)).await.expect_err("it names another");
        assert!(refused.fault() == Fault::Input && refused.to_string().contains("`v1`"), "{refused}");
        assert_eq!(world.releases("app").await.expect("listed").len(), 1);
        let two = push_as(world.access(), &labelled(&world, "2", "v2", false)).await.expect("pushed");
        let two = two.release;
        let set = |selector: &str, labels: &[&str], moves| Operation::Label {
            release: selector.parse().expect("a selector"),
            labels: labels.iter().map(|text| label(text)).collect(),
            moves,
        };
        let taken = ask_as(world.access(), &set("app@v2", &["stable", "v1"], false)).await;
        assert_eq!(taken.expect_err("it names another").fault(), Fault::Input);
        assert!(world.pull("app@stable", &world.path("pulled")).await.is_err(), "all or none");
        ask_as(world.access(), &set("app@v2", &["stable", "v1"], true)).await.expect("labelled");
        ask_as(world.access(), &set("app@v2", &["stable"], false)).await.expect("it names that one");
        for bad in ["latest", "abcdef"] {
            assert_eq!(
                ask_as(world.access(), &set("app", &[bad], true)).await.expect_err("refused").fault(),
                Fault::Input
            );
        }
        let shown = async |world: &World| -> Vec<(ReleaseId, String)> {
            let records = world.releases("app").await.expect("listed");
            let words =
                |record: &Record| record.labels.iter().map(Label::as_str).collect::<Vec<_>>().join(" ");
            records.iter().map(|record| (record.release, words(record))).collect()
        };
        assert_eq!(shown(&world).await, [(two, "v2 stable v1".to_owned()), (one, String::new())]);
        world.stop().await;
        world.again();
        assert_eq!(shown(&world).await, [(two, "v2 stable v1".to_owned()), (one, String::new())]);
        world.pull("app@v1", &world.path("pulled")).await.expect("pulled");
        assert_eq!(fs::read_to_string(world.path("pulled/file")).expect("a file"), "2");
        let unlabel = |labels: &[&str]| Operation::Unlabel {
            app: "app".parse().expect("a name"),
            labels: labels.iter().map(|text| label(text)).collect(),
        };
        let error = ask_as(world.access(), &unlabel(&["v1", "nothing"])).await.expect_err("there is none");
        assert_eq!(error.fault(), Fault::Missing, "{error}");
        ask_as(world.access(), &unlabel(&["v1", "v2"])).await.expect("taken away");
        assert_eq!(shown(&world).await, [(two, "stable".to_owned()), (one, String::new())]);
        // A push may give the label again, and is then what it means.
        world.push_with(&labelled(&world, "3", "v1", false)).await;
        assert_eq!(shown(&world).await[0].1, "v1");
        let denied = world.access_with(|grant| grant.actions = vec![Action::Read]);
        assert_eq!(ask_as(&denied, &unlabel(&["v1"])).await.expect_err("denied").fault(), Fault::Denied);
        let audit = fs::read_to_string(world.path("data/audit.log")).expect("a log");
        assert!(
            audit.contains(r#""action":"label""#) && audit.contains(r#""labels":["stable","v1"]"#),
            "{audit}"
        );
        assert_eq!(audit.matches(r#""action":"unlabel""#).count(), 2, "{audit}");
    })
    .await;
}

fn record(seed: u64, labels: &[&str]) -> Record {
    Record {
        app: "app".parse().expect("a name"),
        release: ReleaseId::of(&seed.to_le_bytes()),
        sequence: 0,
        created: seed,
        user: "ada".parse().expect("a name"),
        labels: labels.iter().map(|text| label(text)).collect(),
        totals: Totals::default(),
        cost: Cost::default(),
    }
}

fn mover(user: &UserName) -> Mover<'_> {
    Mover { user, token: "", time: 7, because: None }
}

#[test]
fn an_entry_without_its_record_never_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let one = records(folder.path()).add(record(1, &[])).expect("recorded");
    let app = || "app".parse().expect("a name");
    // Killed between the entry and the record: the ledger has the first of the two.
    let ledger = Arc::new(FileLedger::of_space(folder.path(), Instant::now));
    let key = Key::Current { space: "alone".parse().expect("a name"), app: app(), number: 2 };
    let entry = CurrentEntry {
        release: ReleaseId::of(&2u64.to_le_bytes()),
        from: Some(one.release),
        record: Some(2),
        by: MovedBy::Push,
        user: "ada".parse().expect("a name"),
        token: String::new(),
        time: 2,
        because: None,
        back: vec![one.release],
        bad: Vec::new(),
    };
    let written = || ledger.apply(&[Change::Create { key: key.clone(), value: entry.encode() }]);
    written().expect("written");
    let opened = records(folder.path());
    assert_eq!(opened.standing(&app()).current, Some(one.release));
    assert!(!ledger.has(&key).expect("known"), "it is removed");
    // Another release gets the record's number: an entry that came back would still not count.
    let three = opened.add(record(3, &[])).expect("recorded");
    assert_eq!(three.sequence, 2);
    drop(opened);
    let key = Key::Current { space: "alone".parse().expect("a name"), app: app(), number: 9 };
    ledger.apply(&[Change::Put { key, value: entry.encode() }]).expect("written");
    assert_eq!(records(folder.path()).standing(&app()).current, Some(three.release));
}

#[test]
fn an_application_of_before_has_no_log_until_something_moves() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let app = || "app".parse().expect("a name");
    let all: Vec<Record> = {
        let records = records(folder.path());
        (1..=3).map(|seed| records.add(record(seed, &[])).expect("recorded")).collect()
    };
    fs::remove_dir_all(folder.path().join("releases/app/current")).expect("removed");
    let open = records(folder.path());
    let standing = open.standing(&app());
    assert_eq!((standing.current, standing.previous), (Some(all[2].release), Some(all[1].release)));
    assert!(open.log(&app(), u64::MAX, 10).expect("read").is_empty());
    // A push that keeps the current release says which that is.
    let intent = Intent { token: "", keeps_current: true, moves: false };
    open.add_with(record(4, &[]), intent, Vec::new).expect("recorded");
    assert_eq!(open.standing(&app()).current, Some(all[2].release));
    let user = "ada".parse().expect("a name");
    let (from, to) = (&all[2].release, &all[1].release);
    open.roll_back(&app(), (from, to), &mover(&user), Vec::new).expect("rolled back");
    let moved = open.roll_back(&app(), (from, to), &mover(&user), Vec::new).expect_err("it was moved");
    assert_eq!(moved.fault(), Fault::Retry, "{moved}");
    assert_eq!(records(folder.path()).standing(&app()), open.standing(&app()));
    assert_eq!(open.standing(&app()).previous, Some(all[0].release));
}

#[test]
fn a_log_does_not_grow_without_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let app = || "app".parse().expect("a name");
    let open = records(folder.path());
    let both = [1, 2].map(|seed| open.add(record(seed, &[])).expect("recorded").release);
    let user = "ada".parse().expect("a name");
    for step in 0..ENTRIES_MAX + 150 {
        let release = &both[usize::try_from(step % 2).expect("small")];
        open.promote(&app(), release, &mover(&user), Vec::new).expect("promoted").expect("it moved");
    }
    let log = open.log(&app(), u64::MAX, usize::MAX).expect("read");
    assert!((ENTRIES_MAX..ENTRIES_MAX + 100).contains(&(log.len() as u64)), "{}", log.len());
    assert_eq!(records(folder.path()).standing(&app()), open.standing(&app()));
}

#[test]
fn a_label_of_a_removed_release_does_not_come_back_with_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (app, user) = ("app".parse().expect("a name"), "ada".parse().expect("a name"));
    let open = records(folder.path());
    let [one, two, three] = [1, 2, 3].map(|seed| open.add(record(seed, &[])).expect("recorded").release);
    open.label(&app, &one, &[label("stable")], false, &mover(&user)).expect("labelled");
    assert!(matches!(
        open.label(&app, &two, &[label("stable")], false, &mover(&user)),
        Err(store::Error::LabelTaken { release, .. }) if release == one
    ));
    let by_label = Retention {
        keep_last: Some(1),
        keep_labels: vec!["st*".parse().expect("a pattern")],
        ..Retention::default()
    };
    let expired = by_label.expired(&open.pushed(&app).expect("pushes"), |_| false);
    assert_eq!(expired, [two], "the label keeps the first, the number the third");
    open.remove(&app, &one).expect("removed");
    open.add(record(1, &[])).expect("recorded");
    let select = |open: &Records, at: &str| open.select(&format!("app@{at}").parse().expect("a selector"));
    assert!(select(&open, "stable").is_err() && select(&records(folder.path()), "stable").is_err());
    assert!(open.remove(&app, &three).is_err(), "a rollback goes back to it");
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
        let mut eviction = Eviction::of(&store, 1, &[releases[0]]).expect("usage");
        let mut gone = Vec::new();
        while let Some((_, release)) = eviction.next(&store).expect("evicted") {
            gone.push(release);
        }
        gone.sort_by_key(|release| releases.iter().position(|other| other == release));
        assert_eq!(gone, [releases[1], releases[3], releases[4]]);
        let app: Pattern = "app".parse().expect("a pattern");
        let rules = Rules {
            apps: vec![(app, Retention { keep_last: Some(1), ..Retention::default() })],
            size_max: None,
        };
        assert!(expire(&store, &rules, &[releases[0]]).expect("expired").is_empty(), "a delivery waits");
        let expired: Vec<ReleaseId> =
            expire(&store, &rules, &[]).expect("expired").into_iter().map(|(_, release)| release).collect();
        assert_eq!(expired, [releases[0]]);
    })
    .await;
}
