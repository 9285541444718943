//! How a deflate stream was made: all that an encoder needs to make the same bits.

use std::fmt;

/// Layout and meaning of [`Method`]; a change of the encoder's output needs a new number.
const VERSION: u8 = 1;

/// The settings of zlib's `deflateInit2`, and the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Method {
    /// Version of this description.
    version: u8,
    /// 0 (stored) to 9.
    pub level: u8,
    /// 1 to 9: size of the hash table and symbols of a block.
    pub memory: u8,
    /// 9 to 15: the window holds 2 to this power of bytes.
    pub window: u8,
    /// The kinds of matches.
    pub strategy: Strategy,
    /// The encoder.
    pub maker: Maker,
}

/// zlib's strategies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// `Z_DEFAULT_STRATEGY`.
    Default,
    /// `Z_FILTERED`: no short matches.
    Filtered,
    /// `Z_HUFFMAN_ONLY`: no matches.
    Huffman,
    /// `Z_RLE`: only runs of one byte.
    Runs,
    /// `Z_FIXED`: only the fixed codes.
    Fixed,
}

/// The known encoders.
///
/// Chromium's forks differ in the match finder's hash, which decides the candidates of a bounded search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Maker {
    /// Stock zlib: a rolling hash of three bytes.
    Zlib,
    /// GNU gzip: the same search; blocks of up to 32,767 symbols, which end early where that seems to pay.
    /// Memory, window and strategy have no meaning.
    Gzip,
    /// Chromium's fork of 2019 to 2021 (Node 12 to 16): as [`Maker::CastagnoliChromium`], with 15 bits always.
    EarlyChromium,
    /// Chromium's fork of 2022 (Node 18): CRC32C of four bytes, from level 6 on of three.
    CastagnoliChromium,
    /// Chromium's fork since 2023 (Node 20): a multiplicative hash of four bytes.
    Chromium,
    /// Rust's `zlib-rs` 0.6.8 (a port of zlib-ng), fed by the `tar` crate. Memory, window and strategy have
    /// no meaning.
    Rust,
    /// Info-ZIP's zip 3.0: blocks like GNU gzip's, and no search past the end of the input. Memory, window and
    /// strategy have no meaning.
    Zip,
    /// Go's `compress/flate`, 1.8 to 1.26. Memory and window have no meaning, nor has a strategy but
    /// [`Strategy::Huffman`].
    Go,
    /// As [`Maker::Go`], fed by Go's `archive/tar`: its pieces show where a file ends shortly before the window is full and a
    /// copy reaches the farthest bytes.
    GoTar,
    /// Rust's `miniz_oxide` 0.8.9. Memory, window and strategy have no meaning.
    Miniz,
    /// As [`Maker::Rust`], fed by `std::io::copy` and flushed before the end: wheels of `maturin` since 2025.
    RustZip,
    /// As [`Maker::RustZip`], given all bytes at once.
    WholeRustZip,
    /// pigz: stock zlib, restarted every 128 KiB with the 32 KiB before in reach.
    Pigz,
}

impl Maker {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Zlib,
        Self::Gzip,
        Self::EarlyChromium,
        Self::CastagnoliChromium,
        Self::Chromium,
        Self::Rust,
        Self::Zip,
        Self::Go,
        Self::GoTar,
        Self::Miniz,
        Self::RustZip,
        Self::WholeRustZip,
        Self::Pigz,
    ];
}

/// In the order of their numbers.
const STRATEGIES: [Strategy; 5] =
    [Strategy::Default, Strategy::Filtered, Strategy::Huffman, Strategy::Runs, Strategy::Fixed];

/// The reasons to refuse a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Made by a newer whit.
    #[error("deflate method version {0} is unknown to this version")]
    Version(u8),
    /// Out of bounds.
    #[error("deflate method level {}, memory {}, window {} is out of bounds", .0.level, .0.memory, .0.window)]
    Bounds(Method),
}

