//! A small x86-64 shared library made by hand: functions with calls, data, jump tables, unwind data with
//! LSDAs, and RELATIVE relocations, linked at will.

/// A program to link.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// How many functions.
    pub functions: usize,
    /// The function that has another body; if it is one of the first 64, every 64th after it too.
    pub changed: Option<usize>,
    /// Bytes of read-only data before the rest, which move all that follows.
    pub shift: usize,
}

struct Body {
    code: Vec<u8>,
    /// Where a displacement to another function's start is.
    calls: Vec<(usize, usize)>,
    /// Where a displacement to this function's jump table is.
    table: Option<usize>,
}

/// Returns the function of this call: in a large program any function, as in real ones, so that distances change by
/// different numbers where some functions grow.
fn callee(number: usize, program: &Program) -> usize {
    let anywhere = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    if is_large(program) { anywhere % program.functions } else { number % program.functions }
}

/// Returns whether the program is like a real one; the documents show small ones.
fn is_large(program: &Program) -> bool {
    program.functions >= 1000
}

fn body(function: usize, program: &Program) -> Body {
    let mut code = vec![0x55, 0x48, 0x89, 0xe5];
    let mut calls = Vec::new();
    for step in 0..3 + function % 5 {
        // mov eax, N; call F; je +0; jne F.
        code.push(0xb8);
        let number = u32::try_from(function * 1000 + step * 7).expect("small");
        // Numbers that do not compress, as in real programs.
        code.extend_from_slice(&number.wrapping_mul(0x9e37_79b1).to_le_bytes());
        code.push(0xe8);
        calls.push((code.len(), callee(function * 5 + step * 3 + 1, program)));
        code.extend_from_slice(&[0; 4]);
        code.extend_from_slice(&[0x74, 0x00, 0x0f, 0x85]);
        calls.push((code.len(), (function + step + 2) % program.functions));
        code.extend_from_slice(&[0; 4]);
    }
    if program.changed == Some(function) || program.changed == Some(function % 64) {
        code.extend_from_slice(&[0x31, 0xc0, 0xff, 0xc0, 0x90]);
        if is_large(program) {
            // More than the padding after a function absorbs.
            code.extend_from_slice(&[0x90; 16]);
        }
    }
    // lea rax, [rip + table]
    code.extend_from_slice(&[0x48, 0x8d, 0x05]);
    let table = function.is_multiple_of(2).then_some(code.len());
    code.extend_from_slice(&[0; 4]);
    // Bytes that are no instruction, then ret.
    code.extend_from_slice(&[0x06, 0xc3]);
    Body { code, calls, table }
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn between(from: usize, to: usize) -> [u8; 4] {
    let (from, to) = (i32::try_from(from).expect("near"), i32::try_from(to).expect("near"));
    (to - from).to_le_bytes()
}

/// Addresses are offsets but for the last segment's.
pub fn link(program: &Program) -> Vec<u8> {
    let count = program.functions;
    let bodies: Vec<Body> = (0..count).map(|function| body(function, program)).collect();
    let mut file = vec![0; 64 + 4 * 56];
    file.extend((0..program.shift + 200).map(|at| u8::try_from(at * at % 251).expect("small")));
    file.resize(file.len().next_multiple_of(16), 0);
    let tables = file.len();
    file.resize(tables + 16 * count, 0);
    let lsdas = file.len();
    // @LPStart omitted, types indirect pcrel sdata4, 12 B to their end, one call site with action 1.
    for function in 0..count {
        file.extend_from_slice(&[0xff, 0x9b, 13, 1, 4, 0, 5, 9, 1, 1, 0, 0]);
        file.extend_from_slice(&between(file.len(), tables + function));
    }
    let header = file.len();
    file.resize(header + 12 + 8 * count, 0);
    let frames = file.len();
    let mut cie = vec![24, 0, 0, 0, 0, 0, 0, 0, 1];
    cie.extend_from_slice(b"zPLR\0\x01\x78\x10\x07\x9b\0\0\0\0\x1b\x1b\0\0");
    cie.resize(28, 0);
    file.extend_from_slice(&cie);
    let first_fde = file.len();
    file.resize(first_fde + 28 * count + 4, 0);
    let relocations = file.len();
    file.resize((relocations + 24 * count).next_multiple_of(16), 0);
    let text = file.len();
    let mut starts = Vec::new();
    for body in &bodies {
        file.resize(file.len().next_multiple_of(16), 0xcc);
        starts.push(file.len());
        file.extend_from_slice(&body.code);
    }
    let text_end = file.len();
    file.resize(file.len().next_multiple_of(64), 0);
    let data = file.len();
    file.resize(data + 64 + 8 * count, 0);

    put(&mut file, header, &[1, 0x1b, 3, 0x3b]);
    put(&mut file, header + 4, &between(header + 4, frames));
    put(&mut file, header + 8, &u32::try_from(count).expect("few").to_le_bytes());
    for (function, (body, start)) in bodies.iter().zip(&starts).enumerate() {
        for (at, callee) in &body.calls {
            put(&mut file, start + at, &between(start + at + 4, starts[*callee]));
        }
        let table = tables + 16 * function;
        if let Some(at) = body.table {
            put(&mut file, start + at, &between(start + at + 4, table));
            for case in 0..3 {
                put(&mut file, table + 4 * case, &between(table, start + 4 + case));
            }
        }
        put(&mut file, table + 12, &[7, 0, 0, 0]);
        let fde = first_fde + 28 * function;
        put(&mut file, fde, &24u32.to_le_bytes());
        put(&mut file, fde + 4, &between(frames, fde + 4));
        put(&mut file, fde + 8, &between(fde + 8, *start));
        put(&mut file, fde + 12, &u32::try_from(body.code.len()).expect("short").to_le_bytes());
        file[fde + 16] = 4;
        put(&mut file, fde + 17, &between(fde + 17, lsdas + 16 * function));
        put(&mut file, header + 12 + 8 * function, &between(header, *start));
        put(&mut file, header + 16 + 8 * function, &between(header, fde));
        let relocation = relocations + 24 * function;
        put(&mut file, relocation, &(0x1000 + data + 64 + 8 * function).to_le_bytes());
        put(&mut file, relocation + 8, &8u64.to_le_bytes());
        put(&mut file, relocation + 16, &start.to_le_bytes());
    }
    for (at, number) in [7, relocations, 8, 24 * count, 9, 24].into_iter().enumerate() {
        put(&mut file, data + 8 * at, &number.to_le_bytes());
    }
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &[3, 0, 62, 0, 1]);
    put(&mut file, 32, &[64]);
    put(&mut file, 52, &[64, 0, 56, 0, 4]);
    let data_bytes = file.len() - data;
    let headers = [
        (1u32, 5u32, 0, 0, text_end),
        (1, 6, data, data + 0x1000, data_bytes),
        (2, 6, data, data + 0x1000, 64),
        (0x6474_e550, 4, header, header, 12 + 8 * count),
    ];
    for (index, (kind, flags, offset, address, bytes)) in headers.into_iter().enumerate() {
        let at = 64 + 56 * index;
        put(&mut file, at, &kind.to_le_bytes());
        put(&mut file, at + 4, &flags.to_le_bytes());
        for (field, number) in [offset, address, address, bytes, bytes, 16].into_iter().enumerate() {
            put(&mut file, at + 8 + 8 * field, &number.to_le_bytes());
        }
    }
    assert!(text.is_multiple_of(16) && text < text_end);
    file
}
