//! Bytes to measure with: real machine code where there is some, else made of words.

#![allow(dead_code, reason = "each bench takes what it needs of this, one of them everything")]

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use format::chunking::Profile;

/// 64 MiB: many times what a processor caches, and still quick to push.
pub const CONTENT_BYTES: usize = 64 * 1024 * 1024;

/// The first 64 MiB of the Rust compiler's own library, else bytes about as compressible.
pub fn content() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CONTENT_BYTES);
    if let Some(file) = compiler_library().and_then(|path| File::open(path).ok()) {
        // Bytes that cannot be read are made below.
        drop(file.take(CONTENT_BYTES as u64).read_to_end(&mut bytes));
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while bytes.len() < CONTENT_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Half of what is added repeats, which zstd brings to about half, as it does machine code.
        bytes.extend_from_slice(&state.to_le_bytes());
        bytes.extend_from_slice(b" word");
        bytes.extend_from_slice(&state.to_le_bytes()[..3]);
    }
    bytes.truncate(CONTENT_BYTES);
    bytes
}

/// The largest `librustc_driver*` of the toolchain in use.
fn compiler_library() -> Option<PathBuf> {
    let printed = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let folder = Path::new(String::from_utf8(printed.stdout).ok()?.trim()).join("lib");
    let libraries = fs::read_dir(folder).ok()?.flatten();
    let drivers =
        libraries.filter(|entry| entry.file_name().to_string_lossy().starts_with("librustc_driver"));
    let sized = drivers.filter_map(|entry| Some((entry.metadata().ok()?.len(), entry.path())));
    sized.max().map(|(_, path)| path)
}

/// Cuts `content` by the default profile.
pub fn chunks(content: &[u8]) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(Profile::DEFAULT.cut(rest));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

/// Groups neighbouring chunks into runs of at least `bytes` each, the last one excepted.
pub fn runs<'a>(chunks: &[&'a [u8]], bytes: usize) -> Vec<Vec<&'a [u8]>> {
    let (mut runs, mut run, mut sum) = (Vec::new(), Vec::new(), 0);
    for chunk in chunks {
        run.push(*chunk);
        sum += chunk.len();
        if sum >= bytes {
            runs.push(std::mem::take(&mut run));
            sum = 0;
        }
    }
    runs.extend((!run.is_empty()).then_some(run));
    runs
}

/// The time that `work` takes, again and again; what `prepare` makes for it, and dropping that, is not counted.
pub fn timed<T>(rounds: u64, mut prepare: impl FnMut() -> T, mut work: impl FnMut(&mut T)) -> Duration {
    (0..rounds)
        .map(|_| {
            let mut prepared = prepare();
            let start = Instant::now();
            work(&mut prepared);
            start.elapsed()
        })
        .sum()
}
