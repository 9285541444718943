//! The tables of RFC 1951: length and distance codes, their extra bits, the fixed Huffman codes.

/// Literals and end of block come before the length codes.
pub(super) const LENGTH_BASE: usize = 257;
/// Literal and length codes that may be used.
pub(super) const LITERALS: usize = 286;
/// Distance codes that may be used.
pub(super) const DISTANCES: usize = 30;
/// Code length codes.
pub(super) const RUNS: usize = 19;
/// The end of a block.
pub(super) const END: usize = 256;

pub(super) const LENGTH_EXTRA: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
pub(super) const DISTANCE_EXTRA: [u8; DISTANCES] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
pub(super) const RUN_EXTRA: [u8; RUNS] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 7];
/// In which order the lengths of the code length codes are sent.
pub(super) const RUN_ORDER: [usize; RUNS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Shortest length minus 3 of each length code.
pub(super) const LENGTH_FIRST: [u8; 29] = {
    let mut first = [0; 29];
    let (mut code, mut length) = (0, 0u8);
    while code < 28 {
        first[code] = length;
        length = length.wrapping_add(1 << LENGTH_EXTRA[code]);
        code += 1;
    }
    // 258 has a code of its own.
    first[28] = 255;
    first
};

/// Shortest distance minus 1 of each distance code.
pub(super) const DISTANCE_FIRST: [u16; DISTANCES] = {
    let mut first = [0; DISTANCES];
    let (mut code, mut distance) = (0, 0u16);
    while code < DISTANCES {
        first[code] = distance;
        distance = distance.wrapping_add(1 << DISTANCE_EXTRA[code]);
        code += 1;
    }
    first
};

/// The code of each length minus 3.
pub(super) static LENGTH_CODE: [u8; 256] = {
    let mut codes = [0; 256];
    let mut code = 0;
    while code < 29 {
        let mut at = LENGTH_FIRST[code] as usize;
        while at < 256 {
            codes[at] = code as u8;
            at += 1;
        }
        code += 1;
    }
    codes
};

/// The code of distances 1 to 256, then of each 128 from there.
static DISTANCE_CODE: [u8; 512] = {
    let mut codes = [0; 512];
    let mut code = 0;
    while code < DISTANCES {
        let mut at = DISTANCE_FIRST[code] as usize;
        while at < 256 {
            codes[at] = code as u8;
            at += 1;
        }
        let mut high = (DISTANCE_FIRST[code] as usize) >> 7;
        while code >= 16 && high < 256 {
            codes[256 + high] = code as u8;
            high += 1;
        }
        code += 1;
    }
    codes
};

/// Returns the code of a distance minus 1, which is below 32,768.
#[inline]
pub(super) fn distance_code(distance: usize) -> usize {
    let at = if distance < 256 { distance } else { 256 + (distance >> 7) };
    usize::from(DISTANCE_CODE[at & 511])
}

/// Lengths of the fixed literal codes.
pub(super) static FIXED_LITERAL_BITS: [u8; LITERALS + 2] = {
    let mut bits = [8; LITERALS + 2];
    let mut at = 144;
    while at < 280 {
        bits[at] = if at < 256 { 9 } else { 7 };
        at += 1;
    }
    bits
};

/// Lengths of the fixed distance codes.
pub(super) static FIXED_DISTANCE_BITS: [u8; DISTANCES] = [5; DISTANCES];

/// Numbers codes of the given lengths, RFC 1951 section 3.2.2, each ready to be sent lowest bit first.
pub(super) fn number(bits: &[u8], codes: &mut [u16]) {
    let mut count = [0u16; 16];
    for length in bits {
        count[usize::from(*length)] += 1;
    }
    count[0] = 0;
    let mut next = [0u16; 16];
    for length in 1..16 {
        next[length] = next[length - 1].wrapping_add(count[length - 1]) << 1;
    }
    for (code, length) in codes.iter_mut().zip(bits) {
        if *length != 0 {
            let slot = &mut next[usize::from(*length)];
            *code = slot.reverse_bits() >> (16 - length);
            *slot = slot.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_the_rfc() {
        assert_eq!(LENGTH_FIRST[27], 224);
        assert_eq!(LENGTH_CODE[254], 27);
        assert_eq!(LENGTH_CODE[255], 28);
        assert_eq!(DISTANCE_FIRST[29], 24_576);
        assert_eq!(distance_code(24_575), 28);
        assert_eq!(distance_code(24_576), 29);
        assert_eq!(distance_code(256), 16);
        assert_eq!(distance_code(255), 15);
        assert_eq!(distance_code(32_767), 29);
    }
}
