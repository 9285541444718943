//! The installed program as people and scripts see it: the store it chooses, one JSON document, exit codes, hints.

use std::fs::{self, File};
use std::io::{Write, pipe};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::program::{Home, Ran, finish};
use crate::trees::{is_slow, noise, write};

/// Runs a command with these environment variables.
fn run_with(home: &Home, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = home.command(arguments);
    finish(command.envs(environment.iter().copied()).spawn().expect("it starts"))
}

/// Returns the one document, in one line, that a run with `--json` printed.
fn document(ran: &Ran) -> Value {
    assert_eq!(ran.out.lines().count(), 1, "{ran:?}");
    serde_json::from_str(&ran.out).expect("JSON")
}

fn releases(home: &Home, environment: &[(&str, &str)], arguments: &[&str]) -> usize {
    let mut all = vec!["apps", "--json"];
    all.extend(arguments);
    let ran = run_with(home, environment, &all);
    document(&ran).as_array().map_or(0, Vec::len)
}

#[test]
fn the_command_line_comes_before_the_environment_and_that_before_a_login() {
    let home = Home::new();
    write(&home.path("tree"), "a", "one");
    let proxy = home.serve(&["--data", "far"]);
    let url = proxy.first_line.as_str();
    let create =
        ["token", "create", "--user", "ops", "--allow", "push", "--allow", "read", "--allow", "admin"];
    let token = home.run(&[create.as_slice(), &["--data", "far"]].concat()).good();
    let token = token.trim();
    let far = [("WHIT_PROXY", url), ("WHIT_TOKEN", token)];
    for data in ["near", "other"] {
        home.run(&["push", "app", "tree", "--label", "v1", "--data", data]).good();
    }
    run_with(&home, &far, &["push", "app", "tree", "--label", "v1"]).good();

    // A folder on the command line takes precedence, and one note says what it overrides.
    let removed = run_with(&home, &far, &["rm", "app@v1", "--force", "--data", "near"]);
    assert_eq!(removed.err.matches("WHIT_PROXY is set, --data is used").count(), 1, "{removed:?}");
    assert!(removed.err.contains("removing a release in near"), "{removed:?}");
    removed.good();
    assert_eq!((releases(&home, &far, &[]), releases(&home, &[], &["--data", "near"])), (1, 0));
    let collected = run_with(&home, &far, &["gc", "--data", "near"]);
    assert!(collected.err.contains("collecting garbage in near"), "{collected:?}");
    run_with(&home, &far, &["apps", "--data", "near", "--proxy", url]).failed(2, "cannot be used with");
    assert!(!run_with(&home, &far, &["apps", "-q", "--data", "near"]).err.contains("WHIT_PROXY"));

    // A proxy and a token take precedence too.
    let wrong = format!("whit://localhost:1#{}", "0".repeat(64));
    let elsewhere = [("WHIT_PROXY", wrong.as_str()), ("WHIT_TOKEN", "whit1.wrong"), ("WHIT_DATA", "near")];
    fs::write(home.path("token"), token).expect("written");
    let named = ["--proxy", url, "--token-file", "token"];
    let asked = run_with(&home, &elsewhere, &[&["apps"], named.as_slice()].concat());
    assert!(asked.err.contains("WHIT_PROXY is set, --proxy is used"), "{asked:?}");
    assert!(asked.good().contains("app"));

    // A login comes last.
    let logged_in = run_with(&home, &[("WHIT_DATA", "near")], &["login", url, "--token", token]);
    assert!(logged_in.err.contains("WHIT_DATA is set"), "{logged_in:?}");
    assert_eq!(releases(&home, &[], &[]), 1);
    assert_eq!(releases(&home, &[("WHIT_DATA", "near")], &[]), 0);
    // An empty variable counts as unset.
    run_with(&home, &[("WHIT_DATA", "")], &["token", "list"]).failed(3, "/.local/share/whit");
    assert_eq!(releases(&home, &[("WHIT_DATA", ""), ("WHIT_PROXY", "")], &[]), 1);
}

