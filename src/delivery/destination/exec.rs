//! A command on the proxy's host that takes a whole release: on its standard input as a bundle, or as a directory.
//!
//! Status 0 means delivered. Status 75 (`EX_TEMPFAIL` of sysexits.h), a signal and a time that is over mean that another try
//! may help; every other status fails the delivery. A delivery may run the command again, after a crash for example:
//! `WHIT_DELIVERY` is the same each time. What the command makes of a release, and whether readers see all of it at once, is
//! its own affair.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Deserialize;

use super::bundle::Bundle;
use super::mistake::Mistake;
use super::{Check, Delivered, Destination, Error, Job, KeptCopy, Preview, Template};
use crate::delivery::command::{Command, CommandLine, Ended, Input, Ran, Variables, check_names};
use crate::restore::{self, OutsideLinks, StreamOptions, TreeOptions, walk, write_tree};
use disk::files::{self, Lock};
use format::manifest::Item;
use ground::ids::{AppName, Label, ReleaseId};

/// The status by which a command asks for another try: `EX_TEMPFAIL` of sysexits.h.
const TRY_AGAIN: i32 = 75;
/// The most of a command's last lines in a report.
const ANSWER_BYTES: usize = 2000;
/// The file in the destination's folder that keeps other deliveries away.
const LOCK: &str = ".whit-lock";
/// The folder in it that holds the release of the delivery under way.
const RELEASE: &str = "release";

/// What the command gets of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Special {
    /// A directory, named by `WHIT_DIRECTORY`.
    Directory,
    /// Nothing but its variables.
    None,
}

/// The form of the release that the command gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected `tar`, `tar.gz`, `tar.zst`, `zip`, `file`, `directory` or `none`")]
enum Form {
    Bundle(Bundle),
    Special(Special),
}

/// A destination that is a command, and the keys that define one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments.
    command: CommandLine,
    /// What it gets; a tar on standard input by default.
    #[serde(default = "tar")]
    input: Form,
    /// With `input = "directory"`, the folder in which the release is written for the time of the command. Only whit may
    /// write there.
    path: Option<Template>,
    /// Seconds that it may take; 600 by default.
    #[serde(default = "seconds")]
    seconds: u64,
    /// Seconds from TERM to KILL; 10 by default.
    #[serde(default = "grace")]
    grace: u64,
    /// More variables.
    #[serde(default)]
    env: Variables,
    /// Names of the proxy's own variables that the command gets, too.
    #[serde(default)]
    pass_env: Vec<String>,
    /// The working folder; by default the release's directory, else `/`.
    folder: Option<PathBuf>,
    /// True to run it also for the release that it was last run for.
    #[serde(default)]
    always: bool,
    /// True to pass on links that lead outside a release; refused by default.
    #[serde(default)]
    outside_links: bool,
}

fn tar() -> Form {
    Form::Bundle(Bundle::Tar)
}

fn seconds() -> u64 {
    600
}

fn grace() -> u64 {
    10
}

impl Exec {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first key whose value is a mistake.
    pub fn check(&self) -> Result<(), (&'static str, Mistake)> {
        let in_command = |key| move |mistake| (key, Mistake::Command(mistake));
        self.command.check().map_err(in_command("command"))?;
        self.env.check().map_err(in_command("env"))?;
        check_names(&self.pass_env).map_err(in_command("pass_env"))?;
        if self.seconds == 0 {
            return Err(("seconds", Mistake::Nothing));
        }
        if let Some(folder) = self.folder.as_ref().filter(|folder| !folder.is_absolute()) {
            return Err(("folder", Mistake::Relative(folder.clone())));
        }
        let Some(path) = &self.path else {
            let needs = self.input == Form::Special(Special::Directory);
            return if needs { Err(("path", Mistake::NoFolder)) } else { Ok(()) };
        };
        match path.unknown_placeholder() {
            Some(text) => Err(("path", Mistake::Placeholder(text))),
            None if path.as_path().is_absolute() => Ok(()),
            None => Err(("path", Mistake::Relative(path.as_path().to_owned()))),
        }
    }

    fn links(&self) -> OutsideLinks {
        if self.outside_links { OutsideLinks::Keep } else { OutsideLinks::Refuse }
    }

