//! What a command may do, and what becomes of it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use ground::faults::Faulty as _;

/// No test waits this long; it only ends one that hangs.
const LONG: Duration = Duration::from_secs(300);

fn shell(script: &str) -> Command {
    Command {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![("GIVEN".into(), "given value".into())],
        folder: "/".into(),
        time: LONG,
        grace: LONG,
    }
}

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

fn run(script: &str) -> Ran {
    shell(script).run(&never()).expect("it starts")
}

fn run_with(script: &str, input: &[u8]) -> (Ran, Input<io::Error>) {
    shell(script).run_with_input(&never(), |out| out.write_all(input)).expect("it starts")
}

/// Returns whether the process whose number a file holds has ended.
fn has_ended(file: &Path) -> bool {
    let pid = fs::read_to_string(file).expect("the script wrote it");
    let begin = Instant::now();
    // A process that was killed is gone when the kernel comes to it.
    while begin.elapsed() < LONG {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
        if status.is_empty() || status.contains("State:\tZ") {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// Waits until a script has written a file.
fn wait_for(file: &Path) {
    let begin = Instant::now();
    while !file.exists() {
        assert!(begin.elapsed() < LONG, "the script does not write {}", file.display());
        std::thread::yield_now();
    }
}

#[test]
fn the_status_and_both_outputs_are_reported() {
    for (script, ended) in
        [("exit 0", Ended::Exited(0)), ("exit 75", Ended::Exited(75)), ("kill -9 $$", Ended::Signalled(9))]
    {
        let ran = run(&format!("echo one; echo two >&2; {script}"));
        assert_eq!((ran.ended, ran.output_bytes, ran.left_open), (ended, 8, false));
        assert_eq!(ran.last_lines(100), "one\ntwo");
    }
}

#[test]
fn the_environment_is_what_was_given() {
    let ran = run("env | grep -v '^PWD=\\|^_=\\|^SHLVL=\\|^OLDPWD=' | cut -d= -f1 | sort | tr '\\n' ' '");
    let names = ran.last_lines(1000);
    let rest: Vec<&str> =
        names.split(' ').filter(|name| !["", "PATH", "HOME", "LANG"].contains(name)).collect();
    assert_eq!(rest, ["GIVEN"]);
    assert_eq!(run("echo $GIVEN; pwd").last_lines(100), "given value\n/");
    assert!(!format!("{:?}", shell("")).contains("given value"));
}

#[test]
fn the_end_of_much_output_is_kept_and_all_of_it_is_counted() {
    let ran = run("head -c 100000000 /dev/zero; echo; echo the end");
    assert_eq!((ran.ended, ran.output_bytes), (Ended::Exited(0), 100_000_009));
    assert_eq!(ran.output.len(), OUTPUT_KEPT_BYTES);
    assert_eq!(ran.last_lines(20), "the end");
}

#[test]
fn output_is_safe_to_show() {
    let ran = run("printf 'a\\033[2Jb\\377\\r\\n'");
    assert_eq!(ran.last_lines(100), "a\\x1b[2Jb\\xff");
}

#[test]
fn input_arrives_whole_and_a_command_may_leave_the_rest() {
    let input = vec![b'x'; 3_000_000];
    let (ran, taken) = run_with("wc -c", &input);
    assert_eq!((ran.last_lines(100).as_str(), ran.ended), ("3000000", Ended::Exited(0)));
    assert!(matches!(taken, Input::Whole));
    for script in ["exit 0", "head -c 10; exit 3", "exec <&-; exit 0"] {
        let (ran, taken) = run_with(script, &input);
        assert!(matches!((ran.ended, taken), (Ended::Exited(0 | 3), Input::Cut)), "{script}");
    }
}

#[test]
fn a_command_is_stopped_before_it_can_take_a_part_of_its_input_for_the_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mark = folder.path().join("took");
    let script = format!("cat >/dev/null; touch {}", mark.display());
    let (ran, taken) = shell(&script)
        .run_with_input(&never(), |out| {
            out.write_all(b"a part").expect("it is taken");
            Err("no more")
        })
        .expect("it starts");
    assert_eq!(ran.ended, Ended::Stopped);
    assert!(matches!(taken, Input::Failed("no more")));
    assert!(!mark.exists());
}

#[test]
fn a_command_whose_time_is_over_is_ended_with_what_it_started() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("child");
    let script = format!("sleep 1000 & echo $! > {}; echo waiting; wait", file.display());
    let command = Command { time: Duration::from_millis(300), ..shell(&script) };
    let ran = command.run(&never()).expect("it starts");
    assert_eq!((ran.ended, ran.last_lines(100).as_str(), ran.left_open), (Ended::TimedOut, "waiting", false));
    assert!(has_ended(&file));
}

#[test]
fn one_that_ignores_term_is_killed_after_its_grace() {
    let script = "trap '' TERM; echo deaf; while :; do sleep 1000; done";
    let limits = |script| Command {
        time: Duration::from_millis(200),
        grace: Duration::from_millis(200),
        ..shell(script)
    };
    let ran = limits(script).run(&never()).expect("it starts");
    assert_eq!((ran.ended, ran.last_lines(100).as_str()), (Ended::TimedOut, "deaf"));
    // The same with input that nobody reads.
    let input = vec![0; 1_000_000];
    let (ran, taken) =
        limits(script).run_with_input(&never(), |out| out.write_all(&input)).expect("it starts");
    assert!(matches!((ran.ended, taken), (Ended::TimedOut, Input::Cut)));
}

#[test]
fn one_that_cleans_up_at_term_has_its_grace() {
    let script = "trap 'echo cleaned; exit 9' TERM; sleep 1000 & wait";
    let command = Command { time: Duration::from_millis(300), ..shell(script) };
    let ran = command.run(&never()).expect("it starts");
    assert_eq!((ran.ended, ran.last_lines(100).as_str()), (Ended::TimedOut, "cleaned"));
}

#[test]
fn a_cancelled_command_ends_soon() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", file.display());
    let cancelled = never();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| shell(&script).run(&cancelled).expect("it starts"));
        wait_for(&file);
        cancelled.store(true, Ordering::Relaxed);
        assert_eq!(running.join().expect("no panic").ended, Ended::Stopped);
    });
    assert!(has_ended(&file));
}

