//! Tools that keep chunks in a store: what a store gains by NEW is what crosses.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::ground::Ground;
use crate::error::Result;
use crate::input::{bytes_below, bytes_of, copy_tree};
use crate::measurement::{Measurement, Situations};
use crate::process;
use disk::files::{self, OnPath};

/// TCP, TLS, the index, the chunks.
const CASYNC_ROUND_TRIPS: u32 = 4;

/// Measures casync with its default chunks.
pub fn casync(ground: &Ground<'_>) -> Result<Situations> {
    casync_with(ground, "casync", "64K")
}

/// Measures casync with chunks of 16 KiB on average.
pub fn casync_small(ground: &Ground<'_>) -> Result<Situations> {
    casync_with(ground, "casync-16k", "16K")
}

/// Chunks of NEW that OLD's store lacks, and NEW's index; rebuilt with OLD's directory as the seed.
fn casync_with(ground: &Ground<'_>, tool: &'static str, chunk: &str) -> Result<Situations> {
    let input = ground.input;
    // A blob's index, or a directory's: casync decides by the name.
    let index = if input.file.is_some() { "caibx" } else { "caidx" };
    let source = |new: bool| {
        let release = if new { &input.new } else { &input.old };
        if input.file.is_some() { &release.stream } else { &release.folder }
    };
    let make = |new: bool, name: &str| {
        let mut command = Command::new("casync");
        // Times and owners are left out, as in the tar that others get.
        command.args(["make", "--with=permissions", "--with=symlinks", "--chunk-size", chunk]);
        command.arg(format!("--store={}", ground.path(name).display()));
        command.arg(ground.path(&format!("{name}.{index}"))).arg(source(new));
        process::run(ground.stop, &mut command)
    };
    make(false, "old")?;
    let made = make(true, "new")?;
    let known = chunks(&ground.path("old"))?;
    let mut up_bytes = bytes_of(&ground.path(&format!("new.{index}")))?;
    // A chunk's name is its hash, so equal names have equal sizes.
    up_bytes += chunks(&ground.path("new"))?.difference(&known).map(|(_, bytes)| bytes).sum::<u64>();
    let copy = ground.path("copy");
    let mut extract = Command::new("casync");
    extract.args(["extract", "--with=permissions", "--with=symlinks"]);
    extract.arg(format!("--store={}", ground.path("new").display()));
    extract.arg(format!("--seed={}", source(false).display()));
    extract.arg(ground.path(&format!("new.{index}"))).arg(&copy);
    let received = process::run(ground.stop, &mut extract)?;
    if input.file.is_some() {
        input.expect_new_stream(tool, &copy)?;
    } else {
        input.expect_new(tool, &copy)?;
    }
    let fresh = Measurement {
        up_bytes,
        down_bytes: 0,
        round_trips: Some(CASYNC_ROUND_TRIPS),
        wall_seconds: made.wall_seconds + received.wall_seconds,
        sender: made.load,
        receiver: Some(received.load),
    };
    Ok(Situations { fresh: Some(fresh), ..Situations::default() })
}

/// Returns the names and sizes of a store's chunks.
fn chunks(store: &Path) -> Result<BTreeSet<(OsString, u64)>> {
    let mut found = BTreeSet::new();
    for folder in fs::read_dir(store).on("read", store)? {
        let folder = folder.on("read", store)?.path();
        for chunk in fs::read_dir(&folder).on("read", &folder)? {
            let chunk = chunk.on("read", &folder)?;
            found.insert((chunk.file_name(), bytes_of(&chunk.path())?));
        }
    }
    Ok(found)
}

/// Measures `restic backup` into a repository in a folder.
pub fn restic(ground: &Ground<'_>) -> Result<Situations> {
    let repository = ground.path("repository");
    let command = |words: &[&str]| {
        let mut command = Command::new("restic");
        command.env("RESTIC_PASSWORD", "bench").env("RESTIC_REPOSITORY", &repository);
        command.arg("--cache-dir").arg(ground.path("cache")).arg("-q").args(words);
        command
    };
    process::run(ground.stop, &mut command(&["init"]))?;
    grown(ground, &repository, |_| command(&["backup", "."]))
}

/// Measures `borg create` into a repository in a folder.
pub fn borg(ground: &Ground<'_>) -> Result<Situations> {
    let repository = ground.path("repository");
    let command = |words: &[&str]| {
        let mut command = Command::new("borg");
        command.env("BORG_BASE_DIR", ground.path("base")).env("BORG_REPO", &repository);
        command.env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes").args(words);
        command
    };
    process::run(ground.stop, &mut command(&["init", "-e", "none"]))?;
    grown(ground, &repository, |name| command(&["create", "-C", "zstd,3", &format!("::{name}"), "."]))
}

/// Backs up OLD, then NEW in its place, and counts the bytes that NEW added to the repository.
fn grown(ground: &Ground<'_>, repository: &Path, backup: impl Fn(&str) -> Command) -> Result<Situations> {
    let source = ground.path("source");
    let mut last = None;
    for (name, release) in [("old", &ground.input.old), ("new", &ground.input.new)] {
        files::remove(&source)?;
        copy_tree(&release.folder, &source, ground.stop)?;
        let before = bytes_below(repository)?;
        let ended = process::run(ground.stop, backup(name).current_dir(&source))?;
        last = Some((bytes_below(repository)?.saturating_sub(before), ended));
    }
    let (up_bytes, ended) = last.expect("two releases were backed up");
    let kept = Measurement {
        up_bytes,
        down_bytes: 0,
        round_trips: None,
        wall_seconds: ended.wall_seconds,
        sender: ended.load,
        receiver: None,
    };
    Ok(Situations { kept: Some(kept), ..Situations::default() })
}
