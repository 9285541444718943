//! `kill -9` of a watching target at every step: without the proxy it shows a whole release again, has started what it shows, and does
//! not try by itself what was not confirmed.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use disk::crash_points::POINTS;
use serde_json::Value;

use crate::points::{NEW, SOON, died, release_of, template};
use crate::trees;
use crate::world::{APP, PATIENCE, Process, World, rounds};

/// A target's directory, token and commands.
pub struct Site {
    token: String,
    pub dir: PathBuf,
    pub layout: &'static str,
    pub log: PathBuf,
    /// What it runs when it has started a release.
    pub then: String,
}

/// A target that watches.
pub struct Watch {
    pub process: Process,
    lines: Receiver<String>,
}

impl Site {
    pub fn new(world: &World, layout: &'static str) -> Self {
        let token = world.new_token(&["--target", "t1", "--allow", "pull"]);
        let (dir, log) = (world.path("target"), world.path("commands"));
        Self { token, dir, layout, log, then: "true".to_owned() }
    }

    /// Starts the target; its check succeeds for every release but `bad`.
    pub fn watch(&self, world: &World, bad: &str, crash: Option<&str>) -> Watch {
        let told = |word: &str| format!("echo {word} $WHIT_EVENT $WHIT_RELEASE >> {}", self.log.display());
        let (stop, start) = (told("stop"), format!("{}; {}", told("start"), self.then));
        let check = format!("test \"$WHIT_RELEASE\" != \"{bad}\"");
        let dir = self.dir.display().to_string();
        let label = format!("{APP}@live");
        let words = ["pull", "--watch", &label, &dir, "--token", &self.token, "--layout", self.layout];
        let more =
            ["--on-release", &start, "--confirm", &check, "--confirm-within", "1s", "--healthy-for", "0s"];
        let before = ["--before-release", &stop];
        let mut process = world.begin(&[&words[..], &more, &before].concat(), crash);
        let lines = process.lines();
        Watch { process, lines }
    }

    /// Returns the version that is shown; panics if that is none, or half of one.
    pub fn shows(&self, world: &World, versions: &[u64]) -> u64 {
        let shown = if self.layout == "plain" { self.dir.clone() } else { self.dir.join("current") };
        let shown = fs::canonicalize(shown).expect("something is shown");
        let found = versions.iter().find(|version| trees::is_same(&world.tree(**version), &shown));
        *found.expect("the directory shows no whole release")
    }

    /// Returns the release for which the last command ran that starts one.
    pub fn started(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rfind(|line| line.starts_with("start ")).expect("something was started");
        last.rsplit(' ').next().expect("three words").to_owned()
    }
}

impl Watch {
    /// Waits for a report.
    pub fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        let mut heard = Vec::new();
        while begin.elapsed() < PATIENCE {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else { break };
            let report: Value = serde_json::from_str(&line).expect("a report");
            if is_it(&report) {
                return report;
            }
            heard.push(line);
        }
        panic!("no {what}: {heard:#?}");
    }

    /// Waits until it dies; returns false if it comes to an end with `release` instead.
    fn dies(&mut self, release: &str) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < SOON {
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok(line) => {
                    let report: Value = serde_json::from_str(&line).expect("a report");
                    if is_over(&report) && report["release"] == *release {
                        // The last step comes after the report.
                        return died(self.process.ended(Duration::from_millis(200)));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return died(self.process.ended(SOON)),
            }
        }
        false
    }

    pub fn stop(mut self) {
        self.process.terminate();
        let status = self.process.ended(PATIENCE).expect("it stops");
        assert!(status.success(), "{status}");
    }
}

fn is_over(report: &Value) -> bool {
    ["confirmed", "rolled_back", "failed"].contains(&report["state"].as_str().unwrap_or_default())
}

pub fn label(world: &World, release: &str) {
    let labelled = world.run(&["label", &format!("{APP}@{release}"), "live", "--move"]);
    assert!(labelled.is_good(), "{labelled:?}");
}

