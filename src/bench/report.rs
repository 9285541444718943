//! The report of a benchmark, as `whit bench --json` prints it and `--peers` keeps it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::case::Case;
use super::error::{Error, Result};
use super::input::Size;
use super::measurement::{Saving, Situations};
use super::outcome::Row;
use super::race::{LinkReport, WHIT};
use disk::files;

/// A report of all tools takes some 20 KB.
const REPORT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The version of whit.
    pub version: String,
    /// The input's name in tables.
    pub name: String,
    /// BLAKE3 of both releases' content.
    pub digest: String,
    /// The earlier release.
    pub old: Size,
    /// The later release.
    pub new: Size,
    /// The number of runs whose medians the figures are.
    pub rounds: u32,
    /// Processors of the machine.
    pub processors: usize,
    /// One row for each tool, in the order of tables.
    pub tools: Vec<Row<Situations>>,
    /// What whit saved by the bytes of `tools`.
    #[serde(default)]
    pub saved: BTreeMap<Case, Saving>,
    /// Seconds over each link, in the order of the command line.
    #[serde(default)]
    pub links: Vec<LinkReport>,
}

impl Report {
    /// Reads a report that `--json` wrote.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        parse(path, &files::read_bounded(path, REPORT_BYTES_MAX)?)
    }

    /// Reads a report where there is one.
    ///
    /// # Errors
    /// As [`Report::read`].
    pub fn read_if_there(path: &Path) -> Result<Option<Self>> {
        files::read_if_there(path, REPORT_BYTES_MAX)?.map(|bytes| parse(path, &bytes)).transpose()
    }

    /// Writes the peers' figures: all except whit's own, without a link.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_peers(&self, path: &Path) -> Result<()> {
        let mut peers = self.clone();
        peers.tools.retain(|row| row.tool != WHIT && row.outcome.figures().is_some());
        peers.saved.clear();
        peers.links.clear();
        let text = serde_json::to_string_pretty(&peers).expect("reports are plain words and numbers");
        Ok(files::publish(path, text.as_bytes(), 0o644)?)
    }

    /// Returns the figures of a tool, where it was measured.
    pub fn measured(&self, tool: &str) -> Option<&Situations> {
        self.tools.iter().find(|row| row.tool == tool)?.outcome.figures()
    }

    /// Works out what whit saved by the bytes of all tools.
    pub fn judge_bytes(&mut self) {
        let of = |case| {
            let least = self.tools.iter().filter(|row| row.tool != WHIT);
            let least = least.filter_map(|row| row.outcome.figures()?.bytes_beside(case)).min();
            let whit = self.measured(WHIT)?.of(case)?.bytes();
            Some((case, Saving::of(whit, self.logical_bytes(case), least)))
        };
        self.saved = Case::ALL.into_iter().filter_map(of).collect();
    }

    /// Returns the bytes of the release that a case brings.
    pub fn logical_bytes(&self, case: Case) -> u64 {
        if case == Case::First { self.old.bytes } else { self.new.bytes }
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Report> {
    let wrong = |source| Error::Report { path: path.display().to_string(), source };
    serde_json::from_slice(bytes).map_err(wrong)
}

#[cfg(test)]
pub mod sample {
    //! A report made up for tests.

    use std::collections::BTreeMap;

    use super::Report;
    use crate::input::Size;
    use crate::measurement::{Load, Measurement, Situations};
    use crate::outcome::{Outcome, Row};

    /// Returns a run of this many bytes.
    pub fn run(up_bytes: u64, down_bytes: u64) -> Measurement {
        let sender = Load { cpu_seconds: 0.25, peak_bytes: 12_000_000 };
        Measurement {
            up_bytes,
            down_bytes,
            round_trips: Some(4),
            wall_seconds: 0.5,
            sender,
            receiver: Some(sender),
        }
    }

    /// whit, a peer in each situation, and one of each that has no figures.
    pub fn report() -> Report {
        let row = |tool: &str, outcome| Row { tool: tool.to_owned(), outcome };
        let fresh = |run| Situations { fresh: Some(run), ..Situations::default() };
        let whit = Situations { kept: Some(run(900, 100)), ..fresh(run(40_000, 2_000)) };
        let kept = Situations { kept: Some(run(3_000, 0)), ..Situations::default() };
        Report {
            version: "0.1.0".to_owned(),
            name: "app".to_owned(),
            digest: "00".repeat(32),
            old: Size { files: 2, bytes: 1_000_000 },
            new: Size { files: 3, bytes: 1_234_567 },
            rounds: 1,
            processors: 2,
            tools: vec![
                row("whit", Outcome::Measured(Box::new(whit))),
                row("rsync-acz", Outcome::Measured(Box::new(fresh(run(45_000, 5_000))))),
                row("zstd-3", Outcome::Measured(Box::new(kept))),
                row("borg", Outcome::Missing { program: "borg".to_owned() }),
                row("bsdiff", Outcome::PassedOver { input_bytes_max: 1 << 20 }),
                row("zsync", Outcome::Failed { reason: "it broke".to_owned() }),
            ],
            saved: BTreeMap::new(),
            links: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, sample};

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("peers.json");
        assert!(Report::read_if_there(&path).expect("no error").is_none());
        let report = sample::report();
        report.write_peers(&path).expect("written");
        let peers = Report::read(&path).expect("read");
        let names: Vec<&str> = peers.tools.iter().map(|row| row.tool.as_str()).collect();
        assert_eq!(names, ["rsync-acz", "zstd-3"], "measured peers alone");
        assert_eq!(peers.tools[0], report.tools[1]);
        assert_eq!(peers.digest, report.digest);
        let all: Report = serde_json::from_str(&serde_json::to_string(&report).expect("text")).expect("read");
        assert_eq!(all.tools, report.tools);
        std::fs::write(&path, "{}").expect("written");
        assert!(Report::read(&path).is_err());
    }
}
