//! Finds the stretches of the reference that new bytes nearly equal.
//!
//! bsdiff's scan (Percival 2003): a new exact match is taken up only where it explains more than eight bytes beyond
//! those that continuing the last one explains; between two matches both are extended while more than half agrees.
//! Exact matches come from chains of hashed eight-byte seeds, followed to a bounded depth.

/// A stretch of the reference, then bytes that it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Where it begins in the reference.
    pub(super) from: usize,
    /// Its length in bytes.
    pub(super) length: usize,
    /// Literal bytes after it in the new content.
    pub(super) literals: usize,
}

/// Bytes of a seed.
const SEED: usize = 8;
/// Places of one seed that are compared, at most.
const DEPTH: usize = 24;
/// Bytes of a match that end the search for a longer one; a stretch that goes on for as many needs none either.
const ENOUGH: usize = 48;

/// Bytes that a new match must explain beyond those that continuing the last stretch explains: the cost of a step.
const WORTH_A_STEP: usize = 14;

struct Seeds<'a> {
    reference: &'a [u8],
    heads: Vec<u32>,
    before: Vec<u32>,
    shift: u32,
}

impl<'a> Seeds<'a> {
    fn new(reference: &'a [u8]) -> Self {
        // A quarter of the reference's length: a small table stays in the cache, and chains stay short.
        let log = (reference.len() as u64 / 4).next_power_of_two().trailing_zeros().clamp(8, 21);
        let mut seeds =
            Self { reference, heads: vec![0; 1 << log], before: vec![0; reference.len()], shift: 64 - log };
        for at in 0..(reference.len() + 1).saturating_sub(SEED) {
            let slot = seeds.slot(&reference[at..at + SEED]);
            seeds.before[at] = seeds.heads[slot];
            // The place plus 1; 0 is none.
            seeds.heads[slot] = u32::try_from(at + 1).expect("a reference has less than 2^32 bytes");
        }
        seeds
    }

    fn slot(&self, seed: &[u8]) -> usize {
        let word = u64::from_le_bytes(seed.try_into().expect("a seed has eight bytes"));
        usize::try_from(word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift).expect("at most 21 bits")
    }

    /// Returns the longest match found for the front of `new`: its place and length.
    fn longest(&self, new: &[u8]) -> (usize, usize) {
        let Some(seed) = new.get(..SEED) else { return (0, 0) };
        let mut next = self.heads[self.slot(seed)];
        let mut best = (0, 0);
        for _ in 0..DEPTH {
            if next == 0 {
                break;
            }
            let place = next as usize - 1;
            let length = shared(&self.reference[place..], new);
            if length > best.1 {
                best = (place, length);
                if length >= 4 * ENOUGH {
                    break;
                }
            }
            next = self.before[place];
        }
        best
    }
}

/// Returns the length of the common prefix of two slices.
fn shared(one: &[u8], other: &[u8]) -> usize {
    let words =
        one.chunks_exact(8).zip(other.chunks_exact(8)).take_while(|(one, other)| one == other).count() * 8;
    words + one[words..].iter().zip(&other[words..]).take_while(|(one, other)| one == other).count()
}

/// Covers `new` with stretches of `reference` and literals, in the order of `new`.
pub(super) fn stretches(reference: &[u8], new: &[u8]) -> Vec<Stretch> {
    let seeds = Seeds::new(reference);
    let mut out = Vec::new();
    // Where the last stretch began: in new, in the reference.
    let (mut last, mut last_place) = (0usize, 0usize);
    let (mut scan, mut length, mut place) = (0usize, 0usize, 0usize);
    while scan < new.len() {
        let agrees = |at: usize, last: usize, last_place: usize| {
            reference.get(at - last + last_place).is_some_and(|old| *old == new[at])
        };
        let mut score = 0usize;
        scan += length;
        let mut scored = scan;
        length = 0;
        while scan < new.len() {
            let beside = reference.get(scan - last + last_place..).map_or(0, |old| shared(old, &new[scan..]));
            if beside >= ENOUGH {
                scan += beside;
                scored = scan;
                score = 0;
                continue;
            }
            (place, length) = seeds.longest(&new[scan..]);
            while scored < scan + length {
                score += usize::from(agrees(scored, last, last_place));
                scored += 1;
            }
            if (length == score && length != 0) || length > score + WORTH_A_STEP {
                break;
            }
            score = score.saturating_sub(usize::from(scored > scan && agrees(scan, last, last_place)));
            scan += 1;
            scored = scored.max(scan);
            length = 0;
        }
        if length != score || scan >= new.len() {
            let scan_end = scan.min(new.len());
            let forward = forward(&reference[last_place.min(reference.len())..], &new[last..scan_end]);
            let backward =
                if scan < new.len() { backward(&reference[..place], &new[last..scan_end]) } else { 0 };
            let (forward, backward) =
                settle(reference, new, (last, last_place, forward), (scan_end, place, backward));
            out.push(Stretch {
                from: last_place,
                length: forward,
                literals: scan_end - backward - (last + forward),
            });
            last = scan_end - backward;
            last_place = place.saturating_sub(backward);
            if scan >= new.len() {
                break;
            }
        }
    }
    out.retain(|stretch| stretch.length + stretch.literals > 0);
    let covered: usize = out.iter().map(|stretch| stretch.length + stretch.literals).sum();
    if covered < new.len() {
        let forward = forward(&reference[last_place.min(reference.len())..], &new[covered..]);
        out.push(Stretch { from: last_place, length: forward, literals: new.len() - covered - forward });
    }
    out
}

/// Returns how far the last stretch extends forwards while more than half of the bytes agree.
fn forward(old: &[u8], new: &[u8]) -> usize {
    longest_half(old.iter().zip(new).map(|(old, new)| old == new))
}

/// Returns how far an exact match extends backwards while more than half of the bytes agree.
fn backward(old: &[u8], new: &[u8]) -> usize {
    longest_half(old.iter().rev().zip(new.iter().rev()).map(|(old, new)| old == new))
}

/// Returns the length at which twice the agreements less the length is greatest.
fn longest_half(agreements: impl Iterator<Item = bool>) -> usize {
    let (mut score, mut best, mut length) = (0i64, 0i64, 0);
    for (at, agrees) in agreements.enumerate() {
        score += if agrees { 1 } else { -1 };
        if score > best {
            (best, length) = (score, at + 1);
        }
    }
    length
}

/// Returns the cut between two extensions that claim the same bytes: the one with which most bytes agree.
fn settle(
    reference: &[u8],
    new: &[u8],
    (last, last_place, forward): (usize, usize, usize),
    (scan, place, backward): (usize, usize, usize),
) -> (usize, usize) {
    let Some(overlap) = (last + forward).checked_sub(scan - backward).filter(|overlap| *overlap > 0) else {
        return (forward, backward);
    };
    let (mut score, mut best, mut cut) = (0i64, 0i64, 0);
    for at in 0..overlap {
        let front = forward - overlap + at;
        let back = backward - at;
        score += i64::from(new[last + front] == reference[last_place + front]);
        score -= i64::from(new[scan - back] == reference[place - back]);
        if score > best {
            (best, cut) = (score, at + 1);
        }
    }
    (forward - overlap + cut, backward - cut)
}
