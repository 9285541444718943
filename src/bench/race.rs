//! Seconds: what tools take to bring a release over a link, and how whit does beside the best of the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::case::Case;
use super::link::Link;
use super::measurement::{Load, Saving, median_load, middle, middle_time};
use super::outcome::Row;

/// One transfer over a link, or the medians of several.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Time from the command's start to its end: what was sent is acknowledged, or unpacked.
    pub seconds: f64,
    /// Time from the command's start until the copy is complete and synced.
    pub copy_seconds: f64,
    /// Bytes from the near host to the far one: of IP packets over an emulated link, else as docs/BENCHMARKS.md
    /// defines them for the tool.
    pub up_bytes: u64,
    /// Bytes to the near host.
    pub down_bytes: u64,
    /// Packets that the link lost.
    pub lost_packets: u64,
    /// The side that has what is brought.
    pub sender: Load,
    /// The side that gets it.
    pub receiver: Load,
}

impl Transfer {
    /// Returns the bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.up_bytes + self.down_bytes
    }

    /// Returns the processor time of both sides for each 10⁹ bytes of the release.
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
    pub fn cpu_seconds_per_gb(&self, logical_bytes: u64) -> f64 {
        (self.sender.cpu_seconds + self.receiver.cpu_seconds) * 1e9 / logical_bytes.max(1) as f64
    }

    /// Returns the median of each number by itself; `None` without runs.
    fn median(runs: &[Self]) -> Option<Self> {
        let time = |pick: fn(&Self) -> f64| middle_time(runs.iter().map(pick));
        let number = |pick: fn(&Self) -> u64| middle(runs.iter().map(pick));
        Some(Self {
            seconds: time(|run| run.seconds)?,
            copy_seconds: time(|run| run.copy_seconds)?,
            up_bytes: number(|run| run.up_bytes)?,
            down_bytes: number(|run| run.down_bytes)?,
            lost_packets: number(|run| run.lost_packets)?,
            sender: median_load(runs.iter().map(|run| run.sender))?,
            receiver: median_load(runs.iter().map(|run| run.receiver))?,
        })
    }
}

/// A tool's transfers, by case.
pub type Race = BTreeMap<Case, Transfer>;

/// Returns the medians of several rounds.
pub fn median(rounds: &[Race]) -> Race {
    let of = |case: Case| {
        let runs: Vec<Transfer> = rounds.iter().filter_map(|round| round.get(&case).copied()).collect();
        Some((case, Transfer::median(&runs)?))
    };
    Case::ALL.into_iter().filter_map(of).collect()
}

/// A peer's transfer that compares with whit's: to remember nothing is all that a peer can do.
fn beside(race: &Race, case: Case) -> Option<&Transfer> {
    let same = if case == Case::Kept { Case::Fresh } else { case };
    race.get(&case).or_else(|| race.get(&same))
}

/// All tools over one link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    /// The link.
    pub link: Link,
    /// One row for each tool, in the order of tables.
    pub tools: Vec<Row<Race>>,
    /// whit beside the best peers, by case.
    pub judged: BTreeMap<Case, Judgement>,
}

/// A tool's figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best<T> {
    /// The tool.
    pub tool: String,
    /// Its figure.
    pub value: T,
}

/// whit beside the best of its peers, each figure beside the peer that is best in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The least seconds of a peer's command.
    pub best: Best<f64>,
    /// whit's seconds as a multiple of these.
    pub ratio: f64,
    /// The least seconds of a peer until the copy is complete and synced.
    pub best_copy: Best<f64>,
    /// whit's as a multiple of these.
    pub copy_ratio: f64,
    /// The least bytes of a peer, both ways.
    pub best_bytes: Best<u64>,
    /// What whit saved.
    pub saved: Saving,
}

impl LinkReport {
    /// Judges whit's figures; `logical_bytes` are those of each case's release.
    pub fn new(link: Link, tools: Vec<Row<Race>>, logical_bytes: impl Fn(Case) -> u64) -> Self {
        let mut report = Self { link, tools, judged: BTreeMap::new() };
        let judge = |case| Some((case, report.judge(case, logical_bytes(case))?));
        report.judged = Case::ALL.into_iter().filter_map(judge).collect();
        report
    }

    /// Returns the transfers of a tool, where it was measured.
    pub fn measured(&self, tool: &str) -> Option<&Race> {
        self.tools.iter().find(|row| row.tool == tool)?.outcome.figures()
    }

    /// Returns a peer's transfer, or whit's, that belongs into the column of a case.
    pub fn transfer(&self, tool: &str, case: Case) -> Option<&Transfer> {
        let race = self.measured(tool)?;
        if tool == WHIT { race.get(&case) } else { beside(race, case) }
    }

