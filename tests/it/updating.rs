//! A target's updates against a real proxy: stopping, switching, starting, confirming, going back, and what is remembered.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use format::record::Record;
use format::target::{Assignment, TargetReport, TargetState};
use ground::monitor::Monitor;
use protocol::wire::Wanted;
use whit::agent::Session;
use whit::agent::pull::{Layout, PullOptions};
use whit::net::link;
use whit::target::place::{Place, PlaceOptions};
use whit::target::{Error, Gate, Hooks, Listener, Options, Outcome, Reports, StateFile, Target};

use crate::trees::{assert_same, noise, write};
use crate::world::{World, within};

/// Remembers every report.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<TargetReport>>);

impl Listener for Heard {
    fn report(&self, report: &TargetReport) {
        self.0.lock().expect("no panic").push(report.clone());
    }

    fn note(&self, _text: &str) {}
}

/// The word for a state.
pub fn word(state: &TargetState) -> &'static str {
    match state {
        TargetState::Empty => "empty",
        TargetState::Fetching(_) => "fetching",
        TargetState::Switching => "switching",
        TargetState::Confirming => "confirming",
        TargetState::Confirmed => "confirmed",
        TargetState::RolledBack { .. } => "rolled back",
        TargetState::Failed { .. } => "failed",
    }
}

impl Heard {
    /// Returns the states since the last call, each once in a row.
    pub fn states(&self) -> Vec<&'static str> {
        let mut states: Vec<_> =
            self.0.lock().expect("no panic").drain(..).map(|report| word(&report.state)).collect();
        states.dedup();
        states
    }

    pub fn last(&self) -> TargetReport {
        self.0.lock().expect("no panic").last().expect("something was reported").clone()
    }
}

/// Commands that write what they are told, and where, to `log` beside the directory.
pub fn hooks(log: &std::path::Path) -> Hooks {
    let line = |name: &str| {
        format!(
            "echo {name} $WHIT_EVENT $(cat version) >> {}; if [ -e fails-{name} ]; then echo oh no; exit 1; fi",
            log.display()
        )
    };
    Hooks {
        before_release: Some(line("stop")),
        on_release: Some(line("start")),
        confirm: Some(line("check")),
        confirm_within: Duration::from_secs(1),
        healthy_for: Duration::ZERO,
        hook_timeout: Duration::from_secs(60),
        pass_env: Vec::new(),
    }
}

/// A proxy, and a directory that is kept at its releases.
pub struct Site {
    pub world: World,
    pub session: Session,
    pub heard: Arc<Heard>,
    pub hooks: Hooks,
    pub dir: PathBuf,
    layout: Layout,
    keep: Option<usize>,
}

impl Site {
    /// A proxy with releases of `app`, the first one first. A release's files named `fails-…` let its commands fail.
    pub async fn new(layout: Layout, releases: &[&str]) -> (Self, Vec<Record>) {
        let world = World::start();
        for (number, more) in (1..).zip(releases) {
            let tree = world.path(&format!("tree-{number}"));
            write(&tree, "lib", noise(7, 50_000));
            write(&tree, "version", number.to_string());
            if !more.is_empty() {
                write(&tree, more, "");
            }
            world.push("app", &tree).await;
        }
        let mut records = world.releases("app").await.expect("a list");
        records.reverse();
        let session = Session::open(world.access(), &link::Options::default()).await.expect("a session");
        let dir = world.path("dir");
        let hooks = hooks(&world.path("log"));
        (Self { world, session, heard: Arc::default(), hooks, dir, layout, keep: None }, records)
    }

    pub fn try_target(&self) -> Result<Arc<Target>, Error> {
        let options = Options {
            app: "app".parse().expect("a name"),
            directory: self.dir.clone(),
            place: PlaceOptions { layout: Some(self.layout), otherwise: self.layout, shared: None },
            pull: PullOptions { keep: self.keep, ..PullOptions::default() },
            hooks: self.hooks.clone(),
            name: Some("web-1".parse().expect("a name")),
            space: None,
        };
        let reports = Reports::new(Arc::clone(&self.heard) as Arc<dyn Listener>);
        std::thread::scope(|scope| scope.spawn(|| Target::open(options, reports)).join().expect("no panic"))
            .map(Arc::new)
    }

    pub fn target(&self) -> Arc<Target> {
        self.try_target().expect("a target")
    }

    pub async fn update(&self, target: &Arc<Target>, record: &Record, rollout: Option<&str>) -> Outcome {
        let assigned = rollout.map(|rollout| Assignment {
            release: record.release,
            rollout: rollout.parse().expect("an id"),
            group: "web".parse().expect("a name"),
        });
        let wanted = Wanted { record: record.clone(), assigned };
        within(target.update(&self.session, &wanted, &Arc::default())).await.expect("an outcome")
    }

