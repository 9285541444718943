//! `whit pull --watch`: a target that keeps its directory at what the proxy wants.

use std::mem::discriminant;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::SignalKind;
use tokio::sync::watch::Sender;

use super::access::AccessArgs;
use super::error::Error;
use super::output::{self, Output};
use super::output_thread::OutputThread;
use super::service::Service;
use super::signals::listen_for;
use crate::agent::pull::PullOptions;
use crate::delivery::command::check_names;
use crate::net::link;
use crate::net::owned_task::OwnedTask;
use crate::target::place::PlaceOptions;
use crate::target::{self, Hooks, Listener, Reports, Route, Target};
use format::target::{TargetReport, TargetState};
use ground::ids::{ReleaseId, Selector};
use ground::poison::Unpoisoned as _;
use ground::threads;
use protocol::token::claimed;

/// The time between two lines of progress.
const LINE_EVERY: Duration = Duration::from_secs(9);

/// What runs before and after a release is shown.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "With --watch")]
pub struct HookArgs {
    /// A command for `sh -c` that runs in the copy that is shown, before it is left: to stop what runs there.
    #[arg(long, value_name = "CMD", requires = "watching")]
    before_release: Option<String>,
    /// A command for `sh -c` that runs in the copy that is shown from now on, also after going back: to start what runs there.
    #[arg(long, value_name = "CMD", requires = "watching")]
    on_release: Option<String>,
    /// A command for `sh -c` that checks the release, in its copy, until it exits with 0: else the target goes back by itself.
    #[arg(long, value_name = "CMD", requires = "watching")]
    confirm: Option<String>,
    /// The time until the check must have succeeded.
    #[arg(long, value_name = "TIME", default_value = "90s", requires = "confirm")]
    confirm_within: humantime::Duration,
    /// The time for which the check must then go on to succeed.
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "confirm")]
    healthy_for: humantime::Duration,
    /// The time after which a command is ended, with what it started.
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "watching")]
    hook_timeout: humantime::Duration,
    /// A variable of whit's own that the commands get besides PATH, HOME, LANG and those that begin with `WHIT_`; may be given several
    /// times.
    #[arg(long, value_name = "NAME", requires = "watching")]
    pass_env: Vec<String>,
}

impl HookArgs {
    /// Returns the commands.
    pub fn hooks(&self) -> Result<Hooks, Error> {
        check_names(&self.pass_env)
            .map_err(|mistake| Error::input(format!("--pass-env: {mistake}"), mistake.hint()))?;
        Ok(Hooks {
            before_release: self.before_release.clone(),
            on_release: self.on_release.clone(),
            confirm: self.confirm.clone(),
            confirm_within: *self.confirm_within,
            healthy_for: *self.healthy_for,
            hook_timeout: *self.hook_timeout,
            pass_env: self.pass_env.clone(),
        })
    }

    /// Returns the words of a command line that say the same.
    pub fn words(&self) -> Vec<String> {
        let commands = [
            ("--before-release", &self.before_release),
            ("--on-release", &self.on_release),
            ("--confirm", &self.confirm),
        ];
        let commands = commands.into_iter().filter_map(|(flag, line)| Some((flag, line.clone()?)));
        let mut words: Vec<(&str, String)> = commands.collect();
        if self.confirm.is_some() {
            words.push(("--confirm-within", self.confirm_within.to_string()));
            words.push(("--healthy-for", self.healthy_for.to_string()));
        }
        words.push(("--hook-timeout", self.hook_timeout.to_string()));
        words.extend(self.pass_env.iter().map(|name| ("--pass-env", name.clone())));
        words.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
}

/// What is watched for, and where.
#[derive(Debug)]
pub struct WatchOptions {
    /// The application, and the label that is followed.
    pub release: Selector,
    /// The directory.
    pub directory: PathBuf,
    /// How it is laid out.
    pub place: PlaceOptions,
    /// How it is pulled into.
    pub pull: PullOptions,
    /// What runs.
    pub hooks: Hooks,
}

/// Watches until SIGTERM or Ctrl-C.
pub async fn run(watching: WatchOptions, access: &AccessArgs, output: &Output) -> Result<(), Error> {
    let service = Service::of_environment();
    let Some((access, token_file)) = access.remote(output)? else {
        return Err(Error::input(
            "a target watches a proxy that runs by itself",
            "give --proxy, or set WHIT_PROXY; `whit serve` runs a proxy and prints its address",
        ));
    };
    let grant = claimed(&access.token);
    let name = grant.as_ref().and_then(|grant| grant.target.clone());
    if name.is_none() {
        return Err(Error::input(
            "the token has no target's name",
            "use one that `whit token create --target NAME --allow pull` made on the proxy's host",
        ));
    }
    let options = target::Options {
        app: watching.release.app.clone(),
        directory: std::path::absolute(&watching.directory).unwrap_or(watching.directory),
        place: watching.place,
        pull: watching.pull,
        hooks: watching.hooks,
        name,
        space: grant.map(|grant| grant.space),
    };
    let route = Route { access, token_file, options: link::Options::default(), follows: watching.release.at };
    let printer = Printer {
        out: OutputThread::start(output)?,
        is_json: output.is_json(),
        service: service.clone(),
        last: Mutex::new((None, None)),
    };
    let stop = Arc::new(Sender::new(0));
    let _signals = count_signals(Arc::clone(&stop), service.clone())?;
    let reports = Reports::new(Arc::new(printer));
    let target = {
        let _tasks = threads::runs_tasks();
        let opening = crate::net::blocking::start_whole(move || Target::open(options, reports));
        Arc::new(opening.await.map_err(target::Error::from)??)
    };
    service.ready();
    let _tasks = threads::runs_tasks();
    tokio::select! {
        watched = target::watch(target, route, stop.subscribe()) => Ok(watched?),
        () = service.keep_alive() => Ok(()),
    }
}

/// Counts SIGTERM and Ctrl-C, for as long as what is returned lives.
fn count_signals(stop: Arc<Sender<u32>>, service: Service) -> Result<OwnedTask<()>, Error> {
    let (mut interrupt, mut terminate) =
        (listen_for(SignalKind::interrupt())?, listen_for(SignalKind::terminate())?);
    Ok(OwnedTask::start(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            service.stopping();
            stop.send_modify(|count| *count += 1);
        }
    }))
}

