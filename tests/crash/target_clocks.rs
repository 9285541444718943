//! Clocks that jump by a day while releases are rolled out: nothing expires, fails or goes back for it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clocks::clock;
use crate::trees::Shape;
use crate::world::{APP, PATIENCE, Process, World};

const TARGETS: [&str; 2] = ["web-1", "web-2"];
const CONFIG: &str =
    "\n[groups.g]\ntargets = [\"web-*\"]\nbake = \"1s\"\nhealthy_within = \"60s\"\nhealthy_for = \"1s\"\n";

struct Site {
    world: World,
    /// Their check succeeds while it is there.
    up: PathBuf,
    log: PathBuf,
}

impl Site {
    fn watch(&self, name: &str, token: &str) -> Process {
        let dir = self.world.path(name).display().to_string();
        let start = format!("echo $WHIT_TARGET $WHIT_EVENT $(cat version) >> {}", self.log.display());
        let check = format!("test -e {}", self.up.display());
        let words = ["pull", "--watch", APP, &dir, "--token", token, "--on-release", &start];
        let more = ["--confirm", &check, "--confirm-within", "60s", "--healthy-for", "0s"];
        let mut process = self.world.begin(&[&words[..], &more].concat(), None);
        drop(process.lines());
        process
    }

    fn rows(&self, words: &[&str]) -> Vec<Value> {
        self.world.run(words).json().as_array().expect("a list").clone()
    }

    fn until(&self, what: &str, words: &[&str], holds: impl Fn(&[Value]) -> bool) {
        let begin = Instant::now();
        loop {
            let rows = self.rows(words);
            if holds(&rows) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "no {what}: {rows:#?}\n{}", self.world.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn push(&self, version: u64) {
        let tree = self.world.tree(version).display().to_string();
        let done = self.world.run(&["push", APP, &tree, "--to", "g", "--no-wait"]);
        assert!(done.is_good(), "{done:?}");
    }

    /// Waits until all targets are in a state.
    fn until_targets(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        self.until(what, &["targets", APP], |rows| {
            rows.len() == TARGETS.len()
                && rows
                    .iter()
                    .all(|row| row["status"]["reachable"] == true && holds(&row["status"]["known"]["report"]))
        });
    }

    fn until_rolled_out(&self, count: usize) {
        self.until("end of the rollout", &["rollouts", APP], |rows| {
            let last = rows.last().expect("a rollout");
            assert!(last["state"] == "running" || last["state"] == "succeeded", "{last:#}");
            rows.len() == count && last["state"] == "succeeded"
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

#[test]
fn a_clock_that_jumps_by_a_day_changes_no_rollout_and_no_target() {
    let mut world = World::new(Shape::SMALL, 1);
    let told = world.path("clock");
    let Some(below) = clock(&told) else { return };
    let set = |text: &str| fs::write(&told, text).expect("written");
    world.configure_more(CONFIG);
    set("+0d");
    let tokens =
        TARGETS.map(|name| world.new_token(&["--target", name, "--allow", "pull", "--expires", "30d"]));
    let words: Vec<&str> = below.iter().map(String::as_str).collect();
    let mut served = world.try_serve_under(&words).expect("it starts");
    // The proxy and its targets have one clock.
    world.agents_below.clone_from(&below);
    let mut site = Site { up: world.path("up"), log: world.path("commands"), world };
    let start = |site: &Site| -> Vec<Process> {
        TARGETS.iter().zip(&tokens).map(|(name, token)| site.watch(name, token)).collect()
    };
    let mut watches = start(&site);
    fs::write(&site.up, "").expect("written");
    site.until("targets", &["targets", APP], |rows| rows.len() == TARGETS.len());
    site.push(1);
    site.until_rolled_out(1);
    for (count, time) in [(2, "+1d"), (3, "-1d")] {
        fs::remove_file(&site.up).expect("removed");
        site.push(count);
        site.until("target that confirms", &["targets", APP], |rows| {
            rows.iter().any(|row| row["status"]["known"]["report"]["state"] == "confirming")
        });
        set(time);
        // What goes by the clock has had its turn by then.
        std::thread::sleep(Duration::from_millis(1500));
        let last = site.rows(&["rollouts", APP]).pop().expect("a rollout");
        assert_eq!(last["state"], "running", "{last:#}");
        fs::write(&site.up, "").expect("written");
        site.until_rolled_out(usize::try_from(count).expect("small"));
        site.until_targets("release that is confirmed", |report| report["state"] == "confirmed");
    }
    let log = site.log();
    assert!(!log.contains("rolled_back") && log.lines().count() == 3 * TARGETS.len(), "{log}");
    // Idle, and after starts.
    let told = site.rows(&["targets", APP]).iter().map(|row| row["wants"].clone()).collect::<Vec<_>>();
    for time in ["+1d", "+0d"] {
        set(time);
        watches.iter_mut().for_each(Process::kill);
        served.kill();
        served = site.world.try_serve_under(&words).expect("it starts");
        watches = start(&site);
        site.until_targets("target that is back", |report| report["state"] == "confirmed");
    }
    assert_eq!(site.log(), log);
    let wanted = site.rows(&["targets", APP]).iter().map(|row| row["wants"].clone()).collect::<Vec<_>>();
    assert_eq!(wanted, told);
    assert!(site.rows(&["rollouts", APP]).iter().all(|row| row["state"] == "succeeded"));
    assert!(!site.world.log().contains("panicked"), "{}", site.world.log());
}
