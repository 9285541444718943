//! The command line: one file a command, and what they share.

mod access;
#[cfg(feature = "bench")]
mod bench;
mod cat;
mod deliver;
mod deliveries;
mod delivery_queue;
mod destinations;
mod demo;
mod dry_run;
mod embedded;
mod error;
mod follow;
mod groups;
mod labels;
mod links;
mod log;
mod login;
mod maintenance;
mod memory;
mod outcome;
mod output;
mod output_thread;
mod passing_release;
mod progress;
mod prime;
mod promote;
mod pull;
mod push;
mod queries;
mod rate;
mod receipt;
mod rollout_text;
mod rollouts;
mod serve;
mod service;
mod signals;
mod systemd;
mod tar;
mod targets;
mod token;
mod watch;
mod workers;

use std::process::{self, ExitCode};
use std::{io, panic};

use clap::{Args, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use ground::faults::Fault;
use ground::threads;

use self::error::Error;
use self::output::Output;

const AFTER_HELP: &str = "\
Without a proxy configured, whit keeps everything in a store of your own (--data, WHIT_DATA) and runs \
its proxy inside the command: try `whit push myapp ./build`, change something, and push again.

Exit codes: 0 done, 1 a mistake in whit, 2 wrong input, 3 not found, 4 not allowed, 5 damaged data, \
6 try again, 7 no room, 8 incompatible versions, of a rollout 9 rolled back, 10 failed, 11 superseded, 12 aborted, 13 held, 130 interrupted (SIGINT, SIGTERM), 141 nobody read the output to its end.";

/// Sends only the whit that changed: pushes releases to a proxy, which rebuilds and delivers them whole.
#[derive(Debug, Parser)]
#[command(name = "whit", version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    output: OutputArgs,
    #[command(subcommand)]
    command: Command,
}

/// How to report.
#[derive(Debug, Clone, Copy, Args)]
struct OutputArgs {
    /// Report as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
    /// Show no progress and no notes.
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Push a directory or file as a release of an application.
    Push(push::PushArgs),
    /// Fill the proxy's cache with an older copy, so that even a first push sends only what changed.
    Prime(prime::PrimeArgs),
    /// Make a directory equal to a release.
    Pull(pull::PullArgs),
    /// Write one file of a release to standard output.
    Cat(cat::CatArgs),
    /// Deliver a stored release to a destination. The current release stays as it is.
    Deliver(deliver::DeliverArgs),
    /// Make a stored release current.
    Promote(promote::PromoteArgs),
    /// Make the release current that was before.
    Rollback(promote::RollbackArgs),
    /// Show which release of an application is current, and why.
    Current(promote::CurrentArgs),
    /// Give labels to a stored release.
    Label(labels::LabelArgs),
    /// Take labels away from the releases that have them.
    Unlabel(labels::UnlabelArgs),
    /// List deliveries, or retry or end one.
    Deliveries(delivery_queue::DeliveriesArgs),
    /// List rollouts, or hold, resume or end one.
    Rollouts(rollouts::RolloutsArgs),
    /// List the proxy's destinations that the token allows, or try them.
    Destinations(destinations::DestinationsArgs),
    Groups(groups::GroupsArgs),
    /// List the machines that watch the proxy, or forget one that is gone.
    Targets(targets::TargetsArgs),
    /// List applications.
    Apps(queries::AppsArgs),
    /// List an application's releases, newest first.
    Releases(queries::ReleasesArgs),
    /// Show which files differ between two releases.
    Diff(queries::DiffArgs),
    /// Show what is stored and what was saved.
    Stats(queries::StatsArgs),
    /// Remove what no release needs any more.
    Gc(maintenance::GcArgs),
    /// Check everything that is stored.
    Verify(maintenance::VerifyArgs),
    /// Remove a release.
    Rm(maintenance::RemoveArgs),
    /// Keep a release from being removed.
    Pin(maintenance::ReleaseArgs),
    /// Let a release be removed again.
    Unpin(maintenance::ReleaseArgs),
    /// Run a proxy.
    Serve(serve::ServeArgs),
    /// Print a unit for systemd that runs a target or a proxy.
    Systemd(systemd::SystemdArgs),
    /// Create, list and revoke tokens, on the proxy's host.
    Token(token::TokenArgs),
    /// Remember a proxy and a token.
    Login(login::LoginArgs),
    /// Push two releases through a temporary proxy and show what was sent.
    Demo(demo::DemoArgs),
    /// Measure whit beside the tools that people use today.
    #[cfg(feature = "bench")]
    Bench(bench::BenchArgs),
}

