//! Merges sorted footers of packs, or sorted runs, into the entries of one run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::store::place::Place;
use format::pack::FooterView;
use ground::ids::ChunkId;

/// A source's next entry: its id, its pack's number, the source, its place.
type Next = (ChunkId, Reverse<u32>, usize, (u32, u32, u32));

/// Returns the entries of sorted sources by id, and for one id by falling pack number.
///
/// A chunk of several packs stays once for each, so that it is found while any of them is there.
#[derive(Debug)]
pub struct Merged<Source> {
    sources: Vec<Source>,
    /// The next entry of each source.
    next: BinaryHeap<Reverse<Next>>,
    last: Option<(ChunkId, u32)>,
}

impl<Source: Iterator<Item = (ChunkId, Place)>> Merged<Source> {
    /// Merges sources that are each sorted. Time O(n log sources).
    pub fn new(sources: impl Iterator<Item = Source>) -> Self {
        let mut sources: Vec<Source> = sources.collect();
        let first = |(at, source): (usize, &mut Source)| source.next().map(|entry| Reverse(key(at, entry)));
        let next = sources.iter_mut().enumerate().filter_map(first).collect();
        Self { sources, next, last: None }
    }
}

impl<Source: Iterator<Item = (ChunkId, Place)>> Iterator for Merged<Source> {
    type Item = (ChunkId, Place);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut top = self.next.peek_mut()?;
            let Reverse((id, Reverse(pack), at, (frame_offset, plain_offset, bytes))) = *top;
            match self.sources[at].next() {
                Some(entry) => *top = Reverse(key(at, entry)),
                None => drop(PeekMut::pop(top)),
            }
            if self.last.replace((id, pack)) != Some((id, pack)) {
                return Some((id, Place { pack, frame_offset, plain_offset, bytes }));
            }
        }
    }
}

fn key(at: usize, (id, place): (ChunkId, Place)) -> Next {
    (id, Reverse(place.pack), at, (place.frame_offset, place.plain_offset, place.bytes))
}

/// Returns the chunks of a pack of less than 4 GiB, by id.
pub fn of_footer<'a>(number: u32, footer: &'a FooterView<'_>) -> impl Iterator<Item = (ChunkId, Place)> + 'a {
    (0..footer.chunk_count()).map(move |entry| {
        let found = footer.entry(entry);
        let place = Place {
            pack: number,
            frame_offset: u32::try_from(found.frame_offset).expect("packs are smaller than 4 GiB"),
            plain_offset: found.plain_offset,
            bytes: found.chunk.bytes,
        };
        (found.chunk.id, place)
    })
}

/// Returns how many of the newest runs should be merged, given the entries of all, newest first; none where there are
/// no more than `most` runs.
///
/// A run joins those that are newer while it is at most twice as large as they are together: so sizes grow by
/// steps, and an entry is written again O(log n) times.
pub fn due(entries: &[u64], most: usize) -> Option<usize> {
    if entries.len() <= most {
        return None;
    }
    let mut total = 0;
    let joins = |(at, entries): &(usize, &u64)| {
        let joins = *at < 2 || **entries <= 2 * total;
        total += **entries;
        joins
    };
    Some(entries.iter().enumerate().take_while(joins).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_in_several_packs_stay_and_the_one_of_the_highest_number_is_first() {
        let id = |byte| ChunkId::from_bytes([byte; 32]);
        let place = |pack| Place { pack, frame_offset: 1, plain_offset: 2, bytes: 3 };
        let sources =
            [vec![(id(1), place(1)), (id(3), place(1)), (id(3), place(1))], vec![], vec![(id(3), place(2))]];
        let merged: Vec<_> = Merged::new(sources.into_iter().map(Vec::into_iter)).collect();
        assert_eq!(merged, [(id(1), place(1)), (id(3), place(2)), (id(3), place(1))]);
    }

    #[test]
    fn runs_stay_few_and_each_entry_is_written_a_few_times() {
        let (mut runs, mut written): (Vec<u64>, u64) = (Vec::new(), 0);
        for _ in 0..4000 {
            runs.insert(0, 1);
            if let Some(count) = due(&runs, 6) {
                let total = runs.drain(..count).sum();
                runs.insert(0, total);
                written += total;
            }
            assert!(runs.len() <= 6, "{runs:?}");
        }
        assert!(written < 10 * 4000, "written {written} times");
    }
}