/// Runs a case, in which the check of the new release succeeds or fails; returns false if the point was not passed that often.
fn dies_and_goes_back(point: &str, pass: u64, fails: bool, layout: &'static str) -> bool {
    let mut world = template().copy();
    let mut served = world.serve(None);
    let site = Site::new(&world, layout);
    let [old, new] = [2, 3].map(|version| release_of(&world, version));
    label(&world, &old);
    let mut watch = site.watch(&world, "", None);
    watch.until("first release", |report| report["state"] == "confirmed" && report["release"] == *old);
    watch.stop();
    label(&world, &new);
    let bad = if fails { &new } else { "" };
    let mut watch = site.watch(&world, bad, Some(&format!("{point}:{pass}")));
    if !watch.dies(&new) {
        return false;
    }
    served.kill();
    site.shows(&world, &[2, 3]);
    // By itself: its check would succeed now, but nobody has seen it do so.
    let mut watch = site.watch(&world, "", None);
    let report = watch.until("end", is_over);
    watch.stop();
    let shown = site.shows(&world, &[2, 3]);
    let expected = release_of(&world, shown);
    assert_eq!(
        (report["shown"].as_str(), site.started().as_str()),
        (Some(&*expected), &*expected),
        "{report}"
    );
    let is_bad = report["state"] == "rolled_back";
    assert!(shown == 2 || report["state"] == "confirmed", "{report}");
    served = world.serve(None);
    let mut watch = site.watch(&world, "", None);
    if is_bad {
        watch.until("word of what failed before", |report| {
            report["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("went back from this release before"))
        });
    } else {
        watch.until("new release", |report| report["state"] == "confirmed" && report["release"] == *new);
    }
    assert_eq!(site.shows(&world, &[2, 3]), if is_bad { 2 } else { 3 });
    world.push(NEW);
    let newest = release_of(&world, NEW);
    label(&world, &newest);
    watch.until("newest release", |report| report["state"] == "confirmed" && report["release"] == *newest);
    site.shows(&world, &[NEW]);
    assert_eq!(site.started(), newest);
    watch.stop();
    served.terminate();
    assert!(served.ended(PATIENCE).is_some_and(|status| status.success()));
    true
}

/// The steps that are written down in an update that fails.
const WRITES: u64 = 3;

fn end_at_points(fails: bool) {
    let most = rounds("WHIT_CRASH_TARGET_ROUNDS", 1);
    let only = std::env::var("WHIT_CRASH_POINT").ok();
    let is_of_targets = |point: &&str| point.starts_with("watched.") || point.starts_with("update.");
    let mut died = 0;
    for (place, point) in POINTS.into_iter().filter(is_of_targets).enumerate() {
        if only.as_ref().is_some_and(|only| !point.starts_with(only.as_str())) {
            continue;
        }
        let passes = if point.starts_with("watched.") { WRITES } else { 1 };
        for pass in 1..=passes {
            let mut times = 0;
            let layout =
                |times: u64| if (place as u64 + pass + times) % 2 == 0 { "plain" } else { "releases" };
            while times < most && dies_and_goes_back(point, pass, fails, layout(times)) {
                times += 1;
            }
            died += times;
            let is_met = times == most;
            let of_success = ["update.confirmed"];
            let of_failure = ["update.failed", "update.back", "update.restarted"];
            let passed = if fails {
                !of_success.contains(&point)
            } else {
                !of_failure.contains(&point) && pass < WRITES
            };
            assert_eq!(is_met, passed, "{point}:{pass}, fails: {fails}");
        }
    }
    println!("{died} crashes of a target whose release fails: {fails}");
}

#[test]
fn a_target_may_end_at_every_step_of_an_update_that_succeeds() {
    end_at_points(false);
}

#[test]
fn a_target_may_end_at_every_step_of_an_update_that_fails() {
    end_at_points(true);
}
