//! Which bytes of the file belong to which function, and which are not sent at all.

use std::ops::Range;

use super::elf::Image;
use super::frames::Frames;
use super::go;
use super::relocations;

/// An LSDA ends where the next one starts, so the last stays plain; a longer one is something else.
const LSDA_BYTES_MAX: usize = 1 << 16;
/// 64 MiB: displacements within a function stay far from the marker of one that leaves it.
const FUNCTION_BYTES_MAX: usize = 1 << 26;
/// Bytes between two functions from which on they count as code without unwind data.
pub const GAP_CODE_MIN: usize = 32;
/// Compilers align functions to 16 B.
pub const ALIGNMENT: usize = 16;

/// One function: the places of its parts in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Function {
    /// Its instructions.
    pub code: Range<usize>,
    /// Its FDE; empty where it has none.
    pub frame: Range<usize>,
    /// Its LSDA; empty where it has none.
    pub lsda: Range<usize>,
}

impl Function {
    /// Creates a function without unwind data.
    fn of_code(code: Range<usize>) -> Self {
        Self { code, ..Self::default() }
    }

    /// Returns the bytes of all its parts.
    pub fn bytes(&self) -> usize {
        self.code.len() + self.frame.len() + self.lsda.len()
    }
}

/// How the file is split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The functions in rising order of their code, which does not overlap.
    pub functions: Vec<Function>,
    /// The usual padding between functions by its length, which is its place in the list.
    pub fillers: Vec<Vec<u8>>,
    /// Padding that follows from `fillers`.
    pub filled: Vec<Range<usize>>,
    /// The table of `.eh_frame_hdr`, where it follows from the FDEs.
    pub frame_table: Range<usize>,
    /// The RELATIVE relocations.
    pub relocations: Range<usize>,
}

impl Plan {
    /// Makes the plan for a file. Time O(n log n) in the number of functions.
    pub fn new(file: &[u8], image: &Image, frames: &Frames) -> Self {
        let mut plan = Self { functions: functions(image, frames), ..Self::default() };
        if plan.functions.is_empty() {
            plan.functions = apart(go::functions(file, image).into_iter().map(Function::of_code));
        }
        plan.add_lsdas(image, frames);
        plan.add_gaps(image);
        plan.choose_fillers(file);
        plan.relocations = relocations::run(file, image);
        plan
    }

    fn add_lsdas(&mut self, image: &Image, frames: &Frames) {
        let lsda_of = |function: &Function| {
            let frame = frames.frames.binary_search_by_key(&function.frame.start, |frame| frame.place.start);
            frames.frames.get(frame.ok()?)?.lsda.and_then(|address| image.offset(address))
        };
        let mut starts: Vec<(usize, usize)> = Vec::new();
        for (index, function) in self.functions.iter().enumerate() {
            starts.extend(lsda_of(function).map(|start| (start, index)));
        }
        starts.sort_unstable();
        for pair in starts.windows(2) {
            let [(start, index), (end, _)] = *pair else { continue };
            if (1..=LSDA_BYTES_MAX).contains(&(end - start))
                && let Some(function) = self.functions.get_mut(index)
            {
                function.lsda = start..end;
            }
        }
    }

    /// Adds the bytes between two functions of a segment as a function without unwind data.
    fn add_gaps(&mut self, image: &Image) {
        let mut gaps = Vec::new();
        for pair in self.functions.windows(2) {
            let [before, after] = pair else { continue };
            let gap = before.code.end..after.code.start;
            let inside = |segment: Range<usize>| segment.start <= gap.start && gap.end <= segment.end;
            if (GAP_CODE_MIN..FUNCTION_BYTES_MAX).contains(&gap.len()) && image.executable().any(inside) {
                gaps.push(Function::of_code(gap));
            }
        }
        self.functions.append(&mut gaps);
        self.functions.sort_by_key(|function| function.code.start);
    }

    fn choose_fillers(&mut self, file: &[u8]) {
        let mut seen = vec![std::collections::BTreeMap::<&[u8], usize>::new(); ALIGNMENT];
        for pair in self.functions.windows(2) {
            if let [before, after] = pair
                && after.code.start == before.code.end.next_multiple_of(ALIGNMENT)
                && let Some(bytes) = file.get(before.code.end..after.code.start)
                && let Some(seen) = seen.get_mut(bytes.len())
            {
                *seen.entry(bytes).or_default() += 1;
            }
        }
        let usual = |seen: &std::collections::BTreeMap<&[u8], usize>| {
            seen.iter().max_by_key(|(_, count)| **count).map_or(Vec::new(), |(bytes, _)| bytes.to_vec())
        };
        self.fillers = seen.iter().map(usual).collect();
        for pair in self.functions.windows(2) {
            let [before, after] = pair else { continue };
            let gap = before.code.end..after.code.start;
            if self.fills(&gap) && file.get(gap.clone()) == self.fillers.get(gap.len()).map(Vec::as_slice) {
                self.filled.push(gap);
            }
        }
    }

    /// Returns whether a filler of this length would lead to the next aligned address, exactly.
    pub fn fills(&self, gap: &Range<usize>) -> bool {
        gap.end == gap.start.next_multiple_of(ALIGNMENT)
            && self.fillers.get(gap.len()).is_some_and(|filler| filler.len() == gap.len())
    }

    /// Returns the places of all bytes that are not plain, in order; `None` where two overlap or one leaves the file.
    pub fn covers(&self, file_bytes: usize) -> Option<Vec<Range<usize>>> {
        let mut covers = Vec::with_capacity(3 * self.functions.len() + self.filled.len() + 2);
        for function in &self.functions {
            covers.extend([function.code.clone(), function.frame.clone(), function.lsda.clone()]);
        }
        covers.extend(self.filled.iter().cloned());
        covers.extend([self.frame_table.clone(), self.relocations.clone()]);
        covers.retain(|cover| !cover.is_empty());
        covers.sort_unstable_by_key(|cover| cover.start);
        let mut end = 0;
        for cover in &covers {
            if cover.start < end {
                return None;
            }
            end = cover.end;
        }
        (end <= file_bytes).then_some(covers)
    }
}

/// Returns the ranges of a file between `covers`, in order.
pub fn plain(covers: &[Range<usize>], file_bytes: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let starts = std::iter::once(0).chain(covers.iter().map(|cover| cover.end));
    let ends = covers.iter().map(|cover| cover.start).chain(std::iter::once(file_bytes));
    starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty())
}

/// Returns the functions that FDEs describe.
fn functions(image: &Image, frames: &Frames) -> Vec<Function> {
    apart(frames.frames.iter().filter_map(|frame| {
        let bytes = usize::try_from(frame.bytes).ok()?;
        let code = image.code(frame.start, bytes)?;
        Some(Function { code, frame: frame.place.clone(), lsda: 0..0 })
    }))
}

/// Sorts functions by their code, without empty ones and those that overlap an earlier one.
fn apart(functions: impl Iterator<Item = Function>) -> Vec<Function> {
    let bytes = 1..FUNCTION_BYTES_MAX;
    let is_short = |function: &Function| function.frame.is_empty() && function.code.len() < GAP_CODE_MIN;
    let mut found: Vec<Function> =
        functions.filter(|function| bytes.contains(&function.code.len()) && !is_short(function)).collect();
    found.sort_by_key(|function| function.code.start);
    let mut end = 0;
    found.retain(|function| {
        let apart = function.code.start >= end;
        if apart {
            end = function.code.end;
        }
        apart
    });
    found
}
