//! `whit bench`, run as a program.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{Home, Ran};
use crate::trees::{change_byte, some_tree};
use crate::world::patience;

/// Creates a home with two releases that differ in one byte, and an empty folder for temporary files.
fn home() -> Home {
    let home = Home::new();
    some_tree(&home.path("old"), 1);
    some_tree(&home.path("new"), 1);
    change_byte(&home.path("new/bin/server"), 5000);
    fs::create_dir(home.path("tmp")).expect("created");
    home
}

fn bench(home: &Home, arguments: &[&str]) -> Ran {
    finished(&command(home, arguments).output().expect("it runs"))
}

fn command(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command(&["bench"]);
    command.args(arguments).env("TMPDIR", home.path("tmp"));
    command
}

fn finished(output: &std::process::Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn two_releases_are_measured_drawn_and_tabled_and_nothing_is_left() {
    let home = home();
    let arguments = [
        "old",
        "new",
        "--only",
        "whit,tar,rsync-ssh",
        "--peers",
        "peers.json",
        "--plot",
        "plot.svg",
        "--json",
    ];
    let ran = bench(&home, &arguments);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let row =
        |tool: &str| report["tools"].as_array().and_then(|rows| rows.iter().find(|row| row["tool"] == tool));
    let whit = row("whit").expect("whit's row");
    assert_eq!(whit["outcome"], "measured", "{whit}");
    let bytes = |situation: &str| whit[situation]["up_bytes"].as_u64().expect("bytes");
    // The first push sends 900,000 incompressible bytes; the second sends one changed chunk.
    assert!(bytes("first") > 900_000 && bytes("fresh") < 100_000 && bytes("kept") < 100_000, "{whit}");
    assert!(whit["kept"]["round_trips"].as_u64() >= Some(1), "{whit}");
    for side in ["sender", "receiver"] {
        assert!(whit["first"][side]["peak_bytes"].as_u64() > Some(1_000_000), "{whit}");
    }
    let tar = row("tar").expect("tar's row");
    let drawn = fs::read_to_string(home.path("plot.svg")).expect("a picture");
    let is_measured = tar["outcome"] == "measured";
    if is_measured {
        assert!(tar["fresh"]["up_bytes"].as_u64() > Some(900_000), "{tar}");
    } else {
        assert_eq!(tar["outcome"], "missing", "{tar}");
    }
    assert!(drawn.contains("whit") && drawn.contains("tar") == is_measured);
    assert_eq!(entries(&home.path("tmp")), 0);
    over_loopback(&report);

    fs::write(home.path("report.json"), &ran.out).expect("written");
    beside_a_baseline(&home, report);
    let tables = bench(&home, &["--markdown", "report.json", "report.json"]);
    let lines = tables.out.lines().filter(|line| line.starts_with("| new | 1,100,008 |"));
    assert_eq!((tables.code, lines.count()), (Some(0), 4), "{tables:?}");
}

/// Checks the seconds over loopback, where tools may be missing but none fails.
fn over_loopback(report: &Value) {
    assert_eq!(report["links"].as_array().map(Vec::len), Some(1), "{report}");
    let over = &report["links"][0];
    assert_eq!(over["link"], "loopback");
    let rows = over["tools"].as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["tool"].as_str()).collect();
    assert_eq!(names, ["whit", "rsync-ssh", "tar"]);
    for row in rows.iter().filter(|row| row["outcome"] != "missing") {
        assert_eq!(row["outcome"], "measured", "{row}");
        for case in ["first", "fresh", "pull", "update"] {
            let seconds = |name: &str| row[case][name].as_f64().expect("seconds");
            assert!(seconds("seconds") > 0.0 && seconds("copy_seconds") > 0.0, "{row}");
        }
    }
    assert!(rows[0]["kept"]["up_bytes"].as_u64() < Some(100_000), "{over}");
    let judged = &over["judged"]["kept"];
    if rows.iter().all(|row| row["outcome"] == "missing" || row["tool"] == "whit") {
        assert!(judged.is_null(), "{over}");
    } else {
        // The release less what crossed: all but some chunks.
        assert!(judged["saved"]["bytes"].as_i64() > Some(1_000_000), "{judged}");
        assert!(judged["ratio"].as_f64() > Some(0.0), "{judged}");
    }
}