    /// Returns the lines that the commands wrote since the last call.
    pub fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.world.path("log")).unwrap_or_default();
        drop(fs::remove_file(self.world.path("log")));
        log.lines().map(str::to_owned).collect()
    }

    pub fn shows(&self, number: u64) {
        assert_same(&self.world.path(&format!("tree-{number}")), &self.copy());
    }

    /// The folder of the shown copy.
    pub fn copy(&self) -> PathBuf {
        match self.layout {
            Layout::Plain => self.dir.clone(),
            Layout::Releases => self.dir.join("current"),
        }
    }

    /// A person pulls a release, as `whit pull` does.
    pub async fn pull_by_hand(&self, record: &Record) {
        let options = PlaceOptions { layout: None, otherwise: self.layout, shared: None };
        let mut place = Place::open(&self.dir, &options, &ground::monitor::Silent).expect("a place");
        let selector = format!("app@{}", record.release).parse().expect("a selector");
        let monitor: Arc<dyn Monitor> = Arc::new(ground::monitor::Silent);
        let pulling = Box::pin(place.pull(&self.session, &selector, PullOptions::default(), None, &monitor));
        within(pulling).await.expect("pulled");
        let state = StateFile::new(&place.own_folder().expect("a folder"));
        state.note_by_hand(record.release).expect("written");
    }
}

const LAYOUTS: [Layout; 2] = [Layout::Plain, Layout::Releases];
const UPDATE: [&str; 4] = ["fetching", "switching", "confirming", "confirmed"];

