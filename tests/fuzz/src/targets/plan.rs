//! An untrusted head of a stream: decoded, checked, and followed with too little content and with any content.

use std::io::{Read, repeat, sink};

use recode::archive::{Piece, Plan, decode_head, encode_head, rebuild};
use recode::codec;
use recode::codec::{Check, Frame, Xz};
use recode::deflate::Method;

/// 1 MiB: the most content that is made up.
const CONTENT_BYTES: u64 = 1 << 20;

pub fn run(bytes: &[u8]) {
    // The length is corrected, since no fuzzer guesses it.
    let mut head = bytes.to_vec();
    if let Some(length) = head.get_mut(1..5) {
        length.copy_from_slice(&u32::try_from(bytes.len() - 5).expect("a short input").to_le_bytes());
    }
    let (plan, framing, content) = match decode_head(&head) {
        Ok(decoded) => decoded,
        Err(error) => return drop(error.to_string()),
    };
    assert_eq!(plan.check(), Ok(()));
    assert_eq!(plan.framing_bytes(), framing);
    assert_eq!(plan.contents().iter().sum::<u64>(), content);
    let again = encode_head(&plan);
    assert_eq!(decode_head(&again), Ok((plan.clone(), framing, content)));
    let mut some_framing = Read::take(repeat(7), CONTENT_BYTES);
    let mut some_content = Read::take(repeat(b'a'), CONTENT_BYTES);
    drop(rebuild(&plan, &mut some_framing, &mut some_content, &mut sink()));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut inner = Plan::plain(1000);
    inner.push(Piece::Framing(8));
    let mut nested = Plan::default();
    nested.push(Piece::Framing(30));
    nested.push(Piece::Packed { packed: 0, method: Method::STOCK.into(), plain: inner, named: None });
    let plain = Plan::plain(70_000);
    nested.push(Piece::Packed { packed: 0, method: Method::STOCK.into(), plain, named: None });
    let mut heavy = Plan::default();
    for method in [
        codec::Method::Xz(Xz::threaded(0, Check::Crc64)),
        codec::Method::Xz(Xz::single(6, Check::Sha256)),
        codec::Method::Zstd(Frame { level: 3, checked: true, jobs: true, plain_bytes: Some(1000) }),
    ] {
        heavy.push(Piece::Packed { packed: 0, method, plain: Plan::plain(1000), named: None });
    }
    [Plan::default(), Plan::plain(1000), nested, heavy].iter().map(encode_head).collect()
}
