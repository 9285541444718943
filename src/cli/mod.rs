//! The command line: one file a command, and what they share.

mod access;
#[cfg(feature = "bench")]
mod bench;
mod deliver;
mod demo;
mod embedded;
mod log;
mod login;
mod output;
mod progress;
mod pull;
mod push;
mod queries;
mod serve;
mod token;
mod maintenance;

use std::process::{self, ExitCode};
use std::{io, panic};

use clap::{Args, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::net::{identity, link};
use crate::{agent, config, proxy, restore};
use disk::files;
use ground::faults::{Fault, Faulty as _, faulty};
use ground::ids;
use protocol::address;

use self::access::AccessArgs;
use self::output::Output;
use self::progress::monitor;

const AFTER_HELP: &str = "\
Without a proxy configured, whit keeps everything in a store of your own (--data, WHIT_DATA) and runs
its proxy inside the command: try `whit push myapp ./build`, change something, and push again.

Exit codes: 0 done, 1 a mistake in whit, 2 wrong input, 3 not found, 4 not allowed, 5 damaged data,
6 try again, 7 no room, 8 incompatible versions, 130 interrupted, 141 nobody read the output to its end.";

/// Sends only the whit that changed: pushes releases to a proxy, which rebuilds and delivers them whole.
#[derive(Debug, Parser)]
#[command(name = "whit", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
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
    /// Make a directory equal to a release.
    Pull(pull::PullArgs),
    /// Write one file of a release to standard output.
    Cat(pull::CatArgs),
    /// Deliver a release again, without any agent's bytes.
    Deliver(deliver::DeliverArgs),
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
    /// Create, list and revoke tokens, on the proxy's host.
    Token(token::TokenArgs),
    /// Remember a proxy and a token.
    Login(login::LoginArgs),
    /// Push two releases through a proxy of its own and show what crossed.
    Demo(demo::DemoArgs),
    /// Measure whit beside the tools that people use today.
    #[cfg(feature = "bench")]
    Bench(bench::BenchArgs),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Agent(#[from] agent::Error),
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    Rebuild(#[from] restore::Error),
    #[error(transparent)]
    Name(#[from] ids::Error),
    #[error(transparent)]
    Address(#[from] address::Error),
    #[error(transparent)]
    Link(#[from] link::Error),
    #[cfg(feature = "bench")]
    #[error(transparent)]
    Bench(#[from] whit_bench::Error),
    #[error(transparent)]
    Threads(#[from] ground::threads::Error),
    /// A failure of the command itself.
    #[error("{text}")]
    Message { fault: Fault, text: String, hint: Option<String> },
    #[error("interrupted")]
    Interrupted,
    /// A path that is not UTF-8.
    #[error("the command was carried out, but JSON cannot hold its result: {0}")]
    Report(serde_json::Error),
    /// Standard output.
    #[error("could not write to standard output: {0}")]
    Output(io::Error),
}

/// The exit code that a shell gives a program ended by a closed pipe: 128 and SIGPIPE.
const READER_GONE: u8 = 141;

impl Error {
    /// Returns whether the reader of standard output has gone, which needs no message.
    fn is_reader_gone(&self) -> bool {
        let (Self::Output(source)
        | Self::Rebuild(restore::Error::Output { source, .. } | restore::Error::OutputEnd(source))) = self
        else {
            return false;
        };
        source.kind() == io::ErrorKind::BrokenPipe
    }

    fn exit_code(&self) -> u8 {
        if self.is_reader_gone() { READER_GONE } else { self.fault().exit_code() }
    }

    /// Returns the error's own hint, else that of its fault.
    fn advice(&self) -> Option<String> {
        self.hint().or_else(|| general_hint(self.fault()).map(str::to_owned))
    }

    fn input(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Message { fault: Fault::Input, text: text.into(), hint: Some(hint.into()) }
    }
}

faulty! {
    Error passes on Agent, Proxy, Config, File, Identity, Rebuild, Address, Link, #[cfg(feature = "bench")] Bench, Threads;
    Self::Name(_) | Self::Report(_) => Fault::Input;
    Self::Message { fault, hint, .. } => *fault, hint.clone();
    Self::Interrupted => Fault::Interrupted;
    Self::Output(source) => Fault::of_io(source),
        "see where standard output goes; the command itself was carried out";
}

/// Returns the hint for a fault whose error has none of its own.
fn general_hint(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::Retry => Some("try again; what was acknowledged is not sent twice"),
        Fault::Full => Some("make room on the disk, then try again"),
        Fault::Corrupt => {
            Some("push the release again from where it was built; the proxy asks for what it lost")
        }
        Fault::Version => Some("update the older of the two sides"),
        Fault::Bug => Some("this is a bug in whit: please report it, with the command"),
        Fault::Denied => Some("check the permissions, or ask the proxy's admin for another token"),
        Fault::Interrupted => Some("run the command again: it goes on where it was"),
        Fault::Input => Some("check the arguments: the command's `--help` lists them"),
        Fault::Missing => None,
    }
}

/// Runs the program and returns its exit code.
pub fn run() -> ExitCode {
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
        Err(source) => Err(ground::threads::Error::Start(source).into()),
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
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
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
        Command::Token(arguments) => token::run(&arguments, output),
        Command::Login(arguments) => login::run(arguments, output).await,
        Command::Push(arguments) => push::run(arguments, output).await,
        Command::Pull(arguments) => pull::run(arguments, output).await,
        Command::Cat(arguments) => pull::cat(arguments, output).await,
        Command::Deliver(arguments) => deliver::run(arguments, output).await,
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

/// Workers for hashing, compressing and writing: one for each processor.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}