    /// Returns the command for one delivery.
    fn command(&self, job: &Job<'_>, directory: Option<&Path>) -> Command {
        let previous = previous(job).map(|release| release.to_string()).unwrap_or_default();
        let labels: Vec<&str> = job.labels.iter().map(Label::as_str).collect();
        let mut own: Vec<(&str, OsString)> = vec![
            ("WHIT_APP", job.app.as_str().into()),
            ("WHIT_RELEASE", job.release().to_string().into()),
            ("WHIT_LABEL", labels.first().copied().unwrap_or_default().into()),
            ("WHIT_LABELS", labels.join(" ").into()),
            ("WHIT_PREVIOUS", previous.into()),
            ("WHIT_DESTINATION", job.destination.as_str().into()),
            ("WHIT_DELIVERY", job.id.to_string().into()),
            ("WHIT_USER", job.user.map_or("", |user| user.as_str()).into()),
        ];
        own.extend(directory.map(|directory| ("WHIT_DIRECTORY", directory.into())));
        let folder = self.folder.as_deref().or(directory).unwrap_or(Path::new("/"));
        self.command_with(self.env.with(&self.pass_env, &own), folder)
    }

    fn command_with(&self, environment: Vec<(OsString, OsString)>, folder: &Path) -> Command {
        Command {
            program: self.command.program().to_owned(),
            arguments: self.command.arguments(),
            environment,
            folder: folder.to_owned(),
            time: Duration::from_secs(self.seconds),
            grace: Duration::from_secs(self.grace),
        }
    }

    /// Runs the command with a bundle. Returns the bundle's bytes.
    fn with_bundle(&self, bundle: Bundle, job: &Job<'_>) -> Result<(Ran, u64), Error> {
        let mut bytes = 0;
        let write = |out: &mut dyn Write| {
            let options = StreamOptions { links: self.links(), prefix: None, time: job.created };
            bytes = bundle.write(job.root, job.source, &options, (job.cancelled, job.monitor), out)?.bytes;
            Ok::<(), restore::Error>(())
        };
        match self.command(job, None).run_with_input(job.cancelled, write)? {
            (_, Input::Failed(error)) => Err(error.into()),
            (ran, Input::Cut) if ran.ended == Ended::Exited(0) => {
                Err(Error::Unread(self.command.program().to_owned()))
            }
            (ran, _) => Ok((ran, bytes)),
        }
    }

    /// Runs the command with a directory, which is removed afterwards. Returns the directory's bytes.
    fn with_directory(&self, job: &Job<'_>) -> Result<(Ran, u64), Error> {
        let folder = self.path.as_ref().expect("checked with the definition").of(job.app);
        files::create_folder(&folder)?;
        let lock = folder.join(LOCK);
        let _alone = Lock::take(&lock, Duration::ZERO)?.ok_or_else(|| Error::Busy(folder.clone()))?;
        let directory = folder.join(RELEASE);
        // Of a delivery that a crash ended.
        files::remove(&directory)?;
        let options = TreeOptions {
            cancelled: Some(job.cancelled),
            outside_links: self.links(),
            ..TreeOptions::default()
        };
        let written = write_tree(job.root, job.source, &directory, &options, job.monitor)?;
        let ran = self.command(job, Some(&directory)).run(job.cancelled);
        if let Err(error) = files::remove(&directory) {
            job.monitor.note(&format!("the release's directory was not removed: {error}"));
        }
        Ok((ran?, written.bytes))
    }

    /// Returns the report of a command that said success.
    fn succeeded(&self, ran: &Ran, job: &Job<'_>) -> Result<(), Error> {
        if ran.output_bytes > ran.output.len() as u64 {
            tracing::debug!(bytes = ran.output_bytes, "a command printed more than is kept");
        }
        if ran.left_open {
            job.monitor.note("the command left its output open; what it had started was killed");
        }
        match ran.ended {
            Ended::Exited(0) => Ok(()),
            Ended::Stopped => Err(restore::Error::Cancelled.into()),
            ended => Err(Error::CommandFailed {
                program: self.command.program().to_owned(),
                ended,
                is_passing: !matches!(ended, Ended::Exited(status) if status != TRY_AGAIN),
                output: ran.last_lines(ANSWER_BYTES).replace('\n', "; "),
            }),
        }
    }
}