impl fmt::Display for Method {
    /// The maker, and the settings that are not its defaults.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let maker = match self.maker {
            Maker::Zlib => "zlib",
            Maker::Gzip => "gzip",
            Maker::EarlyChromium => "Chromium's zlib of 2019",
            Maker::CastagnoliChromium => "Chromium's zlib of 2022",
            Maker::Chromium => "Chromium's zlib of 2023",
            Maker::Rust => "zlib-rs",
            Maker::Zip => "Info-ZIP",
            Maker::Go => "Go",
            Maker::GoTar => "Go's tar",
            Maker::Miniz => "miniz_oxide",
            Maker::RustZip => "zlib-rs in zip",
            Maker::WholeRustZip => "zlib-rs in zip, at once",
            Maker::Pigz => "pigz",
        };
        write!(f, "{maker}, level {}", self.level)?;
        let usual = Self::new(self.level, self.maker);
        for (name, value, usual) in
            [("memory", self.memory, usual.memory), ("window", self.window, usual.window)]
        {
            if value != usual {
                write!(f, ", {name} {value}")?;
            }
        }
        let strategy = match self.strategy {
            Strategy::Default => return Ok(()),
            Strategy::Filtered => "filtered",
            Strategy::Huffman => "Huffman alone",
            Strategy::Runs => "runs alone",
            Strategy::Fixed => "fixed codes",
        };
        write!(f, ", {strategy}")
    }
}

impl Method {
    /// Stock zlib at its defaults, as in zip tools, Java, Python and gzip.
    #[cfg(any(test, feature = "testing"))]
    pub const STOCK: Self = Self::new(6, Maker::Zlib);

    /// Returns a method of zlib's default memory level (8), window (15) and strategy.
    pub const fn new(level: u8, maker: Maker) -> Self {
        Self { version: VERSION, level, memory: 8, window: 15, strategy: Strategy::Default, maker }
    }

    /// The same with another memory level.
    #[must_use]
    pub const fn with_memory(self, memory: u8) -> Self {
        Self { memory, ..self }
    }

    /// The same with another window.
    #[must_use]
    pub const fn with_window(self, window: u8) -> Self {
        Self { window, ..self }
    }

    /// The same with another strategy.
    #[must_use]
    pub const fn with_strategy(self, strategy: Strategy) -> Self {
        Self { strategy, ..self }
    }

    /// Returns its six bytes in a plan (FORMAT 2.5).
    pub fn encode(&self) -> [u8; 6] {
        let strategy = STRATEGIES.iter().position(|strategy| *strategy == self.strategy);
        let maker = Maker::ALL.iter().position(|maker| *maker == self.maker);
        let number =
            |place: Option<usize>| u8::try_from(place.expect("all are listed")).expect("they are few");
        [self.version, self.level, self.memory, self.window, number(strategy), number(maker)]
    }

    /// Reads and checks the bytes of [`Method::encode`].
    ///
    /// # Errors
    /// As [`Method::check`]; a strategy or maker that is not listed counts as an unknown version.
    pub fn decode(bytes: [u8; 6]) -> Result<Self, Error> {
        let [version, level, memory, window, strategy, maker] = bytes;
        let strategy = STRATEGIES.get(usize::from(strategy)).copied().ok_or(Error::Version(version))?;
        let maker = Maker::ALL.get(usize::from(maker)).copied().ok_or(Error::Version(version))?;
        Self { version, level, memory, window, strategy, maker }.check()
    }

    /// Checks a method that came from outside.
    ///
    /// # Errors
    /// An unknown version, or settings that zlib would refuse.
    pub fn check(self) -> Result<Self, Error> {
        if self.version != VERSION {
            return Err(Error::Version(self.version));
        }
        let fits = self.level <= 9 && (1..=9).contains(&self.memory) && (9..=15).contains(&self.window);
        if fits { Ok(self) } else { Err(Error::Bounds(self)) }
    }
}
