//! An encoder under any settings: its output inflates to the input, and its method is found and proven.

use recode::deflate::{Encoder, Guesser, Hint, Inflater, Maker, Method, Strategy};

const STRATEGIES: [Strategy; 5] =
    [Strategy::Default, Strategy::Filtered, Strategy::Huffman, Strategy::Runs, Strategy::Fixed];

pub fn run(bytes: &[u8]) {
    // As a stream: bounded, without a panic.
    let _ = Guesser::default().stream(bytes, 1 << 18, Hint::None, None);
    let [level, memory, window, strategy, maker, repeat, plain @ ..] = bytes else { return };
    let method = Method::new(level % 10, Maker::ALL[usize::from(*maker) % Maker::ALL.len()])
        .with_memory(1 + memory % 9)
        .with_window(9 + window % 7)
        .with_strategy(STRATEGIES[usize::from(*strategy) % 5]);
    let plain = plain.repeat(1 + usize::from(*repeat));
    let (mut encoder, mut packed) = (Encoder::new(&method), Vec::new());
    encoder.write(&plain, &mut packed);
    encoder.finish(&mut packed);
    let mut found = Vec::new();
    let end = Inflater::default().push(&packed, |piece| {
        found.extend_from_slice(piece);
        Ok::<_, std::convert::Infallible>(())
    });
    assert!(end.is_ok() && found == plain, "{method:?}");
    assert!(Guesser::default().prove(&method, &packed).0);
}

pub fn seeds() -> Vec<Vec<u8>> {
    let text = b"\x06\x07\x06\0\0\x40one two one two three one two three four".to_vec();
    let fast = b"\x01\x00\x00\0\x04\xffabcabcabcabc".to_vec();
    vec![text, fast, b"\x09\x08\x06\x03\x01\x10aaaaaaaaaaaaab".to_vec()]
}
