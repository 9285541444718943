//! The benchmark harness: whit beside the tools that people use today, on the same two releases.
//!
//! One run copies both releases, runs each tool in the situations that it knows, and makes a [`Report`].
//! Tools are real programs, whit too; a tool that is missing is reported as missing, one that fails as
//! failed, and the others are measured nevertheless. What each figure means is in docs/BENCHMARKS.md.
//! Everything happens in one temporary folder, which goes with the run.

mod error;
mod measurement;
mod process;
mod input;
mod prediction;
mod report;
mod plot;
mod tools;
mod wan;
mod table;

use std::path::{Path, PathBuf};

use disk::files::OnPath;
use ground::monitor::Monitor;

pub use self::error::{Error, Result};
pub use self::input::Size;
pub use self::measurement::{Counts, Load, Measurement, Situations};
pub use self::plot::draw;
pub use self::prediction::LinkSpec;
pub use self::process::Stop;
pub use self::report::{Leg, Outcome, Report, Row};
pub use self::table::{Table, markdown, tools as tools_table, wan as wan_table};
pub use self::tools::{Tool, names, select};

use self::input::Input;
use self::tools::Ground;

/// The options of a benchmark.
#[derive(Debug)]
pub struct Options {
    /// The earlier release, a directory or a file.
    pub old: PathBuf,
    /// The later release, of the same kind.
    pub new: PathBuf,
    /// The input's name in tables.
    pub name: String,
    /// The tools, in the order of tables.
    pub tools: Vec<Tool>,
    /// The number of runs of each.
    pub rounds: u32,
    /// The link to predict for.
    pub link: Option<LinkSpec>,
    /// True if whit and rsync are run over an emulation of the link, instead of all tools over loopback.
    pub wan: bool,
    /// A file that keeps peers' figures from one benchmark of the same input to the next.
    pub peers: Option<PathBuf>,
    /// The program whose pushes are measured: whit.
    pub whit: PathBuf,
}

/// Runs a benchmark. Blocks, for minutes with slow tools.
///
/// # Errors
/// The releases cannot be read, there is no room for copies of them, the emulated link cannot be built, or
/// the user stopped it. A tool that fails is no error.
pub fn run(options: &Options, stop: &Stop, monitor: &dyn Monitor) -> Result<Report> {
    let work = tempfile::Builder::new().prefix("whit-bench-").tempdir();
    let work = work.on("create a folder in", &std::env::temp_dir())?;
    let stage = work.path().join("input");
    std::fs::create_dir(&stage).on("create", &stage)?;
    monitor.note("copying both releases");
    let input = Input::stage(&options.old, &options.new, &stage, stop)?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: options.name.clone(),
        digest: input.digest.clone(),
        old: input.old.size,
        new: input.new.size,
        rounds: options.rounds,
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        link: options.link,
        tools: Vec::new(),
        wan: Vec::new(),
    };
    if let (true, Some(link)) = (options.wan, options.link) {
        monitor.note(&format!("whit and rsync over {link}"));
        report.wan = wan::race(link, stop, &input, work.path(), &options.whit)?;
        return Ok(report);
    }
    let known = match &options.peers {
        Some(path) => Report::read_if_there(path)?.filter(|known| known.digest == input.digest),
        None => None,
    };
    for tool in &options.tools {
        let earlier = known.as_ref().and_then(|known| known.measured(tool.name)).filter(|_| !tool.is_whit());
        let outcome = match earlier {
            Some(found) => Outcome::Measured(Box::new(found.clone())),
            None => measure(tool, options, &input, work.path(), stop, monitor)?,
        };
        report.tools.push(Row { tool: tool.name.to_owned(), outcome });
        if let Some(path) = &options.peers {
            keep_peers(&report, known.as_ref(), path)?;
        }
    }
    Ok(report)
}

/// Writes the peers' figures, including known ones of peers that this run left out.
fn keep_peers(report: &Report, known: Option<&Report>, path: &Path) -> Result<()> {
    let mut all = report.clone();
    for row in known.into_iter().flat_map(|known| &known.tools) {
        if all.tools.iter().all(|other| other.tool != row.tool) {
            all.tools.push(row.clone());
        }
    }
    all.write_peers(path)
}

/// Runs one tool in all rounds.
fn measure(
    tool: &Tool,
    options: &Options,
    input: &Input,
    work: &Path,
    stop: &Stop,
    monitor: &dyn Monitor,
) -> Result<Outcome> {
    if let Some(program) = tool.missing_program() {
        return Ok(Outcome::Missing { program: program.to_owned() });
    }
    let input_bytes_max = tool.input_bytes_max;
    if input.old.size.bytes.max(input.new.size.bytes) > input_bytes_max {
        return Ok(Outcome::PassedOver { input_bytes_max });
    }
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        stop.check()?;
        monitor.note(&format!("{}, round {round} of {}", tool.name, options.rounds));
        let folder =
            tempfile::Builder::new().prefix(tool.name).tempdir_in(work).on("create a folder in", work)?;
        let ground = Ground { stop, input, work: folder.path(), whit: &options.whit };
        match (tool.measure)(&ground) {
            Ok(situations) => rounds.push(situations),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => {
                stop.check()?;
                return Ok(Outcome::Failed { reason: error.to_string() });
            }
        }
    }
    Ok(Outcome::Measured(Box::new(Situations::median(&rounds))))
}
