//! Tools that make a patch from one stream to another.
//!
//! All but rdiff need OLD where NEW is: what they make is measured as *kept*. Each patch is applied, and
//! the result compared.

use std::path::Path;
use std::process::Command;

use super::ground::Ground;
use crate::error::Result;
use crate::input::bytes_of;
use crate::measurement::{Measurement, Situations};
use crate::process::{self, Ended};

/// TCP, TLS, the upload.
const ROUND_TRIPS: u32 = 3;
/// The smallest and the largest window of zstd's `--long`, as powers of two.
const WINDOWS: std::ops::RangeInclusive<u32> = 10..=31;

/// Measures `zstd -3 --patch-from`.
pub fn zstd_fast(ground: &Ground<'_>) -> Result<Situations> {
    zstd(ground, "zstd-3", "-3")
}

/// Measures `zstd -19 --patch-from`.
pub fn zstd_best(ground: &Ground<'_>) -> Result<Situations> {
    zstd(ground, "zstd-19", "-19")
}

fn zstd(ground: &Ground<'_>, tool: &'static str, level: &str) -> Result<Situations> {
    // The window covers both streams, so that no match is out of reach.
    let bytes = bytes_of(&ground.input.old.stream)? + bytes_of(&ground.input.new.stream)?;
    let window = bytes.max(1).next_power_of_two().ilog2().clamp(*WINDOWS.start(), *WINDOWS.end());
    let command = |reference: &Path, words: &[&str], input: &Path, output: &Path| {
        let mut command = Command::new("zstd");
        command.args(["-q", "-T1", &format!("--long={window}")]).args(words);
        command.arg(format!("--patch-from={}", reference.display())).arg(input).arg("-o").arg(output);
        command
    };
    let (old, new) = (&ground.input.old.stream, &ground.input.new.stream);
    let (patch, copy) = (ground.path("patch"), ground.path("copy"));
    let sent = process::run(ground.stop, &mut command(old, &[level], new, &patch))?;
    let received = process::run(ground.stop, &mut command(old, &["-d"], &patch, &copy))?;
    kept(ground, tool, &patch, &copy, &sent, &received)
}

/// Measures `xdelta3` with a source window over all of OLD.
pub fn xdelta3(ground: &Ground<'_>) -> Result<Situations> {
    let old = &ground.input.old.stream;
    let window = bytes_of(old)?.next_power_of_two().clamp(1 << 26, 1 << 31).to_string();
    let command = |direction: &str, input: &Path, output: &Path| {
        let mut command = Command::new("xdelta3");
        // Without -D and -R it unpacks gzip streams, and packs them again with other bytes.
        command.args([direction, "-q", "-f", "-D", "-R", "-B", &window, "-s"]);
        command.arg(old).arg(input).arg(output);
        command
    };
    let (patch, copy) = (ground.path("patch"), ground.path("copy"));
    let sent = process::run(ground.stop, &mut command("-e", &ground.input.new.stream, &patch))?;
    let received = process::run(ground.stop, &mut command("-d", &patch, &copy))?;
    kept(ground, "xdelta3", &patch, &copy, &sent, &received)
}

/// Measures `bsdiff`, whose patches are compressed with bzip2.
pub fn bsdiff(ground: &Ground<'_>) -> Result<Situations> {
    let (old, patch, copy) = (&ground.input.old.stream, ground.path("patch"), ground.path("copy"));
    let mut make = Command::new("bsdiff");
    let sent = process::run(ground.stop, make.arg(old).arg(&ground.input.new.stream).arg(&patch))?;
    let mut apply = Command::new("bspatch");
    let received = process::run(ground.stop, apply.arg(old).arg(&copy).arg(&patch))?;
    kept(ground, "bsdiff", &patch, &copy, &sent, &received)
}

fn kept(
    ground: &Ground<'_>,
    tool: &'static str,
    patch: &Path,
    copy: &Path,
    sent: &Ended,
    received: &Ended,
) -> Result<Situations> {
    ground.input.expect_new_stream(tool, copy)?;
    let kept = Measurement {
        up_bytes: bytes_of(patch)?,
        down_bytes: 0,
        round_trips: Some(ROUND_TRIPS),
        wall_seconds: sent.wall_seconds + received.wall_seconds,
        sender: sent.load,
        receiver: Some(received.load),
    };
    Ok(Situations { kept: Some(kept), ..Situations::default() })
}

/// Measures `rdiff`: the receiver's signature goes down, the delta, compressed by `zstd -3`, goes up.
pub fn rdiff(ground: &Ground<'_>) -> Result<Situations> {
    let (old, signature, delta) = (&ground.input.old.stream, ground.path("signature"), ground.path("delta"));
    let (packed, copy) = (ground.path("delta.zst"), ground.path("copy"));
    let rdiff = |action: &str, paths: [&Path; 2]| {
        let mut command = Command::new("rdiff");
        command.arg(action).args(paths);
        command
    };
    let signed = process::run(ground.stop, &mut rdiff("signature", [old, &signature]))?;
    let mut make = rdiff("delta", [&signature, &ground.input.new.stream]);
    let made = process::run(ground.stop, make.arg(&delta))?;
    let mut pack = Command::new("zstd");
    let packing =
        process::run(ground.stop, pack.args(["-q", "-3", "-T1"]).arg(&delta).arg("-o").arg(&packed))?;
    let mut apply = rdiff("patch", [old, &delta]);
    let applied = process::run(ground.stop, apply.arg(&copy))?;
    ground.input.expect_new_stream("rdiff", &copy)?;
    let (mut sender, mut receiver) = (made.load, signed.load);
    sender.add(packing.load);
    receiver.add(applied.load);
    let fresh = Measurement {
        up_bytes: bytes_of(&packed)?,
        down_bytes: bytes_of(&signature)?,
        // As an upload, and one more for the signature.
        round_trips: Some(ROUND_TRIPS + 1),
        wall_seconds: signed.wall_seconds + made.wall_seconds + packing.wall_seconds + applied.wall_seconds,
        sender,
        receiver: Some(receiver),
    };
    Ok(Situations { fresh: Some(fresh), ..Situations::default() })
}
