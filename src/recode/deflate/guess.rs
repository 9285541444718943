//! Finds out how a deflate stream was made, by making it again.
//!
//! Each likely method encodes the plain bytes until the first difference from the stream; the one that
//! has none to the end is the answer. Nothing is believed: not the container's hints, which only say what to
//! try first, nor a match of the beginning.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::encoder::Encoder;
use super::inflater::{Broken, Inflater, Progress};
use super::method::{Maker, Method, Strategy};

/// 4: a stream is encoded whole about once; the rest pays for methods that differ late.
const WORK_FACTOR: u64 = 4;
/// 8 MiB: some 50 methods that differ in the first block.
const WORK_BYTES: u64 = 8 * 1024 * 1024;
/// Streams in a row without a method after which only the likeliest methods are tried.
const FAILURES_MAX: u32 = 16;
/// The number of likeliest methods.
const LIKELY: usize = 6;

/// The container's hint about how the stream was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// None: stock zlib's default comes first.
    None,
    /// The best level (gzip's XFL 2, zip's flag 1).
    Best,
    /// The fastest level (gzip's XFL 4, zip's flags 2 and 3).
    Fast,
    /// An unknown system (gzip's OS 255), which Go writes; of about this level.
    Go(u8),
    /// Filtered image rows, with this window.
    Image(u8),
}

/// A reproducible stream: its extent and its method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Bytes of the stream.
    pub packed: u64,
    /// Bytes that it inflates to.
    pub plain: u64,
    /// The method that reproduces it.
    pub method: Option<Method>,
}

/// A stream that somebody has seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known<M = Method> {
    /// Bytes of the stream.
    pub packed: u64,
    /// Bytes that it decodes to; none where that is not known.
    pub plain: Option<u64>,
    /// The method that makes it.
    pub method: M,
}

/// Finds the methods of streams; tries first the methods that were right before.
#[derive(Default)]
pub struct Guesser {
    inflater: Inflater,
    encoder: Option<Encoder>,
    encoded: Vec<u8>,
    learned: Learned,
    stopping: Arc<AtomicBool>,
}

/// Facts that a guesser learned from earlier streams.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    recent: Vec<Method>,
    failures: u32,
}

/// Ends inflating early.
struct Stop;

impl Guesser {
    /// Returns the facts learned so far.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Continues from what another guesser learned. The method found for a stream that several make depends on it.
    pub fn learn(&mut self, learned: Learned) {
        self.learned = learned;
    }

    /// Ends its work soon once `stopping` is set: what it returns is then worth nothing.
    #[must_use]
    pub fn stopped_by(self, stopping: Arc<AtomicBool>) -> Self {
        Self { stopping, ..self }
    }

    /// Measures the stream at the start of `bytes` and finds its method.
    ///
    /// `None` if it is damaged, cut short, or inflates to more than `plain_max`. Memory: 3 MiB. Time:
    /// at most about four times what encoding takes, plus 8 MiB.
    ///
    /// What is `known` of the stream is believed. Methods that would be tried before the known one are still tried, so that the
    /// answer is the same as without it; mostly there are none, and nothing is encoded or, where the plain bytes are known,
    /// inflated.
    pub fn stream(
        &mut self,
        bytes: &[u8],
        plain_max: u64,
        hint: Hint,
        known: Option<Known>,
    ) -> Option<Stream> {
        let mut candidates: Vec<Method> = self.learned.recent.clone();
        let learned = candidates.len();
        for method in likely(hint) {
            if !candidates.contains(&method) {
                candidates.push(method);
            }
        }
        if self.learned.failures >= FAILURES_MAX {
            candidates.truncate(learned + LIKELY);
        }
        let mut candidates = candidates.into_iter();
        let first = candidates.next()?;
        let Measured { packed, plain, mut tried } = match known {
            Some(Known { packed, plain: Some(plain), .. }) => {
                let packed = usize::try_from(packed).ok().filter(|packed| *packed <= bytes.len())?;
                Some(Measured { packed, plain, tried: None }).filter(|_| plain <= plain_max)
            }
            Some(known) if known.method == first => self.measure(bytes, plain_max, None),
            // The likeliest is tried while the stream is measured.
            _ => self.measure(bytes, plain_max, Some(&first)),
        }?;
        let stream = &bytes[..packed];
        let known = known.filter(|known| known.packed == packed as u64).map(|known| known.method);
        let mut work = plain.saturating_mul(WORK_FACTOR) + WORK_BYTES;
        let mut found = None;
        for method in std::iter::once(first).chain(candidates) {
            if self.is_stopping() {
                return None;
            }
            let (same, encoded) = match tried.take() {
                _ if known == Some(method) => (true, 0),
                Some(tried) => tried,
                None => self.prove(&method, stream),
            };
            if same {
                found = Some(method);
                break;
            }
            work = work.saturating_sub(encoded);
            if work < plain.min(WORK_BYTES / 32) {
                break;
            }
        }
        self.learned.failures = if found.is_some() { 0 } else { self.learned.failures + 1 };
        if let Some(method) = found {
            self.learned.recent.retain(|known| *known != method);
            self.learned.recent.insert(0, method);
            self.learned.recent.truncate(LIKELY);
        }
        Some(Stream { packed: packed as u64, plain, method: found })
    }

