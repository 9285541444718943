//! Chooses the reference of each run of unseen chunks.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::anchors;
use super::file::{Chunk, File};
use super::names::Names;

/// Why a reference was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// It stood between the same known neighbours.
    Neighbours,
    /// It is the file of the same path.
    Path,
    /// It is the file of the most similar path.
    Name,
    /// It has similar content, wherever it is from.
    Content,
    /// There is none.
    Nothing,
}

impl Rule {
    /// Returns the rule's number on the wire (PROTOCOL 2).
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Returns the rule of a number; [`Rule::Nothing`] for an unknown one.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Neighbours,
            1 => Self::Path,
            2 => Self::Name,
            3 => Self::Content,
            _ => Self::Nothing,
        }
    }
}

/// Chunks of one old file, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Index of the file in the old list.
    pub file: usize,
    /// Its chunks.
    pub chunks: Range<usize>,
}

/// Unseen chunks of one new file, and their reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Index of the file in the new list.
    pub file: usize,
    /// Runs of unseen chunks, in order; several where no known chunk separates them in the reference.
    pub runs: Vec<Range<usize>>,
    /// The old chunks that they resemble; none for [`Rule::Nothing`].
    pub reference: Option<Place>,
    /// Why it was chosen.
    pub rule: Rule,
    /// The likely number of edits, from which the length of a signature's blocks follows.
    pub edits: u64,
}

/// Edits of one changed chunk, at most; it has many where nearly all chunks of its file changed, as in relinked code.
const EDITS_OF_CHUNK_MAX: u64 = 12;
/// Fewer chunks than this say nothing about the density of edits.
const CHUNKS_TELLING: usize = 4;

/// 16 KiB: the same path counts as much as this many bytes of shared chunks.
const PATH_WORTH: u64 = 16 * 1024;
/// Old files that one chunk votes for; a chunk of more files votes for none.
const VOTES_MAX: usize = 4;

/// Chooses a reference for each chunk of `new` that is not `known`, at the chunk's first occurrence only.
///
/// Both lists are sorted by path. Time O(n log n) and memory O(n) in the number of chunks and files.
pub fn choose(old: &[File<'_>], new: &[File<'_>], known: impl Fn(&Chunk) -> bool) -> Vec<Region> {
    let homes = homes(old);
    let names = Names::new(old);
    let (mut regions, mut seen) = (Vec::new(), HashSet::new());
    for (index, file) in new.iter().enumerate() {
        let wanted: Vec<bool> =
            file.chunks.iter().map(|chunk| !known(chunk) && seen.insert(chunk.id)).collect();
        if !wanted.contains(&true) {
            continue;
        }
        let same = old.binary_search_by(|old| old.path.cmp(file.path)).ok();
        match relative(file, same, &homes)
            .map(|at| (at, Rule::Path))
            .or_else(|| names.most_similar(file).map(|at| (at, Rule::Name)))
        {
            Some((at, rule)) => narrow(index, file, &wanted, (at, &old[at]), rule, &mut regions),
            None => {
                regions.push(Region {
                    file: index,
                    runs: runs(&wanted),
                    reference: None,
                    rule: Rule::Nothing,
                    edits: 1,
                });
            }
        }
    }
    regions
}