#[test]
fn json_is_one_document_whatever_happens() {
    let home = Home::new();
    write(&home.path("tree"), "a", "one");
    home.run(&["push", "app", "tree", "--label", "v1", "--label", "stable"]).good();
    write(&home.path("tree"), "a", "two");
    fs::write(home.path("bad.toml"), "lisen = 1").expect("written");
    fs::write(home.path("good.toml"), "[destinations.web]\nkind = \"dir\"\npath = \"/nowhere/{app}\"")
        .expect("written");
    let commands: [(i32, &[&str]); 44] = [
        (0, &["push", "app", "tree"]),
        (0, &["push", "app", "tree", "--dry-run", "--explain"]),
        (0, &["pull", "app", "copy"]),
        (0, &["deliver", "app", "--to", "dir:web"]),
        (0, &["apps"]),
        (0, &["releases", "app"]),
        (0, &["diff", "app@v1", "app"]),
        (0, &["stats"]),
        (0, &["pin", "app@v1"]),
        (0, &["unpin", "app@v1"]),
        (0, &["promote", "app@v1", "--because", "it works"]),
        (0, &["rollback", "app", "--to", "dir:web"]),
        (0, &["current", "app"]),
        (0, &["current", "app", "--log"]),
        (0, &["label", "app", "good"]),
        (2, &["label", "app@v1", "good"]),
        (0, &["unlabel", "app", "good"]),
        (2, &["promote", "app"]),
        (3, &["unlabel", "app", "good"]),
        (0, &["gc", "--dry-run"]),
        (0, &["gc"]),
        (0, &["verify"]),
        (0, &["verify", "--repair"]),
        (2, &["rm", "app@v1"]),
        (0, &["rm", "app@v1", "--all-labels"]),
        (0, &["token", "create", "--user", "bob"]),
        (0, &["token", "list"]),
        (0, &["serve", "--config", "good.toml", "--check-config"]),
        (0, &["--version"]),
        (0, &["--help"]),
        (0, &["push", "--help"]),
        (2, &[]),
        (2, &["dance"]),
        (2, &["push"]),
        (2, &["push", "app", "tree", "--limit-upload"]),
        (2, &["push", "../x", "tree"]),
        (2, &["cat", "app", "a"]),
        (2, &["pull", "app", "--tar", "-"]),
        (2, &["bench", "--markdown", "report.json"]),
        (2, &["serve", "--config", "bad.toml"]),
        (3, &["push", "app", "nowhere"]),
        (3, &["releases", "nothing"]),
        (0, &["token", "revoke", "0000000000000000"]),
        (2, &["apps", "--proxy", "whit://localhost:1", "--token", "x"]),
    ];
    for (code, arguments) in commands {
        let ran = home.run(&[arguments, &["--json"]].concat());
        let document = document(&ran);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
        if code != 0 {
            let error = &document["error"];
            assert_eq!(error["exit_code"], code, "{ran:?}");
            assert!(error["fault"].is_string() && error["text"].is_string(), "{ran:?}");
            assert!(error["hint"].is_string() || code == 3, "{ran:?}");
        }
    }
    let tar = home.run(&["pull", "app", "--tar", "app.tar", "--json"]);
    assert_eq!(document(&tar)["files"], 1);
    let mut odd = home.command(&["pull", "app", "--json"]);
    odd.arg(std::ffi::OsStr::from_bytes(b"odd-\xff"));
    let odd = finish(odd.spawn().expect("it starts"));
    assert!(matches!(odd.code, Some(0 | 2)), "a path that is no text is no reason to panic: {odd:?}");
    document(&odd);
}

#[test]
fn a_delivery_that_fails_is_told_in_the_same_document() {
    let home = Home::new();
    write(&home.path("tree"), "a", "one");
    fs::write(home.path("web"), "a file").expect("written");
    let pushed = home.run(&["push", "app", "tree", "--to", "dir:web", "--json"]);
    let receipt = document(&pushed);
    assert_eq!((&receipt["sequence"], &receipt["error"]["exit_code"]), (&1.into(), &2.into()), "{pushed:?}");
    assert!(receipt["delivered"][0]["state"]["failed"]["reason"].is_string(), "{pushed:?}");
    pushed.failed(2, "delivery ");
    let delivered = home.run(&["deliver", "app", "--to", "dir:web", "--json"]);
    let told = document(&delivered);
    assert!(told["delivered"][0]["state"]["failed"].is_object() && told["error"].is_object(), "{told}");
    let text = home.run(&["deliver", "app", "--to", "dir:web"]);
    assert!(text.out.starts_with("not delivered: ") && !text.out.contains("delivered to"), "{text:?}");
}

#[test]
fn what_cannot_be_written_is_an_error_and_a_reader_that_has_gone_ends_it_quietly() {
    let home = Home::new();
    write(&home.path("tree"), "a", "one");
    home.run(&["push", "app", "tree"]).good();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("it is there"));
    let gone = || Stdio::from(pipe().expect("a pipe").1);
    let commands: [&[&str]; 8] = [
        &["apps", "--json"],
        &["apps"],
        &["push", "app", "tree", "--json"],
        &["cat", "app", "a"],
        &["pull", "app", "--tar", "-"],
        &["--help"],
        &["--version", "--json"],
        &["dance", "--json"],
    ];
    for arguments in commands {
        let told = home.command(arguments).stdout(full()).output().expect("it runs");
        let words = String::from_utf8_lossy(&told.stderr);
        assert_eq!(told.status.code(), Some(7), "{arguments:?}: {words}");
        assert!(words.contains("error: could not ") && words.contains("hint: "), "{arguments:?}: {words}");
        let told = home.command(arguments).stdout(gone()).output().expect("it runs");
        let words = String::from_utf8_lossy(&told.stderr);
        assert_eq!(told.status.code(), Some(141), "{arguments:?}: {words}");
        assert!(!words.contains("error: "), "{arguments:?}: {words}");
    }
    // A closed standard error causes no panic.
    let of = |mut command: Command| command.output().expect("it runs").status.code();
    for lost in [full, gone] {
        for (code, arguments) in
            [(3, ["cat", "app", "b"]), (2, ["push", "../x", "tree"]), (2, ["a", "b", "c"])]
        {
            let mut command = home.command(&arguments);
            command.stderr(lost());
            assert_eq!(of(command), Some(code), "{arguments:?}");
        }
        let mut command = home.command(&["rm", "app@v1", "--data", "x"]);
        command.env("WHIT_PROXY", "whit://x").stderr(lost());
        assert_eq!(of(command), Some(3));
    }
}

