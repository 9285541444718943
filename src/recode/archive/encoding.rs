//! A plan as bytes: the head of an archive's stream (FORMAT 2.5).

use super::plan::{Error, Piece, Plan};
use super::{DEPTH_MAX, Limits};
use crate::codec::Method;
use ground::leb128;

/// The first byte of a stream.
const VERSION: u8 = 1;
/// Bytes of the version and of the plan's length.
pub const PREFIX_BYTES: usize = 5;
/// 8 MiB: more than any plan within the default limits takes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Methods of one plan: more than any planner tries.
const METHODS_MAX: usize = 4096;

const FRAMING: u64 = 0;
const CONTENT: u64 = 1;
/// Packed content without an archive in it.
const PACKED: u64 = 2;
/// A packed archive.
const NESTED: u64 = 3;

/// Returns the pieces of a plan from outside: what a planner within the default limits makes. Some 100 B each.
fn pieces_max() -> usize {
    Limits::default().pieces_max * 3
}

/// Returns the first bytes of a stream: version, length, plan.
pub fn encode_head(plan: &Plan) -> Vec<u8> {
    let (mut methods, mut pieces) = (Vec::new(), Vec::new());
    encode(plan, &mut methods, &mut pieces);
    let mut head = vec![VERSION, 0, 0, 0, 0];
    leb128::write(methods.len() as u64, &mut head);
    for method in methods {
        method.encode(&mut head);
    }
    head.extend_from_slice(&pieces);
    let length = u32::try_from(head.len() - PREFIX_BYTES).expect("a planner's pieces are bounded");
    head[1..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
    head
}

/// Returns the bytes of the whole head, of its first [`PREFIX_BYTES`].
///
/// # Errors
/// An unknown version, or more than [`HEAD_BYTES_MAX`].
pub fn head_bytes(prefix: [u8; PREFIX_BYTES]) -> Result<usize, Error> {
    let [version, length @ ..] = prefix;
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let length = PREFIX_BYTES.saturating_add(u32::from_le_bytes(length) as usize);
    if length <= HEAD_BYTES_MAX { Ok(length) } else { Err(Error::Length) }
}

/// Reads a head; returns the plan, checked, and the numbers of bytes of framing and of content after it.
///
/// The head does not hold the lengths of packed pieces; they are 0 in the plan.
///
/// # Errors
/// Bytes that [`encode_head`] does not write, or a plan out of bounds. Memory: some 100 B for each piece.
pub fn decode_head(head: &[u8]) -> Result<(Plan, u64, u64), Error> {
    let prefix = *head.first_chunk().ok_or(Error::Malformed)?;
    if head_bytes(prefix)? != head.len() {
        return Err(Error::Malformed);
    }
    let mut rest = &head[PREFIX_BYTES..];
    let count = usize::try_from(read(&mut rest)?).unwrap_or(usize::MAX);
    if count > METHODS_MAX {
        return Err(Error::Malformed);
    }
    let mut methods = Vec::new();
    for _ in 0..count {
        methods.push(Method::decode(&mut rest)?);
    }
    let mut decoder = Decoder { rest, methods, pieces: 0, framing: 0, content: 0 };
    let plan = decoder.plan(DEPTH_MAX)?;
    plan.check()?;
    if decoder.rest.is_empty() { Ok((plan, decoder.framing, decoder.content)) } else { Err(Error::Malformed) }
}

fn encode(plan: &Plan, methods: &mut Vec<Method>, out: &mut Vec<u8>) {
    leb128::write(plan.pieces().len() as u64, out);
    for piece in plan.pieces() {
        match piece {
            Piece::Framing(bytes) => leb128::write(bytes << 2 | FRAMING, out),
            Piece::Content(bytes) => leb128::write(bytes << 2 | CONTENT, out),
            Piece::Packed { method, plain, .. } => {
                let place = methods.iter().position(|known| known == method).unwrap_or_else(|| {
                    methods.push(*method);
                    methods.len() - 1
                });
                let whole = match plain.pieces() {
                    [] => Some(0),
                    [Piece::Content(bytes)] => Some(*bytes),
                    _ => None,
                };
                if let Some(bytes) = whole {
                    leb128::write((place as u64) << 2 | PACKED, out);
                    leb128::write(bytes, out);
                } else {
                    leb128::write((place as u64) << 2 | NESTED, out);
                    encode(plain, methods, out);
                }
            }
        }
    }
}

struct Decoder<'a> {
    rest: &'a [u8],
    methods: Vec<Method>,
    /// The bytes read so far.
    pieces: usize,
    framing: u64,
    content: u64,
}