/// Shows each change: a line for people, an object for programs.
struct Printer {
    out: OutputThread,
    is_json: bool,
    service: Service,
    /// The last change, and when the last line of progress was shown.
    last: Mutex<(Option<TargetReport>, Option<Instant>)>,
}

impl Listener for Printer {
    fn report(&self, report: &TargetReport) {
        let line = text(report);
        self.service.status(line.lines().next().unwrap_or_default());
        let mut last = self.last.lock().unpoisoned();
        if last.0.as_ref().is_some_and(|last| is_progress(last, report)) {
            if last.1.is_none_or(|shown| shown.elapsed() >= LINE_EVERY) && !self.is_json {
                last.1 = Some(Instant::now());
                self.out.note(&line);
            }
            return;
        }
        let before = last.0.replace(report.clone());
        last.1 = Some(Instant::now());
        // What changed otherwise is for programs: which rollout it belongs to.
        if self.is_json || before.is_none_or(|before| text(&before) != line) {
            self.out.report(fields(report), line);
        }
    }

    fn note(&self, text: &str) {
        self.out.note(text);
    }
}

/// Returns whether a report says only that the same fetch has come further.
fn is_progress(last: &TargetReport, report: &TargetReport) -> bool {
    let is_same = discriminant(&last.state) == discriminant(&report.state);
    is_same
        && matches!(report.state, TargetState::Fetching(_))
        && (last.about, last.rollout, &last.held_up) == (report.about, report.rollout, &report.held_up)
}

fn fields(report: &TargetReport) -> Value {
    let (state, reason) = match &report.state {
        TargetState::Empty => ("empty", None),
        TargetState::Fetching(_) => ("fetching", report.held_up.as_ref()),
        TargetState::Switching => ("switching", None),
        TargetState::Confirming => ("confirming", None),
        TargetState::Confirmed => ("confirmed", None),
        TargetState::RolledBack { reason } => ("rolled_back", Some(reason)),
        TargetState::Failed { reason, .. } => ("failed", Some(reason)),
    };
    json!({
        "state": state, "release": report.about, "shown": report.shown, "previous": report.previous,
        "rollout": report.rollout, "reason": reason, "fetched_bytes": report.fetched_bytes,
        "saved_bytes": report.saved_bytes, "output": report.output,
    })
}

fn text(report: &TargetReport) -> String {
    let short = |release: &Option<ReleaseId>| {
        release.map_or_else(|| "no release".to_owned(), |release| format!("release {}", release.short()))
    };
    let (about, shown) = (short(&report.about), short(&report.shown));
    let line = match &report.state {
        TargetState::Empty => "nothing is shown, and nothing is wanted yet".to_owned(),
        TargetState::Fetching(_) if report.held_up.is_some() => {
            format!(
                "fetching {about} is held up: {}; trying again",
                report.held_up.as_deref().unwrap_or_default()
            )
        }
        TargetState::Fetching(progress) => {
            let (done, total) = (output::bytes(progress.bytes), output::bytes(progress.total));
            format!("fetching {about}: {done} of {total} in {} files", output::count(progress.files))
        }
        TargetState::Switching => format!("switching from {shown} to {about}"),
        TargetState::Confirming => format!("confirming {about}"),
        TargetState::Confirmed => {
            let (fetched, saved) = (output::bytes(report.fetched_bytes), output::bytes(report.saved_bytes));
            format!("confirmed {about}: {fetched} fetched, {saved} saved")
        }
        TargetState::RolledBack { reason } => format!("went back from {about} to {shown}: {reason}"),
        TargetState::Failed { reason, .. } if report.about == report.shown => {
            format!("{about} failed, and stays: {reason}")
        }
        TargetState::Failed { reason, .. } => format!("{about} failed, {shown} stays: {reason}"),
    };
    let output = report.output.lines().map(|line| format!("  | {line}"));
    [line].into_iter().chain(output).collect::<Vec<_>>().join("\n")
}
