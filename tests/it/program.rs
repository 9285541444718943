//! The installed program, as people and scripts use it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::trees::{assert_same, change_byte, noise, some_tree, write};
use crate::world::patience;

/// A user's home, in which the program runs.
pub struct Home(tempfile::TempDir);

/// The output of a run of the program.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Asserts success; returns the output.
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Asserts success; returns the output as JSON, which is one line.
    pub fn json(self) -> Value {
        let out = self.good();
        assert_eq!(out.lines().count(), 1, "{out}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// Asserts that it ended with `code` and with one error, and with a hint where one is due.
    pub fn failed(self, code: i32, words: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let errors = self.err.lines().filter(|line| line.starts_with("error: ")).count();
        assert!(errors == 1 && self.err.contains(words), "{self:?}");
        self
    }

    fn hints(&self) -> usize {
        self.err.lines().filter(|line| line.starts_with("hint: ")).count()
    }
}

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the program, without any environment variable of this process that could change it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whit"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("WHIT_") || name.starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.path("home")).env("USER", "ada").current_dir(self.0.path());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.command(arguments).spawn().expect("it starts"))
    }

    /// Starts a proxy that listens on a free port.
    pub fn serve(&self, arguments: &[&str]) -> Served {
        self.serve_at("127.0.0.1:0", arguments)
    }

    /// Starts a proxy that listens at `address`.
    pub fn serve_at(&self, address: &str, arguments: &[&str]) -> Served {
        let mut all = vec!["serve", "--listen", address];
        all.extend(arguments);
        Served::start(self.command(&all))
    }
}

