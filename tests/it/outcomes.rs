//! What a command says that follows a rollout: exit codes that jobs tell apart, and one document, whatever becomes of it.

use std::fs;
use std::process::Child;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::program::{Home, Ran, Running, Served, finish};
use crate::trees::write;
use crate::world::patience;

/// A proxy with two groups of a target each, whose start command waits for a file `go` and fails in releases that say that they
/// are bad.
struct Site {
    home: Home,
    _proxy: Served,
    _targets: Vec<Served>,
}

impl Site {
    fn new() -> Self {
        let home = Home::new();
        let group = |name: &str, rule: &str| {
            format!(
                "[groups.{name}]\ntargets = ['{name}-*']\nhealthy_for = '0s'\nhealthy_within = '10m'\n{rule}\n"
            )
        };
        let groups = group("waiting", "on_newer = 'wait'") + &group("newest", "on_newer = 'supersede'");
        fs::write(home.path("whit.toml"), groups).expect("written");
        let proxy = home.serve(&["--data", "data", "--config", "whit.toml"]);
        let login = proxy.line(|line| line.contains("whit login"));
        home.run(&login.split_whitespace().skip(1).collect::<Vec<_>>()).good();
        let go = home.path("go").display().to_string();
        let on_release = format!("until [ -e {go} ]; do sleep 0.05; done; ! grep -q bad version");
        let watch = |name: &str| {
            let token =
                ["token", "create", "--data", "data", "--user", "web", "--target", name, "--allow", "pull"];
            let token = home.run(&token).good().trim().to_owned();
            let watch = ["pull", "--watch", "app", name, "--on-release", &on_release, "--token", &token];
            let access = ["--proxy", &proxy.first_line];
            Served::start(home.command(&[&watch[..], &access].concat()))
        };
        let targets = ["waiting-1", "newest-1"].map(watch).into();
        let site = Self { home, _proxy: proxy, _targets: targets };
        site.go(true);
        for group in ["waiting", "newest"] {
            finish(site.push("one", group)).good();
        }
        site.go(false);
        site
    }

    fn go(&self, goes: bool) {
        let go = self.home.path("go");
        if goes { fs::write(go, "").expect("written") } else { fs::remove_file(go).expect("removed") }
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.home.command(&[arguments, &["--json"]].concat()).spawn().expect("it starts")
    }

    fn push(&self, version: &str, group: &str) -> Child {
        let tree = self.home.path(&format!("tree-{version}"));
        write(&tree, "version", version);
        self.start(&["push", "app", &tree.display().to_string(), "--label", version, "--to", group])
    }