    /// Returns the peers' transfers that compare with whit's in a case.
    pub fn peers(&self, case: Case) -> impl Iterator<Item = (&String, &Transfer)> {
        let rows = self.tools.iter().filter(|row| row.tool != WHIT);
        rows.filter_map(move |row| Some((&row.tool, self.transfer(&row.tool, case)?)))
    }

    fn judge(&self, case: Case, logical_bytes: u64) -> Option<Judgement> {
        let whit = self.transfer(WHIT, case)?;
        let peers = || self.peers(case);
        let least = |pick: fn(&Transfer) -> f64| {
            let of = |(tool, run): (&String, &Transfer)| Best { tool: tool.clone(), value: pick(run) };
            peers().map(of).min_by(|one, other| one.value.total_cmp(&other.value))
        };
        let (best, best_copy) = (least(|run| run.seconds)?, least(|run| run.copy_seconds)?);
        let of = |(tool, run): (&String, &Transfer)| Best { tool: tool.clone(), value: run.bytes() };
        let best_bytes = peers().map(of).min_by_key(|best| best.value)?;
        Some(Judgement {
            ratio: whit.seconds / best.value,
            copy_ratio: whit.copy_seconds / best_copy.value,
            saved: Saving::of(whit.bytes(), logical_bytes, Some(best_bytes.value)),
            best,
            best_copy,
            best_bytes,
        })
    }
}

/// The name of the tool that is judged.
pub const WHIT: &str = "whit";

#[cfg(test)]
pub mod sample {
    //! Transfers made up for tests.

    use super::{LinkReport, Race, Transfer};
    use crate::case::Case;
    use crate::measurement::Load;
    use crate::outcome::{Outcome, Row};

    /// Returns a transfer that takes these seconds, and a tenth more for the copy.
    pub fn transfer(seconds: f64, up_bytes: u64) -> Transfer {
        let load = Load { cpu_seconds: seconds / 4.0, peak_bytes: 1 << 20 };
        Transfer {
            seconds,
            copy_seconds: seconds * 1.1,
            up_bytes,
            down_bytes: 100,
            lost_packets: 0,
            sender: load,
            receiver: load,
        }
    }

    /// Returns whit beside two peers over a link, and one that is not there; releases of 1 MB.
    pub fn report(link: &str, whit: f64, rsync: f64) -> LinkReport {
        let row = |tool: &str, race: Race| Row {
            tool: tool.to_owned(),
            outcome: Outcome::Measured(Box::new(race)),
        };
        let tools = vec![
            row(
                "whit",
                [(Case::First, transfer(2.0 * whit, 900_000)), (Case::Kept, transfer(whit, 4_000))].into(),
            ),
            row(
                "rsync-a",
                [(Case::First, transfer(rsync, 990_000)), (Case::Fresh, transfer(rsync, 50_000))].into(),
            ),
            row(
                "tar",
                [
                    (Case::First, transfer(2.0 * rsync, 400_000)),
                    (Case::Fresh, transfer(2.0 * rsync, 400_000)),
                ]
                .into(),
            ),
            Row { tool: "rsync-ssh".to_owned(), outcome: Outcome::Missing { program: "sshd".to_owned() } },
        ];
        LinkReport::new(link.parse().expect("a link"), tools, |_| 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::{median, sample};
    use crate::case::Case;

    #[test]
    fn whit_is_judged_by_the_best_peer_in_each_figure() {
        let report = sample::report("20mbit/50ms", 1.0, 4.0);
        let first = &report.judged[&Case::First];
        assert_eq!((first.best.tool.as_str(), first.ratio), ("rsync-a", 0.5));
        assert_eq!((first.best_bytes.tool.as_str(), first.best_bytes.value), ("tar", 400_100));
        assert_eq!(first.saved.bytes, 1_000_000 - 900_100);
        assert_eq!(first.saved.beside_best, Some(400_100 - 900_100));
    }

    #[test]
    fn a_peer_that_remembers_nothing_is_beside_a_sender_that_does() {
        let report = sample::report("loopback", 1.0, 4.0);
        let kept = &report.judged[&Case::Kept];
        assert_eq!((kept.best.tool.as_str(), kept.ratio), ("rsync-a", 0.25));
        assert!(!report.judged.contains_key(&Case::Fresh), "whit has no figure");
    }

    #[test]
    fn medians_are_taken_by_case() {
        let round = |seconds| [(Case::Pull, sample::transfer(seconds, 7))].into();
        let median = median(&[round(3.0), round(1.0), round(2.0)]);
        assert_eq!(median.len(), 1);
        assert!((median[&Case::Pull].seconds - 2.0).abs() < 1e-9);
    }

    #[test]
    fn processor_time_is_that_of_both_sides_for_each_gigabyte() {
        let run = sample::transfer(2.0, 7);
        assert!((run.cpu_seconds_per_gb(500_000_000) - 2.0).abs() < 1e-9);
    }
}
