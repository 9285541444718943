//! The encoder's output never changes, and its method is found from its output.

use recode::deflate::{Encoder, Guesser, Hint, Inflater, Maker, Method, Progress, Strategy};

pub fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| step()).collect()
}

/// Returns words drawn from a small vocabulary: copies of all lengths and distances, and literals between.
pub fn words(length: usize, seed: u64) -> Vec<u8> {
    let letters = noise(4000, seed);
    let mut text = Vec::with_capacity(length + 16);
    for pick in noise(length, seed + 1) {
        let begin = usize::from(pick) * usize::from(pick % 15);
        text.extend(letters[begin..begin + 1 + usize::from(pick % 13)].iter().map(|byte| b'a' + byte % 24));
        text.push(b" \n,;"[usize::from(pick % 4)]);
        if text.len() >= length {
            break;
        }
    }
    text.truncate(length);
    text
}

pub fn encode(method: &Method, plain: &[u8], piece: usize) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::new(method), Vec::new());
    plain.chunks(piece).for_each(|piece| encoder.write(piece, &mut out));
    encoder.finish(&mut out);
    out
}

fn inputs() -> Vec<Vec<u8>> {
    let mut mixed = words(90_000, 5);
    mixed.extend(noise(40_000, 9));
    mixed.extend(vec![0; 70_000]);
    mixed.extend(words(100_000, 5));
    vec![words(200_000, 3), mixed, noise(70_000, 1), words(700, 2), Vec::new()]
}

#[test]
fn the_output_never_changes() {
    // A change here would make every stored archive of that method impossible to rebuild.
    let inputs = inputs();
    let mut digests = Vec::new();
    for maker in Maker::ALL {
        for level in 0..=9 {
            let mut hasher = blake3::Hasher::new();
            for plain in &inputs {
                hasher.update(&encode(&Method::new(level, maker), plain, usize::MAX));
            }
            digests.push((maker, level, hasher.finalize().to_hex()[..16].to_owned()));
        }
    }
    for memory in 1..=9 {
        let mut hasher = blake3::Hasher::new();
        for plain in &inputs {
            for window in [9, 12, 15] {
                for strategy in [
                    Strategy::Default,
                    Strategy::Filtered,
                    Strategy::Huffman,
                    Strategy::Runs,
                    Strategy::Fixed,
                ] {
                    let method = Method::new(6, Maker::Zlib).with_memory(memory).with_window(window);
                    hasher.update(&encode(&method.with_strategy(strategy), plain, usize::MAX));
                }
            }
        }
        digests.push((Maker::Zlib, 10 + memory, hasher.finalize().to_hex()[..16].to_owned()));
    }
    let found: Vec<String> =
        digests.iter().map(|(maker, level, digest)| format!("{maker:?} {level} {digest}")).collect();
    let golden: Vec<&str> = include_str!("deflate.golden").lines().collect();
    assert_eq!(found, golden, "found:\n{}", found.join("\n"));
}

#[test]
fn the_output_of_rust_is_taken_in_pieces_of_32_kib() {
    // With pieces of 64 KiB and of 32 KiB, zlib-rs alone makes 126,357 and 126,309 bytes of the same input.
    let plain = words(500_000, 3);
    let lengths = [5, 6].map(|level| encode(&Method::new(level, Maker::Rust), &plain, usize::MAX).len());
    assert_eq!(lengths, [126_358, 126_311]);
}

#[test]
fn the_pieces_of_the_input_make_no_difference() {
    for plain in inputs() {
        for maker in Maker::ALL {
            for level in [0, 1, 6] {
                let method = Method::new(level, maker);
                let whole = encode(&method, &plain, usize::MAX);
                for piece in [1, 262, 4096, 65_537] {
                    assert_eq!(encode(&method, &plain, piece), whole, "{method:?} in pieces of {piece}");
                }
            }
        }
    }
}

