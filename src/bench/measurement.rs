//! The measured cost of one tool's run.

use serde::{Deserialize, Serialize};

use super::case::Case;

/// Processor time and memory of one side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// User and system time of all its processes, seconds.
    pub cpu_seconds: f64,
    /// The largest resident memory of any of its processes, bytes.
    pub peak_bytes: u64,
}

impl Load {
    /// Returns the processor time since `before`, and the peak of all time.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { cpu_seconds: self.cpu_seconds - before.cpu_seconds, ..self }
    }

    /// Adds another process of the same side.
    pub fn add(&mut self, other: Self) {
        self.cpu_seconds += other.cpu_seconds;
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
    }
}

/// One run, or the medians of several.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Bytes from the sender to the receiver, as docs/BENCHMARKS.md defines them for the tool.
    pub up_bytes: u64,
    /// Bytes from the receiver to the sender.
    pub down_bytes: u64,
    /// Round trips, the handshake's included, if known.
    pub round_trips: Option<u32>,
    /// Time from the sender's start to its end, or until the receiver has NEW where that is measured.
    pub wall_seconds: f64,
    /// The side that has NEW.
    pub sender: Load,
    /// The side that has OLD, if it runs a program.
    pub receiver: Option<Load>,
}

impl Measurement {
    /// Returns the bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.up_bytes + self.down_bytes
    }

    /// Returns the median of each number by itself.
    ///
    /// `None` without runs. For an even number, the lower of the two in the middle.
    pub fn median(runs: &[Self]) -> Option<Self> {
        let receivers: Vec<Load> = runs.iter().filter_map(|run| run.receiver).collect();
        Some(Self {
            up_bytes: middle(runs.iter().map(|run| run.up_bytes))?,
            down_bytes: middle(runs.iter().map(|run| run.down_bytes))?,
            round_trips: middle(runs.iter().filter_map(|run| run.round_trips)),
            wall_seconds: middle_time(runs.iter().map(|run| run.wall_seconds))?,
            sender: median_load(runs.iter().map(|run| run.sender))?,
            receiver: median_load(receivers.into_iter()),
        })
    }
}

/// Returns the median of each number by itself; `None` without loads.
pub fn median_load(loads: impl Iterator<Item = Load> + Clone) -> Option<Load> {
    Some(Load {
        cpu_seconds: middle_time(loads.clone().map(|load| load.cpu_seconds))?,
        peak_bytes: middle(loads.map(|load| load.peak_bytes))?,
    })
}

/// Returns the median, of an even number the lower of the two in the middle.
pub fn middle<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// Returns the median of times, as [`middle`].
pub fn middle_time(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// The figures of one tool in each situation that it supports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Situations {
    /// The receiver has nothing and gets OLD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Measurement>,
    /// The receiver has OLD, the sender only NEW.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh: Option<Measurement>,
    /// The receiver has OLD, the sender has NEW, and OLD or its memory of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Measurement>,
    /// A note on the figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Situations {
    /// Returns the figures of a case that has some.
    pub fn of(&self, case: Case) -> Option<Measurement> {
        match case {
            Case::First => self.first,
            Case::Fresh => self.fresh,
            Case::Kept => self.kept,
            Case::Pull | Case::Update => None,
        }
    }

    /// Returns a peer's bytes that compare with whit's in a case: a peer that remembers nothing also serves who does.
    pub fn bytes_beside(&self, case: Case) -> Option<u64> {
        let run = self.of(case).or(if case == Case::Kept { self.fresh } else { None });
        run.map(|run| run.bytes())
    }

    /// Returns the medians of several rounds.
    pub fn median(rounds: &[Self]) -> Self {
        let of = |pick: fn(&Self) -> Option<Measurement>| {
            Measurement::median(&rounds.iter().filter_map(pick).collect::<Vec<_>>())
        };
        Self {
            first: of(|round| round.first),
            fresh: of(|round| round.fresh),
            kept: of(|round| round.kept),
            note: rounds.iter().find_map(|round| round.note.clone()),
        }
    }
}

/// What a transfer saved. The one definition: docs/RECEIPT.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saving {
    /// Logical bytes of the release less bytes on the wire, both ways. Negative where more crossed.
    pub bytes: i64,
    /// Bytes on the wire of the peer that has the least, less these.
    pub beside_best: Option<i64>,
}

impl Saving {
    /// Returns what was saved of `logical_bytes`, and of the best peer's bytes.
    pub fn of(wire_bytes: u64, logical_bytes: u64, best_peer: Option<u64>) -> Self {
        let less = |bytes: u64| i64::try_from(i128::from(bytes) - i128::from(wire_bytes)).unwrap_or(i64::MIN);
        Self { bytes: less(logical_bytes), beside_best: best_peer.map(less) }
    }
}

/// The traffic in one direction of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that arrived.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
    /// Packets that were lost, at random or before a full queue.
    pub lost: u64,
}

impl Counts {
    /// Returns the difference to the earlier counts `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            lost: self.lost - before.lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Load, Measurement, Situations};

    fn run(up_bytes: u64, wall_seconds: f64) -> Measurement {
        let sender = Load { cpu_seconds: wall_seconds / 2.0, peak_bytes: up_bytes * 3 };
        Measurement { up_bytes, down_bytes: 7, round_trips: Some(2), wall_seconds, sender, receiver: None }
    }

    #[test]
    fn the_median_is_taken_of_each_number_by_itself() {
        let median = Measurement::median(&[run(5, 1.0), run(1, 9.0), run(3, 2.0)]).expect("there are runs");
        assert_eq!(median, Measurement { wall_seconds: 2.0, ..run(3, 2.0) });
        assert_eq!(Measurement::median(&[run(1, 1.0), run(2, 2.0)]).map(|run| run.up_bytes), Some(1));
        assert_eq!(Measurement::median(&[]), None);
    }

    #[test]
    fn a_situation_that_no_round_knows_stays_unknown() {
        let round = Situations { fresh: Some(run(4, 1.0)), ..Situations::default() };
        let median = Situations::median(&[round.clone(), round.clone()]);
        assert_eq!(median, round);
    }

    #[test]
    fn loads_add_up_in_time_and_not_in_memory() {
        let mut load = Load { cpu_seconds: 1.0, peak_bytes: 10 };
        load.add(Load { cpu_seconds: 0.5, peak_bytes: 4 });
        assert_eq!(load, Load { cpu_seconds: 1.5, peak_bytes: 10 });
    }
}
