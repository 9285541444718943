//! The benchmark harness: whit beside the tools that people use today, on the same two releases.
//!
//! One run copies both releases, counts each tool's bytes in the situations that it knows, times those that people would use
//! over each link, and makes a [`Report`].
//! Tools are real programs, whit too; a tool that is missing is reported as missing, one that fails as
//! failed, and the others are measured nevertheless. What each figure means is in docs/BENCHMARKS.md.
//! Everything happens in one temporary folder, which goes with the run.

mod error;
mod case;
mod measurement;
mod process;
mod input;
mod link;
mod outcome;
mod race;
mod hosts;
mod report;
mod baseline;
mod plot;
mod tools;
mod table;

use std::path::{Path, PathBuf};

use disk::files::OnPath;
use ground::monitor::Monitor;

pub use self::baseline::{Baseline, Share};
pub use self::case::Case;
pub use self::error::{Error, Result};
pub use self::input::Size;
pub use self::link::Link;
pub use self::measurement::{Load, Measurement, Saving, Situations};
pub use self::outcome::{Outcome, Row};
pub use self::plot::{draw_bytes, draw_seconds};
pub use self::process::Stop;
pub use self::race::{Best, Judgement, LinkReport, Race, Transfer};
pub use self::report::Report;
pub use self::table::{TITLES, Table, links as links_tables, markdown, tools as tools_table};
pub use self::tools::{Tool, names, select};

use self::hosts::Hosts;
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
    /// The links over which tools are timed, in the order of tables.
    pub links: Vec<Link>,
    /// A file that keeps peers' figures from one benchmark of the same input to the next.
    pub peers: Option<PathBuf>,
    /// An earlier report of the same input, with which the caller will compare this one.
    pub baseline: Option<Baseline>,
    /// The program whose pushes are measured: whit.
    pub whit: PathBuf,
}

/// Runs a benchmark: first the bytes of all tools, then seconds over each link. Blocks, for minutes with slow tools or links.
///
/// # Errors
/// The releases cannot be read, or are not the baseline's, there is no room for copies of them, an emulated link cannot be
/// built, or the user stopped it. A tool that fails is no error.
pub fn run(options: &Options, stop: &Stop, monitor: &dyn Monitor) -> Result<Report> {
    let work = tempfile::Builder::new().prefix("whit-bench-").tempdir();
    let work = work.on("create a folder in", &std::env::temp_dir())?;
    let stage = work.path().join("input");
    std::fs::create_dir(&stage).on("create", &stage)?;
    monitor.note("copying both releases");
    let input = Input::stage(&options.old, &options.new, &stage, stop)?;
    if let Some(baseline) = &options.baseline {
        baseline.expect_input(&input.digest)?;
    }
    let run = Run { options, input: &input, work: work.path(), stop, monitor };
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: options.name.clone(),
        digest: input.digest.clone(),
        old: input.old.size,
        new: input.new.size,
        rounds: options.rounds,
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        tools: Vec::new(),
        saved: std::collections::BTreeMap::new(),
        links: Vec::new(),
    };
    run.count(&mut report)?;
    report.judge_bytes();
    for link in &options.links {
        let tools = run.race(*link)?;
        let judged = LinkReport::new(*link, tools, |case| report.logical_bytes(case));
        report.links.push(judged);
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

/// A benchmark that runs.
struct Run<'a> {
    options: &'a Options,
    input: &'a Input,
    work: &'a Path,
    stop: &'a Stop,
    monitor: &'a dyn Monitor,
}

impl Run<'_> {
    /// Counts the bytes of all tools over loopback, or takes them from an earlier run.
    fn count(&self, report: &mut Report) -> Result<()> {
        let known = match &self.options.peers {
            Some(path) => Report::read_if_there(path)?.filter(|known| known.digest == self.input.digest),
            None => None,
        };
        let hosts = Hosts::open(Link::Loopback, self.stop)?;
        for tool in &self.options.tools {
            let Some(measure) = tool.measure else { continue };
            let known_peer = known.as_ref().filter(|_| !tool.is_whit());
            let outcome = match known_peer.and_then(|known| known.measured(tool.name)) {
                Some(found) => Outcome::Measured(Box::new(found.clone())),
                None => self.rounds(tool, &hosts, measure, Situations::median)?,
            };
            report.tools.push(Row { tool: tool.name.to_owned(), outcome });
            if let Some(path) = &self.options.peers {
                keep_peers(report, known.as_ref(), path)?;
            }
        }
        Ok(())
    }

    /// Times the tools that people would use over one link.
    fn race(&self, link: Link) -> Result<Vec<Row<Race>>> {
        let racers = || self.options.tools.iter().filter_map(|tool| Some((tool, tool.race?)));
        if racers().next().is_none() {
            return Ok(Vec::new());
        }
        self.monitor.note(&format!("over {link}"));
        let hosts = Hosts::open(link, self.stop)?;
        let run = |(tool, race): (&Tool, _)| {
            let outcome = self.rounds(tool, &hosts, race, race::median)?;
            Ok(Row { tool: tool.name.to_owned(), outcome })
        };
        racers().map(run).collect()
    }

    /// Runs one tool in all rounds.
    fn rounds<T>(
        &self,
        tool: &Tool,
        hosts: &Hosts,
        run: fn(&Ground<'_>) -> Result<T>,
        median: fn(&[T]) -> T,
    ) -> Result<Outcome<T>> {
        let Self { options, input, work, stop, monitor } = *self;
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
            match run(&Ground { stop, input, hosts, work: folder.path(), whit: &options.whit }) {
                Ok(figures) => rounds.push(figures),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => {
                    stop.check()?;
                    return Ok(Outcome::Failed { reason: error.to_string() });
                }
            }
        }
        Ok(Outcome::Measured(Box::new(median(&rounds))))
    }
}
