//! Chooses what stands on the way of a push: only work that saves time on this link.
//!
//! Each method of sending less has a cost in seconds a byte, of one processor, and a share of the bytes that it is expected
//! to save: constants, of which each says what was measured and what is assumed. It is used where it is predicted to be faster than sending the bytes as they are
//! (docs/decisions/0014). On a link so slow that bytes are what is short, everything is used that saves some.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;

use super::hint::Hint;
use super::processor::Processor;
use crate::net::link_estimate::{Link, LinkEstimate};
use ground::poison::Unpoisoned as _;
use protocol::transfer::{Encoding, SCARCE_RATE};
use protocol::wire::ArchivesMet;

/// How much a push may spend to save bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Effort {
    /// What is predicted to take the least time.
    #[default]
    Auto,
    /// Everything that saves bytes.
    Bytes,
    /// Nothing that costs processors.
    Time,
}

/// A way to send fewer bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Archives are sent unpacked.
    Archives,
    /// Executables are sent as the functions that changed.
    Executables,
    /// Changed content is sent as patches of older content.
    Patches,
    /// Content without a known older version is sketched, for the proxy to find what it resembles.
    Sketches,
}

/// The costs and the yield of a method, for each byte that it is used on.
#[derive(Debug, Clone, Copy)]
struct MethodCost {
    /// Seconds, at both sides together: the one waits for the other.
    seconds: f64,
    /// Bytes that cross otherwise.
    otherwise: f64,
    /// Bytes that cross by it.
    share: f64,
    /// Bytes that the next push saves by it, as far as they count for this one.
    later: f64,
    /// Round trips more.
    trips: f64,
}

/// An archive of an application of which nothing is known: unpacking saves nothing yet. Half of what the next push saves counts, as
/// there may be none: assumed.
const FIRST_ARCHIVE: MethodCost =
    MethodCost { otherwise: 1.0, share: 1.0, later: (ARCHIVE.otherwise - ARCHIVE.share) / 2.0, ..ARCHIVE };
/// Measured on two releases of wheels of numpy (16 MB) and scipy (41 MB), the later one pushed with `--link 15mbit` where the
/// earlier one was unpacked, beside `--effort time` for both; a proxy in the same process, load of three to five. For 1 MB both
/// sides together take 0.22 s (numpy) and 0.27 s (scipy) of processors, packed 0.01 s. 41 to 54 % of the packed bytes cross as
/// they are, as some members did not change; unpacked 0.7 and 9 %, without memory (`--effort bytes`) 3 and 15 %.
///
/// Assumed: other archives are like these, and the proxy has the earlier one packed. Where it has it unpacked alone, nearly
/// all crosses, which is not counted.
const ARCHIVE: MethodCost =
    MethodCost { seconds: 0.22e-6, otherwise: 0.5, share: 0.1, later: 0.0, trips: 0.0 };
/// Measured on biome.tree by an agent without memory (docs/decisions/0016): 0.03 to 0.04 s of the agent and 0.02 of the proxy for
/// 1 MB; 28.3 MB of 98 otherwise, 9.7 by functions.
const EXECUTABLE: MethodCost =
    MethodCost { seconds: 0.06e-6, otherwise: 0.29, share: 0.1, later: 0.0, trips: 1.0 };
/// Measured (docs/decisions/0020): 1 MB is made and undone in 0.05 s (JavaScript) to 0.34 s (relinked code). The seconds between
/// them, and that a patch takes a third less than zstd, are assumed.
const PATCH: MethodCost =
    MethodCost { seconds: 0.14e-6, otherwise: 0.075, share: 0.05, later: 0.0, trips: 0.0 };
/// Assumed: chunks are read, verified, sketched and looked for at 200 MB/s, and an eighth is saved. Measured: to sketch alone runs
/// at 1.3 GB/s; of bytes, 1.5 % are saved in an application's own next release (numpy), a third to two thirds in what is like
/// another application's (docs/decisions/0019).
const SKETCH: MethodCost =
    MethodCost { seconds: 0.005e-6, otherwise: 0.25, share: 0.22, later: 0.0, trips: 1.0 };

impl Method {
    const ALL: [Self; 4] = [Self::Archives, Self::Executables, Self::Patches, Self::Sketches];

