//! The releases, the hosts and the folder with which a tool runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::Result;
use crate::hosts::Hosts;
use crate::input::Input;
use crate::measurement::Load;
use crate::process::Stop;
use crate::race::Transfer;
use disk::files::OnPath;

/// Two releases, two hosts, and a folder to work in.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Ends the running programs.
    pub stop: &'a Stop,
    /// Both releases.
    pub input: &'a Input,
    /// Where the tool's two sides run.
    pub hosts: &'a Hosts,
    /// An empty folder of the tool's own.
    pub work: &'a Path,
    /// The program that is running: whit.
    pub whit: &'a Path,
}

/// A transfer that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// When its command had ended.
    pub ended: Instant,
    /// When the copy was complete and synced.
    pub copied: Instant,
    /// Bytes from near to far and back, as the tool counts them.
    pub bytes: [u64; 2],
    /// The side that has what is brought.
    pub sender: Load,
    /// The side that gets it.
    pub receiver: Load,
}

impl Ground<'_> {
    /// Returns a path below the tool's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// Creates an empty folder below the tool's own.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path(name);
        fs::create_dir(&folder).on("create", &folder)?;
        Ok(folder)
    }

    /// Times a transfer, and counts its packets over an emulated link.
    ///
    /// What was written before is synced first, so that no transfer pays for it.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn time(&self, run: impl FnOnce() -> Result<Done>) -> Result<Transfer> {
        self.stop.check()?;
        sync(self.work)?;
        let before = self.hosts.counts();
        let begun = Instant::now();
        let done = run()?;
        let between = |moment: Instant| (moment - begun).as_secs_f64();
        let [mut up_bytes, mut down_bytes] = done.bytes;
        let mut lost_packets = 0;
        if let (Some(before), Some(after)) = (before, self.hosts.counts()) {
            let [up, down] = [after[0].since(before[0]), after[1].since(before[1])];
            (up_bytes, down_bytes, lost_packets) = (up.bytes, down.bytes, up.lost + down.lost);
        }
        Ok(Transfer {
            seconds: between(done.ended),
            copy_seconds: between(done.copied),
            up_bytes,
            down_bytes,
            lost_packets,
            sender: done.sender,
            receiver: done.receiver,
        })
    }
}

/// Waits until everything in the file system of `folder` is on stable storage.
///
/// # Errors
/// The system's.
pub fn sync(folder: &Path) -> Result<()> {
    let open = File::open(folder).on("open", folder)?;
    Ok(rustix::fs::syncfs(&open).map_err(std::io::Error::from).on("sync", folder)?)
}
