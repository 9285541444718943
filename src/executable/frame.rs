//! zstd with a long window and what both sides have as its prefix.

use std::io::{Read, Write};

use zstd::stream::{Decoder, Encoder};
use zstd::zstd_safe::CParameter;

/// 4 MiB, 1 GiB: the window takes in all of the prefix and what is compressed, between these.
const WINDOW_LOG: (u32, u32) = (22, 30);
/// Shorter than zstd's 64: functions are alike in short stretches. Found by trying 16, 32 and 64.
const LONG_MATCH_BYTES: u32 = 32;
/// One in 16 positions is remembered for long matches.
const LONG_RATE_LOG: u32 = 4;

fn window_log(prefix: usize, bytes: usize) -> u32 {
    let both = prefix.saturating_add(bytes);
    (usize::BITS - both.leading_zeros()).clamp(WINDOW_LOG.0, WINDOW_LOG.1)
}

/// Compresses `bytes`. Memory: about 64 MiB at level 3 beside both arguments.
pub fn compress(prefix: &[u8], bytes: &[u8], level: i32) -> Vec<u8> {
    let window = window_log(prefix.len(), bytes.len());
    let write = || {
        let mut encoder = Encoder::with_ref_prefix(Vec::new(), level, prefix)?;
        encoder.long_distance_matching(true)?;
        encoder.window_log(window)?;
        encoder.set_parameter(CParameter::LdmMinMatch(LONG_MATCH_BYTES))?;
        encoder.set_parameter(CParameter::LdmHashRateLog(LONG_RATE_LOG))?;
        encoder.set_parameter(CParameter::LdmHashLog(window.saturating_sub(LONG_RATE_LOG).clamp(16, 22)))?;
        encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
        encoder.write_all(bytes)?;
        encoder.finish()
    };
    write().expect("memory takes every byte, and zstd these parameters")
}

/// Decompresses exactly `count` bytes; the caller bounds it. Memory: the prefix and `count`, twice each.
pub fn decompress(prefix: &[u8], payload: &[u8], count: usize) -> Option<Vec<u8>> {
    let mut decoder = Decoder::with_ref_prefix(payload, prefix).ok()?;
    decoder.window_log_max(window_log(prefix.len(), count)).ok()?;
    let mut bytes = Vec::new();
    decoder.take(count as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() == count).then_some(bytes)
}
