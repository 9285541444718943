//! The commands of a target: what stops the old release, starts the new one, and checks it.
//!
//! Each is a line for `/bin/sh -c`, in the folder of a copy, with the environment and the limits of a delivery's hook
//! (`delivery::command`). The check is independent of what was switched: only its exit code counts, and one that cannot run fails.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::delivery::command::{Command, Ended, Variables};
use ground::escape;
use ground::faults::Faulty as _;
use ground::ids::{AppName, Label, ReleaseId, SpaceName, TargetName};
use ground::limits::{TARGET_OUTPUT_BYTES_MAX, TARGET_REASON_BYTES_MAX};

/// From TERM to KILL.
const GRACE: Duration = Duration::from_secs(5);
/// The shortest time between two checks of a release that is not healthy yet.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The time between two checks of one that is to stay healthy.
const HEALTHY_EVERY: Duration = Duration::from_secs(3);
/// How often a wait looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// The last lines in a report, of at most `TARGET_OUTPUT_BYTES_MAX`.
const OUTPUT_LINES: usize = 40;
/// What a POSIX shell exits with where a command may not be executed, or is not found.
const NOT_RUN: [i32; 2] = [126, 127];

/// The commands and their limits.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Runs in the shown copy before it is left.
    pub before_release: Option<String>,
    /// Runs in the copy that is shown from now on, also after going back.
    pub on_release: Option<String>,
    /// Checks the shown release; none: it is confirmed once `on_release` has succeeded.
    pub confirm: Option<String>,
    /// The time until the check must have succeeded.
    pub confirm_within: Duration,
    /// The time for which it must then go on to succeed.
    pub healthy_for: Duration,
    /// The time that one command may take.
    pub hook_timeout: Duration,
    /// Variables of whit's own environment that the commands get as well.
    pub pass_env: Vec<String>,
}

/// Why commands run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A release is about to be shown.
    BeforeRelease,
    /// It is shown.
    Released,
    /// It is checked.
    Confirming,
    /// The release before is shown again.
    RolledBack,
}

impl Event {
    fn as_str(self) -> &'static str {
        match self {
            Self::BeforeRelease => "before_release",
            Self::Released => "released",
            Self::Confirming => "confirming",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// What a command is told.
#[derive(Debug, Clone)]
pub struct Occasion {
    /// Why it runs.
    pub event: Event,
    /// The application.
    pub app: AppName,
    /// The release that comes, or has come.
    pub release: ReleaseId,
    /// Its labels.
    pub labels: Vec<Label>,
    /// The release that goes, or has gone.
    pub previous: Option<ReleaseId>,
    /// The folder of the copy that it runs in.
    pub copy: PathBuf,
    /// The target's directory.
    pub directory: PathBuf,
    /// The target's name.
    pub target: Option<TargetName>,
    /// Its space.
    pub space: Option<SpaceName>,
    /// Why it went back.
    pub reason: Option<String>,
}

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: String,
    /// The last lines of its output, safe to show.
    pub output: String,
    /// True if it could not run at all, or was stopped: another try does not help.
    pub is_final: bool,
}

impl Occasion {
    fn variables(&self) -> Vec<(&'static str, OsString)> {
        let labels: Vec<&str> = self.labels.iter().map(Label::as_str).collect();
        let previous = self.previous.map(|release| release.to_string());
        let or_empty = |value: Option<String>| value.unwrap_or_default();
        let mut values: Vec<(&str, OsString)> = [
            ("WHIT_EVENT", self.event.as_str().to_owned()),
            ("WHIT_APP", self.app.to_string()),
            ("WHIT_RELEASE", self.release.to_string()),
            ("WHIT_LABEL", labels.first().copied().unwrap_or_default().to_owned()),
            ("WHIT_LABELS", labels.join(" ")),
            ("WHIT_PREVIOUS", or_empty(previous)),
            ("WHIT_TARGET", or_empty(self.target.as_ref().map(ToString::to_string))),
            ("WHIT_SPACE", or_empty(self.space.as_ref().map(ToString::to_string))),
            ("WHIT_REASON", or_empty(self.reason.clone()).replace('\0', "")),
        ]
        .map(|(name, value)| (name, value.into()))
        .into();
        values.push(("WHIT_PLACE", self.copy.clone().into()));
        values.push(("WHIT_DIRECTORY", self.directory.clone().into()));
        values
    }
}

impl Hooks {
    /// Runs a command in the occasion's copy for at most `hook_timeout`. Setting `ending` ends it soon.
    ///
    /// # Errors
    /// It did not end with status 0, or left a child that keeps its output open, which was killed.
    pub fn run(&self, line: &str, occasion: &Occasion, ending: &AtomicBool) -> Result<(), Failure> {
        self.run_for(line, occasion, self.hook_timeout, ending)
    }