/// A process that is killed on drop.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("it starts"))
    }

    /// Returns the lines of its standard output and error, as they come.
    pub fn lines(&mut self) -> (mpsc::Receiver<String>, mpsc::Receiver<String>) {
        (lines_of(self.0.stdout.take().expect("piped")), lines_of(self.0.stderr.take().expect("piped")))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + patience();
        loop {
            if let Some(status) = self.0.try_wait().expect("it is ours") {
                return status;
            }
            assert!(Instant::now() < deadline, "it hangs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Reads on a thread of its own, so that no pipe fills up.
fn reading(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Reads lines as they come, on a thread of its own.
fn lines_of(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (line_in, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            drop(line_in.send(line));
        }
    });
    lines
}

/// Returns the output of a process once it has ended.
pub fn finish(mut child: Child) -> Ran {
    let out = reading(child.stdout.take().expect("piped"));
    let err = reading(child.stderr.take().expect("piped"));
    let code = Running(child).wait().code();
    Ran { code, out: out.join().expect("read"), err: err.join().expect("read") }
}

/// `whit serve`, ready.
pub struct Served {
    running: Running,
    /// Its first line on standard output.
    pub first_line: String,
    lines: mpsc::Receiver<String>,
}

impl Served {
    pub fn start(mut command: Command) -> Self {
        let mut running = Running::start(&mut command);
        let (first, lines) = running.lines();
        let first_line = first.recv_timeout(patience()).expect("it says where it listens");
        Self { running, first_line, lines }
    }

    /// Waits for a line on standard error.
    pub fn line(&self, holds: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.recv_timeout(patience()).expect("it says so");
            if holds(&line) {
                return line;
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.running.pid(), signal).expect("it runs");
    }

    pub fn stop(mut self, signal: Signal) -> ExitStatus {
        kill_process(self.running.pid(), signal).expect("it runs");
        self.running.wait()
    }

    /// Stops it, and returns the lines on standard error that nobody has read.
    pub fn said(mut self) -> Vec<String> {
        kill_process(self.running.pid(), Signal::TERM).expect("it runs");
        assert!(self.running.wait().success());
        self.lines.iter().collect()
    }

    /// Kills it, as a power failure would.
    pub fn kill(self) {
        assert!(!self.stop(Signal::KILL).success());
    }
}

#[test]
fn without_a_proxy_a_tree_is_pushed_asked_about_and_pulled() {
    let home = Home::new();
    some_tree(&home.path("tree"), 1);
    let first = home.run(&["push", "app", "tree", "--label", "v1", "--json"]).json();
    assert_eq!(
        (&first["sequence"], &first["unchanged"], &first["files"]),
        (&1.into(), &false.into(), &5.into())
    );
    assert_eq!(first["bytes"]["logical"], 1_100_008);
    let fields = [
        "release",
        "app",
        "sequence",
        "unchanged",
        "dry_run",
        "files",
        "files_remembered",
        "bytes",
        "chunks",
        "wire",
        "round_trips",
        "seconds",
        "peak_rss",
        "delivered",
    ];
    assert!(fields.iter().all(|field| first.get(field).is_some()), "{first}");
    for (group, fields) in [
        ("bytes", ["logical", "unseen", "sent"].as_slice()),
        ("chunks", &["total", "unseen"]),
        ("wire", &["up", "down"]),
    ] {
        assert!(fields.iter().all(|field| first[group][field].is_u64()), "{first}");
    }
    let second = home.run(&["push", "app", "tree"]).good();
    assert!(second.starts_with("unchanged app #1"), "{second}");
    change_byte(&home.path("tree/bin/server"), 1000);
    write(&home.path("tree"), "new", "new");
    fs::remove_file(home.path("tree/empty")).expect("removed");
    let third = home.run(&["--json", "push", "app", "tree", "--label", "v2"]).json();
    assert_eq!(third["chunks"]["unseen"], 2);

    assert!(home.run(&["apps"]).good().contains("app"));
    assert_eq!(home.run(&["apps", "--json"]).json()[0]["latest"]["sequence"], 2);
    let releases = home.run(&["releases", "app", "--json"]).json();
    assert_eq!((&releases[0]["labels"][0], &releases[1]["labels"][0]), (&"v2".into(), &"v1".into()));
    assert!(home.run(&["releases", "app"]).good().contains("v1"));
    let difference = home.run(&["diff", "app@v1", "app", "--json"]).json();
    let changes = difference["changes"].as_array().expect("a list");
    let changes: Vec<_> =
        changes.iter().map(|change| (change["kind"].as_str(), change["path"].as_str())).collect();
    assert_eq!(
        changes,
        [
            (Some("changed"), Some("bin/server")),
            (Some("removed"), Some("empty")),
            (Some("added"), Some("new"))
        ]
    );
    let statistics = home.run(&["stats", "--json"]).json();
    assert_eq!((&statistics["releases"], &statistics["users"][0]["user"]), (&2.into(), &"ada".into()));
    assert!(home.run(&["stats", "app"]).good().contains("deduplicated"));

    assert_eq!(home.run(&["cat", "app", "new"]).good(), "new");
    assert_eq!(home.run(&["cat", "app@v1", "README"]).good(), "Read me.");
    let pulled = home.run(&["pull", "app", "copy", "--json"]).json();
    assert_eq!(pulled["files"], 5);
    assert_same(&home.path("tree"), &home.path("copy"));
    home.run(&["pull", "app@v1", "copy"]).good();
    assert!(home.path("copy/empty").exists() && !home.path("copy/new").exists());
}

#[test]
fn a_release_goes_through_a_pipe_as_tar() {
    let home = Home::new();
    some_tree(&home.path("tree"), 1);
    home.run(&["push", "app", "tree"]).good();
    fs::create_dir(home.path("out")).expect("created");
    let mut whit = home.command(&["pull", "app", "--tar", "-"]).spawn().expect("it starts");
    let from_whit = Stdio::from(whit.stdout.take().expect("piped"));
    let tar = Command::new("tar").args(["-x", "-p", "-C"]).arg(home.path("out")).stdin(from_whit).status();
    assert!(tar.expect("tar runs").success() && whit.wait().expect("it ends").success());
    assert_same(&home.path("tree"), &home.path("out"));
    // The same release gives the same bytes.
    home.run(&["pull", "app", "--tar", "a.tar"]).good();
    home.run(&["pull", "app", "--tar", "b.tar"]).good();
    let left: Vec<_> =
        fs::read_dir(home.path("")).expect("a folder").map(|entry| entry.expect("one").file_name()).collect();
    assert!(!left.iter().any(|name| name.as_encoded_bytes().starts_with(b".tmp")), "{left:?}");
    assert!(fs::read(home.path("a.tar")).expect("a file") == fs::read(home.path("b.tar")).expect("a file"));
}

#[test]
fn a_delivery_to_a_folder_of_this_machine_needs_no_proxy() {
    let home = Home::new();
    some_tree(&home.path("tree"), 1);
    let receipt = home.run(&["push", "app", "tree", "--to", "dir:web", "--json"]).json();
    assert!(receipt["delivered"][0]["state"]["delivered"]["place"].is_string(), "{receipt}");
    assert_same(&home.path("tree"), &fs::canonicalize(home.path("web/current")).expect("a copy"));
    let again = home.run(&["deliver", "app", "--to", "dir:web", "--json"]).json();
    assert_eq!(again[0]["state"]["delivered"]["already"], true, "{again}");
}

#[test]
fn two_pushes_at_once_without_a_proxy_both_succeed() {
    let home = Home::new();
    for (seed, tree) in [(1, "one"), (2, "two"), (3, "three")] {
        write(&home.path(tree), "a", noise(seed, 3_000_000));
        write(&home.path(tree), "b", noise(9, 3_000_000));
    }
    let start = |app: &str| home.command(&["push", app, app, "--json"]).spawn().expect("it starts");
    let children = ["one", "two", "three"].map(start);
    for child in children {
        assert_eq!(finish(child).json()["sequence"], 1);
    }
    assert_eq!(home.run(&["apps", "--json"]).json().as_array().map(Vec::len), Some(3));
    for app in ["one", "two", "three"] {
        home.run(&["pull", app, "copy"]).good();
        assert_same(&home.path(app), &home.path("copy"));
    }
}

#[test]
fn pushes_that_begin_as_others_end_succeed_without_a_proxy() {
    const ROUNDS: u64 = 12;
    let home = Home::new();
    std::thread::scope(|scope| {
        for app in ["one", "two", "three"] {
            let home = &home;
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    write(&home.path(app), "a", format!("{app} {round}"));
                    assert_eq!(home.run(&["push", app, app, "--json"]).json()["sequence"], round);
                }
            });
        }
    });
}

