//! The parts of a patch, and the contexts that predict each.

#![expect(clippy::cast_possible_truncation, reason = "numbers are cut to what a context takes")]

use std::ops::RangeInclusive;

use super::predictor::{BITS, Predictor, hash};
use super::recall::{Expected, Repeated, Replaced};
use crate::arithmetic::Coder;

/// Bounds of a context's table, which has four probabilities for each new byte: 2^10 to 2^17.
const TABLE_LOGS: RangeInclusive<u32> = 10..=17;
/// Bounds of the table of the reference's places, one for each byte: 2^8 to 2^20.
const REFERENCE_LOGS: RangeInclusive<u32> = 8..=20;
/// After a run of this many bytes equal to the reference's, one decision covers a whole block.
const LONG_RUN: u32 = 192;
/// Bytes of such a block.
const BLOCK: usize = 64;

/// The kinds of numbers in a patch.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// Bytes of a stretch.
    Length,
    /// Literals after it.
    Literals,
    /// The distance from its end to the start of the next one in the reference.
    Step,
}

/// Kinds of numbers.
const NUMBERS: usize = 3;

/// The source of a predicted byte.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Where the same old bytes were replaced before.
    Replaced,
    /// After the same bytes in the output.
    Made,
    /// After the same bytes in the reference.
    Reference,
}

/// Sources.
const SOURCES: usize = 3;

/// The adaptive state of one patch; encoder and decoder hold the same.
pub(super) struct Model {
    numbers: Predictor<6>,
    blocks: Predictor<6>,
    expected: Predictor<4>,
    same: Predictor<7>,
    changes: Predictor<7>,
    literals: Predictor<10>,
    replaced: Replaced,
    repeated: Repeated,
    /// Finds literals in the reference; built with the first literal.
    in_reference: Option<Repeated>,
    /// The last bytes of the output, the latest in the low bits.
    bytes: u64,
    /// The old bytes in their places, likewise.
    olds: u64,
    /// The differences between both, likewise.
    differences: u64,
    /// One bit for each of the latest bytes: 1 if it equalled the reference's.
    equals: u32,
    /// The number of bytes since the last difference.
    run: u32,
    /// The length of the run before that.
    run_before: u32,
    /// One bit for each of the latest blocks: 1 if it equalled the reference's.
    same_blocks: u32,
    /// For each source, one bit for each of its latest predictions: 1 if it was right.
    came: [u32; SOURCES],
    /// The last two numbers of each kind.
    last: [[u64; 2]; NUMBERS],
    /// The last number of any kind.
    number_before: u64,
}

/// Returns the binary logarithm of the size of a table for `entries` entries, within `logs`.
fn log_for(entries: usize, logs: &RangeInclusive<u32>) -> u32 {
    (usize::BITS - entries.leading_zeros()).clamp(*logs.start(), *logs.end())
}

/// Returns the length of a number in bits.
fn magnitude(number: u64) -> u64 {
    u64::from(u64::BITS - number.leading_zeros())
}

impl Model {
    /// Creates a model that has learnt nothing, with tables for an output of `new_bytes`.
    pub(super) fn new(new_bytes: usize) -> Self {
        let log = log_for(new_bytes.saturating_mul(4), &TABLE_LOGS);
        Self {
            numbers: Predictor::new(log, NUMBERS),
            blocks: Predictor::new(log, 1),
            expected: Predictor::new(log, SOURCES << 5),
            same: Predictor::new(log, 3 * 64),
            changes: Predictor::new(log, 4 * 8),
            literals: Predictor::new(log, 16 * 256),
            replaced: Replaced::new(log),
            repeated: Repeated::new(4, log),
            in_reference: None,
            bytes: 0,
            olds: 0,
            differences: 0,
            equals: u32::MAX,
            run: 0,
            run_before: 0,
            same_blocks: 0,
            came: [0; SOURCES],
            last: [[0; 2]; NUMBERS],
            number_before: 0,
        }
    }

    /// Codes a number: its length in bits, then its bits.
    pub(super) fn number(&mut self, coder: &mut impl Coder<BITS>, kind: Number, number: u64) -> u64 {
        let set = kind as usize;
        let [last, before] = self.last[set];
        let kind = set as u64;
        let bases = [
            hash(1, kind),
            hash(2, kind << 8 | magnitude(last)),
            hash(3, kind << 8 | magnitude(self.number_before)),
            hash(4, last << 2 | kind),
            hash(5, self.number_before << 2 | kind),
            hash(
                6,
                ((kind << 8 | magnitude(last)) << 8 | magnitude(self.number_before)) << 8 | magnitude(before),
            ),
        ];
        let mut length = 0;
        while length < u64::BITS {
            let contexts = bases.map(|base| hash(base, length.into()));
            if !self.numbers.bit(coder, u64::from(length) < magnitude(number), contexts, set) {
                break;
            }
            length += 1;
        }
        let mut found = u64::from(length > 0);
        for place in (0..length.saturating_sub(1)).rev() {
            let contexts = bases.map(|base| hash(base, found << 6 | u64::from(length)));
            let bit = self.numbers.bit(coder, number >> place & 1 == 1, contexts, set);
            found = found << 1 | u64::from(bit);
        }
        self.last[set] = [found, last];
        self.number_before = found;
        found
    }

