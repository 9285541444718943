//! `whit bench`: whit beside the tools that people use today.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::RangedI64ValueParser;
use tokio::signal::unix::SignalKind;

use super::error::Error;
use super::output::{self, Output};
use super::progress::waiting;
use super::signals::listen_for;
use crate::net::blocking;
use ground::faults::Fault;
use whit_bench::{Baseline, Link, Options, Report, Share, Stop};

const HELP: &str = "\
Copies OLD and NEW into a temporary folder, runs whit and every tool that is installed on the copies, and counts \
bytes in both directions, round trips, processor time and memory. Then times whit, rsync, rsync over ssh and tar through \
zstd over each of --links. Nothing leaves the machine. docs/BENCHMARKS.md defines what is counted for each tool.

  whit bench ./v1 ./v2 --plot bench.svg
  whit bench ./v1 ./v2 --only whit,rsync-az --rounds 3
  sudo whit bench ./v1 ./v2 --links loopback,100mbit/20ms,20mbit/50ms/0.5% --plot-seconds seconds.svg
  whit bench ./v1 ./v2 --rounds 3 --baseline report.json --worse-by 20% --json";

/// Measure whit beside the tools that people use today.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct BenchArgs {
    /// The earlier release: a directory or a file.
    #[arg(required_unless_present = "markdown", requires = "new")]
    old: Option<PathBuf>,
    /// The later release, of the same kind.
    new: Option<PathBuf>,
    /// The input's name in tables [default: NEW's name].
    #[arg(long)]
    name: Option<String>,
    /// Run only these tools.
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave these tools out.
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    skip: Vec<String>,
    /// Run each tool this many times, and report medians.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = rounds())]
    rounds: u32,
    /// Time whit and what people would use instead over these links: loopback, or emulated ones (rate, round trip time, loss),
    /// which need Linux and root.
    #[arg(long, value_name = "LINKS", value_delimiter = ',', default_value = "loopback")]
    links: Vec<Link>,
    /// Draw the bytes into an SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Draw the seconds to the complete copy, by link, into an SVG file.
    #[arg(long, value_name = "FILE")]
    plot_seconds: Option<PathBuf>,
    /// Fail if a figure is worse than in this report of --json: whit's bytes, or its seconds as a multiple of the best other
    /// tool's.
    #[arg(long, value_name = "REPORT")]
    baseline: Option<PathBuf>,
    /// By how much figures may be worse than the baseline's.
    #[arg(long, value_name = "SHARE", default_value = "10%", requires = "baseline")]
    worse_by: Share,
    /// Reuse the other tools' figures of bytes for this input from this file, and store new ones in it.
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Measure nothing: print the tables of reports written by --json as Markdown.
    #[arg(long, value_name = "REPORT", num_args = 1.., conflicts_with_all = ["old", "links", "plot", "plot_seconds", "baseline", "peers"])]
    markdown: Vec<PathBuf>,
}

/// More rounds add nothing.
fn rounds() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=100)
}

/// Runs the command.
pub async fn run(arguments: BenchArgs, output: &Output) -> Result<(), Error> {
    let (Some(old), Some(new)) = (arguments.old, arguments.new) else {
        if output.is_json() {
            return Err(Error::input("--markdown prints no JSON", "leave out --json"));
        }
        let reports = arguments.markdown.iter().map(|path| Report::read(path));
        let reports = reports.collect::<Result<Vec<_>, _>>()?;
        return output.line(whit_bench::markdown(&reports).trim_end());
    };
    let name = match arguments.name {
        Some(name) => name,
        None => name_of(&new),
    };
    let whit = std::env::current_exe().map_err(|source| Error::Message {
        fault: Fault::of_io(&source),
        text: format!("could not find the program itself: {source}"),
        hint: None,
    })?;
    let options = Options {
        name,
        old,
        new,
        tools: whit_bench::select(&arguments.only, &arguments.skip)?,
        rounds: arguments.rounds,
        links: arguments.links,
        peers: arguments.peers,
        baseline: arguments.baseline.map(|path| Baseline::read(&path, arguments.worse_by)).transpose()?,
        whit,
    };
    let (report, baseline) = measure(options, output).await?;
    for (path, draw) in [
        (arguments.plot, whit_bench::draw_bytes as fn(&Report, &Path) -> whit_bench::Result<()>),
        (arguments.plot_seconds, whit_bench::draw_seconds),
    ] {
        if let Some(path) = path {
            draw(&report, &path)?;
            output.note(&format!("drawn into {}", path.display()));
        }
    }
    let ended = baseline.map_or(Ok(()), |baseline| baseline.check(&report));
    output.report_with(&report, ended.map_err(Error::from), || text(&report))
}

/// Measures on a thread of its own; Ctrl-C or SIGTERM ends what runs, and waits until it is cleared away.
async fn measure(options: Options, output: &Output) -> Result<(Report, Option<Baseline>), Error> {
    let stop = Stop::default();
    let (of_thread, monitor) = (stop.clone(), waiting(output, "measuring"));
    let (mut interrupt, mut terminate) =
        (listen_for(SignalKind::interrupt())?, listen_for(SignalKind::terminate())?);
    let mut work = blocking::start(move || {
        let report = whit_bench::run(&options, &of_thread, &*monitor)?;
        Ok::<_, whit_bench::Error>((report, options.baseline))
    });
    tokio::select! {
        ended = &mut work => return Ok(ended??),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    };
    stop.stop();
    let ended = work.await;
    Ok(ended??)
}

fn name_of(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A report for people.
fn text(report: &Report) -> String {
    let size = |size: &whit_bench::Size| {
        format!("{} in {} files", output::bytes(size.bytes), output::count(size.files))
    };
    let show = |table: &whit_bench::Table| {
        let (heads, rows) = table.split_first().expect("a table has heads");
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        output::table(&heads, rows)
    };
    let mut parts = vec![format!("{}: {}, after {}", report.name, size(&report.new), size(&report.old))];
    let (bytes, mut words) = whit_bench::tools_table(report);
    if bytes.len() > 1 {
        parts.push(show(&bytes));
    }
    let (tables, more) = whit_bench::links_tables(report);
    for (title, table) in whit_bench::TITLES.iter().zip(&tables).filter(|(_, table)| table.len() > 1) {
        parts.push(format!("{title}:\n{}", show(table)));
    }
    words.extend(more.into_iter().filter(|sentence| !words.contains(sentence)).collect::<Vec<_>>());
    parts.push(words.join("\n"));
    parts.join("\n\n")
}