    fn run_for(
        &self,
        line: &str,
        occasion: &Occasion,
        time: Duration,
        ending: &AtomicBool,
    ) -> Result<(), Failure> {
        let command = Command {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), line.into()],
            environment: Variables::default().with(&self.pass_env, &occasion.variables()),
            folder: occasion.copy.clone(),
            time,
            grace: GRACE,
        };
        let ran = command.run(ending).map_err(|error| {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            Failure { reason: format!("{error}{hint}"), output: String::new(), is_final: true }
        })?;
        let failure = |reason: String, is_final| {
            let output = last_lines(&ran.last_lines(TARGET_OUTPUT_BYTES_MAX));
            Err(Failure { reason, output, is_final })
        };
        match ran.ended {
            Ended::Exited(0) if ran.left_open => {
                failure("it left its output open; what it had started was killed".to_owned(), false)
            }
            Ended::Exited(0) => Ok(()),
            Ended::Exited(status) if NOT_RUN.contains(&status) => {
                failure(format!("it could not run: it ended with status {status}"), true)
            }
            Ended::TimedOut => {
                let time = humantime::format_duration(Duration::from_secs(time.as_secs().max(1)));
                failure(format!("it took longer than {time}, and was ended"), false)
            }
            Ended::Stopped => failure("it was stopped".to_owned(), true),
            ended => failure(format!("it {ended}"), false),
        }
    }

    /// Checks the release until it succeeds within `confirm_within`, and then until it has stayed so for `healthy_for`. Durations
    /// are those of the monotonic clock.
    ///
    /// # Errors
    /// It did not succeed in time, or not for long enough, or cannot run.
    pub fn confirm(&self, occasion: &Occasion, ending: &AtomicBool) -> Result<(), Failure> {
        let Some(line) = &self.confirm else { return Ok(()) };
        let begin = Instant::now();
        let within = humantime::format_duration(self.confirm_within);
        loop {
            let (tried, left) = (Instant::now(), self.confirm_within.saturating_sub(begin.elapsed()));
            let failure = match self.run_for(line, occasion, left.min(self.hook_timeout), ending) {
                Ok(()) => break,
                Err(failure) => failure,
            };
            if failure.is_final {
                return Err(Failure { reason: format!("the check failed: {}", failure.reason), ..failure });
            }
            wait_until(tried + CHECK_EVERY, ending);
            if begin.elapsed() >= self.confirm_within || ending.load(Ordering::Relaxed) {
                let reason = format!("the check did not succeed within {within}: {}", failure.reason);
                return Err(Failure { reason, ..failure });
            }
        }
        let healthy = Instant::now();
        while healthy.elapsed() < self.healthy_for {
            let left = self.healthy_for.saturating_sub(healthy.elapsed());
            wait_until(Instant::now() + left.min(HEALTHY_EVERY), ending);
            let stopped =
                || Failure { reason: "it was stopped".to_owned(), output: String::new(), is_final: true };
            if ending.load(Ordering::Relaxed) {
                return Err(stopped());
            }
            // One that hangs is not healthy, however long commands may take.
            let time = self.confirm_within.min(self.hook_timeout);
            self.run_for(line, occasion, time, ending).map_err(|failure| {
                let time = humantime::format_duration(Duration::from_secs(healthy.elapsed().as_secs()));
                let reason = format!("the check succeeded, and failed {time} later: {}", failure.reason);
                Failure { reason, ..failure }
            })?;
        }
        Ok(())
    }
}

/// Waits until `time`, or until it is to end.
fn wait_until(time: Instant, ending: &AtomicBool) {
    while !ending.load(Ordering::Relaxed) {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(LOOK));
    }
}

/// Returns the end of an output within the bounds of a report.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut kept = lines[lines.len().saturating_sub(OUTPUT_LINES)..].join("\n");
    // What was escaped is longer than it was.
    let mut begin = kept.len().saturating_sub(TARGET_OUTPUT_BYTES_MAX);
    while !kept.is_char_boundary(begin) {
        begin += 1;
    }
    kept.drain(..begin);
    kept
}

