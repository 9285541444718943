//! How slow this machine's processors are beside the one on which the costs of a push's methods were measured.
//!
//! Nothing is run to find out: the parcels that a push compresses anyway say it, by the time of a processor that they take, not
//! by a clock, which other programs would hold up. The next push begins with what the last one found (FORMAT 8.6).

use std::fs;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use ground::poison::Unpoisoned as _;

/// Beyond a factor of ten either way, the measurement is wrong.
pub const SLOWNESS: RangeInclusive<f64> = 0.1..=10.0;
/// Less work, in seconds as predicted, says too little.
const TELLING_SECONDS: f64 = 0.05;

/// The processors of this machine. Clones share what is measured.
#[derive(Debug, Clone)]
pub struct Processor {
    remembered: f64,
    work: Arc<Mutex<Work>>,
}

/// Seconds of compressing.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    predicted: f64,
    taken: f64,
}

impl Processor {
    /// Creates one of which an earlier push found how slow it is; none counts as the one on which costs were measured.
    pub fn new(remembered: Option<f64>) -> Self {
        let remembered = remembered.unwrap_or(1.0).clamp(*SLOWNESS.start(), *SLOWNESS.end());
        Self { remembered, work: Arc::default() }
    }

    /// Does some work that is predicted to take as many seconds, and notes what it takes.
    pub fn measure<T>(&self, predicted: f64, work: impl FnOnce() -> T) -> T {
        let begin = thread_seconds();
        let done = work();
        if let (Some(begin), Some(end)) = (begin, thread_seconds()) {
            self.note(predicted, end - begin);
        }
        done
    }

    fn note(&self, predicted: f64, taken: f64) {
        let mut work = self.work.lock().unpoisoned();
        work.predicted += predicted;
        work.taken += taken;
    }

    /// Returns how many times the predicted seconds work takes here, by this push alone; none where it did too little.
    pub fn measured(&self) -> Option<f64> {
        let Work { predicted, taken } = *self.work.lock().unpoisoned();
        (predicted >= TELLING_SECONDS).then(|| (taken / predicted).clamp(*SLOWNESS.start(), *SLOWNESS.end()))
    }

    /// Returns how many times the predicted seconds work takes here, as far as is known.
    pub fn slowness(&self) -> f64 {
        self.measured().unwrap_or(self.remembered)
    }
}

/// Returns the processor's seconds that this thread has taken; none where the system does not say.
fn thread_seconds() -> Option<f64> {
    let state = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = state.split(' ').next()?.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "a push takes far less than 2^52 ns")]
    let nanoseconds = nanoseconds as f64;
    Some(nanoseconds / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_counts_until_enough_was_measured() {
        let processor = Processor::new(Some(3.0));
        processor.note(0.04, 0.02);
        assert!(processor.measured().is_none() && (processor.slowness() - 3.0).abs() < 1e-9);
        processor.clone().note(0.06, 0.03);
        assert!((processor.slowness() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_factor_beyond_ten_counts_as_ten() {
        assert_eq!(
            (Processor::new(Some(99.0)).slowness(), Processor::new(Some(0.0)).slowness()),
            (10.0, 0.1)
        );
        let processor = Processor::new(None);
        processor.note(1.0, 1e6);
        assert_eq!(processor.measured(), Some(10.0));
    }

    #[test]
    fn work_is_measured_by_the_time_of_its_thread() {
        let processor = Processor::new(None);
        let hash = || *blake3::hash(&vec![7; 1_000_000]).as_bytes();
        let hashed = processor.measure(1.0, hash);
        assert_eq!(hashed, hash());
        let work = *processor.work.lock().unpoisoned();
        assert!(work.taken < 60.0, "{work:?}");
    }
}
