//! Which chunks of a new file are the old file's, one after the other.

use std::collections::HashMap;

/// Returns for each chunk of `new` its place in `old`, where both lists have it in the same order.
///
/// The first anchors are chunks that occur once in both lists, in their longest rising sequence ("patience" diff,
/// Cohen 2003; Fredman 1975 for the sequence); then the anchors grow over equal neighbours, which finds
/// chunks that occur several times. Time O(n log n).
pub(super) fn align(old: &[u64], new: &[u64]) -> Vec<Option<u32>> {
    let mut aligned = vec![None; new.len()];
    let begin = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let end =
        old[begin..].iter().rev().zip(new[begin..].iter().rev()).take_while(|(old, new)| old == new).count();
    for (at, anchor) in aligned.iter_mut().enumerate().take(begin) {
        *anchor = Some(place(at));
    }
    for back in 1..=end {
        aligned[new.len() - back] = Some(place(old.len() - back));
    }
    let (old_inner, new_inner) = (&old[begin..old.len() - end], &new[begin..new.len() - end]);
    for (new_at, old_at) in rising(&unique_pairs(old_inner, new_inner)) {
        aligned[begin + new_at as usize] = Some(place(begin) + old_at);
    }
    grow(old, new, &mut aligned);
    aligned
}

/// Returns the places (in new, in old) of chunks that occur once on either side, sorted.
fn unique_pairs(old: &[u64], new: &[u64]) -> Vec<(u32, u32)> {
    let mut counts: HashMap<u64, (u32, u32, u32)> = HashMap::with_capacity(old.len());
    for (at, id) in old.iter().enumerate() {
        let entry = counts.entry(*id).or_default();
        *entry = (entry.0 + 1, place(at), 0);
    }
    for id in new {
        counts.entry(*id).and_modify(|entry| entry.2 += 1);
    }
    let pair = |(at, id): (usize, &u64)| match counts.get(id) {
        Some((1, old_at, 1)) => Some((place(at), *old_at)),
        _ => None,
    };
    new.iter().enumerate().filter_map(pair).collect()
}

/// Returns the longest sequence of `pairs` in which the second numbers rise too.
fn rising(pairs: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut tops: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (at, pair) in pairs.iter().enumerate() {
        let pile = tops.partition_point(|top| pairs[*top].1 < pair.1);
        before.push(pile.checked_sub(1).map(|pile| tops[pile]));
        if pile == tops.len() {
            tops.push(at);
        } else {
            tops[pile] = at;
        }
    }
    let last = tops.last().copied();
    let mut chain: Vec<_> = std::iter::successors(last, |at| before[*at]).map(|at| pairs[at]).collect();
    chain.reverse();
    chain
}

/// Anchors their equal neighbours, forwards and then backwards, without crossing another anchor.
fn grow(old: &[u64], new: &[u64], aligned: &mut [Option<u32>]) {
    let mut limit = place(old.len());
    let limits: Vec<u32> = aligned
        .iter()
        .rev()
        .map(|anchor| {
            let so_far = limit;
            limit = anchor.unwrap_or(limit);
            so_far
        })
        .collect();
    for at in 1..new.len() {
        if let (None, Some(left)) = (aligned[at], aligned[at - 1]) {
            let next = left + 1;
            if next < limits[new.len() - 1 - at] && old[next as usize] == new[at] {
                aligned[at] = Some(next);
            }
        }
    }
    let mut floors = Vec::with_capacity(new.len());
    let mut floor = 0;
    for anchor in aligned.iter() {
        floors.push(floor);
        floor = anchor.map_or(floor, |anchor| anchor + 1);
    }
    for at in (0..new.len().saturating_sub(1)).rev() {
        if let (None, Some(right)) = (aligned[at], aligned[at + 1])
            && right > floors[at]
            && old[right as usize - 1] == new[at]
        {
            aligned[at] = Some(right - 1);
        }
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a file has fewer than 2^32 chunks")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(old: &[u64], new: &[u64]) -> Vec<i64> {
        let aligned = align(old, new);
        let found: Vec<u32> = aligned.iter().copied().flatten().collect();
        assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
        for (at, anchor) in aligned.iter().enumerate() {
            assert!(anchor.is_none_or(|anchor| old[anchor as usize] == new[at]));
        }
        aligned.into_iter().map(|anchor| anchor.map_or(-1, i64::from)).collect()
    }

    #[test]
    fn edits_are_narrowed_by_their_neighbours() {
        assert_eq!(places(&[1, 2, 3, 4], &[1, 9, 3, 4]), [0, -1, 2, 3]);
        assert_eq!(places(&[1, 2, 3, 4, 5], &[8, 2, 9, 9, 4, 5]), [-1, 1, -1, -1, 3, 4]);
        assert_eq!(places(&[1, 2], &[]), [0i64; 0]);
        assert_eq!(places(&[], &[1]), [-1]);
    }

    #[test]
    fn chunks_that_occur_often_are_found_beside_others() {
        assert_eq!(places(&[0, 0, 0, 5, 0, 0], &[0, 0, 7, 0, 5, 0, 9]), [0, 1, -1, 2, 3, 4, -1]);
        assert_eq!(places(&[0, 0, 0, 0], &[0, 0]), [0, 1]);
    }

    #[test]
    fn what_moved_is_left_out() {
        assert_eq!(places(&[1, 2, 3, 4, 5, 6], &[9, 4, 5, 6, 1, 9]), [-1, 3, 4, 5, -1, -1]);
    }
}