#[test]
fn what_is_encoded_inflates_to_the_same() {
    let mut inflater = Inflater::default();
    for plain in inputs() {
        for maker in Maker::ALL {
            for level in 0..=9 {
                let mut packed = encode(&Method::new(level, maker), &plain, usize::MAX);
                let length = packed.len();
                packed.extend(b"what comes after");
                let mut found = Vec::new();
                inflater.reset();
                let end = inflater.push(&packed, |piece| {
                    found.extend_from_slice(piece);
                    Ok::<_, std::convert::Infallible>(())
                });
                assert!(matches!(end, Ok(Progress::End(end)) if end == length));
                assert_eq!(found, plain);
            }
        }
    }
}

#[test]
fn an_encoder_used_again_gives_the_same() {
    let inputs = inputs();
    let mut encoder = Encoder::new(&Method::STOCK);
    for maker in Maker::ALL {
        for plain in &inputs {
            for memory in [9, 1] {
                let method = Method::new(5, maker).with_memory(memory);
                let mut out = Vec::new();
                encoder.reset(&method);
                encoder.write(plain, &mut out);
                encoder.finish(&mut out);
                assert_eq!(out, encode(&method, plain, usize::MAX));
            }
        }
    }
}

#[test]
fn a_stream_that_was_left_leaves_no_trace() {
    let plain = [words(150_000, 4), noise(300_000, 6)].concat();
    for maker in Maker::ALL {
        let method = Method::new(6, maker);
        let whole = encode(&method, &plain, 65_536);
        let mut encoder = Encoder::new(&method);
        for left_at in (100_000..400_000).step_by(30_000) {
            let mut out = Vec::new();
            encoder.write(&plain[..left_at], &mut out);
            encoder.reset(&method);
            out.clear();
            plain.chunks(65_536).for_each(|piece| encoder.write(piece, &mut out));
            encoder.finish(&mut out);
            assert!(out == whole, "{method} left after {left_at}");
            encoder.reset(&method);
        }
    }
}

#[test]
fn a_method_is_found_by_its_stream() {
    let plain = words(200_000, 3);
    let mut guesser = Guesser::default();
    for maker in [
        Maker::Zlib,
        Maker::Gzip,
        Maker::CastagnoliChromium,
        Maker::Chromium,
        Maker::Rust,
        Maker::Zip,
        Maker::Go,
        Maker::Miniz,
        Maker::RustZip,
        Maker::WholeRustZip,
        Maker::Pigz,
    ] {
        for level in [6, 9] {
            let method = Method::new(level, maker);
            let packed = encode(&method, &plain, usize::MAX);
            let stream = guesser.stream(&packed, u64::MAX, Hint::None, None).expect("a whole stream");
            let found = stream.method.expect("one of those that are tried");
            assert_eq!(encode(&found, &plain, usize::MAX), packed);
            assert_eq!((stream.packed, stream.plain), (packed.len() as u64, plain.len() as u64));
        }
    }
}

#[test]
fn a_stream_that_nothing_makes_has_no_method() {
    let plain = words(100_000, 3);
    let mut packed = encode(&Method::STOCK, &plain[..50_000], usize::MAX);
    // The end of one stream as the middle of another: valid, but no encoder makes it in one run.
    packed[0] &= !1;
    packed.extend(encode(&Method::STOCK, &plain[50_000..], usize::MAX));
    let found = Guesser::default().stream(&packed, u64::MAX, Hint::None, None);
    assert!(found.is_none_or(|stream| stream.method.is_none()));
}

#[test]
fn a_stream_above_the_limit_is_left_alone() {
    let packed = encode(&Method::STOCK, &vec![0; 10_000_000], usize::MAX);
    assert!(packed.len() < 11_000);
    assert_eq!(Guesser::default().stream(&packed, 9_999_999, Hint::None, None), None);
    assert!(Guesser::default().stream(&packed, 10_000_000, Hint::None, None).is_some());
}

#[test]
fn a_method_out_of_bounds_is_refused() {
    assert!(Method::new(10, Maker::Zlib).check().is_err());
    assert!(Method::STOCK.with_memory(0).check().is_err());
    assert!(Method::STOCK.with_memory(10).check().is_err());
    assert!(Method::STOCK.with_window(16).check().is_err());
    assert_eq!(Method::STOCK.check(), Ok(Method::STOCK));
}
