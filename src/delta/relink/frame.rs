//! zstd with a long window and what both sides have as its prefix.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

/// 4 MiB to 1 GiB: the window covers the prefix and the compressed bytes, within these bounds.
const WINDOW_LOG: (u32, u32) = (22, 30);
/// Shorter than zstd's 64: functions are alike in short stretches. Found by trying 16, 32 and 64.
const LONG_MATCH_BYTES: u32 = 32;
/// One in 16 positions is remembered for long matches.
const LONG_RATE_LOG: u32 = 4;

fn window_log(prefix: usize, bytes: usize) -> u32 {
    let both = prefix.saturating_add(bytes);
    (usize::BITS - both.leading_zeros()).clamp(WINDOW_LOG.0, WINDOW_LOG.1)
}

/// Compresses `bytes`. Copies neither; memory beside them: the output, and 40 to 80 MiB, by level.
pub fn compress(prefix: &[u8], bytes: &[u8], level: i32) -> Vec<u8> {
    let window = window_log(prefix.len(), bytes.len());
    let mut context = CCtx::create();
    let parameters = [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window),
        CParameter::EnableLongDistanceMatching(true),
        CParameter::LdmMinMatch(LONG_MATCH_BYTES),
        CParameter::LdmHashRateLog(LONG_RATE_LOG),
        CParameter::LdmHashLog(window.saturating_sub(LONG_RATE_LOG).clamp(16, 22)),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).expect("zstd knows its own parameters");
    }
    if !prefix.is_empty() {
        context.ref_prefix(prefix).expect("a fresh context takes a prefix");
    }
    let mut out = Vec::with_capacity(compress_bound(bytes.len()));
    context.compress2(&mut out, bytes).expect("the output has room for the worst case");
    out.shrink_to_fit();
    out
}

/// Decompresses exactly `count` bytes, which the caller bounds. Memory: `count` at most.
pub fn decompress(prefix: &[u8], payload: &[u8], count: usize) -> Option<Vec<u8>> {
    let mut context = DCtx::create();
    if !prefix.is_empty() {
        context.ref_prefix(prefix).ok()?;
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(count).ok()?;
    context.decompress(&mut bytes, payload).ok()?;
    (bytes.len() == count).then_some(bytes)
}