    /// Codes `length` bytes where the reference goes on with `olds`; an encoder takes them from `byte`, both sides append them to
    /// `made`.
    ///
    /// After a long run of equal bytes one decision covers a block; only a block that differs is coded byte by byte.
    pub(super) fn stretch(
        &mut self,
        coder: &mut impl Coder<BITS>,
        olds: &[u8],
        length: usize,
        byte: impl Fn(usize) -> u8,
        mut made: impl FnMut(u8),
    ) {
        let mut at = 0;
        while at < length {
            let is_block = self.run >= LONG_RUN;
            let end = if is_block { length.min(at + BLOCK) } else { at + 1 };
            let block = &olds[at..end];
            let is_same = || (at..end).all(|at| byte(at) == olds[at]);
            if is_block && self.block(coder, block, is_same()) {
                block.iter().copied().for_each(&mut made);
            } else {
                (at..end).for_each(|at| made(self.near(coder, &olds[at..], byte(at))));
            }
            at = end;
        }
    }

    /// Codes whether a block equals the reference's; returns it.
    fn block(&mut self, coder: &mut impl Coder<BITS>, old: &[u8], is_same: bool) -> bool {
        let runs = magnitude(self.run.into()) << 8 | magnitude(self.run_before.into());
        let contexts = [
            hash(1, runs),
            hash(2, u64::from(self.same_blocks & 0xffff)),
            hash(3, u64::from(self.same_blocks & 7) << 8 | runs >> 8),
            hash(4, old.len() as u64),
            hash(5, self.olds & 0xffff_ffff),
            hash(6, self.olds & 0xffff),
        ];
        let same = self.blocks.bit(coder, is_same, contexts, 0);
        self.same_blocks = self.same_blocks << 1 | u32::from(same);
        if same {
            self.run = self.run.saturating_add(old.len() as u32);
            self.equals = u32::MAX;
            for byte in &old[old.len().saturating_sub(8)..] {
                self.olds = self.olds << 8 | u64::from(*byte);
                self.bytes = self.bytes << 8 | u64::from(*byte);
            }
        }
        same
    }

    /// Codes a byte where the reference has the first of `ahead`; returns it.
    fn near(&mut self, coder: &mut impl Coder<BITS>, ahead: &[u8], byte: u8) -> u8 {
        let old = ahead[0];
        let (old_word, equals) = (u64::from(old), u64::from(self.equals));
        let run = magnitude(self.run.into());
        let expected = self.replaced.expect(ahead);
        let (recalled, length) = match expected {
            None => (0, 0),
            Some(Expected { byte, length }) => (if byte == old { 1 } else { 2 }, u64::from(length.min(15))),
        };
        let tokens = ahead.iter().take(4).fold(0, |word, byte| word << 8 | u64::from(*byte));
        let contexts = [
            hash(1, run << 8 | magnitude(self.run_before.into())),
            hash(2, old_word << 16 | self.olds & 0xffff),
            hash(3, (equals & 0xffff) << 8 | self.differences & 0xff),
            hash(4, ((equals & 0xff) << 8 | self.bytes & 0xff) << 8 | old_word),
            hash(5, (equals & 3) << 24 | self.olds & 0x00ff_ffff),
            hash(6, tokens << 1 | equals & 1),
            hash(7, ((recalled << 4 | length) << 4 | run.min(15)) << 3 | equals & 7),
        ];
        let set = ((run.min(15) << 2 | equals & 3) * 3 + recalled) as usize;
        let other = expected.filter(|expected| expected.byte != old);
        let came = other.filter(|other| self.is_expected(coder, *other, Source::Replaced, byte));
        let made = match came {
            Some(Expected { byte, .. }) => byte,
            None if self.same.bit(coder, byte == old, contexts, set) => old,
            None => old.wrapping_add(self.difference(coder, ahead, byte.wrapping_sub(old), expected)),
        };
        self.equals = self.equals << 1 | u32::from(made == old);
        if made == old {
            self.run = self.run.saturating_add(1);
        } else {
            self.differences = self.differences << 8 | u64::from(made.wrapping_sub(old));
            self.run_before = self.run;
            self.run = 0;
        }
        self.replaced.push(old, made);
        self.olds = self.olds << 8 | old_word;
        self.bytes = self.bytes << 8 | u64::from(made);
        made
    }