#[test]
fn a_long_push_that_nobody_watches_says_how_far_it_is() {
    if !is_slow() {
        println!("skipped: it takes ten seconds; WHIT_SLOW_TESTS=1 runs it");
        return;
    }
    let home = Home::new();
    write(&home.path("tree"), "a", noise(1, 1_400_000));
    let push = ["push", "app", "tree", "--limit-upload", "1mbit"];
    for arguments in [push.as_slice(), &[push.as_slice(), &["--json"]].concat()] {
        let pushed = home.run(arguments);
        assert!(pushed.err.contains("sending 0 B of 1.40 MB, "), "{pushed:?}");
        assert!(pushed.err.contains("/s over the link"), "{pushed:?}");
        fs::remove_dir_all(home.path("home")).expect("removed");
    }
    assert!(!home.run(&[push.as_slice(), &["--quiet"]].concat()).err.contains("sending"));
}

#[test]
fn hints_fit_what_went_wrong() {
    let home = Home::new();
    write(&home.path("tree"), "a", "one");
    home.run(&["push", "app", "tree"]).good();
    std::os::unix::fs::symlink("elsewhere", home.path("link")).expect("linked");
    fs::write(home.path("file"), "").expect("written");
    let commands: [(&[&str], &str); 8] = [
        (&["push", "app", "nowhere"], "check the path"),
        (&["push", "app", "file/x"], "check the path: a part of it is not a folder"),
        (&["push", "app", "tree", "--exclude", "[a"], "gitignore"),
        (&["pull", "app", "link"], "create its target"),
        (&["apps", "--data", "file"], "move file away"),
        (&["serve", "--config", "nowhere.toml"], "check the path"),
        (&["push", "app", "tree", "--data", "data", "--to", "dir:data/web"], "outside the data folder"),
        (&["cat", "app", "b"], "lists a release's files"),
    ];
    for (arguments, hint) in commands {
        let ran = home.run(arguments);
        let hints: Vec<&str> = ran.err.lines().filter_map(|line| line.strip_prefix("hint: ")).collect();
        assert!(hints.len() == 1 && hints[0].contains(hint), "{arguments:?}: {ran:?}");
    }
    let pattern = home.run(&["push", "app", "tree", "--exclude", "[a"]);
    assert!(!pattern.err.contains("![a"), "the pattern is shown as it was given: {pattern:?}");
}

#[test]
fn a_configuration_is_checked_before_anything_is_made() {
    let home = Home::new();
    let write_config = |text: &str| {
        let mut file = File::create(home.path("whit.toml")).expect("created");
        file.write_all(text.as_bytes()).expect("written");
    };
    let path = home.path("data/web");
    let path = path.to_str().expect("text");
    let check = ["serve", "--config", "whit.toml", "--data", "data", "--check-config"];
    let destination = |path: &str| format!("[destinations.web]\nkind = \"dir\"\npath = \"{path}\"\n");
    for (text, words) in [
        (destination(path), "destinations.web.path: it lies inside the data folder"),
        (destination("/nowhere/{aap}"), "destinations.web.path: `{aap}` is not a placeholder"),
        (format!("{}keep = 0\n", destination("/nowhere")), "destinations.web.keep: 0"),
        ("siez_max_mib = 1".to_owned(), "did you mean `size_max_mib`"),
    ] {
        write_config(&text);
        for arguments in [check.as_slice(), &check[..5]] {
            home.run(arguments).failed(2, words).failed(2, "hint: ").failed(2, "whit.toml");
        }
    }
    let groups = "[groups.all]\ntargets = ['web-*']\ncanary = 1\n[groups.one]\ntargets = ['web-1']\n";
    write_config(&format!("{}{groups}", destination("/nowhere/{app}")));
    let checked = home.run(&check);
    assert!(checked.err.contains("groups `all` and `one` share targets web-* and web-1"), "{checked:?}");
    let told = checked.good();
    assert!(told.contains("whit.toml: good") && told.contains("web: /nowhere/{app}"), "{told}");
    assert!(told.contains("group        all: targets web-*; bake 0s, batch 1, canary 1,"), "{told}");
    assert!(!Path::new(&home.path("data")).exists(), "nothing was made");
}