#[test]
fn a_child_that_keeps_the_output_open_does_not_hang_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("child");
    let ran = run(&format!("sleep 1000 & echo $! > {}; echo done", file.display()));
    assert_eq!((ran.ended, ran.left_open), (Ended::Exited(0), true));
    assert_eq!(ran.last_lines(100), "done");
    assert!(has_ended(&file));
}

#[test]
fn a_child_that_closes_the_output_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("child");
    let script = format!("sleep 1000 >/dev/null 2>&1 & echo $! > {}", file.display());
    let ran = run(&script);
    assert_eq!((ran.ended, ran.left_open), (Ended::Exited(0), false));
    let pid = fs::read_to_string(&file).expect("written").trim().parse().expect("a number");
    // One that was killed is gone by now, or a zombie.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
    assert!(!status.contains("State:\tZ"), "{status}");
    rustix::process::kill_process(Pid::from_raw(pid).expect("a process"), rustix::process::Signal::KILL)
        .expect("it runs");
}

use rustix::process::Pid;

#[test]
fn what_cannot_be_started_is_said() {
    let missing = Command { program: "/no/such/program".into(), ..shell("") };
    let error = missing.run(&never()).expect_err("it is not there");
    assert_eq!(error.fault(), Fault::Missing);
    assert!(error.to_string().contains("/no/such/program") && error.hint().is_some(), "{error}");
    let nowhere = Command { folder: "/no/such/folder".into(), ..shell("") };
    let error = nowhere.run(&never()).expect_err("the folder is not there");
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
    assert_eq!((missing.find(), shell("").find()), (None, Some("/bin/sh".into())));
    assert!(Command { program: "sh".into(), ..shell("") }.find().is_some());
    assert_eq!(Command { program: "/".into(), ..shell("") }.find(), None);
}

#[test]
fn nothing_of_a_command_stays_open() {
    let open = || fs::read_dir("/proc/self/fd").expect("a folder").count();
    run("exit 0");
    // Other tests of this process open files as well: the fewest of many looks count.
    let fewest = |looks: usize| (0..looks).map(|_| (run("exit 0"), open()).1).min();
    let before = fewest(20);
    for _ in 0..40 {
        run("exit 0");
        run_with("cat", b"input");
    }
    assert!(fewest(20) < before.map(|count| count + 30), "descriptors stay open");
}
