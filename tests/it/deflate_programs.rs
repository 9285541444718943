//! Our encoder reproduces the output of other programs: they wrote the golden lines, from the same inputs.
//!
//! `deflate_go.go` wrote Go's lines. Those of pigz describe the streams in the output of `pigz -p 2 -ncT -LEVEL` 2.6,
//! with zlib 1.2.13. A line has the input, the level, the bytes of the stream and its SHA-256.

use recode::deflate::{Encoder, Guesser, Hint, Maker, Method, Strategy};
use ring::digest::{SHA256, digest};

use crate::deflate::{encode, noise, words};

/// Returns symbols of which each is about 1.6 times as frequent as the one before: codes of all lengths, up to the
/// limit.
fn rising(symbols: u8) -> Vec<u8> {
    let mut made = Vec::new();
    let (mut one, mut other) = (1, 1);
    for symbol in 0..symbols {
        made.extend(vec![symbol.wrapping_mul(7); one]);
        (one, other) = (other, one + other);
    }
    let length = made.len();
    for (at, pick) in noise(4 * length, 77)[3 * length..].iter().enumerate() {
        made.swap(at, (at * 251 + usize::from(*pick)) % length);
    }
    made
}

/// Returns a tar archive whose files end shortly before the window is full, and repeat its farthest bytes.
fn tar(files: usize) -> Vec<u8> {
    let (base, picks) = (noise(32_700, 9), noise(files * 130, 10));
    let mut archive = Vec::new();
    for (file, picks) in picks.chunks(130).enumerate() {
        let length = 32_768 - 512 - 1 - file % 260;
        let mut header = [0; 512];
        let (name, size) = (format!("f{file}"), format!("{length:011o}"));
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..124 + size.len()].copy_from_slice(size.as_bytes());
        header[257..262].copy_from_slice(b"ustar");
        let mut content: Vec<u8> =
            base.iter().cycle().skip((file * 32_768 + 512) % 32_700).take(length).copied().collect();
        for pick in picks {
            content[(usize::from(*pick) * 131 + file * 7919) % length] ^= pick;
        }
        archive.extend(header);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn input(name: &str) -> Vec<u8> {
    if let Some((kind, length)) = name.split_once('-').filter(|(kind, _)| *kind != "whole") {
        let length = length.parse().expect("a length");
        return match kind {
            "words" => words(length, 2),
            "noise" => noise(length, 1),
            _ => vec![0; length],
        };
    }
    match name {
        "words" => words(200_000, 3),
        "more" => words(300_000, 3),
        "mixed" => [words(90_000, 5), noise(40_000, 9), vec![0; 70_000], words(100_000, 5)].concat(),
        "noise" => noise(70_000, 1),
        "rising" => rising(24),
        // Positions start over above 16 MiB.
        "long" => [words(300_000, 7), noise(30_000, 8)].concat().repeat(54),
        "tar" | "whole-tar" => tar(150),
        _ => panic!("{name}"),
    }
}

fn method(level: i8, maker: Maker) -> Method {
    match u8::try_from(level) {
        Ok(level) => Method::new(level, maker),
        Err(_) => Method::new(6, maker).with_strategy(Strategy::Huffman),
    }
}

fn compare(golden: &str, maker: impl Fn(&str) -> Maker) {
    let (mut name_before, mut plain) = ("", Vec::new());
    for line in golden.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [name, level, length, hash] = fields[..] else { panic!("{line}") };
        if name != name_before {
            (name_before, plain) = (name, input(name));
        }
        let made = encode(&method(level.parse().expect("a level"), maker(name)), &plain, 65_536);
        let hash = hash.as_bytes().chunks(2).map(|digits| std::str::from_utf8(digits).expect("digits"));
        let hash = hash.map(|digits| u8::from_str_radix(digits, 16).expect("a byte"));
        let same = digest(&SHA256, &made).as_ref().iter().copied().eq(hash);
        assert_eq!((made.len().to_string().as_str(), same), (length, true), "{line}");
    }
}

#[test]
fn our_encoder_writes_what_go_writes() {
    let maker = |name: &str| if name == "tar" { Maker::GoTar } else { Maker::Go };
    compare(include_str!("deflate_go.golden"), maker);
}

#[test]
fn our_encoder_writes_what_pigz_writes() {
    compare(include_str!("deflate_pigz.golden"), |_| Maker::Pigz);
}

#[test]
fn the_pieces_of_a_tar_archive_are_those_of_its_files() {
    let plain = tar(150);
    let whole = encode(&Method::new(6, Maker::GoTar), &plain, usize::MAX);
    assert!(whole != encode(&Method::new(6, Maker::Go), &plain, usize::MAX), "the pieces show");
    for piece in [1, 511, 65_537] {
        assert!(whole == encode(&Method::new(6, Maker::GoTar), &plain, piece), "in pieces of {piece}");
    }
}

#[test]
fn a_stream_of_go_is_found() {
    let mut guesser = Guesser::default();
    for (maker, plain) in [(Maker::Go, words(300_000, 4)), (Maker::GoTar, tar(150))] {
        for (level, hint) in
            [(6, Hint::None), (9, Hint::Best), (1, Hint::Fast), (6, Hint::Go(6)), (5, Hint::None)]
        {
            let packed = encode(&Method::new(level, maker), &plain, usize::MAX);
            let method = guesser.stream(&packed, u64::MAX, hint, None).and_then(|stream| stream.method);
            let found = method.expect("one of those that are tried");
            assert_eq!((found.level, encode(&found, &plain, usize::MAX)), (level, packed));
        }
    }
    let mut encoder = Encoder::new(&Method::STOCK);
    encoder.reset(&Method::new(6, Maker::Go));
    let mut out = Vec::new();
    encoder.finish(&mut out);
    assert_eq!(out, [1, 0, 0, 0xff, 0xff]);
}