/// Runs it once more beside a report of the same releases, and beside one that was twice as good.
fn beside_a_baseline(home: &Home, mut report: Value) {
    let beside = |name: &str| {
        let arguments =
            ["old", "new", "--only", "whit", "--baseline", name, "--plot-seconds", "seconds.svg", "--json"];
        bench(home, &arguments)
    };
    let same = beside("report.json");
    assert_eq!(same.code, Some(0), "{same:?}");
    assert!(fs::read_to_string(home.path("seconds.svg")).expect("a picture").contains("loopback"));
    for row in report["tools"].as_array_mut().expect("rows").iter_mut().filter(|row| row["tool"] == "whit") {
        row["first"]["up_bytes"] = 1.into();
    }
    fs::write(home.path("better.json"), report.to_string()).expect("written");
    let worse = beside("better.json");
    assert_eq!(worse.code, Some(6), "{worse:?}");
    assert!(worse.err.contains("error: worse than the baseline: first: "), "{worse:?}");
    let told: Value = serde_json::from_str(&worse.out).expect("JSON");
    assert!(told["error"]["exit_code"] == 6 && told["links"].is_array(), "the report is there too: {told}");
    report["digest"] = "00".into();
    fs::write(home.path("other.json"), report.to_string()).expect("written");
    assert_eq!(beside("other.json").code, Some(2));
}

#[test]
fn figures_of_peers_are_kept_and_taken_for_the_same_input_alone() {
    let home = home();
    let run = || {
        let ran = bench(&home, &["old", "new", "--only", "zstd-3", "--peers", "peers.json"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    };
    let first = run();
    if first.out.contains("zstd-3: missing") {
        eprintln!("passed over: zstd is not installed");
        return;
    }
    assert!(first.err.contains("zstd-3, round 1"), "{first:?}");
    let again = run();
    assert!(!again.err.contains("zstd-3, round 1"), "{again:?}");
    assert_eq!(again.out, first.out);
    change_byte(&home.path("new/bin/server"), 7000);
    assert!(run().err.contains("zstd-3, round 1"));
}

#[test]
fn wrong_words_are_refused_with_what_is_right() {
    let home = home();
    let refused = |arguments: &[&str], words: &str| {
        let ran = bench(&home, arguments);
        assert!(ran.code == Some(2) && ran.err.contains(words), "{arguments:?}: {ran:?}");
    };
    refused(&["old", "new", "--only", "rcync"], "rsync-acz");
    refused(&["old", "new", "--links", "loopback,fast"], "20mbit/50ms");
    refused(&["old", "new", "--links", "10gbit/1ms"], "CPU seconds per GB");
    refused(&["old", "new", "--baseline", "b.json", "--worse-by", "much"], "10%");
    refused(&["old", "new", "--worse-by", "10%"], "--baseline");
    refused(&["old"], "NEW");
    refused(&["old", "new/bin/server"], "two files or two directories");
    assert_eq!(bench(&home, &["old", "nowhere"]).code, Some(3));
}

#[test]
fn a_benchmark_that_is_stopped_ends_its_programs_and_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        stopped_by(signal);
    }
}

fn stopped_by(signal: Signal) {
    let home = home();
    let child =
        command(&home, &["old", "new", "--only", "whit", "--rounds", "100"]).spawn().expect("it starts");
    // Interrupted once its own proxy serves.
    let deadline = Instant::now() + patience();
    let proxy = loop {
        if let Some(proxy) = children(child.id()).first() {
            break *proxy;
        }
        assert!(Instant::now() < deadline, "nothing was started");
        std::thread::sleep(Duration::from_millis(5));
    };
    kill_process(Pid::from_child(&child), signal).expect("it runs");
    let ran = finished(&child.wait_with_output().expect("it ends"));
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.err.contains("error: interrupted"), "{ran:?}");
    assert_eq!(entries(&home.path("tmp")), 0);
    assert!(!Path::new(&format!("/proc/{proxy}")).exists(), "process {proxy} is left");
}

/// Returns the processes that a process started.
fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    found
}

#[test]
fn an_emulated_link_carries_whit_and_rsync_and_is_taken_down() {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !Path::new("/dev/net/tun").exists() || !has("ip") || !has("rsync") {
        eprintln!("passed over: needs root, /dev/net/tun, ip and rsync");
        return;
    }
    let home = home();
    let links = "loopback,200mbit/10ms";
    let child = command(&home, &["old", "new", "--only", "whit,rsync-a,tar", "--links", links, "--json"])
        .spawn()
        .expect("it starts");
    let namespaces = ["whita", "whitb"].map(|name| format!("/run/netns/{name}{}", child.id() % 1_000_000));
    let ran = finished(&child.wait_with_output().expect("it ends"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let over = &report["links"][1];
    assert_eq!(over["link"], "200mbit/10ms");
    for row in over["tools"].as_array().expect("rows").iter().filter(|row| row["outcome"] != "missing") {
        assert_eq!(row["outcome"], "measured", "{row}");
        for case in ["first", "fresh", "pull", "update"] {
            let number = |name: &str| row[case][name].as_f64().expect("a number");
            // Nothing is faster than a round trip, or crosses in no packets; the first release does not compress.
            assert!(number("seconds") > 0.010 && number("up_bytes") > 500.0, "{row}");
            assert!(case != "first" || number("up_bytes") > 900_000.0, "{row}");
        }
    }
    assert!(namespaces.iter().all(|name| !Path::new(name).exists()), "{namespaces:?} are left");
    assert_eq!(entries(&home.path("tmp")), 0);
}