/// Returns a reason within the bounds of a report, safe to show.
pub fn reason(text: &str) -> String {
    let text = escape::text(text);
    let end = escape::boundary(&text, TARGET_REASON_BYTES_MAX);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occasion(copy: &std::path::Path) -> Occasion {
        Occasion {
            event: Event::Released,
            app: "web".parse().expect("a name"),
            release: ReleaseId::of(b"new"),
            labels: vec!["v2".parse().expect("a label")],
            previous: Some(ReleaseId::of(b"old")),
            copy: copy.to_owned(),
            directory: "/srv/web".into(),
            target: Some("web-1".parse().expect("a name")),
            space: None,
            reason: None,
        }
    }

    fn hooks(confirm: &str, within: u64, healthy: u64) -> Hooks {
        Hooks {
            confirm: Some(confirm.to_owned()),
            confirm_within: Duration::from_secs(within),
            healthy_for: Duration::from_secs(healthy),
            hook_timeout: Duration::from_secs(60),
            ..Hooks::default()
        }
    }

    fn never() -> AtomicBool {
        AtomicBool::new(false)
    }

    #[test]
    fn a_command_runs_in_the_copy_with_what_it_is_told_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let hooks = hooks("", 1, 0);
        let line = "pwd > out; env | grep WHIT_ | grep -v WHIT_PLACE | sort >> out";
        hooks.run(line, &occasion(folder.path()), &never()).expect("it runs");
        let (new, old) = (ReleaseId::of(b"new"), ReleaseId::of(b"old"));
        let expected = format!(
            "{}\nWHIT_APP=web\nWHIT_DIRECTORY=/srv/web\nWHIT_EVENT=released\nWHIT_LABEL=v2\nWHIT_LABELS=v2\n\
             WHIT_PREVIOUS={old}\nWHIT_REASON=\nWHIT_RELEASE={new}\nWHIT_SPACE=\nWHIT_TARGET=web-1\n",
            folder.path().canonicalize().expect("a path").display()
        );
        assert_eq!(std::fs::read_to_string(folder.path().join("out")).expect("written"), expected);
    }

    #[test]
    fn a_check_that_comes_to_succeed_confirms_and_one_that_never_does_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = occasion(folder.path());
        let twice = "n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; test $n -ge 1";
        assert_eq!(hooks(twice, 60, 1).confirm(&at, &never()), Ok(()));
        let failed = hooks("echo no; exit 3", 1, 0).confirm(&at, &never()).expect_err("it never does");
        assert_eq!(failed.reason, "the check did not succeed within 1s: it ended with status 3");
        assert_eq!(failed.output, "no");
        // One that hangs is ended with the time that it has.
        let failed = hooks("exec sleep 1000", 1, 0).confirm(&at, &never()).expect_err("it hangs");
        assert!(failed.reason.contains("it took longer than 1s"), "{failed:?}");
    }

    #[test]
    fn a_check_that_flaps_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let hangs = "if [ -e hung ]; then exec sleep 1000; fi; touch hung";
        let failed = hooks(hangs, 1, 1).confirm(&occasion(folder.path()), &never()).expect_err("it hangs");
        assert!(failed.reason.contains("it took longer than 1s"), "{failed:?}");
        let flaps = "if [ -e up ]; then exit 1; fi; touch up";
        let failed = hooks(flaps, 60, 1).confirm(&occasion(folder.path()), &never()).expect_err("it flaps");
        assert!(failed.reason.starts_with("the check succeeded, and failed"), "{failed:?}");
    }

    #[test]
    fn a_check_that_cannot_run_fails_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("check"), "#!/bin/sh\n").expect("written");
        for line in ["./no-such-check", "./check"] {
            let failed = hooks(line, 3600, 0).confirm(&occasion(folder.path()), &never());
            assert!(failed.as_ref().is_err_and(|failed| failed.is_final), "{line}: {failed:?}");
        }
        let nowhere = occasion(&folder.path().join("gone"));
        assert!(hooks("true", 3600, 0).confirm(&nowhere, &never()).is_err());
    }

    #[test]
    fn what_a_report_holds_is_bounded_and_safe() {
        let folder = tempfile::tempdir().expect("a folder");
        let line =
            "i=0; while [ $i -lt 100 ]; do printf '%s\\033\\033\\033\\n' $i; i=$((i + 1)); done; exit 1";
        let failed = hooks("", 1, 0).run(line, &occasion(folder.path()), &never()).expect_err("it fails");
        assert!(failed.output.ends_with("99\\x1b\\x1b\\x1b") && failed.output.lines().count() == 40);
        let wide = "head -c 8000 /dev/zero; exit 1";
        let failed = hooks("", 1, 0).run(wide, &occasion(folder.path()), &never()).expect_err("it fails");
        assert!(failed.output.len() <= TARGET_OUTPUT_BYTES_MAX, "{}", failed.output.len());
        assert!(reason(&"ä\n".repeat(2000)).len() <= TARGET_REASON_BYTES_MAX);
    }

    #[test]
    fn a_daemon_that_keeps_the_output_open_holds_up_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = occasion(folder.path());
        let failed = hooks("", 1, 0).run("sleep 1000 & exit 0", &at, &never()).expect_err("it keeps it open");
        assert!(failed.reason.contains("left its output open"), "{failed:?}");
        let daemon = "setsid sh -c 'sleep 1; touch up' >/dev/null 2>&1 & exit 0";
        assert_eq!(hooks("", 1, 0).run(daemon, &at, &never()), Ok(()));
        // And it goes on.
        while !at.copy.join("up").exists() {
            thread::sleep(LOOK);
        }
    }
}
