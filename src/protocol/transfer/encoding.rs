//! Chooses how content is encoded for a link: in frames or parcels, and how hard it is compressed.

/// 8 Mbit/s: on slower links every method is used. The rest of a first push pays there only with the next one, and who
/// pushes over such a link waits for bytes, shares it with others, or pays for them.
pub const SCARCE_RATE: f64 = 1e6;

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
    /// The one in the fewest bytes.
    pub const HARDEST: Self = Self::Parcels { level: 12 };
    /// Frames at zstd's level 1: they cost processors little, and bytes not much. Level -2 takes less time still, and more bytes.
    pub const LIGHT: Self = Self::Frames { level: 1 };

    /// Returns the seconds that one processor of the sender is predicted to take for plain bytes.
    #[must_use]
    pub fn seconds(self, bytes: usize) -> f64 {
        let known = ENCODINGS.iter().find(|cost| cost.encoding == self);
        // A parcel is far below 2^52 bytes.
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let bytes = bytes as f64;
        known.map_or(0.0, |cost| cost.sender * bytes)
    }

    /// Returns the encoding that is predicted to take the least time over a link of `rate` bytes a second, by as many
    /// processors, each of which takes `slowness` times the seconds that were measured; the hardest up to [`SCARCE_RATE`].
    #[must_use]
    pub fn over(rate: f64, processors: f64, slowness: f64) -> Self {
        if rate <= SCARCE_RATE {
            return Self::HARDEST;
        }
        let seconds = |cost: &EncodingCost| cost.seconds(rate, processors, slowness);
        let best = ENCODINGS.iter().min_by(|one, other| seconds(one).total_cmp(&seconds(other)));
        best.expect("there are encodings").encoding
    }

    /// Returns the same effort, in parcels.
    #[must_use]
    pub fn parcels(self) -> Self {
        match self {
            Self::Frames { level } => Self::Parcels { level: level.max(3) },
            parcels @ Self::Parcels { .. } => parcels,
        }
    }
}

/// An encoding's cost and yield.
struct EncodingCost {
    encoding: Encoding,
    /// Seconds of one processor of the sender for a plain byte.
    sender: f64,
    /// The same of the receiver, beyond hashing and writing.
    receiver: f64,
    /// Encoded bytes for a plain one.
    share: f64,
}

/// Measured on 27 MB of TypeScript's compiler and numpy's sources and libraries with `zstd -b1 -e12 -B4194304`. The receiver decodes
/// a parcel and encodes its chunks at level 3.
///
/// At level -2 zstd takes 0.6 of level 1's time and leaves 1.16 of its bytes (`zstd --fast=2 -b -B262144`, 300 MB of libraries and
/// programs). That pays beyond 2 Gbit/s: within a machine, above all.
const ENCODINGS: [EncodingCost; 6] = [
    EncodingCost {
        encoding: Encoding::Frames { level: -2 },
        sender: 1.0 / 750e6,
        receiver: 1.0 / 1500e6,
        share: 0.313,
    },
    EncodingCost { encoding: Encoding::LIGHT, sender: 1.0 / 450e6, receiver: 1.0 / 1200e6, share: 0.27 },
    EncodingCost {
        encoding: Encoding::Parcels { level: 3 },
        sender: 1.0 / 310e6,
        receiver: 1.0 / 250e6,
        share: 0.24,
    },
    EncodingCost {
        encoding: Encoding::Parcels { level: 6 },
        sender: 1.0 / 93e6,
        receiver: 1.0 / 250e6,
        share: 0.219,
    },
    EncodingCost {
        encoding: Encoding::Parcels { level: 9 },
        sender: 1.0 / 60e6,
        receiver: 1.0 / 250e6,
        share: 0.213,
    },
    EncodingCost { encoding: Encoding::HARDEST, sender: 1.0 / 27e6, receiver: 1.0 / 250e6, share: 0.211 },
];

/// 4 MiB: the first parcel, which the link waits for.
const FIRST_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// 32 MiB: missing bytes of a usual push, among which the first parcel's wait is spread.
const USUAL_BYTES: f64 = 32.0 * 1024.0 * 1024.0;

impl EncodingCost {
    /// Predicts a transfer's seconds over a link of `rate`: the slowest of the sender, the link and the receiver, at work at once.
    fn seconds(&self, rate: f64, processors: f64, slowness: f64) -> f64 {
        let sender = self.sender * slowness;
        let slowest = (sender / processors).max(self.share / rate).max(self.receiver);
        FIRST_BYTES * sender + USUAL_BYTES * slowest
    }
}