    /// Measures the stream and tries a method on it; goes on without the method after the first difference.
    fn measure(&mut self, bytes: &[u8], plain_max: u64, method: Option<&Method>) -> Option<Measured> {
        let mut plain = 0;
        self.inflater.reset();
        let stopping = &self.stopping;
        let mut proof = method.map(|method| Proof::begin(&mut self.encoder, &mut self.encoded, method));
        let ended = self.inflater.push(bytes, |piece| {
            plain += piece.len() as u64;
            if plain > plain_max || stopping.load(Ordering::Relaxed) {
                return Err(Stop);
            }
            if let Some(proof) = proof.as_mut().filter(|proof| proof.same) {
                proof.compare(piece, bytes);
            }
            Ok(())
        });
        let Ok(Progress::End(packed)) = ended else { return None };
        let tried = proof.map(|mut proof| (proof.finish(&bytes[..packed]), proof.plain));
        Some(Measured { packed, plain, tried })
    }

    /// Returns whether `method` makes `stream`, and how many plain bytes were encoded to find out.
    pub fn prove(&mut self, method: &Method, stream: &[u8]) -> (bool, u64) {
        self.inflater.reset();
        let stopping = &self.stopping;
        let mut proof = Proof::begin(&mut self.encoder, &mut self.encoded, method);
        let ended = self.inflater.push(stream, |piece| {
            proof.compare(piece, stream);
            if proof.same && !stopping.load(Ordering::Relaxed) { Ok(()) } else { Err(Stop) }
        });
        if !matches!(ended, Ok(Progress::End(_))) {
            debug_assert!(!matches!(ended, Err(Broken::Stream)), "the stream was measured");
            return (false, proof.plain);
        }
        (proof.finish(stream), proof.plain)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// The extent of a stream, and whether the method that was tried makes it, with the plain bytes encoded to find out.
struct Measured {
    packed: usize,
    plain: u64,
    tried: Option<(bool, u64)>,
}

/// A comparison of a stream with what a method makes of its plain bytes.
struct Proof<'a> {
    encoder: &'a mut Encoder,
    encoded: &'a mut Vec<u8>,
    /// Bytes of the stream that were compared.
    at: usize,
    /// Plain bytes that were encoded.
    plain: u64,
    /// True if no difference was found.
    same: bool,
}

impl<'a> Proof<'a> {
    fn begin(encoder: &'a mut Option<Encoder>, encoded: &'a mut Vec<u8>, method: &Method) -> Self {
        let encoder = encoder.get_or_insert_with(|| Encoder::new(method));
        encoder.reset(method);
        encoded.clear();
        Self { encoder, encoded, at: 0, plain: 0, same: true }
    }

    /// Encodes the next plain bytes and compares as much as is certain.
    fn compare(&mut self, piece: &[u8], stream: &[u8]) {
        self.plain += piece.len() as u64;
        self.encoder.write(piece, self.encoded);
        self.same &= stream[self.at..].starts_with(self.encoded);
        if self.same {
            self.at += self.encoded.len();
        }
        self.encoded.clear();
    }

    /// Returns whether the whole stream is the same.
    fn finish(&mut self, stream: &[u8]) -> bool {
        if self.same {
            self.encoder.finish(self.encoded);
            self.same = stream.get(self.at..) == Some(&self.encoded[..]);
        }
        self.same
    }
}

/// Returns methods worth a try, the likeliest first.
fn likely(hint: Hint) -> Vec<Method> {
    use Maker::{
        CastagnoliChromium, Chromium, Go, GoTar, Gzip, Miniz, Pigz, Rust, RustZip, WholeRustZip, Zip, Zlib,
    };
    let mut methods = Vec::new();
    let level = match hint {
        Hint::Best => 9,
        Hint::Fast => 1,
        Hint::None => 6,
        Hint::Go(level) => {
            methods.extend([Zlib, Go, GoTar].map(|maker| Method::new(level, maker)));
            level
        }
        Hint::Image(window) => {
            for (level, strategy) in
                [(9, Strategy::Filtered), (6, Strategy::Filtered), (9, Strategy::Default)]
            {
                for memory in [8, 9] {
                    let method = Method::new(level, Zlib).with_memory(memory);
                    methods.push(method.with_window(window.max(9)).with_strategy(strategy));
                }
            }
            6
        }
    };
    methods
        .extend([Zlib, Gzip, Zip, Chromium, CastagnoliChromium, Rust].map(|maker| Method::new(level, maker)));
    methods.push(Method::new(level, Zlib).with_memory(9));
    for level in [6, 9, 1, 8, 5, 7, 4, 3, 2] {
        methods.push(Method::new(level, Zlib));
    }
    for level in [level, 6, 9, 1] {
        methods.extend([Pigz, Miniz].map(|maker| Method::new(level, maker)));
    }
    for level in [level, 6, 9] {
        methods.extend([RustZip, WholeRustZip].map(|maker| Method::new(level, maker)));
    }
    // Go's gzip uses 6 by default, its zip 5; releases are packed with 9, layers also with 1.
    for level in [level, 6, 5, 9, 1] {
        methods.extend([Go, GoTar].map(|maker| Method::new(level, maker)));
    }
    methods.extend([8, 7, 4, 3, 2].map(|level| Method::new(level, Go)));
    for (level, maker) in [
        (9, Gzip),
        (6, Gzip),
        (9, Zip),
        (6, Zip),
        (9, Chromium),
        (6, Chromium),
        (9, CastagnoliChromium),
        (6, CastagnoliChromium),
        (9, Rust),
        (6, Rust),
        (1, Rust),
    ] {
        methods.push(Method::new(level, maker));
    }
    methods.extend([6, 9].map(|level| Method::new(level, Zlib).with_memory(9)));
    methods
}
