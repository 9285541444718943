//! Estimates by samples how well content compresses.

use delta::compression::{self, Codec, Compressor};

/// Returns whether samples of the bytes do not shrink: compressed or encrypted content, on which high levels
/// would spend seconds for nothing.
pub fn is_dense(plain: &[u8]) -> bool {
    is_dense_within(plain, 0)
}

/// As [`is_dense`], where samples may shrink by `slack` percent.
pub fn is_dense_within(plain: &[u8], slack: usize) -> bool {
    const SAMPLE: usize = 16 * 1024;
    if plain.len() < 8 * SAMPLE {
        return false;
    }
    let mut compressor = Compressor::new(compression::LEVEL_FAST);
    plain.chunks(plain.len() / 8).all(|part| {
        let part = &part[..SAMPLE.min(part.len())];
        let (codec, payload) = compressor.compress(part);
        codec == Codec::Raw || payload.len() * 100 >= part.len() * (100 - slack)
    })
}

/// Returns whether `others` contain most of a sample from the middle of dense bytes.
pub fn is_like(plain: &[u8], others: &[u8]) -> bool {
    const SAMPLE: usize = 256 * 1024;
    let begin = plain.len().saturating_sub(SAMPLE) / 2;
    let sample = &plain[begin..plain.len().min(begin + SAMPLE)];
    compression::compress_against(others, sample, compression::LEVEL_FAST).len() < sample.len() / 100 * 98
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn dense_bytes_are_like_what_they_were_only_where_they_share_something() {
        let old = noise(1 << 20, 1);
        let mut new = old.clone();
        new.iter_mut().step_by(8_000).for_each(|byte| *byte ^= 1);
        assert!(is_dense(&new) && is_dense_within(&new, 3));
        assert!(is_like(&new, &old), "edited here and there");
        assert!(!is_like(&noise(1 << 20, 2), &old), "made anew");
    }
}
