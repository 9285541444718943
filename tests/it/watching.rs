//! A target that watches a real proxy: what it follows, when it gives way, how it comes back, how it ends.

use std::fs;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use format::target::TargetReport;
use ground::faults::{Fault, Faulty as _};
use ground::ids::ReleaseId;
use rustix::process::Signal;
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;
use whit::agent::Access;
use whit::agent::pull::{Layout, PullOptions};
use whit::net::link;
use whit::target::place::PlaceOptions;
use whit::target::{Error, Hooks, Listener, Options, Reports, Route, Target, watch};

use crate::fake_target::{FakeTarget, access_of};
use crate::program::Home;
use crate::trees::{assert_same, noise, write};
use crate::updating::{hooks, word};
use crate::world::{World, within};

/// Hands on every report, and may hold up the target meanwhile.
struct Heard {
    reports: Mutex<std::sync::mpsc::Sender<TargetReport>>,
    held_at: Option<(&'static str, Mutex<Receiver<()>>)>,
}

impl Listener for Heard {
    fn report(&self, report: &TargetReport) {
        drop(self.reports.lock().expect("no panic").send(report.clone()));
        if let Some((state, go_on)) = &self.held_at
            && *state == word(&report.state)
        {
            let _goes_on = go_on.lock().expect("no panic").recv();
        }
    }

    fn note(&self, _text: &str) {}
}

/// A target that watches for `dir`.
struct Running {
    reports: Receiver<TargetReport>,
    stop: Sender<u32>,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(world: &World, access: &Access, hooks: Hooks) -> Self {
        Self::start_held(world, access, hooks, None)
    }

