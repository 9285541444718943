//! A target where a disk, a file or a command fails: nothing that was not confirmed is taken for good, and what is bad stays so.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use disk::files::Lock;
use format::target::TargetState;
use format::watched::Watched;
use protocol::wire::Wanted;
use whit::agent::Session;
use whit::agent::pull::Layout;
use whit::net::link;
use whit::target::{Gate, Outcome, StateFile, Target};

use crate::updating::Site;
use crate::world::within;

const LAYOUTS: [Layout; 2] = [Layout::Plain, Layout::Releases];

/// The folder of what whit keeps beside the release.
fn own_folder(site: &Site, layout: Layout) -> PathBuf {
    match layout {
        Layout::Plain => site.world.path(".dir.whit"),
        Layout::Releases => site.dir.join(".whit"),
    }
}

fn remembered(site: &Site, layout: Layout) -> Watched {
    StateFile::new(&own_folder(site, layout)).read().expect("readable").expect("a state")
}

fn reason(site: &Site) -> String {
    match site.heard.last().state {
        TargetState::Failed { reason, .. } | TargetState::RolledBack { reason } => reason,
        state => panic!("{state:?}"),
    }
}

/// A target that shows the first release, confirmed.
async fn begun(site: &Site, first: &format::record::Record) -> Arc<Target> {
    let target = site.target();
    site.update(&target, first, None).await;
    assert_eq!(site.heard.states().last(), Some(&"confirmed"));
    site.log();
    target
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_a_person_shows_is_started_and_confirmed() {
    for layout in LAYOUTS {
        let (site, releases) = Site::new(layout, &["", ""]).await;
        let target = begun(&site, &releases[1]).await;
        site.pull_by_hand(&releases[0]).await;
        for states in [vec!["confirming", "confirmed"], vec![]] {
            site.update(&target, &releases[1], None).await;
            assert_eq!(site.heard.states(), states);
        }
        assert_eq!(site.log(), ["start released 1", "check confirming 1"]);
        site.shows(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_is_proven_where_a_target_has_lost_its_memory() {
    for (layout, damage) in [(Layout::Plain, true), (Layout::Releases, false)] {
        let (mut site, releases) = Site::new(layout, &["", ""]).await;
        drop(begun(&site, &releases[0]).await);
        let file = own_folder(&site, layout).join("watched");
        let lose = || if damage { fs::write(&file, "no state") } else { fs::remove_file(&file) };
        lose().expect("lost");
        site.update(&site.target(), &releases[0], None).await;
        assert_eq!(site.heard.states(), ["empty", "confirming", "confirmed"]);
        assert_eq!(site.log(), ["start released 1", "check confirming 1"]);
        lose().expect("lost");
        site.hooks.confirm = Some("exit 1".into());
        let target = site.target();
        for _ in 0..2 {
            site.update(&target, &releases[0], None).await;
            assert!(reason(&site).contains("check did not succeed"), "{}", reason(&site));
        }
        site.shows(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_damaged_during_an_update_costs_nothing() {
    for layout in LAYOUTS {
        let (mut site, releases) = Site::new(layout, &["", "fails-check", ""]).await;
        let file = own_folder(&site, layout).join("watched");
        site.hooks.on_release = Some(format!("echo nothing > {}", file.display()));
        let target = begun(&site, &releases[0]).await;
        site.update(&target, &releases[1], None).await;
        assert_eq!(site.heard.states().last(), Some(&"rolled back"));
        site.shows(1);
        assert!(remembered(&site, layout).bad(&releases[1].release).is_some());
        fs::remove_file(&file).expect("removed");
        site.update(&target, &releases[1], None).await;
        assert_eq!(site.heard.states(), ["rolled back"]);
        assert!(remembered(&site, layout).bad(&releases[1].release).is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_written_is_written_later_and_never_taken_back() {
    for layout in LAYOUTS {
        let (mut site, releases) = Site::new(layout, &["", "", ""]).await;
        let file = own_folder(&site, layout).join("watched");
        // A folder in the way of the file is as good as a full disk.
        let fill = format!("rm -f {0}; mkdir -p {0}", file.display());
        site.hooks.on_release = Some(format!("case $(cat version) in 2) {fill};; esac"));
        let target = begun(&site, &releases[0]).await;
        site.update(&target, &releases[1], None).await;
        assert_eq!(site.heard.states().last(), Some(&"confirmed"));
        within(target.flush()).await.expect("the place is there");
        fs::remove_dir(&file).expect("it could not be written");
        within(target.flush()).await.expect("the place is there");
        let written = remembered(&site, layout);
        assert_eq!((written.good, written.trying), (Some(releases[1].release), None));
        // What came later counts.
        site.update(&target, &releases[2], None).await;
        within(target.flush()).await.expect("nothing is to be written");
        assert_eq!(remembered(&site, layout).good, Some(releases[2].release));
        site.shows(3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_stopped_and_a_start_that_fails_is_not_called_safe() {
    for layout in LAYOUTS {
        let (mut site, releases) = Site::new(layout, &["", "fails-check", "fails-check"]).await;
        let target = begun(&site, &releases[0]).await;
        site.update(&target, &releases[1], None).await;
        let log = site.log();
        assert_eq!(log[log.len() - 2..], ["stop before_release 2", "start rolled_back 1"], "{log:?}");
        drop(target);
        let start = site.hooks.on_release.take().expect("a command");
        site.hooks.on_release = Some(format!("{start}; test $WHIT_EVENT != rolled_back"));
        let target = site.target();
        site.heard.states();
        // The release before does not start any more; and wanted again, it is said again.
        for rollout in [None, Some("00000000-1")] {
            site.update(&target, &releases[2], rollout).await;
            assert!(reason(&site).contains("command of the copy before failed"), "{}", reason(&site));
            assert_eq!(site.heard.states().last(), Some(&"failed"));
            site.shows(1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_cannot_be_shown_stops_the_shown_one_three_times_at_most() {
    let (site, releases) = Site::new(Layout::Releases, &["fails-stop", ""]).await;
    let target = begun(&site, &releases[0]).await;
    for _ in 0..3 {
        assert_eq!(site.update(&target, &releases[1], None).await, Outcome::Again);
        assert_eq!(site.log().len(), 2);
    }
    drop(target);
    let target = site.target();
    for _ in 0..2 {
        assert_eq!(site.update(&target, &releases[1], None).await, Outcome::Settled);
        assert_eq!(site.log().len(), 0);
    }
    assert!(reason(&site).contains("before the switch"), "{}", reason(&site));
    // Wanted by a rollout it is another matter.
    assert_eq!(site.update(&target, &releases[1], Some("00000000-1")).await, Outcome::Again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_fails_after_its_exchange_is_not_confirmed() {
    let (mut site, releases) = Site::new(Layout::Plain, &["", ""]).await;
    let own = own_folder(&site, Layout::Plain);
    let (mark, away, edited) = (own.join("pulled"), site.world.path("away"), own.join("edited"));
    // Without its mark all of the old directory is to be set aside, which cannot be done.
    let break_it = format!("mv {} {}; touch {}", mark.display(), away.display(), edited.display());
    site.hooks.before_release = Some(format!("if test $(cat version) = 1; then {break_it}; fi"));
    let target = begun(&site, &releases[0]).await;
    let wanted = Wanted { record: releases[1].clone(), assigned: None };
    within(target.update(&site.session, &wanted, &Arc::default())).await.expect_err("it cannot be finished");
    fs::remove_file(&edited).expect("removed");
    fs::rename(&away, &mark).expect("renamed");
    site.update(&target, &releases[1], None).await;
    let states = site.heard.states();
    assert!(!states.contains(&"confirmed") && states.last() == Some(&"rolled back"), "{states:?}");
    assert_eq!(site.log(), ["start rolled_back 1"]);
    site.shows(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_ended_first_finishes_what_was_begun_before() {
    let (site, releases) = Site::new(Layout::Releases, &["", "", ""]).await;
    let target = begun(&site, &releases[0]).await;
    target.end_soon();
    let wanted = Wanted { record: releases[1].clone(), assigned: None };
    // Ended in the middle of its switch.
    within(target.update(&site.session, &wanted, &Arc::default())).await.expect("an outcome");
    drop(target);
    let target = site.target();
    site.heard.states();
    site.log();
    let gate = Arc::new(Gate::default());
    assert!(!gate.end(), "it waits for what was begun");
    let wanted = Wanted { record: releases[2].clone(), assigned: None };
    within(target.update(&site.session, &wanted, &gate)).await.expect("an outcome");
    let log = site.log();
    assert!(log.ends_with(&["start rolled_back 1".to_owned()]), "{log:?}");
    site.shows(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_directory_is_another_one() {
    let (site, releases) = Site::new(Layout::Releases, &[""]).await;
    let instance = begun(&site, &releases[0]).await.instance();
    assert_eq!(site.target().instance(), instance);
    let own = own_folder(&site, Layout::Releases);
    fs::rename(&own, site.world.path("away")).expect("renamed");
    fs::create_dir(&own).expect("created");
    for name in ["watched", "layout"] {
        fs::copy(site.world.path("away").join(name), own.join(name)).expect("copied");
    }
    assert_ne!(site.target().instance(), instance);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_the_link_or_the_proxy_holds_up_says_why() {
    for layout in LAYOUTS {
        let (mut site, releases) = Site::new(layout, &["", ""]).await;
        let target = begun(&site, &releases[0]).await;
        site.world.stop().await;
        for _ in 0..2 {
            assert_eq!(site.update(&target, &releases[1], None).await, Outcome::Again);
            let last = site.heard.last();
            assert!(matches!(last.state, TargetState::Fetching(_)) && last.is_bounded(), "{last:?}");
            assert!(last.held_up.is_some() && last.about == Some(releases[1].release), "{last:?}");
        }
        site.world.again();
        site.session =
            Session::open(site.world.access(), &link::Options::default()).await.expect("a session");
        site.heard.0.lock().expect("no panic").clear();
        site.update(&target, &releases[1], None).await;
        let heard = site.heard.0.lock().expect("no panic").clone();
        assert!(heard.iter().all(|report| report.held_up.is_none()), "it gets further: {heard:?}");
        site.shows(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_killed_may_hold_its_directory_for_a_moment() {
    for layout in LAYOUTS {
        let (site, _) = Site::new(layout, &[""]).await;
        drop(site.target());
        // As a command that it was about to run does.
        let take = |name| Lock::take(&own_folder(&site, layout).join(name), Duration::ZERO);
        let held = ["lock", "watching"].map(|name| take(name).expect("a file").expect("it is free"));
        let freed = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1500));
            drop(held);
        });
        drop(site.target());
        freed.join().expect("no panic");
    }
}