impl Decoder<'_> {
    fn plan(&mut self, depth: u8) -> Result<Plan, Error> {
        let depth = depth.checked_sub(1).ok_or(Error::Depth)?;
        let count = read(&mut self.rest)?;
        let mut plan = Plan::default();
        for _ in 0..count {
            self.pieces += 1;
            if self.pieces > pieces_max() {
                return Err(Error::Length);
            }
            let word = read(&mut self.rest)?;
            let (kind, value) = (word & 3, word >> 2);
            let piece = match kind {
                FRAMING => {
                    self.framing = add(self.framing, value)?;
                    Piece::Framing(value)
                }
                CONTENT => {
                    self.content = add(self.content, value)?;
                    Piece::Content(value)
                }
                _ => {
                    let place = usize::try_from(value).unwrap_or(usize::MAX);
                    let method = *self.methods.get(place).ok_or(Error::Malformed)?;
                    let plain = if kind == PACKED {
                        let bytes = read(&mut self.rest)?;
                        self.content = add(self.content, bytes)?;
                        Plan::plain(bytes)
                    } else {
                        self.plan(depth)?
                    };
                    Piece::Packed { packed: 0, method, plain, named: None }
                }
            };
            plan.push(piece);
        }
        Ok(plan)
    }
}

fn add(total: u64, bytes: u64) -> Result<u64, Error> {
    total.checked_add(bytes).filter(|total| *total < 1 << 62).ok_or(Error::Length)
}

fn read(bytes: &mut &[u8]) -> Result<u64, Error> {
    leb128::read(bytes).map_err(|_| Error::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Check, Xz};
    use crate::deflate::{self, Maker};

    fn deflated(level: u8, plain: Plan) -> Piece {
        let method = deflate::Method::new(level, Maker::Chromium).into();
        Piece::Packed { packed: 0, method, plain, named: None }
    }

    #[test]
    fn a_plan_comes_back_with_the_bytes_that_follow_it() {
        let mut inner = Plan::default();
        inner.push(Piece::Framing(7));
        inner.push(deflated(6, Plan::plain(100)));
        let mut plan = Plan::default();
        plan.push(Piece::Content(1 << 40));
        plan.push(deflated(9, inner));
        plan.push(deflated(6, Plan::default()));
        plan.push(Piece::Framing(3));
        let head = encode_head(&plan);
        assert_eq!(decode_head(&head), Ok((plan, 10, (1 << 40) + 100)));
        for length in 0..head.len() {
            assert!(decode_head(&head[..length]).is_err());
        }
    }

    #[test]
    fn plans_out_of_bounds_are_refused() {
        let with = |body: &[u8]| {
            let length = u32::try_from(body.len()).expect("short").to_le_bytes();
            [&[VERSION][..], &length, body].concat()
        };
        let method = deflate::Method::STOCK.encode();
        let mut deep = [&[1u8][..], &method].concat();
        deep.extend([1, 3].repeat(usize::from(DEPTH_MAX) + 1));
        deep.push(0);
        assert_eq!(decode_head(&with(&deep)), Err(Error::Depth));
        let mut heavy = vec![1];
        Method::Xz(Xz::single(6, Check::Crc64)).encode(&mut heavy);
        // One piece in one piece in one piece: a byte of content.
        heavy.extend([1, 3, 1, 3, 1, 5]);
        assert_eq!(decode_head(&with(&heavy)), Err(Error::Heavy));
        // A method that is not listed.
        assert_eq!(decode_head(&with(&[0, 1, 2, 0])), Err(Error::Malformed));
        let mut endless = vec![0];
        leb128::write(u64::MAX, &mut endless);
        endless.extend(std::iter::repeat_n(0, pieces_max() + 1));
        assert_eq!(decode_head(&with(&endless)), Err(Error::Length));
        assert_eq!(decode_head(&[9, 0, 0, 0, 0]), Err(Error::Version(9)));
        let mut huge = vec![0, 2];
        (0..2).for_each(|_| leb128::write(1 << 63 | CONTENT, &mut huge));
        assert_eq!(decode_head(&with(&huge)), Err(Error::Length));
    }
}
