//! Guesses where the older file's functions and data are in the newer one.
//!
//! Functions with equal records are the same function; a changed function beside an unchanged one is paired with the old
//! function at that place. Any other address is assumed to have moved as far as the nearest known one below it.
//! Each target that is coded is learned, on both sides alike, so that later guesses are better.

use std::collections::{BTreeMap, HashMap};

/// The BLAKE3 hash of a record.
pub type Hash = [u8; 32];

/// Old addresses with their new ones, and the functions in pairs.
#[derive(Debug, Clone)]
pub struct Moves {
    known: BTreeMap<u64, u64>,
    /// For each new function: the old one, and whether it is the same.
    pairs: Vec<Option<(usize, bool)>>,
}

impl Moves {
    /// Pairs the functions of both files by their records; each list goes with the functions' addresses.
    ///
    /// Time O(n log n) in the number of functions, memory 100 B a function.
    pub fn new(old: (&[Hash], &[u64]), new: (&[Hash], &[u64])) -> Self {
        let mut pairs = same(old.0, new.0);
        pair_changed(&mut pairs, old.0.len());
        let mut known = BTreeMap::new();
        for (pair, new) in pairs.iter().zip(new.1) {
            if let Some(address) = pair.and_then(|(function, _)| old.1.get(function)) {
                known.insert(*address, *new);
            }
        }
        Self { known, pairs }
    }

    /// Returns the old function that the new one is paired with, and whether both are the same.
    pub fn pair(&self, function: usize) -> Option<(usize, bool)> {
        self.pairs.get(function).copied().flatten()
    }

    /// Returns the likely new address of `old`.
    pub fn guess(&self, old: u64) -> u64 {
        match self.known.range(..=old).next_back() {
            Some((from, to)) => to.wrapping_add(old - from),
            None => old,
        }
    }

    /// Learns the new address of `old`.
    pub fn learn(&mut self, old: u64, new: u64) {
        self.known.insert(old, new);
    }
}

/// Returns the hashes of functions' records, which end at `ends` of `stream`. Time: one BLAKE3 pass in small pieces.
pub fn hashes(stream: &[u8], ends: &[usize]) -> Vec<Hash> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let records = starts.zip(ends).map(|(start, end)| stream.get(start..*end).unwrap_or_default());
    records.map(|record| *blake3::hash(record).as_bytes()).collect()
}

/// Pairs functions with equal records, each old one once: the next old function first, as most follow one another in both
/// files, else the first unused one. Time O(n).
fn same(old: &[Hash], new: &[Hash]) -> Vec<Option<(usize, bool)>> {
    let mut places: HashMap<&Hash, Vec<usize>> = HashMap::new();
    for (place, hash) in old.iter().enumerate().rev() {
        places.entry(hash).or_default().push(place);
    }
    let mut used = vec![false; old.len()];
    let mut expected = 0;
    let mut pairs = Vec::with_capacity(new.len());
    for hash in new {
        let found = if old.get(expected) == Some(hash) && used.get(expected) == Some(&false) {
            Some(expected)
        } else {
            places.get_mut(hash).and_then(|places| {
                loop {
                    let place = places.pop()?;
                    if used.get(place) == Some(&false) {
                        break Some(place);
                    }
                }
            })
        };
        if let Some(place) = found {
            used[place] = true;
            expected = place + 1;
        }
        pairs.push(found.map(|place| (place, true)));
    }
    pairs
}

/// Pairs changed functions: neighbours of a pair that have no partner yet. Their records differ, their place does not.
fn pair_changed(pairs: &mut [Option<(usize, bool)>], old_count: usize) {
    let mut used = vec![false; old_count];
    pairs.iter().flatten().for_each(|(place, _)| used[*place] = true);
    // Forwards: the new function after a pair goes with the old function after it.
    let mut last: Option<usize> = None;
    for pair in pairs.iter_mut() {
        if pair.is_none()
            && let Some(place) = last
            && used.get(place + 1) == Some(&false)
        {
            used[place + 1] = true;
            *pair = Some((place + 1, false));
        }
        last = pair.map(|(place, _)| place);
    }
    // Backwards: the new function before a pair goes with the old function before it.
    let mut next: Option<usize> = None;
    for pair in pairs.iter_mut().rev() {
        if pair.is_none()
            && let Some(place) = next
            && place > 0
            && !used[place - 1]
        {
            used[place - 1] = true;
            *pair = Some((place - 1, false));
        }
        next = pair.map(|(place, _)| place);
    }
}
