//! The whole release, packed and compressed, as it is uploaded where nothing knows of differences.

use std::process::{Command, Stdio};

use super::ground::Ground;
use crate::error::Result;
use crate::input::{self, bytes_of};
use crate::measurement::{Measurement, Situations};
use crate::process;

/// TCP, TLS, the upload.
const ROUND_TRIPS: u32 = 3;

/// Measures `tar -c | zstd -3`, unpacked at the other side.
pub fn upload(ground: &Ground<'_>) -> Result<Situations> {
    let (packed, copy) = (ground.path("new.tar.zst"), ground.path("copy"));
    std::fs::create_dir(&copy).map_err(|source| disk::files::Error {
        action: "create",
        path: copy.clone(),
        source,
    })?;
    let mut compress = Command::new("zstd");
    compress.args(["-q", "-3", "-T1", "-o"]).arg(&packed);
    let mut tar = input::tar(&ground.input.new.folder);
    let sent = process::run_pipe(ground.stop, tar.args(["-f", "-", "."]), &mut compress)?;
    let mut decompress = Command::new("zstd");
    decompress.args(["-q", "-d", "-c"]).arg(&packed);
    let mut untar = Command::new("tar");
    untar.args(["-x", "-f", "-", "-C"]).arg(&copy).stdout(Stdio::null());
    let received = process::run_pipe(ground.stop, &mut decompress, &mut untar)?;
    ground.input.expect_new("tar", &copy)?;
    let fresh = Measurement {
        up_bytes: bytes_of(&packed)?,
        down_bytes: 0,
        round_trips: Some(ROUND_TRIPS),
        wall_seconds: sent.wall_seconds + received.wall_seconds,
        sender: sent.load,
        receiver: Some(received.load),
    };
    Ok(Situations { fresh: Some(fresh), ..Situations::default() })
}