    const fn cost(self) -> MethodCost {
        match self {
            Self::Archives => ARCHIVE,
            Self::Executables => EXECUTABLE,
            Self::Patches => PATCH,
            Self::Sketches => SKETCH,
        }
    }
}

/// The seconds that some bytes take, as predicted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// Sent as they are.
    pub plainly: f64,
    /// By the method.
    pub by_method: f64,
}

/// What is known of earlier pushes of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Nothing: it may be the first, and then the next one gains by what this one pays.
    Unknown,
    /// It was pushed from here, some archive as it is.
    Packed,
    /// It was pushed from here, all archives unpacked.
    Unpacked,
}

/// How tightly an archive is packed, as its first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// By deflate, or not at all: unpacked it crosses in fewer bytes.
    Loose,
    /// By xz or zstd, or unknown: nothing packs its content as tightly.
    Tight,
}

/// What was chosen for some bytes of one push.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Choice {
    /// The method.
    pub method: Method,
    /// True if it was used.
    pub used: bool,
    /// Bytes of content that it was asked for.
    pub bytes: u64,
    /// The predicted seconds of these.
    pub seconds: Prediction,
}

/// The effort of one push, over one link. Clones share what was chosen.
#[derive(Debug, Clone)]
pub struct Pace {
    effort: Effort,
    link: Link,
    processors: usize,
    processor: Processor,
    /// What the proxy says of the push, once it is asked and answers, and how long that is waited for.
    hint: Option<(Arc<Hint>, Duration)>,
    chosen: Arc<Mutex<[[Tally; 2]; Method::ALL.len()]>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    bytes: u64,
    seconds: Prediction,
}

impl Pace {
    /// Creates one of an agent with as many processors.
    pub fn new(effort: Effort, link: Link, processors: usize) -> Self {
        let processor = Processor::new(None);
        Self { effort, link, processors, processor, hint: None, chosen: Arc::default() }
    }

    /// Sets what is known of each of the processors.
    #[must_use]
    pub fn on(self, processor: Processor) -> Self {
        Self { processor, ..self }
    }

    /// Returns what is known of each of the processors.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Waits for the proxy's hint, for at most `patience`, before an archive is unpacked that the proxy may still have packed.
    #[must_use]
    pub fn hinted(self, hint: Arc<Hint>, patience: Duration) -> Self {
        Self { hint: Some((hint, patience)), ..self }
    }

    /// Returns the estimate of the link.
    pub fn link(&self) -> LinkEstimate {
        self.link.now()
    }

    /// Returns whether seconds count more than bytes.
    pub fn hurries(&self) -> bool {
        self.effort != Effort::Bytes
    }

    /// Returns how to encode the next chunks.
    pub fn encoding(&self) -> Encoding {
        match self.effort {
            Effort::Bytes => Encoding::HARDEST,
            Effort::Time | Effort::Auto => {
                let processors = float(self.processors.max(1) as u64);
                match Encoding::over(self.link.now().rate, processors, self.processor.slowness()) {
                    Encoding::Parcels { .. } if self.effort == Effort::Time => Encoding::LIGHT,
                    encoding => encoding,
                }
            }
        }
    }

    /// Chooses whether an archive of `bytes` is unpacked, and notes that. Blocks while the proxy's hint is to come.
    ///
    /// However slow the link is, one is left as it is where that takes fewer bytes: while the proxy has archives as they are, and a
    /// tightly packed one until the proxy has unpacked all that it can.
    pub fn unpacks(&self, bytes: u64, packing: Packing, history: History) -> bool {
        let would = |cost| self.decide(cost, bytes).0;
        let is_tight = packing == Packing::Tight;
        let asks = (history != History::Unpacked || is_tight) && (would(FIRST_ARCHIVE) || would(ARCHIVE));
        let hint = self.hint.as_ref().filter(|_| asks).and_then(|(hint, patience)| hint.wait(*patience));
        let met = hint.map(|hint| hint.archives);
        let is_first = history == History::Unknown && met.is_none_or(|met| met == ArchivesMet::Nothing);
        let cost = if is_first { FIRST_ARCHIVE } else { ARCHIVE };
        let takes_more = match met {
            Some(ArchivesMet::Packed) => true,
            None | Some(ArchivesMet::Nothing | ArchivesMet::Unpacked) => is_tight,
            Some(ArchivesMet::Lasting) => false,
        };
        self.choose(Method::Archives, cost, bytes, !takes_more)
    }

