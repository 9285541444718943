//! How hard to compress: as hard as the link is slow.
//!
//! The link's speed is its congestion window over its round trip, or what the user says it is. Where it is
//! fast, frames go as they will be stored, at a level that keeps up; where it is slow, parcels with a long
//! window, at a level that two processors manage beside it (docs/decisions/0014).

use std::fmt;
use std::sync::Arc;

/// Bytes a second above which compressing harder would only hold the link up.
const FAST: f64 = 80e6;
/// The level from which on a link is called slow.
pub const SLOW_LEVEL: i32 = 6;

/// How chunks are packed for the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As the frames that the proxy stores as they come.
    Frames {
        /// zstd's level.
        level: i32,
    },
    /// As parcels.
    Parcels {
        /// zstd's level.
        level: i32,
    },
}

impl Encoding {
    /// The same effort, in parcels.
    pub fn parcels(self) -> Self {
        match self {
            Self::Frames { level } => Self::Parcels { level: level.max(3) },
            parcels @ Self::Parcels { .. } => parcels,
        }
    }
}

/// What is known of the link's speed.
#[derive(Clone)]
pub struct LinkSpeed(Source);

#[derive(Clone)]
enum Source {
    Given(f64),
    Measured(Arc<dyn Fn() -> f64 + Send + Sync>),
}

impl LinkSpeed {
    /// A link of that many bytes a second.
    pub fn given(bytes_per_second: f64) -> Self {
        Self(Source::Given(bytes_per_second))
    }

    /// A link that is measured whenever it matters; `measure` gives bytes a second.
    pub fn measured(measure: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Source::Measured(Arc::new(measure)))
    }

    /// Bytes a second that the link is taken to carry.
    pub fn bytes_per_second(&self) -> f64 {
        match &self.0 {
            Source::Given(rate) => *rate,
            Source::Measured(measure) => measure(),
        }
    }

    /// Whether the link is slower than sending executables by their functions takes: some 25 MB/s.
    pub fn is_slow(&self) -> bool {
        matches!(self.encoding(), Encoding::Parcels { level } if level >= SLOW_LEVEL)
    }

    /// How to pack what is to cross next.
    ///
    /// The levels are those at which two processors compress faster than the link takes what they make.
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
