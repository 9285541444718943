//! Groups of machines that run `whit pull --watch`, as people and CI use them: by the installed program alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Home, Ran, Served};
use crate::trees::write;
use crate::world::patience;

/// Short enough for a test, long enough for a slow machine.
const WITHIN: &str = "healthy_within = '90s'";

/// A proxy, and machines that watch it.
struct Site {
    home: Home,
    token: String,
    machines: BTreeMap<String, (String, Option<Served>)>,
    proxy: Served,
}

impl Site {
    /// A proxy with this configuration, and so many machines that show the first release, `v1`.
    fn new(config: &str, count: usize) -> Self {
        let home = Home::new();
        fs::write(home.path("whit.toml"), config).expect("written");
        let proxy = home.serve(&["--data", "data", "--config", "whit.toml"]);
        let token = |more: &[&str]| {
            let start = ["token", "create", "--data", "data"];
            home.run(&[&start[..], more].concat()).good().trim().to_owned()
        };
        let machines = (1..=count).map(|number| {
            let name = format!("web-{number}");
            (name.clone(), (token(&["--user", "web", "--target", &name, "--allow", "pull"]), None))
        });
        let (machines, token) =
            (machines.collect(), token(&["--user", "ci", "--allow", "push,pull,read,deliver,admin"]));
        let mut site = Self { home, token, machines, proxy };
        for name in site.machines.keys().cloned().collect::<Vec<_>>() {
            site.join(&name);
        }
        site.until_targets(|rows| rows.len() == count);
        site.push("v1", "", &[]).good();
        site.until_targets(|rows| {
            rows.iter().all(|row| row["status"]["known"]["report"]["state"] == "confirmed")
        });
        site
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// Starts a machine. Its check fails for releases that have a file `bad-` with its name.
    fn join(&mut self, name: &str) {
        let token = self.machines[name].0.clone();
        let layout = if name.ends_with(['1', '3']) { "releases" } else { "plain" };
        let start = format!(
            "echo $WHIT_EVENT $(cat version) >> {}",
            self.home.path(&format!("log-{name}")).display()
        );
        let check = "test ! -e bad-$WHIT_TARGET && test ! -e bad-all || { echo no; exit 1; }";
        let watch = ["pull", "--watch", "app", name, "--json", "--layout", layout, "--on-release", &start];
        let confirm = ["--confirm", check, "--confirm-within", "1s", "--healthy-for", "0s"];
        let mut command = self.home.command(&[&watch[..], &confirm].concat());
        command.env("WHIT_PROXY", &self.proxy.first_line).env("WHIT_TOKEN", token);
        let served = Served::start(command);
        self.machines.get_mut(name).expect("a machine").1 = Some(served);
    }

    fn leave(&mut self, name: &str) {
        let watching = self.machines.get_mut(name).expect("a machine").1.take().expect("it watches");
        assert!(watching.stop(Signal::TERM).success());
        self.until_targets(|rows| {
            rows.iter().any(|row| row["status"]["target"] == *name && row["status"]["reachable"] == false)
        });
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.home.command(arguments);
        command.env("WHIT_PROXY", &self.proxy.first_line).env("WHIT_TOKEN", &self.token);
        crate::program::finish(command.spawn().expect("it starts"))
    }

    /// Pushes a release with the label `version`, and a file named `bad` if that is a name.
    fn push(&self, version: &str, bad: &str, more: &[&str]) -> Ran {
        let tree = self.home.path(&format!("tree-{version}"));
        write(&tree, "version", version);
        if !bad.is_empty() {
            write(&tree, bad, "");
        }
        let tree = tree.display().to_string();
        self.run(&[&["push", "app", &tree, "--label", version][..], more].concat())
    }

    fn targets(&self) -> Vec<Value> {
        let listed = self.run(&["targets", "app", "--json"]).json();
        listed.as_array().expect("a list").clone()
    }

    fn until_targets(&self, holds: impl Fn(&[Value]) -> bool) {
        let begin = Instant::now();
        loop {
            let rows = self.targets();
            if holds(&rows) {
                return;
            }
            assert!(begin.elapsed() < patience(), "{rows:#?}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Returns the rollouts, oldest first.
    fn rollouts(&self) -> Vec<Value> {
        self.run(&["rollouts", "app", "--json"]).json().as_array().expect("a list").clone()
    }

    /// Waits until the last rollout is as it is to be; returns it.
    fn rollout(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let last = self.rollouts().pop().unwrap_or_default();
            if holds(&last) {
                return last;
            }
            assert!(begin.elapsed() < patience(), "{last:#}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Returns the version that a machine shows.
    fn shows(&self, name: &str) -> String {
        let dir = self.dir(name);
        let version = fs::read_to_string(dir.join("current/version"));
        version.or_else(|_| fs::read_to_string(dir.join("version"))).expect("it shows a release")
    }

    fn all_show(&self, version: &str) -> bool {
        self.machines.keys().all(|name| self.shows(name) == version)
    }

    fn until_shows(&self, name: &str, version: &str) {
        let begin = Instant::now();
        while self.shows(name) != version {
            assert!(begin.elapsed() < patience(), "{name} shows {}", self.shows(name));
            std::thread::sleep(Duration::from_millis(20));
        }
        self.until_targets(|rows| {
            rows.iter().all(|row| {
                row["status"]["target"] != *name || row["status"]["known"]["report"]["shown"] == row["wants"]
            })
        });
    }

    /// Returns what a machine was told to start, one line for each time.
    fn log(&self, name: &str) -> Vec<String> {
        let log = fs::read_to_string(self.home.path(&format!("log-{name}"))).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Returns the version that is current.
    fn current(&self) -> String {
        self.run(&["cat", "app", "version"]).good()
    }
}

fn group(more: &str) -> String {
    format!("[groups.all]\ntargets = ['web-*']\n{WITHIN}\n{more}\n")
}

#[test]
fn a_canary_fails_goes_back_and_the_release_that_mends_it_reaches_all() {
    let site = Site::new(&group("canary = 1\nbatch = '50%'"), 4);
    let to = ["--to", "all"];
    let failed = site.push("v2", "bad-web-1", &to);
    let failed = failed.failed(9, "rolled back, as 1 of 4 members failed");
    // It goes back to the end.
    let after = failed.err.split("goes back").nth(1).unwrap_or_default();
    assert!(!after.contains("0 of 4 confirmed"), "{failed:?}");
    // Who failed and why stays with the rollout.
    let why = "failed (web-1: the check did not succeed within";
    assert!(failed.err.contains("batch 1 of 3") && failed.err.contains(why), "{failed:?}");
    let id = site.rollouts()[0]["id"].as_str().expect("an id").to_owned();
    assert!(failed.err.contains(&format!("`whit rollouts {id}` shows each member")), "{failed:?}");
    let listed = site.run(&["rollouts", &id]).good();
    assert!(listed.contains("is back; had failed: the check did not succeed within"), "{listed}");
    assert!(site.rollouts()[0]["members"][0]["before"]["failed"]["reason"].is_string());
    site.run(&["rollouts", "5499220e-99"]).failed(3, "there is no rollout 5499220e-99");
    assert!(site.all_show("v1"));
    assert_eq!(site.current(), "v1");
    assert_eq!(site.log("web-1"), ["released v1", "released v2", "rolled_back v1"]);
    let listed = site.run(&["targets", "app"]).good();
    assert!(listed.contains("rolled back from") && listed.contains("\n    no\n"), "{listed}");
    // A later member, of a batch: those before it go back as well.
    site.push("v3", "bad-web-3", &to).failed(9, "rolled back");
    assert!(site.all_show("v1") && site.current() == "v1");
    assert_eq!(site.log("web-4"), ["released v1"]);
    site.push("v4", "", &to).good();
    assert!(site.all_show("v4") && site.current() == "v4");
    // The bad one under a new number: nothing is tried that failed here before.
    let ran = site.log("web-1").len();
    let again = site.push("v2", "", &["--to", "all", "--label", "v5"]);
    again.failed(9, "rolled back, as 1 of 4 members failed");
    let listed = site.run(&["targets", "app"]).good();
    assert!(listed.contains("went back from this release before"), "{listed}");
    assert!(site.all_show("v4") && site.current() == "v4");
    assert_eq!(site.log("web-1").len(), ran);
    // Forwards and back by promotion.
    site.run(&["promote", "app@v1", "--to", "all"]).good();
    assert!(site.all_show("v1") && site.current() == "v1");
    assert!(site.rollouts().len() >= 5);
}

#[test]
fn a_group_whose_every_member_fails_goes_back_and_whoever_goes_on_moves_nothing() {
    for (more, (ends, code)) in [
        ("batch = '100%'", ("rolled_back", 9)),
        ("batch = 2\nmax_failures = '100%'", ("rolled_back", 9)),
        ("batch = '100%'\nmax_failures = '100%'\non_failure = 'continue'", ("failed", 10)),
    ] {
        let site = Site::new(&group(more), 3);
        site.push("v2", "bad-all", &["--to", "all"]).failed(code, "of 3 members failed");
        let last = site.rollout(|last| last["state"].is_object());
        assert!(last["state"][ends].is_object(), "{more}: {last:#}");
        assert!(site.all_show("v1") && site.current() == "v1", "{more}");
        site.push("v3", "", &["--to", "all"]).good();
        assert!(site.all_show("v3") && site.current() == "v3", "{more}");
    }
}

#[test]
fn a_machine_that_was_away_comes_to_the_last_release_and_keeps_what_it_has_until_then() {
    let config = group("max_failures = 1\nbatch = 3").replace("90s", "2s");
    let mut site = Site::new(&config, 3);
    site.leave("web-2");
    for version in ["v2", "v3"] {
        site.push(version, "", &["--to", "all"]).good();
    }
    let refused = site.run(&["rm", "app@v1"]).failed(2, "may not be removed");
    assert!(refused.err.contains("web-2"), "{refused:?}");
    assert_eq!(site.shows("web-2"), "v1");
    // Whoever insists takes only the way back from it.
    site.run(&["rm", "app@v1", "--force"]).good();
    site.join("web-2");
    site.until_shows("web-2", "v3");
    assert_eq!(site.log("web-2"), ["released v1", "released v3"]);
    // What it is to have is gone before it comes: it stays as it is, and takes the next one.
    site.leave("web-2");
    site.push("v4", "", &["--to", "all"]).good();
    site.push("v5", "", &["--no-current"]).good();
    site.run(&["rm", "app@v4", "--force"]).good();
    site.join("web-2");
    site.until_targets(|rows| rows.iter().all(|row| row["status"]["reachable"] == true));
    assert_eq!(site.shows("web-2"), "v3");
    site.push("v6", "", &["--to", "all"]).good();
    assert!(site.all_show("v6"), "{:#?}", site.targets());
}

#[test]
fn a_person_holds_resumes_ends_and_takes_back_a_rollout_of_machines() {
    let site = Site::new(&group("canary = 1\nbatch = 2\nbake = '1h'"), 3);
    let begun = |version: &str| {
        site.push(version, "", &["--to", "all", "--no-wait"]).good();
        let row =
            site.rollout(|last| last["members"][0]["state"] == "confirmed" && last["state"] == "running");
        row["id"].as_str().expect("an id").to_owned()
    };
    begun("v2");
    assert_eq!([site.shows("web-1"), site.shows("web-2")], ["v2", "v1"]);
    site.run(&["rollouts", "hold", "all"]).good();
    site.rollout(|last| last["state"]["held"].is_object());
    site.run(&["rollouts", "resume", "all"]).good();
    site.run(&["rollouts", "rollback", "all"]).good();
    site.rollout(|last| last["state"]["rolled_back"].is_object());
    assert!(site.all_show("v1") && site.current() == "v1");
    let id = begun("v3");
    site.run(&["rollouts", "abort", &id]).good();
    site.rollout(|last| last["state"]["aborted"].is_object());
    assert_eq!([site.shows("web-1"), site.shows("web-3"), site.current()], ["v3", "v1", "v1"]);
    site.run(&["rollouts", "rollback", &id]).failed(2, "has ended");
}