    /// Waits until the newest rollout to a group is of `state`; returns it.
    fn newest(&self, group: &str, state: &str) -> Value {
        let deadline = Instant::now() + patience();
        loop {
            let rows = self.home.run(&["rollouts", "app", "--json"]).json();
            let mut rows = rows.as_array().expect("a list").iter();
            let last = rows.rfind(|row| row["group"] == group).cloned().unwrap_or_default();
            if last["state"] == state || last["state"][state].is_object() {
                return last;
            }
            assert!(Instant::now() < deadline, "{last:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn steer(&self, how: &str, which: &str) -> Value {
        self.home.run(&["rollouts", how, which, "--json"]).json()
    }
}

/// A command that has said how far its rollout is.
struct Followed {
    running: Running,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Followed {
    fn start(site: &Site, arguments: &[&str]) -> Self {
        let mut running = Running::start(&mut site.home.command(&[arguments, &["--json"]].concat()));
        let (out, err) = running.lines();
        while !err.recv_timeout(patience()).expect("it says so").contains("0 of 1 confirmed") {}
        Self { running, out, err }
    }

    fn finish(mut self) -> Ran {
        let code = self.running.wait().code();
        let lines = |lines: Receiver<String>| lines.iter().collect::<Vec<_>>().join("\n");
        Ran { code, out: lines(self.out), err: lines(self.err) }
    }
}

/// Asserts that a command ended with `code` and with this outcome, and said which release and rollout it was about. Returns the
/// rollout and the error's text.
fn ended(ran: &Ran, code: i32, outcome: &str) -> (String, String) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    let document: Value = serde_json::from_str(&ran.out).expect("one document");
    let error = &document["error"];
    assert_eq!((&error["outcome"], &error["exit_code"]), (&outcome.into(), &code.into()), "{document}");
    assert!(document["release"].is_string() && document["sequence"].is_u64(), "{document}");
    assert!(error["hint"].is_string() && document["delivered"].is_array(), "{document}");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (text(&document["rollout"]), text(&error["text"]))
}

#[test]
fn each_outcome_of_a_rollout_has_an_exit_code_and_a_name() {
    let site = Site::new();
    let two = site.push("two", "waiting");
    site.newest("waiting", "running");
    let held = site.steer("hold", "waiting");
    assert!(held["state"]["held"].is_object(), "{held}");
    let (id, text) = ended(&finish(two), 13, "held");
    assert!(held["id"] == *id && text.contains("held by admin;"), "{text}");

    // Another behind it waits for as long as nobody decides: the command does not.
    let (behind, text) = ended(&finish(site.push("three", "waiting")), 13, "held");
    assert!(text.ends_with(&format!("waits for rollout {id}, which is held")), "{text}");
    let aborted = site.steer("abort", &behind);
    assert_eq!(aborted["state"]["aborted"]["by"], "admin", "the state after it");

    site.steer("resume", "waiting");
    let promote = || Followed::start(&site, &["promote", "app@two", "--to", "waiting"]);
    let (interrupted, again) = (promote(), promote());
    kill_process(interrupted.running.pid(), Signal::TERM).expect("it runs");
    let interrupted = interrupted.finish();
    assert_eq!(ended(&interrupted, 130, "under_way").0, id);
    let aborted = site.steer("abort", "waiting");
    assert_eq!(aborted["state"]["aborted"]["by"], "admin", "the state after it");
    assert_eq!(ended(&again.finish(), 12, "aborted").0, id);

    let older = site.push("four", "newest");
    site.newest("newest", "running");
    let newer = site.push("bad", "newest");
    assert_ne!(ended(&finish(older), 11, "superseded").0, id);
    site.go(true);
    ended(&finish(newer), 9, "rolled_back");

    let left = site.home.run(&["push", "app", "tree-four", "--to", "newest", "--no-wait"]).good();
    let id = site.newest("newest", "succeeded")["id"].as_str().expect("an id").to_owned();
    assert!(left.contains(&format!("rollout    {id} goes on")), "{left}");
    let promoted = site.home.run(&["promote", "app@one", "--to", "newest", "--json"]).json();
    assert_eq!(promoted["rolled_out"]["state"], "succeeded", "{promoted}");
    assert!(promoted["moved"] == true && promoted["from"].is_string(), "{promoted}");
    assert_eq!((&promoted["labels"][0], &promoted["sequence"]), (&"one".into(), &1.into()), "{promoted}");
}

#[test]
fn what_nobody_knows_or_may_see_has_a_code_of_its_own_and_a_hint() {
    let home = Home::new();
    fs::write(home.path("whit.toml"), "[groups.edges]\ntargets = ['edge-*']\n").expect("written");
    let proxy = home.serve(&["--data", "data", "--config", "whit.toml"]);
    let login = proxy.line(|line| line.contains("whit login"));
    home.run(&login.split_whitespace().skip(1).collect::<Vec<_>>()).good();
    write(&home.path("tree"), "version", "one");
    home.run(&["push", "app", "tree", "--label", "v1"]).good();
    assert_eq!(home.run(&["rollouts", "app", "--json"]).json(), Value::Array(Vec::new()));
    let cases: [(&[&str], i32, &str); 7] = [
        (&["rollouts", "nope"], 3, "no application `nope`"),
        (&["targets", "nope"], 3, "no application `nope`"),
        (&["rollouts", "abort", "nothing"], 3, "no rollout to `nothing`"),
        (&["promote", "nope@v99", "--to", "edges"], 3, "no application `nope`"),
        (&["promote", "app@v1", "--to", "edges"], 2, "has no target of `app`"),
        (&["deliver", "app", "--to", "edges", "--dry-run"], 2, "`edges` is a group"),
        (&["deliver", "app", "--to", "nowhere", "--dry-run"], 3, "no destination `nowhere`"),
    ];
    for (arguments, code, words) in cases {
        let ran = home.run(arguments).failed(code, words);
        assert!(ran.err.contains("hint: "), "{ran:?}");
    }
    let create = ["token", "create", "--data", "data", "--user", "ci", "--allow", "pull"];
    let token = home.run(&create).good().trim().to_owned();
    for list in ["rollouts", "targets"] {
        let access = ["--proxy", &proxy.first_line, "--token", &token];
        home.run(&[&[list, "app"][..], &access].concat()).failed(4, "does not allow read `app`");
    }
    assert!(home.run(&["help", "push"]).good().contains("--label"));
}