    fn start_held(
        world: &World,
        access: &Access,
        hooks: Hooks,
        held_at: Option<(&'static str, Receiver<()>)>,
    ) -> Self {
        let options = Options {
            app: "app".parse().expect("a name"),
            directory: world.path("dir"),
            place: PlaceOptions { layout: None, otherwise: Layout::Releases, shared: None },
            pull: PullOptions::default(),
            hooks,
            name: None,
            space: None,
        };
        let (sender, reports) = channel();
        let held_at = held_at.map(|(state, go_on)| (state, Mutex::new(go_on)));
        let heard = Heard { reports: Mutex::new(sender), held_at };
        let route = Route {
            access: access.clone(),
            token_file: None,
            options: link::Options::default(),
            follows: None,
        };
        let target = Target::open(options, Reports::new(Arc::new(heard))).expect("a target");
        let (stop, stopped) = tokio::sync::watch::channel(0);
        let task = tokio::spawn(watch(Arc::new(target), route, stopped));
        Self { reports, stop, task }
    }

    /// Waits until it reports a state of a release.
    async fn until(&self, state: &str, release: ReleaseId) -> TargetReport {
        within(async {
            loop {
                match self.reports.try_recv() {
                    Ok(report) if word(&report.state) == state && report.about == Some(release) => {
                        return report;
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
    }

    /// Tells it to stop, and returns what it ended with.
    async fn stopped(self) -> Result<(), Error> {
        self.stop.send_replace(1);
        within(self.task).await.expect("no panic")
    }
}

async fn push(world: &World, number: u64) -> ReleaseId {
    let tree = world.path(&format!("tree-{number}"));
    write(&tree, "lib", noise(7, 50_000));
    write(&tree, "version", number.to_string());
    world.push("app", &tree).await.release
}

fn shows(world: &World, number: u64) {
    assert_same(&world.path(&format!("tree-{number}")), &world.path("dir/current"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_follows_each_push_also_after_the_proxy_was_away() {
    let mut world = World::start();
    let address = world.access().url.to_string();
    let port = address.split('#').next().and_then(|url| url.rsplit_once(':')).expect("a port").1;
    let port: u16 = port.parse().expect("a number");
    world.change(|options| options.listen = ([127, 0, 0, 1], port).into());
    let access = access_of(&world, "web-1");
    let running = Running::start(&world, &access, hooks(&world.path("log")));
    let first = push(&world, 1).await;
    running.until("confirmed", first).await;
    shows(&world, 1);
    world.stop().await;
    world.again();
    let second = push(&world, 2).await;
    let report = running.until("confirmed", second).await;
    assert_eq!((report.shown, report.previous), (Some(second), Some(first)));
    shows(&world, 2);
    running.stopped().await.expect("it ends well");
    // What came while nobody watched is skipped, but for the last.
    push(&world, 3).await;
    let last = push(&world, 4).await;
    drop(fs::remove_file(world.path("log")));
    let running = Running::start(&world, &access, hooks(&world.path("log")));
    running.until("confirmed", last).await;
    let log = fs::read_to_string(world.path("log")).expect("commands ran");
    assert!(!log.contains('3') && log.contains("start released 4"), "{log}");
    running.stopped().await.expect("it ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_release_ends_a_fetch_and_waits_for_a_switch() {
    for (held_at, runs_old) in [("fetching", false), ("switching", true)] {
        let world = World::start();
        let mut other = FakeTarget::watch(&access_of(&world, "other"), "app", 1).await;
        let first = push(&world, 1).await;
        assert_eq!(other.wanted_release().await, first);
        let (go_on, held) = channel();
        let access = access_of(&world, "web-1");
        let hooks = hooks(&world.path("log"));
        let running = Running::start_held(&world, &access, hooks, Some((held_at, held)));
        running.until(held_at, first).await;
        let second = push(&world, 2).await;
        assert_eq!(other.wanted_release().await, second);
        // It has been told as well by now, or is within a moment.
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(go_on);
        running.until("confirmed", second).await;
        let log = fs::read_to_string(world.path("log")).expect("commands ran");
        assert_eq!(log.contains("start released 1"), runs_old, "{log}");
        shows(&world, 2);
        running.stopped().await.expect("it ends well");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_told_to_stop_while_it_confirms_goes_on_to_the_end() {
    let world = World::start();
    let access = access_of(&world, "web-1");
    let first = push(&world, 1).await;
    let (go_on, held) = channel();
    let log = hooks(&world.path("log"));
    let running = Running::start_held(&world, &access, log.clone(), Some(("confirming", held)));
    running.until("confirming", first).await;
    running.stop.send_replace(1);
    drop(go_on);
    running.until("confirmed", first).await;
    running.stopped().await.expect("it ends well");
    // The second signal ends it at once; the next start goes back.
    let endless = Hooks {
        confirm: Some("exec sleep 1000".into()),
        confirm_within: Duration::from_secs(3600),
        ..log.clone()
    };
    let running = Running::start(&world, &access, endless);
    let second = push(&world, 2).await;
    running.until("confirming", second).await;
    running.stop.send_replace(1);
    running.stop.send_replace(2);
    within(running.task).await.expect("no panic").expect("it ends well");
    shows(&world, 2);
    let running = Running::start(&world, &access, log);
    let report = running.until("rolled back", second).await;
    assert_eq!(report.shown, Some(first));
    shows(&world, 1);
    running.stopped().await.expect("it ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_refused_at_first_says_so_and_ends() {
    let world = World::start();
    push(&world, 1).await;
    let nobody = world.access_with(|_| {});
    let running = Running::start(&world, &nobody, hooks(&world.path("log")));
    let refused = within(running.task).await.expect("no panic").expect_err("its token is of no target");
    assert_eq!(refused.fault(), Fault::Denied);
}

#[test]
fn the_program_watches_in_lines_of_json_and_ends_well() {
    let home = Home::new();
    let served = home.serve(&["--data", "data"]);
    let url = served.first_line.clone();
    let token = |more: &[&str]| {
        let start = ["token", "create", "--data", "data", "--user", "ci", "--allow", "pull"];
        home.run(&[&start[..], more].concat()).good().trim().to_owned()
    };
    let (push, target) = (token(&["--allow", "push"]), token(&["--target", "web-1"]));
    write(&home.path("tree"), "version", "1");
    home.run(&["push", "app", "tree", "--proxy", &url, "--token", &push]).good();
    let words =
        ["pull", "--watch", "app", "copy", "--json", "--proxy", &url, "--on-release", "test -e version"];
    home.run(&[&words[..], &["--token", &push]].concat()).failed(2, "no target's name");
    let mut watch = home.command(&words);
    watch.env("WHIT_TOKEN", &target);
    let watching = crate::program::Served::start(watch);
    let first: serde_json::Value = serde_json::from_str(&watching.first_line).expect("JSON");
    assert_eq!(first["state"], "empty");
    let begin = std::time::Instant::now();
    while !home.path("copy/current/version").exists() {
        assert!(begin.elapsed() < crate::world::patience(), "nothing is shown");
        std::thread::sleep(Duration::from_millis(5));
    }
    let listed = || home.run(&["pull", "--watch", "app", "copy", "--proxy", &url, "--token", &target]);
    // It works on the directory, or waits for the next release.
    listed().failed(6, "another p");
    assert!(watching.stop(Signal::TERM).success());
    drop(served);
}