    /// Codes whether the byte is the predicted one.
    fn is_expected(
        &mut self,
        coder: &mut impl Coder<BITS>,
        expected: Expected,
        source: Source,
        byte: u8,
    ) -> bool {
        let source = source as usize;
        let (kind, length) = (source as u64, u64::from(expected.length));
        let came = u64::from(self.came[source]);
        let contexts = [
            hash(1, (kind << 8 | length) << 8 | came & 7),
            hash(2, kind << 16 | came & 0xffff),
            hash(3, (kind << 8 | u64::from(expected.byte)) << 8 | self.bytes & 0xff),
            hash(4, (kind << 8 | length.min(15)) << 16 | self.bytes & 0xffff),
        ];
        let set = source << 5 | expected.length as usize;
        let comes = self.expected.bit(coder, byte == expected.byte, contexts, set);
        self.came[source] = self.came[source] << 1 | u32::from(comes);
        comes
    }

    /// Codes the difference at a place where there is one; returns it.
    fn difference(
        &mut self,
        coder: &mut impl Coder<BITS>,
        ahead: &[u8],
        difference: u8,
        expected: Option<Expected>,
    ) -> u8 {
        let old = u64::from(ahead[0]);
        let next = ahead.get(1).copied().map_or(0, u64::from);
        let beside = u64::from(self.equals & 7);
        let expected =
            expected.map(|it| Expected { byte: it.byte.wrapping_sub(ahead[0]), length: it.length.min(15) });
        let contexts = [
            hash(1, beside << 8 | self.differences & 0xff),
            hash(2, beside << 16 | self.differences & 0xffff),
            hash(3, ((self.differences & 0xff) << 8 | self.olds & 0xff) << 8 | old),
            hash(4, u64::from(self.run.min(255)) << 24 | self.differences & 0x00ff_ffff),
            hash(5, beside << 8 | old),
            hash(6, Expected::word(expected)),
            hash(7, ((self.bytes & 0xff) << 8 | next) << 8 | old),
        ];
        let trust = expected.filter(|it| it.byte != 0).map_or(0, |it| 1 + it.length.min(2) as usize);
        self.changes.byte(coder, difference, contexts, |node| trust << 3 | node.ilog2() as usize)
    }

    /// Codes a byte after `made` without help of the reference, whose next byte would be at `place`.
    pub(super) fn literal(
        &mut self,
        coder: &mut impl Coder<BITS>,
        byte: u8,
        made: &[u8],
        reference: &[u8],
        place: usize,
    ) -> u8 {
        let in_reference = self.in_reference.get_or_insert_with(|| {
            let mut all = Repeated::new(6, log_for(reference.len(), &REFERENCE_LOGS));
            all.learn(reference);
            all
        });
        let (here, there) = (self.repeated.expect(made, made), in_reference.expect(reference, made));
        self.repeated.learn_end(made);
        let beside = reference.get(place).map_or(0, |byte| 1 + u64::from(*byte));
        let contexts = [
            hash(1, 0),
            hash(2, self.bytes & 0xff),
            hash(3, self.bytes & 0xffff),
            hash(4, self.bytes & 0x00ff_ffff),
            hash(5, self.bytes & 0xffff_ffff),
            hash(6, self.bytes & 0xff_ffff_ffff),
            hash(7, beside << 8 | self.bytes & 0xff),
            hash(8, Expected::word(here)),
            hash(9, Expected::word(there)),
            hash(10, there.map_or(0, |there| 1 + u64::from(there.byte)) << 8 | self.bytes & 0xff),
        ];
        let trust = |expected: Option<Expected>| match expected.map_or(0, |expected| expected.length) {
            0 => 0,
            1..10 => 1,
            10..20 => 2,
            _ => 3,
        };
        let set = trust(there) << 10 | trust(here) << 8;
        let best = match (here, there) {
            (Some(here), Some(there)) if here.length >= there.length => Some((here, Source::Made)),
            (_, Some(there)) => Some((there, Source::Reference)),
            (here, None) => here.map(|here| (here, Source::Made)),
        };
        let literal = match best {
            Some((best, source)) if self.is_expected(coder, best, source, byte) => best.byte,
            _ => self.literals.byte(coder, byte, contexts, |node| set | node),
        };
        self.repeated.push(made, literal);
        if let Some(in_reference) = &mut self.in_reference {
            in_reference.push(reference, literal);
        }
        self.bytes = self.bytes << 8 | u64::from(literal);
        literal
    }
}