/// Returns the release that the command succeeded with last.
fn previous(job: &Job<'_>) -> Option<ReleaseId> {
    job.shown.shown().current().map(|entry| entry.release)
}

impl Destination for Exec {
    /// Runs the command, unless the release is the one that it was last run for, and no other was begun since.
    fn deliver(&self, job: &Job<'_>) -> Result<Delivered, Error> {
        let (totals, release) = (job.root.totals, job.release());
        let place = self.describe(Some(job.app));
        let report = Delivered {
            place,
            files: totals.files,
            bytes: totals.bytes,
            kept: vec![release],
            ..Delivered::default()
        };
        if !self.always && is_shown(job) {
            return Ok(Delivered { reused_bytes: totals.bytes, already: true, ..report });
        }
        let (ran, sent_bytes) = match self.input {
            Form::Bundle(bundle) => self.with_bundle(bundle, job)?,
            Form::Special(Special::Directory) => self.with_directory(job)?,
            Form::Special(Special::None) => (self.command(job, None).run(job.cancelled)?, 0),
        };
        self.succeeded(&ran, job)?;
        let answer = Some(ran.last_lines(ANSWER_BYTES)).filter(|answer| !answer.is_empty());
        Ok(Delivered { sent_bytes, requests: 1, answer, ..report })
    }

    fn plan(&self, job: &Job<'_>) -> Result<Preview, Error> {
        let mut files = Vec::new();
        walk::<restore::Error>(job.root, &mut *job.source.reader(), &mut |item| {
            match item {
                Item::File { path, size, .. } => files.push((path.to_string(), size)),
                Item::HardLink { path, .. } => files.push((path.to_string(), 0)),
                _ => {}
            }
            Ok(())
        })?;
        let is_done = !self.always && is_shown(job);
        let (put, keep) = if is_done { (Vec::new(), files) } else { (files, Vec::new()) };
        Ok(Preview { put, keep, delete: Vec::new() })
    }

    /// Runs nothing.
    fn check(&self, _cancelled: &AtomicBool) -> Vec<Check> {
        let folder = self.folder.as_deref().unwrap_or(Path::new("/"));
        let command = self.command_with(Vec::new(), folder);
        let program = format!("`{}` may be run", command.program.display());
        let missing = || "it is not there, or the proxy's user may not run it".to_owned();
        let mut checks = vec![Check { step: program, failure: command.find().is_none().then(missing) }];
        let working = format!("`{}` is a folder", folder.display());
        let missing = || "it is not".to_owned();
        checks.push(Check { step: working, failure: (!folder.is_dir()).then(missing) });
        if let Some(path) = self.path.as_ref().filter(|path| !path.depends_on_app()) {
            let tried = files::create_folder(path.as_path())
                .and_then(|()| files::create_aside(&path.as_path().join(LOCK), 0o600))
                .and_then(|(aside, _)| files::remove(&aside));
            let step = format!("`{}` can be written to", path.as_path().display());
            checks.push(Check { step, failure: tried.err().map(|error| error.to_string()) });
        }
        checks
    }

    fn kind(&self) -> &'static str {
        "exec"
    }

    /// What a command was given cannot be read again.
    fn read_back(&self, _app: &AppName, _release: &ReleaseId) -> Vec<Box<dyn KeptCopy>> {
        Vec::new()
    }

    fn describe(&self, app: Option<&AppName>) -> String {
        let app = app.map_or("{app}", AppName::as_str);
        format!("{} for {app}", self.command.program().display())
    }

    fn folders(&self) -> &[Template] {
        self.path.as_slice()
    }
}

/// Returns whether the command succeeded with the release last, and no delivery of another was begun since.
fn is_shown(job: &Job<'_>) -> bool {
    let shown = job.shown.shown();
    let others = shown.entries.iter().take_while(|entry| shown.current() != Some(entry));
    let is_this = |release: &ReleaseId| *release == job.release();
    previous(job).as_ref().is_some_and(is_this)
        && others.map(|entry| entry.release).all(|other| is_this(&other))
}
