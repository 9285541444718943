//! The plan as bytes: where each function's parts go, mostly as zeros, because they go in order.

use ground::leb128;
use std::ops::Range;

use super::numbers::Cursor;
use super::plan::{ALIGNMENT, Function, Plan};

/// The plan without the lengths of the functions' parts, which are in their records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The file's length, the tables and the fillers.
    pub shape: Vec<u8>,
    /// For each function: 0 after a filler, else 1 + the bytes between it and the one before it.
    pub codes: Vec<u8>,
    /// For each FDE in the file's order: the bytes before it, and its function.
    pub frames: Vec<u8>,
    /// For each LSDA in the file's order: the bytes before it, and its function.
    pub lsdas: Vec<u8>,
    /// For each RELATIVE relocation: how far its place is from the one before it.
    pub relocations: Vec<u8>,
}

impl Layout {
    /// Encodes the places of a plan.
    pub fn new(plan: &Plan, file_bytes: usize) -> Self {
        let mut layout = Self::default();
        let numbers = [
            file_bytes,
            plan.functions.len(),
            plan.frame_table.start,
            plan.frame_table.len(),
            plan.relocations.start,
            plan.relocations.len(),
        ];
        for number in numbers {
            leb128::write(number as u64, &mut layout.shape);
        }
        for length in 0..ALIGNMENT {
            let filler = plan.fillers.get(length).filter(|filler| filler.len() == length);
            layout.shape.push(u8::from(filler.is_some()));
            layout.shape.extend_from_slice(filler.map_or(&[], Vec::as_slice));
        }
        let mut filled = plan.filled.iter().peekable();
        let mut end = 0;
        for function in &plan.functions {
            let gap = end..function.code.start;
            if filled.next_if(|filled| **filled == gap).is_some() {
                layout.codes.push(0);
            } else {
                leb128::write(gap.len() as u64 + 1, &mut layout.codes);
            }
            end = function.code.end;
        }
        layout.frames = places(&plan.functions, |function| &function.frame);
        layout.lsdas = places(&plan.functions, |function| &function.lsda);
        layout
    }

    fn parts(&self) -> [&Vec<u8>; 5] {
        [&self.shape, &self.codes, &self.frames, &self.lsdas, &self.relocations]
    }

    /// Appends all parts, each after its length.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        for part in self.parts() {
            leb128::write(part.len() as u64, bytes);
            bytes.extend_from_slice(part);
        }
    }

    /// Reads the bytes of [`Self::encode`].
    pub fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        let mut part = || {
            let bytes = cursor.size()?;
            Some(cursor.take(bytes)?.to_vec())
        };
        Some(Self { shape: part()?, codes: part()?, frames: part()?, lsdas: part()?, relocations: part()? })
    }

    /// Reads the shape: a plan without functions, the file's length, and how many functions there are.
    pub fn shape(&self) -> Option<(Plan, usize, usize)> {
        let mut cursor = Cursor::new(&self.shape);
        let file_bytes = cursor.size()?;
        let functions = cursor.size()?;
        let mut range = || {
            let start = cursor.size()?;
            Some(start..start.checked_add(cursor.size()?)?)
        };
        let mut plan = Plan { frame_table: range()?, relocations: range()?, ..Plan::default() };
        for length in 0..ALIGNMENT {
            let known = cursor.byte()? == 1;
            let filler = if known { cursor.take(length)?.to_vec() } else { vec![0; ALIGNMENT] };
            plan.fillers.push(filler);
        }
        cursor.rest().is_empty().then_some((plan, file_bytes, functions))
    }

    /// Gives the functions' parts, whose lengths are known, their places.
    pub fn place(&self, plan: &mut Plan) -> Option<()> {
        let mut codes = Cursor::new(&self.codes);
        let mut functions = std::mem::take(&mut plan.functions);
        let mut end = 0usize;
        for function in &mut functions {
            let start = if let Some(gap) = codes.size()?.checked_sub(1) {
                end.checked_add(gap)?
            } else {
                let filled = end..end.checked_next_multiple_of(ALIGNMENT)?;
                let start = filled.end;
                if !plan.fills(&filled) {
                    return None;
                }
                plan.filled.push(filled);
                start
            };
            end = start.checked_add(function.code.len())?;
            function.code = start..end;
        }
        set_places(&self.frames, &mut functions, |function| &mut function.frame)?;
        set_places(&self.lsdas, &mut functions, |function| &mut function.lsda)?;
        plan.functions = functions;
        codes.rest().is_empty().then_some(())
    }
}

fn places(functions: &[Function], part: impl Fn(&Function) -> &Range<usize>) -> Vec<u8> {
    // Numbers count only functions that have this part.
    let mut ordered: Vec<(usize, &Range<usize>)> =
        functions.iter().map(part).filter(|part| !Range::is_empty(part)).enumerate().collect();
    ordered.sort_by_key(|(_, part)| part.start);
    let mut bytes = Vec::new();
    let (mut end, mut expected) = (0, 0i64);
    for (number, part) in ordered {
        leb128::write((part.start - end) as u64, &mut bytes);
        let number = i64::try_from(number).expect("fewer functions than bytes in a file");
        leb128::write(leb128::folded(number - expected), &mut bytes);
        (end, expected) = (part.end, number + 1);
    }
    bytes
}

fn set_places(
    bytes: &[u8],
    functions: &mut [Function],
    part: impl Fn(&mut Function) -> &mut Range<usize>,
) -> Option<()> {
    let mut parts: Vec<&mut Range<usize>> =
        functions.iter_mut().map(part).filter(|part| !Range::is_empty(part)).collect();
    let mut cursor = Cursor::new(bytes);
    let (mut end, mut expected) = (0usize, 0usize);
    for _ in 0..parts.len() {
        let start = end.checked_add(cursor.size()?)?;
        let number =
            expected.checked_add_signed(isize::try_from(leb128::unfolded(cursor.leb128()?)).ok()?)?;
        let part = parts.get_mut(number)?;
        end = start.checked_add(part.len())?;
        **part = start..end;
        expected = number + 1;
    }
    cursor.rest().is_empty().then_some(())
}