#[test]
fn a_proxy_says_where_it_is_and_its_first_start_how_to_log_in() {
    let home = Home::new();
    let proxy = home.serve(&["--data", "data"]);
    assert!(proxy.first_line.starts_with("whit://127.0.0.1:"), "{}", proxy.first_line);
    let login = proxy.line(|line| line.contains("whit login"));
    let words: Vec<&str> = login.split_whitespace().skip(1).collect();
    let logged_in = home.run(&words).good();
    assert!(logged_in.contains("as admin in space default"), "{logged_in}");
    write(&home.path("tree"), "a", "one");
    assert_eq!(home.run(&["push", "app", "tree", "--json"]).json()["sequence"], 1);
    assert_eq!(proxy.stop(Signal::TERM).code(), Some(0));

    // With no proxy there, it says so and what to do, once.
    let away = home.run(&["push", "app", "tree", "--retry-for", "2s"]).failed(6, "could not reach");
    assert_eq!(away.hints(), 1, "{away:?}");
    let again = home.serve(&["--data", "data", "--json"]);
    let url: Value = serde_json::from_str(&again.first_line).expect("one line of JSON");
    assert!(url["url"].as_str().is_some_and(|url| url.starts_with("whit://")), "{url}");
    assert_eq!(again.stop(Signal::INT).code(), Some(0));
    assert!(!said_by_a_start(&home).contains("whit login"), "the token is shown once");
}

/// Returns everything that a later start prints on standard error.
fn said_by_a_start(home: &Home) -> String {
    let proxy = home.serve(&["--data", "data"]);
    kill_process(proxy.running.pid(), Signal::TERM).expect("it runs");
    let mut lines = String::new();
    while let Ok(line) = proxy.lines.recv_timeout(patience()) {
        lines.push_str(&line);
    }
    lines
}

#[test]
fn tokens_are_made_used_and_revoked_beside_a_running_proxy() {
    let home = Home::new();
    let proxy = home.serve(&["--data", "data"]);
    write(&home.path("tree"), "a", "one");
    let made = home
        .run(&[
            "token",
            "create",
            "--user",
            "bob",
            "--allow",
            "push,pull",
            "--app",
            "web-*",
            "--data",
            "data",
            "--json",
        ])
        .json();
    let (id, token) = (made["id"].as_str().expect("an id"), made["token"].as_str().expect("a token"));
    let with_token = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("WHIT_PROXY", &proxy.first_line).env("WHIT_TOKEN", token);
        finish(command.spawn().expect("it starts"))
    };
    with_token(&["push", "web-1", "tree"]).good();
    let denied = with_token(&["push", "api", "tree"]).failed(4, "`api`");
    assert_eq!(denied.hints(), 1);
    with_token(&["releases", "web-1"]).failed(4, "read");
    let listed = home.run(&["token", "list", "--data", "data"]).good();
    assert!(listed.contains("bob") && listed.contains(id), "{listed}");
    home.run(&["token", "revoke", id, "--data", "data"]).good();
    with_token(&["push", "web-1", "tree"]).failed(4, "revoked");
    let tokens = home.run(&["token", "list", "--data", "data", "--json"]).json();
    let bob = tokens.as_array().and_then(|list| list.iter().find(|token| token["user"] == "bob").cloned());
    assert_eq!(bob.expect("bob's")["state"], "revoked");
    // A token of another folder is not revoked, and that folder is not created.
    home.run(&["token", "revoke", id, "--data", "dta"]).failed(3, "dta");
    assert!(!home.path("dta").exists());
    // A token whose record is gone, or that never had one here.
    let unrecorded = home.run(&["token", "revoke", "0000000000000000", "--data", "data"]).good();
    assert!(unrecorded.contains("no token with this id is recorded"), "{unrecorded}");
    fs::write(home.path("data/identity/tokens").join(id), "").expect("damaged");
    let listed = home.run(&["token", "list", "--data", "data"]).good();
    assert!(listed.contains("0000000000000000") && listed.contains(id), "{listed}");
}