    /// Chooses whether `method` is used on `bytes`, and notes that.
    pub fn pays(&self, method: Method, bytes: u64) -> bool {
        self.choose(method, method.cost(), bytes, true)
    }

    /// Returns whether `method` would be used on `bytes`.
    pub fn would_pay(&self, method: Method, bytes: u64) -> bool {
        self.decide(method.cost(), bytes).0
    }

    fn choose(&self, method: Method, cost: MethodCost, bytes: u64, saves: bool) -> bool {
        let (used, seconds) = self.decide(cost, bytes);
        let used = used && saves;
        let tally = &mut self.chosen.lock().unpoisoned()[method as usize][usize::from(used)];
        tally.bytes += bytes;
        tally.seconds.plainly += seconds.plainly;
        tally.seconds.by_method += seconds.by_method;
        used
    }

    fn decide(&self, cost: MethodCost, bytes: u64) -> (bool, Prediction) {
        let link = self.link.now();
        let MethodCost { seconds, otherwise, share, later, trips } = cost;
        // Half of a method's work is the proxy's, of which nothing is known.
        let seconds = seconds * f64::midpoint(1.0, self.processor.slowness());
        let all = float(bytes);
        let plainly = all * otherwise / link.rate;
        let by_method = all * (share / link.rate + seconds) + trips * link.round_trip;
        let used = match self.effort {
            Effort::Bytes => true,
            Effort::Time => false,
            Effort::Auto => link.rate <= SCARCE_RATE || by_method < plainly + all * later / link.rate,
        };
        (used, Prediction { plainly, by_method })
    }

    /// Returns what was chosen so far.
    pub fn chosen(&self) -> Vec<Choice> {
        let chosen = *self.chosen.lock().unpoisoned();
        let choices = Method::ALL.into_iter().flat_map(|method| {
            [true, false].map(|used| {
                let Tally { bytes, seconds } = chosen[method as usize][usize::from(used)];
                Choice { method, used, bytes, seconds }
            })
        });
        choices.filter(|choice| choice.bytes > 0).collect()
    }
}

