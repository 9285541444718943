//! Untrusted executables, at both ends of a link.
//!
//! The first byte chooses: a file to normalise, or the messages about one. The target compresses the messages' parts
//! with zstd itself, which a fuzzer cannot guess.

use std::sync::OnceLock;

use delta::compression::{LEVEL_FAST, compress_against};
use delta::relink::{
    Answer, Encoded, Normalised, Payload, RecordIndex, RecordNames, Records, normalise, normalise_unproven,
    rebuild,
};

use delta::relink::linked::{Program, link};
use ground::leb128;

const BYTES_MAX: usize = 1 << 18;
const OLD: Program = Program { functions: 12, changed: None, shift: 0 };
const NEW: Program = Program { functions: 13, changed: Some(3), shift: 9 };

fn basis() -> &'static (Normalised, Records) {
    static BASIS: OnceLock<(Normalised, Records)> = OnceLock::new();
    BASIS.get_or_init(|| {
        let basis = normalise(link(&OLD)).expect("an executable");
        let records = Records::new(&basis);
        (basis, records)
    })
}

pub fn run(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    match mode % 4 {
        0 => file(bytes),
        1 => kept(bytes),
        2 => payload(bytes),
        _ => names(bytes),
    }
}

/// Checks that a normalised file is rebuilt, alone and as a push over another file.
fn file(bytes: &[u8]) {
    let Some(parts) = normalise(bytes) else {
        if let Some(parts) = normalise_unproven(bytes) {
            drop((Records::new(&parts), parts.restore()));
        }
        return;
    };
    assert_eq!(parts.restore().as_deref(), Ok(bytes));
    let (basis, _) = basis();
    let kept = Encoded::new(basis, &parts, 1).encode();
    let rebuilt =
        Encoded::decode(&kept).expect("it was just made").rebuild(basis.clone(), BYTES_MAX.max(bytes.len()));
    assert_eq!(rebuilt.as_deref(), Ok(bytes));
}

/// Reads a part: two bytes of length, then that many.
fn part<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, rest)) = bytes.split_first_chunk() else { return std::mem::take(bytes) };
    let (part, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*length))));
    *bytes = rest;
    part
}

/// The inverse of [`part`].
fn with_length(part: &[u8]) -> Vec<u8> {
    [&u16::try_from(part.len()).expect("small").to_le_bytes()[..], part].concat()
}

/// Appends a part as it is sent.
fn compressed(part: &[u8], message: &mut Vec<u8>) {
    let small = compress_against(&[], part, LEVEL_FAST);
    leb128::write(part.len() as u64, message);
    leb128::write(small.len() as u64, message);
    message.extend_from_slice(&small);
}

/// Returns the targets of a message: the bytes after its compressed parts.
fn after_parts(message: &[u8], parts: usize) -> &[u8] {
    let mut rest = message;
    for _ in 0..parts {
        leb128::read(&mut rest).expect("the plain bytes");
        let compressed = leb128::read(&mut rest).expect("the compressed bytes");
        rest = &rest[usize::try_from(compressed).expect("small")..];
    }
    rest
}

fn kept(mut bytes: &[u8]) {
    drop(Encoded::decode(bytes).map(|kept| kept.rebuild(basis().0.clone(), BYTES_MAX)));
    let mut message = Vec::new();
    compressed(part(&mut bytes), &mut message);
    message.extend_from_slice(bytes);
    let kept = Encoded::decode(&message).expect("well-formed");
    assert_eq!(kept.encode(), message);
    if let Ok(file) = kept.rebuild(basis().0.clone(), BYTES_MAX) {
        assert!(file.len() <= BYTES_MAX);
    }
}

fn payload(mut bytes: &[u8]) {
    let (basis, records) = basis();
    let index = RecordIndex::new(basis.clone(), records.clone());
    let claims = part(&mut bytes);
    let place = |claim: &u8, count: usize| (!claim.is_multiple_of(4)).then(|| usize::from(claim / 4) % count);
    let claimed: Vec<_> = claims.iter().map(|claim| place(claim, records.hashes().len())).collect();
    let mut message = Vec::new();
    compressed(part(&mut bytes), &mut message);
    compressed(part(&mut bytes), &mut message);
    message.extend_from_slice(bytes);
    let payload = Payload::decode(&message).expect("well-formed");
    assert_eq!(payload.encode(), message);
    if let Ok(file) = rebuild(index, &claimed, &payload, BYTES_MAX) {
        assert!(file.len() <= BYTES_MAX);
    }
}

fn names(bytes: &[u8]) {
    let (basis, records) = basis();
    if let Some(offer) = RecordNames::decode(bytes) {
        assert_eq!(offer.encode(), bytes);
        let (answer, claimed) = RecordIndex::new(basis.clone(), records.clone()).answer(&offer);
        assert_eq!(claimed.len(), offer.names().len());
        assert_eq!(Answer::decode(&answer.encode()), Some(answer));
    }
    if let Some(answer) = Answer::decode(bytes)
        && let Some(agreed) = answer.agreed(records.hashes())
    {
        assert_eq!(agreed.known.len(), records.hashes().len());
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let with = |mode: u8, bytes: &[u8]| [&[mode], bytes].concat();
    let (basis, records) = basis();
    let new = normalise(link(&NEW)).expect("an executable");
    let mut body = Vec::new();
    new.layout.encode(&mut body);
    body.extend_from_slice(new.stream());
    let mut unseen = Vec::new();
    leb128::write(new.stream().len() as u64, &mut unseen);
    unseen.extend_from_slice(&body);
    let kept = Encoded::new(basis, &new, 1).encode();
    let plain = [&with_length(&body)[..], after_parts(&kept, 1)].concat();
    // No new record is known, so all of them are one run.
    let new_records = Records::new(&new);
    let claims = vec![0; new_records.hashes().len()];
    let none = Answer::decode(
        &[&[u8::try_from(claims.len()).expect("few")][..], &vec![0; claims.len().div_ceil(8)]].concat(),
    );
    let agreed = none.expect("no claim").agreed(new_records.hashes()).expect("as many");
    let payload = Payload::new(new, &new_records, &agreed, 1).encode();
    let parts = [claims, vec![0, 0], unseen].map(|part| with_length(&part)).concat();
    let fresh = [&parts[..], after_parts(&payload, 2)].concat();
    let offer = RecordNames::new(records.hashes());
    let (answer, _) = RecordIndex::new(basis.clone(), records.clone()).answer(&offer);
    vec![
        with(0, &link(&OLD)),
        with(0, &link(&Program { functions: 2, changed: None, shift: 0 })),
        with(1, &plain),
        with(1, &kept),
        with(2, &fresh),
        with(3, &offer.encode()),
        with(3, &answer.encode()),
    ]
}
