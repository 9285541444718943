//! Compares a report with an earlier one of the same input: which figures of whit's are worse?
//!
//! Seconds are compared as multiples of the best peer's in the same run, so that another machine or load makes no difference
//! by itself; bytes as they are. Only what both reports measured is compared, except that whit must have a figure where the
//! baseline has one.

use std::path::Path;
use std::str::FromStr;

use super::case::Case;
use super::error::{Error, Result};
use super::race::{Best, LinkReport, WHIT};
use super::report::Report;

/// Seconds that make nothing worse: the start of a process, a slice of the scheduler.
const SECONDS_SPARED: f64 = 0.1;
/// Bytes that make nothing worse: a few packets more or less.
const BYTES_SPARED: f64 = 200.0;

/// The share by which a figure may be worse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl FromStr for Share {
    type Err = Error;

    /// Parses `10%`.
    fn from_str(text: &str) -> Result<Self> {
        let number = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let number = number.filter(|number| (0.0..=10_000.0).contains(number));
        number.map(|percent| Self(percent / 100.0)).ok_or_else(|| Error::Share { text: text.to_owned() })
    }
}

/// An earlier report, and how much worse a later one may be.
#[derive(Debug)]
pub struct Baseline {
    report: Report,
    share: Share,
}

impl Baseline {
    /// Reads a report that `--json` wrote.
    ///
    /// # Errors
    /// The file cannot be read, or is no report.
    pub fn read(path: &Path, share: Share) -> Result<Self> {
        Ok(Self { report: Report::read(path)?, share })
    }

    /// Checks that it is of the input with this digest.
    ///
    /// # Errors
    /// [`Error::Baseline`].
    pub fn expect_input(&self, digest: &str) -> Result<()> {
        if self.report.digest == digest {
            return Ok(());
        }
        Err(Error::Baseline { name: self.report.name.clone() })
    }

    /// Checks a report of the same input.
    ///
    /// # Errors
    /// [`Error::Worse`] names each figure that is worse by more than the share, and by more than 0.1 s or 200 B. A report of
    /// another input cannot be compared.
    pub fn check(&self, report: &Report) -> Result<()> {
        self.expect_input(&report.digest)?;
        let mut figures = self.bytes(report);
        for was in &self.report.links {
            if let Some(is) = report.links.iter().find(|is| is.link == was.link) {
                figures.extend(self.seconds(was, is));
            }
        }
        if figures.is_empty() { Ok(()) } else { Err(Error::Worse { figures }) }
    }

    /// Compares the bytes that are counted for all tools.
    fn bytes(&self, report: &Report) -> Vec<String> {
        // Where the run left whit out.
        let is_asked = report.tools.iter().any(|row| row.tool == WHIT);
        let (Some(was), true) = (self.report.measured(WHIT), is_asked) else { return Vec::new() };
        let is = report.measured(WHIT);
        let compare = |case: Case| {
            let was = was.of(case)?.bytes();
            match is.and_then(|is| is.of(case)) {
                Some(is) => self.more_bytes(case.name(), was, is.bytes()),
                None => Some(format!("{}: no bytes, were {was}", case.name())),
            }
        };
        Case::ALL.into_iter().filter_map(compare).collect()
    }

    /// Compares the figures over one link.
    fn seconds(&self, was: &LinkReport, is: &LinkReport) -> Vec<String> {
        let mut worse = Vec::new();
        if is.tools.iter().all(|row| row.tool != WHIT) {
            return worse;
        }
        for (case, was_judged) in &was.judged {
            let place = format!("{} over {}", case.name(), was.link);
            let Some(whit) = is.transfer(WHIT, *case) else {
                worse.push(format!("{place}: no figure"));
                continue;
            };
            if let Some(was) = was.transfer(WHIT, *case) {
                worse.extend(self.more_bytes(&place, was.bytes(), whit.bytes()));
            }
            // Without a peer in this run.
            let Some(judged) = is.judged.get(case) else { continue };
            worse.extend(self.slower(&place, "the command", whit.seconds, &judged.best, was_judged.ratio));
            let copy = (whit.copy_seconds, &judged.best_copy);
            worse.extend(self.slower(&place, "the copy", copy.0, copy.1, was_judged.copy_ratio));
        }
        worse
    }

