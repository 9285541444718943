//! rsync to and from a daemon.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::case::Case;
use crate::error::Result;
use crate::measurement::Load;
use crate::process::{self, Ended};
use crate::race::{Race, Transfer};
use crate::tools::ground::{Done, Ground, sync};
use crate::tools::rsync::{Daemon, pull, push, transferred};

/// Times `rsync -a`.
pub fn plain(ground: &Ground<'_>) -> Result<Race> {
    run(ground, "rsync-a", &["-a"])
}

/// Times `rsync -az`, with zstd.
pub fn compressed(ground: &Ground<'_>) -> Result<Race> {
    run(ground, "rsync-az", &["-a", "-z", "--zc=zstd"])
}

fn run(ground: &Ground<'_>, tool: &'static str, flags: &[&str]) -> Result<Race> {
    let daemon = Daemon::create(ground.work)?;
    let send = |from: &Path| daemon.serve(ground, |to| push(flags, from, to));
    let fetch = |to: &Path| daemon.serve(ground, |from| pull(flags, from, to));
    Cases { ground, tool, module: daemon.module(), send: &send, fetch: &fetch }.run()
}

/// The cases of an rsync: what it brings lies in one folder at the far host, which it changes in place.
pub struct Cases<'a> {
    /// The releases and hosts.
    pub ground: &'a Ground<'a>,
    /// The tool's name.
    pub tool: &'static str,
    /// The folder at the far host.
    pub module: &'a Path,
    /// Makes the far host's folder equal to one of the near host; returns how client and server ended.
    pub send: Transferring<'a>,
    /// Makes a folder of the near host equal to the far host's.
    pub fetch: Transferring<'a>,
}

type Transferring<'a> = &'a dyn Fn(&Path) -> Result<[Ended; 2]>;

impl Cases<'_> {
    /// Runs all cases.
    ///
    /// # Errors
    /// A transfer fails, or brings something else than NEW.
    pub fn run(&self) -> Result<Race> {
        let Ground { stop, input, .. } = *self.ground;
        let first = self.sent(&input.old.folder)?;
        let (pulled, updated) = (self.ground.folder("pulled")?, self.ground.path("updated"));
        // A copy of OLD as a pull would have left it.
        process::run(stop, Command::new("cp").arg("-a").arg(self.module).arg(&updated))?;
        let fresh = self.sent(&input.new.folder)?;
        let (pull, update) = (self.fetched(&pulled)?, self.fetched(&updated)?);
        for copy in [self.module, &pulled, &updated] {
            input.expect_new(self.tool, copy)?;
        }
        Ok([(Case::First, first), (Case::Fresh, fresh), (Case::Pull, pull), (Case::Update, update)].into())
    }

    fn sent(&self, from: &Path) -> Result<Transfer> {
        self.ground.time(|| {
            let [near, far] = (self.send)(from)?;
            done(self.module, &near, near.load, far.load)
        })
    }

    fn fetched(&self, to: &Path) -> Result<Transfer> {
        self.ground.time(|| {
            let [near, far] = (self.fetch)(to)?;
            done(to, &near, far.load, near.load)
        })
    }
}

/// Syncs the copy of a client that has ended.
fn done(copy: &Path, client: &Ended, sender: Load, receiver: Load) -> Result<Done> {
    let ended = Instant::now();
    sync(copy)?;
    let copied = Instant::now();
    let told = transferred(&client.out, client.wall_seconds, client.load)?;
    Ok(Done { ended, copied, bytes: [told.up_bytes, told.down_bytes], sender, receiver })
}