/// Returns the old files that hold each chunk, one more than [`VOTES_MAX`] at most.
fn homes(old: &[File<'_>]) -> HashMap<u64, Vec<u32>> {
    let mut homes: HashMap<u64, Vec<u32>> = HashMap::new();
    for (index, file) in old.iter().enumerate() {
        let index = u32::try_from(index).expect("a release has fewer than 2^32 files");
        for chunk in file.chunks {
            let files = homes.entry(chunk.id).or_default();
            if files.last() != Some(&index) && files.len() <= VOTES_MAX {
                files.push(index);
            }
        }
    }
    homes
}

/// Returns the old file that shares most bytes with `file`; the one of the same path has an advantage.
fn relative(file: &File<'_>, same: Option<usize>, homes: &HashMap<u64, Vec<u32>>) -> Option<usize> {
    let mut votes: HashMap<usize, u64> = HashMap::new();
    if let Some(same) = same {
        votes.insert(same, PATH_WORTH);
    }
    for chunk in file.chunks {
        let Some(files) = homes.get(&chunk.id).filter(|files| files.len() <= VOTES_MAX) else { continue };
        for home in files {
            *votes.entry(*home as usize).or_default() += u64::from(chunk.bytes);
        }
    }
    votes.into_iter().max_by_key(|(at, votes)| (*votes, usize::MAX - at)).map(|(at, _)| at)
}

/// Appends a region for each run, with the old chunks between the anchors around it as reference.
fn narrow(
    index: usize,
    file: &File<'_>,
    wanted: &[bool],
    (old_index, old): (usize, &File<'_>),
    rule: Rule,
    regions: &mut Vec<Region>,
) {
    let ids = |chunks: &[Chunk]| chunks.iter().map(|chunk| chunk.id).collect::<Vec<_>>();
    let aligned = anchors::align(&ids(old.chunks), &ids(file.chunks));
    let first = regions.len();
    let edits = edits_of_chunk(wanted);
    for run in runs(wanted) {
        let begin = aligned[..run.start].iter().rev().flatten().next().map_or(0, |left| *left as usize + 1);
        let end =
            aligned[run.end..].iter().flatten().next().map_or(old.chunks.len(), |right| *right as usize);
        let chunks = begin..end.max(begin);
        let whole = chunks.len() == old.chunks.len();
        let reference = (!chunks.is_empty()).then_some(Place { file: old_index, chunks });
        if let Some(last) =
            regions[first..].last_mut().filter(|last| last.reference.is_some() && last.reference == reference)
        {
            last.edits += edits * run.len() as u64;
            last.runs.push(run);
            continue;
        }
        let rule = match reference {
            None => Rule::Nothing,
            Some(_) if whole => rule,
            Some(_) => Rule::Neighbours,
        };
        let edits = edits * run.len() as u64;
        regions.push(Region { file: index, runs: vec![run], reference, rule, edits });
    }
}

/// Returns the likely edits of one changed chunk, from the share of unchanged chunks, as if edits were spread evenly.
fn edits_of_chunk(wanted: &[bool]) -> u64 {
    let changed = wanted.iter().filter(|wanted| **wanted).count();
    if wanted.len() < CHUNKS_TELLING {
        return 1;
    }
    let unchanged = (wanted.len() - changed).max(1);
    ((wanted.len() / unchanged) as u64).clamp(1, EDITS_OF_CHUNK_MAX)
}

/// Returns the maximal runs of wanted chunks.
fn runs(wanted: &[bool]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for at in (0..wanted.len()).filter(|at| wanted[*at]) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    type Listed<'a> = (&'a str, &'a [u64]);

    fn chosen(old: &[Listed<'_>], new: &[Listed<'_>]) -> Vec<Region> {
        let chunks = |list: &[Listed<'_>]| -> Vec<Vec<Chunk>> {
            let chunks = |ids: &[u64]| ids.iter().map(|id| Chunk { id: *id, bytes: 1000 }).collect();
            list.iter().map(|(_, ids)| chunks(ids)).collect()
        };
        let (old_chunks, new_chunks) = (chunks(old), chunks(new));
        let files = |list: &[Listed<'_>], chunks: &[Vec<Chunk>]| -> Vec<(Vec<u8>, Vec<Chunk>)> {
            list.iter()
                .zip(chunks)
                .map(|((path, _), chunks)| (path.as_bytes().to_vec(), chunks.clone()))
                .collect()
        };
        let (old_files, new_files) = (files(old, &old_chunks), files(new, &new_chunks));
        let old_views: Vec<File<'_>> = old_files.iter().map(|(path, chunks)| File { path, chunks }).collect();
        let new_views: Vec<File<'_>> = new_files.iter().map(|(path, chunks)| File { path, chunks }).collect();
        let known: HashSet<u64> = old.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
        choose(&old_views, &new_views, |chunk| known.contains(&chunk.id))
    }

    fn place(file: usize, chunks: Range<usize>) -> Place {
        Place { file, chunks }
    }

    /// One run: written so that it does not look like the numbers in it.
    fn runs(run: Range<usize>) -> Vec<Range<usize>> {
        std::iter::once(run).collect()
    }

    #[test]
    fn a_changed_chunk_is_told_by_what_stood_between_its_neighbours() {
        let regions = chosen(&[("a", &[1, 2, 3, 4, 5])], &[("a", &[1, 9, 3, 4, 5])]);
        let expected = Region {
            file: 0,
            runs: runs(1..2),
            reference: Some(place(0, 1..2)),
            rule: Rule::Neighbours,
            edits: 1,
        };
        assert_eq!(regions, [expected]);
    }

    #[test]
    fn neighbours_are_found_in_a_file_of_another_name() {
        let regions = chosen(&[("a", &[1, 2, 3]), ("z", &[7])], &[("x/y", &[1, 9, 3])]);
        assert_eq!((regions[0].rule, regions[0].reference.clone()), (Rule::Neighbours, Some(place(0, 1..2))));
    }

    #[test]
    fn without_neighbours_the_path_decides_and_then_the_name() {
        let old: [Listed<'_>; 2] = [("app.11aa22.js", &[1, 2]), ("b", &[5])];
        let regions = chosen(&old, &[("app.33bb44.js", &[8, 9]), ("b", &[6]), ("c/d", &[7])]);
        let found: Vec<_> = regions.iter().map(|region| (region.rule, region.reference.clone())).collect();
        let expected =
            [(Rule::Name, Some(place(0, 0..2))), (Rule::Path, Some(place(1, 0..1))), (Rule::Nothing, None)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_chunk_is_asked_for_once_and_known_ones_never() {
        let regions = chosen(&[("a", &[1])], &[("a", &[1, 9]), ("b", &[9, 1])]);
        assert_eq!(regions.len(), 1);
        assert_eq!(regions[0].runs, runs(1..2));
    }

    #[test]
    fn where_nearly_all_changed_edits_are_dense() {
        let regions = chosen(&[("a", &[1, 2, 3, 4, 5, 6, 7, 8])], &[("a", &[11, 12, 13, 14, 15, 16, 17, 8])]);
        assert_eq!((regions[0].edits, regions[0].reference.clone()), (8 * 7, Some(place(0, 0..7))));
    }
}