#[test]
fn a_release_with_other_labels_is_removed_only_with_all_of_them() {
    let home = Home::new();
    write(&home.path("tree"), "a", "one");
    home.run(&["push", "app", "tree", "--label", "v1", "--label", "stable"]).good();
    let refused = home.run(&["rm", "app@v1"]).failed(2, "stable");
    assert!(refused.out.contains("label stable, given by #1, would mean nothing"), "{refused:?}");
    assert!(refused.err.contains("--all-labels"), "{refused:?}");
    let told = home.run(&["rm", "app@v1", "--json"]).failed(2, "stable");
    let told: serde_json::Value = serde_json::from_str(&told.out).expect("one document");
    assert_eq!(
        (&told["removed"], &told["meanings"][1]["label"]),
        (&false.into(), &"stable".into()),
        "{told}"
    );
    assert_eq!(told["error"]["fault"], "input", "{told}");
    home.run(&["rm", "app@v1", "--all-labels", "--force"]).good();
    home.run(&["releases", "app"]).failed(3, "app");
    home.run(&["push", "app", "tree", "--label", "20261130"]).failed(2, "looks like a release id");
}

#[test]
fn errors_have_their_codes_and_say_what_to_do() {
    let home = Home::new();
    write(&home.path("tree"), "a", "one");
    assert_eq!(home.run(&["push"]).code, Some(2));
    assert_eq!(home.run(&["dance"]).code, Some(2));
    assert_eq!(home.run(&["--version"]).code, Some(0));
    home.run(&["push", "../x", "tree"]).failed(2, "not allowed");
    home.run(&["push", "app", "nowhere"]).failed(3, "nowhere");
    assert_eq!(home.run(&["releases", "app"]).failed(3, "no application").hints(), 1);
    assert_eq!(home.run(&["push", "app", "tree", "--to", "production"]).failed(3, "production").hints(), 1);
    home.run(&["push", "app", "tree"]).good();
    home.run(&["pull", "app@v9", "copy"]).failed(3, "app@v9");
    home.run(&["cat", "app", "b"]).failed(3, "`b`");
    home.run(&["cat", "app"]).failed(2, "tree");
    home.run(&["pull", "app", "tree"]).failed(2, "no pull").failed(2, "--delete");
    let key = "0".repeat(64);
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let url = format!("whit://{}#{key}", nobody.local_addr().expect("an address"));
    assert_eq!(home.run(&["apps", "--proxy", &url]).failed(2, "no token").hints(), 1);
    home.run(&["apps", "--proxy", "whit://h:1", "--token", "x"]).failed(2, "fingerprint");
    let told = home.run(&["apps", "--proxy", &url, "--token", "x", "--json"]).failed(6, "could not reach");
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    assert_eq!(told["error"]["fault"], "retry");
    assert!(told["error"]["text"].is_string() && told["error"]["hint"].is_string());
}

#[test]
fn an_interrupted_push_says_so_and_the_next_one_succeeds() {
    let home = Home::new();
    for file in 0..60 {
        write(&home.path("tree"), &format!("{file}"), noise(file, 1_000_000));
    }
    let child = home.command(&["push", "app", "tree"]).spawn().expect("it starts");
    // Interrupted once chunks arrive.
    let open = home.path("home/.local/share/whit/spaces/default/packs/open");
    let deadline = Instant::now() + patience();
    let arriving = |open: &Path| {
        fs::read_dir(open).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.metadata().is_ok_and(|kind| kind.len() > 2_000_000))
        })
    };
    while !arriving(&open) {
        assert!(Instant::now() < deadline, "nothing arrives");
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    finish(child).failed(130, "interrupted");
    let receipt = home.run(&["push", "app", "tree", "--json"]).json();
    assert_eq!(receipt["sequence"], 1);
    assert!(receipt["bytes"]["unseen"].as_u64() < receipt["bytes"]["logical"].as_u64(), "{receipt}");
    home.run(&["pull", "app", "copy"]).good();
    assert_same(&home.path("tree"), &home.path("copy"));
}

#[test]
fn the_demo_pushes_two_trees_and_leaves_a_complete_copy() {
    let home = Home::new();
    some_tree(&home.path("old"), 1);
    some_tree(&home.path("new"), 1);
    change_byte(&home.path("new/bin/server"), 5000);
    let told = home.run(&["demo", "old", "new", "--dir", "work", "--json"]).json();
    assert_eq!((&told["new"]["chunks"]["unseen"], &told["verified_bytes"]), (&1.into(), &1_100_008.into()));
    assert_same(&home.path("new"), Path::new(told["copy"].as_str().expect("a path")));
    let text = home.run(&["demo", "old", "new", "--dir", "work2"]).good();
    assert!(text.contains("verified byte for byte"), "{text}");
}