/// Bytes as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "files are far below 2^52 bytes")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::wire::PushHint;

    use super::History::{Packed, Unknown, Unpacked};
    use super::Packing::{Loose, Tight};

    const MB: u64 = 1_000_000;

    fn over(effort: Effort, mbit: f64) -> Pace {
        Pace::new(effort, Link::told(mbit * 1e6 / 8.0, Duration::from_millis(20)), 2)
    }

    #[test]
    fn the_slower_the_link_the_harder_it_is_compressed() {
        let level = |mbit| match over(Effort::Auto, mbit).encoding() {
            Encoding::Frames { level } | Encoding::Parcels { level } => level,
        };
        let levels: Vec<i32> = [5.0, 20.0, 100.0, 400.0, 1000.0, 10_000.0].map(level).into();
        assert!(levels.is_sorted_by(|slow, fast| slow >= fast), "{levels:?}");
        assert_eq!((levels[0], levels[4], levels[5]), (12, 1, -2));
    }

    #[test]
    fn a_hint_that_an_application_is_known_counts_as_a_memory_and_one_that_does_not_come_as_none() {
        let over = |hint: &Arc<Hint>| {
            over(Effort::Auto, 12.0).hinted(Arc::clone(hint), Duration::from_millis(1)).unpacks(
                40 * MB,
                Loose,
                Unknown,
            )
        };
        let hint = Arc::default();
        assert!(!over(&hint));
        hint.set(Some(PushHint { link: None, archives: ArchivesMet::Lasting }));
        assert!(over(&hint));
        // The first answer counts.
        hint.set(None);
        assert!(over(&hint));
    }

    #[test]
    fn archives_are_unpacked_where_that_is_faster_than_sending_them() {
        let unpacks = |mbit, history| over(Effort::Auto, mbit).unpacks(40 * MB, Loose, history);
        assert!(!unpacks(10_000.0, Unpacked) && !unpacks(100.0, Unpacked));
        assert!(unpacks(12.0, Unpacked) && !unpacks(12.0, Unknown));
        // Where bytes are short, a first push prepares the next.
        assert!(unpacks(5.0, Unknown));
    }

    #[test]
    fn archives_are_left_as_they_are_where_that_takes_fewer_bytes() {
        let unpacks = |effort, met: Option<ArchivesMet>, packing, history| {
            let hint = Arc::new(Hint::default());
            hint.set(met.map(|archives| PushHint { link: None, archives }));
            over(effort, 5.0).hinted(hint, Duration::ZERO).unpacks(40 * MB, packing, history)
        };
        for effort in [Effort::Auto, Effort::Bytes] {
            // A first push.
            assert!(unpacks(effort, Some(ArchivesMet::Nothing), Loose, Unknown));
            assert!(!unpacks(effort, Some(ArchivesMet::Nothing), Tight, Unknown));
            assert!(!unpacks(effort, None, Tight, Unknown));
            // The proxy has the last release as it crossed, or has unpacked it.
            assert!(!unpacks(effort, Some(ArchivesMet::Packed), Loose, Packed));
            assert!(unpacks(effort, Some(ArchivesMet::Lasting), Tight, Packed));
            assert!(unpacks(effort, Some(ArchivesMet::Lasting), Tight, Unknown));
            // As yet the proxy has it as it crossed, alone.
            assert!(!unpacks(effort, Some(ArchivesMet::Unpacked), Tight, Packed));
            assert!(unpacks(effort, Some(ArchivesMet::Unpacked), Loose, Unknown));
            // What was pushed unpacked needs no answer.
            assert!(unpacks(effort, Some(ArchivesMet::Packed), Loose, Unpacked));
        }
    }

    #[test]
    fn executables_are_worth_slow_links_and_patches_the_slowest() {
        let pays = |mbit, method| over(Effort::Auto, mbit).pays(method, 20 * MB);
        assert!(pays(20.0, Method::Executables) && !pays(100.0, Method::Executables));
        assert!(pays(5.0, Method::Patches) && !pays(20.0, Method::Patches));
        assert!(pays(20.0, Method::Sketches) && !pays(1000.0, Method::Sketches));
    }

    #[test]
    fn a_machine_that_is_ten_times_as_slow_chooses_less_work() {
        let on = |mbit, slowness| over(Effort::Auto, mbit).on(Processor::new(Some(slowness)));
        let level = |slowness| match on(50.0, slowness).encoding() {
            Encoding::Frames { level } | Encoding::Parcels { level } => level,
        };
        assert!(level(10.0) < level(1.0) && level(1.0) <= level(0.1));
        let pays = |slowness| on(20.0, slowness).pays(Method::Executables, 20 * MB);
        assert!(!pays(10.0) && pays(1.0));
        let unpacks = |slowness| on(16.0, slowness).unpacks(40 * MB, Loose, Unpacked);
        assert!(!unpacks(10.0) && !unpacks(1.0) && unpacks(0.1));
        // Where bytes are short, they count on any machine.
        assert_eq!(on(5.0, 10.0).encoding(), Encoding::HARDEST);
    }

    #[test]
    fn who_asks_for_bytes_or_time_gets_them_over_every_link() {
        for mbit in [1.0, 10_000.0] {
            let (bytes, time) = (over(Effort::Bytes, mbit), over(Effort::Time, mbit));
            assert_eq!(bytes.encoding(), Encoding::HARDEST);
            assert!(matches!(time.encoding(), Encoding::Frames { .. }));
            for method in Method::ALL {
                assert!(bytes.pays(method, MB) && !time.pays(method, MB));
            }
        }
    }

    #[test]
    fn what_was_chosen_is_added_up() {
        let pace = over(Effort::Auto, 100.0);
        let shared = pace.clone();
        assert!(!pace.unpacks(10 * MB, Loose, Unknown) && !shared.unpacks(30 * MB, Loose, Unknown));
        let chosen = pace.chosen();
        assert_eq!((chosen.len(), chosen[0].method, chosen[0].used), (1, Method::Archives, false));
        assert_eq!(chosen[0].bytes, 40 * MB);
        assert!(chosen[0].seconds.plainly < chosen[0].seconds.by_method);
    }
}