#[tokio::test(flavor = "multi_thread")]
async fn the_shown_release_stops_the_new_one_starts_and_is_confirmed() {
    for layout in LAYOUTS {
        let (site, releases) = Site::new(layout, &["", ""]).await;
        let target = site.target();
        assert_eq!(site.heard.states(), ["empty"]);
        assert_eq!(site.update(&target, &releases[0], None).await, Outcome::Settled);
        assert_eq!(site.heard.states(), UPDATE);
        assert_eq!(site.log(), ["start released 1", "check confirming 1"]);
        site.update(&target, &releases[1], Some("00000000-1")).await;
        let last = site.heard.last();
        assert_eq!((last.shown, last.previous), (Some(releases[1].release), Some(releases[0].release)));
        assert_eq!(last.rollout.map(|rollout| rollout.number), Some(1));
        assert!(last.fetched_bytes < 10 && last.saved_bytes > 49_000, "{last:?}");
        assert_eq!(site.heard.states(), UPDATE);
        assert_eq!(site.log(), ["stop before_release 1", "start released 2", "check confirming 2"]);
        site.shows(2);
        // The same once more, for another rollout: nothing runs, and the rollout hears of it.
        site.update(&target, &releases[1], Some("00000000-2")).await;
        assert_eq!((site.heard.last().rollout.map(|rollout| rollout.number), site.log().len()), (Some(2), 0));
        assert_eq!(site.heard.states(), ["confirmed"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_not_confirmed_is_left_and_not_tried_again_by_itself() {
    for (layout, what) in [(Layout::Plain, "fails-check"), (Layout::Releases, "fails-start")] {
        let (site, releases) = Site::new(layout, &["", what, ""]).await;
        let target = site.target();
        site.update(&target, &releases[0], None).await;
        site.heard.states();
        site.log();
        assert_eq!(site.update(&target, &releases[1], None).await, Outcome::Settled);
        let last = site.heard.last();
        assert_eq!((last.shown, last.about), (Some(releases[0].release), Some(releases[1].release)));
        assert_eq!(last.output, "oh no");
        assert_eq!(site.heard.states(), ["fetching", "switching", "confirming", "rolled back"]);
        let log = site.log();
        assert_eq!(log.first().map(String::as_str), Some("stop before_release 1"), "{log:?}");
        assert_eq!(log.last().map(String::as_str), Some("start rolled_back 1"), "{log:?}");
        site.shows(1);
        // Wanted again, by another rollout too: said once each, and nothing is fetched or run. A restart changes nothing.
        for rollout in [None, Some("00000000-3")] {
            site.update(&target, &releases[1], rollout).await;
            let TargetState::RolledBack { reason } = site.heard.last().state else { panic!() };
            assert!(reason.contains("before") && reason.contains("by hand"), "{reason}");
            assert_eq!((site.heard.states(), site.log().len()), (vec!["rolled back"], 0));
        }
        drop(target);
        let target = site.target();
        site.update(&target, &releases[1], Some("00000000-3")).await;
        assert_eq!((site.heard.states(), site.log().len()), (vec!["rolled back"], 0));
        site.update(&target, &releases[2], None).await;
        site.shows(3);
        // A person tries it.
        site.pull_by_hand(&releases[1]).await;
        site.heard.states();
        site.update(&target, &releases[2], None).await;
        site.shows(2);
        assert_eq!(site.heard.last().shown, Some(releases[1].release));
        assert_eq!(site.heard.states(), ["confirming", "failed"]);
        site.update(&target, &releases[1], None).await;
        site.update(&target, &releases[2], None).await;
        site.shows(3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_release_stays_though_it_fails_and_is_never_gone_back_to() {
    for layout in LAYOUTS {
        let (site, releases) = Site::new(layout, &["fails-check", "fails-start", ""]).await;
        let target = site.target();
        for (number, release) in [(1, &releases[0]), (2, &releases[1])] {
            assert_eq!(site.update(&target, release, None).await, Outcome::Settled);
            assert_eq!(site.heard.states().last(), Some(&"failed"));
            site.shows(number);
            site.log();
            site.update(&target, release, Some("00000000-1")).await;
            assert_eq!((site.heard.states(), site.log().len()), (vec!["failed"], 0));
        }
        site.update(&target, &releases[2], None).await;
        assert_eq!(site.heard.states().last(), Some(&"confirmed"));
        site.shows(3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stopped_stays_and_is_started_again() {
    let (site, releases) = Site::new(Layout::Releases, &["fails-stop", ""]).await;
    let target = site.target();
    site.update(&target, &releases[0], None).await;
    site.heard.states();
    site.log();
    assert_eq!(site.update(&target, &releases[1], None).await, Outcome::Again);
    let last = site.heard.last();
    let TargetState::Failed { reason, .. } = &last.state else { panic!("{last:?}") };
    assert!(reason.contains("before the switch") && last.output == "oh no", "{last:?}");
    assert_eq!(site.log(), ["stop before_release 1", "start rolled_back 1"]);
    site.shows(1);
    // It is not the new release's fault.
    fs::remove_file(site.copy().join("fails-stop")).expect("removed");
    assert_eq!(site.update(&target, &releases[1], None).await, Outcome::Settled);
    site.shows(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_fails_before_its_switch_leaves_the_copy_to_go_back_to() {
    for layout in LAYOUTS {
        let (mut site, releases) = Site::new(layout, &["", "fails-stop", ""]).await;
        site.keep = Some(2);
        let target = site.target();
        for release in &releases[..2] {
            site.update(&target, release, None).await;
        }
        assert_eq!(site.update(&target, &releases[2], None).await, Outcome::Again);
        site.shows(2);
        drop(target);
        let options = PlaceOptions { layout: None, otherwise: layout, shared: None };
        let mut place = Place::open(&site.dir, &options, &ground::monitor::Silent).expect("a place");
        place.go_back(None, &ground::monitor::Silent).expect("there is one");
        site.shows(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_was_ended_before_its_switch_changes_nothing() {
    let (site, releases) = Site::new(Layout::Releases, &["", ""]).await;
    let target = site.target();
    site.update(&target, &releases[0], None).await;
    site.log();
    let gate = Arc::new(Gate::default());
    assert!(!gate.end() && !gate.open() && !gate.pass());
    let wanted = Wanted { record: releases[1].clone(), assigned: None };
    within(target.update(&site.session, &wanted, &gate)).await.expect("an outcome");
    assert_eq!(site.log().len(), 0);
    site.shows(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_directory_has_one_watching_target_and_its_users_changes_are_kept() {
    let (site, releases) = Site::new(Layout::Plain, &["", "fails-check"]).await;
    let target = site.target();
    assert!(matches!(site.try_target(), Err(Error::Watched(_))));
    site.update(&target, &releases[0], None).await;
    fs::write(site.dir.join("lib"), "mine").expect("written");
    site.update(&target, &releases[1], None).await;
    assert_eq!(site.heard.states().last(), Some(&"rolled back"));
    let aside = crate::trees::walk_files(&site.world.path(".dir.whit/edited"));
    assert!(aside.iter().any(|file| fs::read(file).is_ok_and(|content| content == b"mine")), "{aside:?}");
    let instance = target.instance();
    drop(target);
    assert_eq!(site.target().instance(), instance);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_is_reported_also_where_the_next_release_is_refused() {
    for layout in LAYOUTS {
        let (site, releases) = Site::new(layout, &["", ""]).await;
        let target = site.target();
        site.update(&target, &releases[0], None).await;
        if layout == Layout::Plain {
            fs::write(site.dir.join("app.log"), "mine").expect("written");
        } else {
            let mine = site.world.path("maintenance");
            fs::create_dir(&mine).expect("created");
            fs::remove_file(site.dir.join("current")).expect("removed");
            std::os::unix::fs::symlink(&mine, site.dir.join("current")).expect("linked");
        }
        site.log();
        site.update(&target, &releases[1], None).await;
        let last = site.heard.last();
        let TargetState::Failed { reason, .. } = &last.state else { panic!("{last:?}") };
        assert!(reason.contains("no pull has put there"), "{reason}");
        // Nobody was stopped; what a person shows in a directory of releases is none of whit's.
        assert_eq!(site.log().len(), 0);
        assert_eq!(last.shown, (layout == Layout::Plain).then_some(releases[0].release));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_back_over_several_releases_that_failed_however_few_copies_are_kept() {
    for (layout, keep) in [(Layout::Plain, None), (Layout::Releases, None), (Layout::Releases, Some(2))] {
        let (mut site, releases) =
            Site::new(layout, &["", "fails-check", "fails-start", "fails-check"]).await;
        site.keep = keep;
        let target = site.target();
        for (number, release) in (1..).zip(&releases) {
            site.update(&target, release, None).await;
            let last = site.heard.states().last().copied();
            assert_eq!(
                last,
                Some(if number == 1 { "confirmed" } else { "rolled back" }),
                "{layout} {number}"
            );
            site.shows(1);
        }
    }
}
