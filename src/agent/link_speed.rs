//! Chooses how hard to compress by the link's speed.
//!
//! The speed is the congestion window divided by the round trip, or what the user says it is. On a fast link chunks cross in
//! the frames that will be stored, at a level that keeps up; on a slow one in parcels with a long window, at a level at which
//! two processors keep up (docs/decisions/0014).

use std::fmt;
use std::sync::Arc;

/// Bytes a second above which compressing harder would only delay the link.
const FAST: f64 = 80e6;
/// From this level on, a link counts as slow.
pub const SLOW_LEVEL: i32 = 6;

/// How chunks are encoded for the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// In frames, which the proxy stores as they are.
    Frames {
        /// zstd's level.
        level: i32,
    },
    /// In parcels.
    Parcels {
        /// zstd's level.
        level: i32,
    },
}

impl Encoding {
    /// Returns the same effort, in parcels.
    pub fn parcels(self) -> Self {
        match self {
            Self::Frames { level } => Self::Parcels { level: level.max(3) },
            parcels @ Self::Parcels { .. } => parcels,
        }
    }
}

/// The link's speed, given or measured.
#[derive(Clone)]
pub struct LinkSpeed(Source);

#[derive(Clone)]
enum Source {
    Given(f64),
    Measured(Arc<dyn Fn() -> f64 + Send + Sync>),
}

impl LinkSpeed {
    /// Creates a speed that is known, in bytes a second.
    pub fn given(bytes_per_second: f64) -> Self {
        Self(Source::Given(bytes_per_second))
    }

    /// Creates a speed that is measured at each use; `measure` returns bytes a second.
    pub fn measured(measure: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Source::Measured(Arc::new(measure)))
    }

    /// Returns the speed, in bytes a second.
    pub fn bytes_per_second(&self) -> f64 {
        match &self.0 {
            Source::Given(rate) => *rate,
            Source::Measured(measure) => measure(),
        }
    }

    /// Returns whether the link is slower than executables are encoded against older ones: some 25 MB/s.
    pub fn is_slow(&self) -> bool {
        matches!(self.encoding(), Encoding::Parcels { level } if level >= SLOW_LEVEL)
    }

    /// Returns how to encode the next chunks.
    ///
    /// At each level two processors compress faster than the link takes the output.
    pub fn encoding(&self) -> Encoding {
        match self.bytes_per_second() {
            rate if rate >= FAST => Encoding::Frames { level: 1 },
            rate if rate >= 30e6 => Encoding::Parcels { level: 3 },
            rate if rate >= 10e6 => Encoding::Parcels { level: 6 },
            rate if rate >= 4e6 => Encoding::Parcels { level: 9 },
            _ => Encoding::Parcels { level: 12 },
        }
    }
}

impl fmt::Debug for LinkSpeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkSpeed({:.0} B/s)", self.bytes_per_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_the_link_the_harder_it_is_compressed() {
        let level = |rate| match LinkSpeed::given(rate).encoding() {
            Encoding::Frames { level } | Encoding::Parcels { level } => level,
        };
        let levels: Vec<i32> = [1e5, 5e6, 2e7, 5e7, 5e8].map(level).into();
        assert!(levels.is_sorted_by(|slow, fast| slow > fast), "{levels:?}");
        assert!(matches!(LinkSpeed::measured(|| 1e9).encoding(), Encoding::Frames { .. }));
    }
}