    fn slower(&self, place: &str, what: &str, seconds: f64, best: &Best<f64>, was: f64) -> Option<String> {
        let most = was * best.value * (1.0 + self.share.0) + SECONDS_SPARED;
        (seconds > most).then(|| {
            let (ratio, tool) = (seconds / best.value, &best.tool);
            format!(
                "{place}: {what} takes {seconds:.2} s, {ratio:.2} times {tool}'s, was {was:.2} times the best"
            )
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
    fn more_bytes(&self, place: &str, was: u64, is: u64) -> Option<String> {
        let most = was as f64 * (1.0 + self.share.0) + BYTES_SPARED;
        (is as f64 > most).then(|| format!("{place}: {is} bytes, were {was}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Baseline, Share};
    use crate::Error;
    use crate::outcome::{Outcome, Row};
    use crate::race;
    use crate::report::{Report, sample};

    fn report(whit: f64, rsync: f64) -> Report {
        let links = vec![
            race::sample::report("loopback", whit, rsync),
            race::sample::report("5mbit/100ms", whit, rsync),
        ];
        Report { links, ..sample::report() }
    }

    fn worse(was: Report, is: &Report, share: &str) -> Vec<String> {
        let baseline = Baseline { report: was, share: share.parse().expect("a share") };
        match baseline.check(is) {
            Ok(()) => Vec::new(),
            Err(Error::Worse { figures }) => figures,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_share_is_a_number_with_percent() {
        assert_eq!("12.5%".parse::<Share>().expect("a share"), Share(0.125));
        for text in ["", "10", "%", "-1%", "NaN%", "1e9%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_same_figures_on_a_machine_of_half_the_speed_are_not_worse() {
        assert_eq!(worse(report(1.0, 4.0), &report(2.0, 8.0), "0%"), Vec::<String>::new());
    }

    #[test]
    fn seconds_beyond_the_share_of_the_ratio_are_named_with_their_place() {
        let figures = worse(report(1.0, 4.0), &report(1.5, 4.0), "10%");
        // First and kept, command and copy, over two links.
        assert_eq!(figures.len(), 8, "{figures:#?}");
        assert_eq!(
            figures[0],
            "first over loopback: the command takes 3.00 s, 0.75 times rsync-a's, was 0.50 times the best"
        );
        assert_eq!(worse(report(1.0, 4.0), &report(1.5, 4.0), "60%"), Vec::<String>::new());
        // A tenth of a second is nothing.
        assert_eq!(worse(report(0.02, 0.04), &report(0.04, 0.04), "0%"), Vec::<String>::new());
    }

    #[test]
    fn bytes_beyond_the_share_are_named() {
        let mut later = report(1.0, 4.0);
        let situations =
            crate::Situations { fresh: Some(sample::run(50_000, 0)), kept: None, ..Default::default() };
        later.tools[0].outcome = Outcome::Measured(Box::new(situations));
        let figures = worse(report(1.0, 4.0), &later, "10%");
        assert_eq!(figures, ["fresh: 50000 bytes, were 42000", "kept: no bytes, were 1000"]);
    }

    #[test]
    fn whit_must_have_its_figures_and_what_was_left_out_is_not_compared() {
        let mut later = report(1.0, 4.0);
        later.links.remove(1);
        later.tools.clear();
        assert_eq!(worse(report(1.0, 4.0), &later, "0%"), Vec::<String>::new());
        let failed = Outcome::Failed { reason: "it broke".to_owned() };
        later.links[0].tools[0] = Row { tool: "whit".to_owned(), outcome: failed };
        let figures = worse(report(1.0, 4.0), &later, "0%");
        assert_eq!(figures, ["first over loopback: no figure", "kept over loopback: no figure"]);
    }

    #[test]
    fn another_input_is_no_baseline() {
        let other = Report { digest: "11".repeat(32), ..report(1.0, 1.0) };
        let baseline = Baseline { report: other, share: Share(0.1) };
        assert!(matches!(baseline.check(&report(1.0, 1.0)), Err(Error::Baseline { .. })));
    }
}