/// Runs the program and returns its exit code.
pub fn run() -> ExitCode {
    memory::keep_freed();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let mut arguments = std::env::args_os().skip(1).take_while(|argument| argument != "--");
            return output::of_command_line(&error, arguments.any(|argument| argument == "--json")).into();
        }
    };
    let output = Output::new(cli.output.json, cli.output.quiet);
    let result = match runtime() {
        Ok(runtime) => runtime.block_on(dispatch(cli.command, &output)),
        Err(source) => Err(threads::Error::Start(source).into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Builds the runtime. If the system gives tokio one thread but not the next, tokio panics and then waits for the first for
/// ever: this ends the program instead.
fn runtime() -> io::Result<Runtime> {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(|panic| {
        output::to_stderr(&format!("error: no thread could be started: {panic}"));
        process::exit(Fault::Retry.exit_code().into());
    }));
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(|| std::mem::forget(threads::runs_tasks()))
        .enable_all()
        .build();
    panic::set_hook(usual);
    runtime
}

async fn dispatch(command: Command, output: &Output) -> Result<(), Error> {
    match command {
        // These end in an orderly way by themselves.
        Command::Serve(arguments) => serve::run(arguments, output).await,
        Command::Demo(arguments) => demo::run(arguments, output).await,
        #[cfg(feature = "bench")]
        Command::Bench(arguments) => bench::run(arguments, output).await,
        Command::Systemd(arguments) => systemd::run(&arguments, output),
        Command::Token(arguments) => token::run(&arguments, output),
        Command::Login(arguments) => login::run(arguments, output).await,
        Command::Push(arguments) => push::run(arguments, output).await,
        Command::Prime(arguments) => prime::run(arguments, output).await,
        Command::Pull(arguments) => pull::run(arguments, output).await,
        Command::Cat(arguments) => cat::run(arguments, output).await,
        Command::Deliver(arguments) => deliver::run(arguments, output).await,
        Command::Promote(arguments) => promote::promote(arguments, output).await,
        Command::Rollback(arguments) => promote::rollback(arguments, output).await,
        Command::Current(arguments) => promote::current(arguments, output).await,
        Command::Label(arguments) => labels::label(arguments, output).await,
        Command::Unlabel(arguments) => labels::unlabel(arguments, output).await,
        Command::Deliveries(arguments) => delivery_queue::run(arguments, output).await,
        Command::Rollouts(arguments) => rollouts::run(arguments, output).await,
        Command::Destinations(arguments) => destinations::run(arguments, output).await,
        Command::Groups(arguments) => groups::run(arguments, output).await,
        Command::Targets(arguments) => targets::run(arguments, output).await,
        Command::Apps(arguments) => queries::apps(arguments, output).await,
        Command::Releases(arguments) => queries::releases(arguments, output).await,
        Command::Diff(arguments) => queries::diff(arguments, output).await,
        Command::Gc(arguments) => maintenance::gc(arguments, output).await,
        Command::Verify(arguments) => maintenance::verify(arguments, output).await,
        Command::Rm(arguments) => maintenance::remove(arguments, output).await,
        Command::Pin(arguments) => maintenance::pin(arguments, true, output).await,
        Command::Unpin(arguments) => maintenance::pin(arguments, false, output).await,
        Command::Stats(arguments) => queries::stats(arguments, output).await,
    }
}
