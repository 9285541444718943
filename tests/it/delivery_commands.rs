//! The commands of deliveries, as people see them: what a list has, what is noted, what an interrupted command leaves.

use std::fs;
use std::io::{BufRead, BufReader};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Home, Served, finish};
use crate::trees::write;

/// A proxy with a directory `web` and a command `slow` that never ends, to which three releases were pushed.
fn start() -> (Home, Served) {
    let home = Home::new();
    let srv = home.path("srv").display().to_string();
    let config = format!(
        "[destinations.web]\nkind = 'dir'\npath = '{srv}/{{app}}'\n\
         [destinations.slow]\nkind = 'exec'\ncommand = ['/bin/sleep', '1000']\ninput = 'none'\n"
    );
    fs::write(home.path("whit.toml"), config).expect("written");
    let proxy = home.serve(&["--data", "data", "--config", "whit.toml"]);
    let login = proxy.line(|line| line.contains("whit login"));
    home.run(&login.split_whitespace().skip(1).collect::<Vec<_>>()).good();
    write(&home.path("tree"), "same", "same");
    for version in ["v1", "v2", "v3"] {
        write(&home.path("tree"), "index.html", version);
        home.run(&["push", "app", "tree", "--label", version, "--to", "web"]).good();
    }
    (home, proxy)
}

#[test]
fn an_interrupted_command_says_what_goes_on_and_a_watch_begins_with_no_more_than_asked_for() {
    let (home, _proxy) = start();
    let deliver = home.command(&["deliver", "app", "--to", "slow"]).spawn().expect("it starts");
    let slow = loop {
        let listed = home.run(&["deliveries", "--last", "0", "--json"]).json();
        if listed[0]["state"].get("running").is_some() {
            break listed[0]["id"].as_str().expect("an id").to_owned();
        }
    };
    // As CI systems do; `program` has Ctrl-C.
    kill_process(Pid::from_child(&deliver), Signal::TERM).expect("it runs");
    let interrupted = finish(deliver).failed(130, "interrupted");
    let hint = format!("the proxy goes on with delivery {slow}: `whit deliveries cancel {slow}` ends it");
    assert!(interrupted.err.contains(&hint), "{interrupted:?}");

    let mut watch = home.command(&["deliveries", "--watch", "--last", "1"]).spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut next = || lines.next().expect("a line");
    assert!(next().contains("/releases/"), "the last that ended");
    assert!(next().ends_with("running"), "what is under way");
    let cancelled = home.run(&["deliveries", "cancel", &slow]).good();
    assert!(cancelled.contains("cancelled by admin"), "{cancelled}");
    assert!(next().ends_with("cancelled by admin"));
    watch.kill().expect("it runs");
    watch.wait().expect("it ended");
}

#[test]
fn a_dry_run_lists_what_changes_and_a_move_without_a_destination_says_that_nothing_is_delivered() {
    let (home, _proxy) = start();
    let planned = home.run(&["deliver", "app@v1", "--to", "web", "--dry-run"]).good();
    assert_eq!(planned, "web: put 1 files (2 B), keep 1 (4 B), delete 0\n  put    index.html\n");
    let all = home.run(&["deliver", "app@v1", "--to", "web", "--dry-run", "--all"]).good();
    assert_eq!(all, format!("{planned}  keep   same\n"));

    let note = "nothing is delivered without --to";
    let moved = home.run(&["promote", "app@v1"]);
    assert!(moved.err.contains(note), "{moved:?}");
    moved.good();
    home.run(&["rollback", "app", "--no-wait"]).failed(2, "--to");
    let moved = home.run(&["rollback", "app", "--to", "web", "--no-wait"]);
    assert!(!moved.err.contains(note) && moved.out.contains("waits, as delivery"), "{moved:?}");
    moved.good();
}
