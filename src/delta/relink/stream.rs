//! The file's bytes in the order of records: functions with their unwind data first, then what is plain.

use ground::leb128;
use std::ops::Range;

use super::frames::LENGTH_AT;
use super::numbers::{Cursor, u32_at};
use super::plan::{Function, GAP_CODE_MIN, Plan, plain};

/// The record has an FDE, which holds the code's length.
const HAS_FRAME: u8 = 1;
/// The record has an LSDA.
const HAS_LSDA: u8 = 2;

/// Appends the functions' parts and the plain bytes of a file to the stream; returns where each function's record ends
/// in it.
///
/// A record holds its own lengths, so that its bytes do not depend on its place.
pub fn write(file: &[u8], plan: &Plan, covers: &[Range<usize>], stream: &mut Vec<u8>) -> Option<Vec<usize>> {
    let begin = stream.len();
    stream.reserve_exact(file.len() + 2 * plan.functions.len());
    let mut ends = Vec::with_capacity(plan.functions.len());
    for Function { code, frame, lsda } in &plan.functions {
        let form = u8::from(!frame.is_empty()) * HAS_FRAME + u8::from(!lsda.is_empty()) * HAS_LSDA;
        stream.push(form);
        if frame.is_empty() {
            leb128::write(code.len() as u64, stream);
        }
        stream.extend_from_slice(file.get(frame.clone())?);
        if !lsda.is_empty() {
            leb128::write(lsda.len() as u64, stream);
            stream.extend_from_slice(file.get(lsda.clone())?);
        }
        stream.extend_from_slice(file.get(code.clone())?);
        ends.push(stream.len() - begin);
    }
    for range in plain(covers, file.len()) {
        stream.extend_from_slice(file.get(range)?);
    }
    Some(ends)
}

/// Reads the lengths of `count` functions' parts into the plan, as ranges from 0 on; returns where
/// each function's record ends.
///
/// Each takes at least 17 bytes of the stream, so that memory stays proportional to it.
pub fn read_lengths(stream: &[u8], count: usize, plan: &mut Plan) -> Option<Vec<usize>> {
    let mut ends = Vec::new();
    let mut cursor = Cursor::new(stream);
    for _ in 0..count {
        let function = read(&mut cursor, |_, _| Some(()))?;
        plan.functions.push(function);
        ends.push(cursor.at());
    }
    Some(ends)
}

/// Puts all bytes where the plan says.
pub fn place(stream: &[u8], plan: &Plan, covers: &[Range<usize>], file: &mut [u8]) -> Option<()> {
    let mut cursor = Cursor::new(stream);
    for function in &plan.functions {
        read(&mut cursor, |part, bytes| {
            let place = match part {
                Part::Code => &function.code,
                Part::Frame => &function.frame,
                Part::Lsda => &function.lsda,
            };
            copy(file, place, bytes)
        })?;
    }
    for filled in &plan.filled {
        copy(file, filled, plan.fillers.get(filled.len())?)?;
    }
    for range in plain(covers, file.len()).collect::<Vec<_>>() {
        let bytes = cursor.take(range.len())?;
        copy(file, &range, bytes)?;
    }
    cursor.rest().is_empty().then_some(())
}

fn copy(file: &mut [u8], place: &Range<usize>, bytes: &[u8]) -> Option<()> {
    let place = file.get_mut(place.clone()).filter(|place| place.len() == bytes.len())?;
    place.copy_from_slice(bytes);
    Some(())
}

enum Part {
    Code,
    Frame,
    Lsda,
}

fn read(cursor: &mut Cursor<'_>, mut take: impl FnMut(Part, &[u8]) -> Option<()>) -> Option<Function> {
    let form = cursor.byte().filter(|form| form & !(HAS_FRAME | HAS_LSDA) == 0)?;
    let mut function = Function::default();
    let code_bytes = if form & HAS_FRAME == 0 {
        cursor.size().filter(|bytes| *bytes >= GAP_CODE_MIN)?
    } else {
        let rest = cursor.rest();
        let bytes = usize::try_from(u32_at(rest, 0)?).ok()?.checked_add(4)?;
        if bytes < LENGTH_AT + 4 {
            return None;
        }
        let code_bytes = usize::try_from(u32_at(rest, LENGTH_AT)?).ok()?;
        function.frame = 0..bytes;
        take(Part::Frame, cursor.take(bytes)?)?;
        code_bytes
    };
    if form & HAS_LSDA != 0 {
        let bytes = cursor.size().filter(|bytes| *bytes > 0)?;
        function.lsda = 0..bytes;
        take(Part::Lsda, cursor.take(bytes)?)?;
    }
    function.code = 0..code_bytes;
    take(Part::Code, cursor.take(code_bytes)?)?;
    Some(function)
}
