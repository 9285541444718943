//! whit: pushes that its proxy delivers to a directory, and pulls.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, atomic};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::case::Case;
use crate::error::{Error, Result};
use crate::input::Release;
use crate::measurement::Load;
use crate::process;
use crate::race::{Race, Transfer};
use crate::tools::ground::{Done, Ground};
use crate::tools::whit::{APP, DESTINATION, Proxy, Push, Side, Wire, stage};

/// The releases' labels.
const OLD: &str = "old";
const NEW: &str = "new";
/// The interval between looks at the destination.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The time for a delivery after its push.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(600);

/// Times all cases. NEW is pushed to two proxies that have OLD: one for each kind of sender.
pub fn run(ground: &Ground<'_>) -> Result<Race> {
    let kept = Series::start(ground, "kept")?;
    let first = kept.push(&ground.input.old, OLD, "state")?;
    let second = kept.push(&ground.input.new, NEW, "state")?;
    let pulled = kept.folder.join("pulled");
    let pull = kept.pull(&pulled)?;
    let updated = kept.folder.join("updated");
    kept.pull_old(&updated)?;
    let update = kept.pull(&updated)?;
    for copy in [&kept.current(), &pulled, &updated] {
        ground.input.expect_new("whit", copy)?;
    }
    kept.proxy.end()?;
    let fresh = Series::start(ground, "fresh")?;
    fresh.prime()?;
    let alone = fresh.push(&ground.input.new, NEW, "empty")?;
    ground.input.expect_new("whit", &fresh.current())?;
    fresh.proxy.end()?;
    Ok([
        (Case::First, first),
        (Case::Fresh, alone),
        (Case::Kept, second),
        (Case::Pull, pull),
        (Case::Update, update),
    ]
    .into())
}

/// A proxy and what is pushed to it from one path.
struct Series<'a> {
    ground: &'a Ground<'a>,
    folder: PathBuf,
    proxy: Proxy,
}

/// The used fields of a pull's report (docs/RECEIPT.md).
#[derive(Deserialize)]
struct Pulled {
    wire: Wire,
}

impl<'a> Series<'a> {
    fn start(ground: &'a Ground<'a>, name: &str) -> Result<Self> {
        let folder = ground.folder(name)?;
        let proxy = Proxy::start(ground, &folder)?;
        Ok(Self { ground, folder, proxy })
    }

    /// Returns the link to the current copy at the destination.
    fn current(&self) -> PathBuf {
        self.folder.join(DESTINATION).join(APP).join("current")
    }

    /// Stores and delivers OLD from beside the proxy.
    fn prime(&self) -> Result<()> {
        let path = stage(self.ground, &self.ground.input.old, &self.folder.join("source"))?;
        let push = Push { ground: self.ground, folder: &self.folder, state: "state", path: &path };
        push.run(&self.proxy, &["--to", DESTINATION], Side::Far).map(drop)
    }

    /// Times a push: to its end, at the acknowledgement, and until the destination shows the copy, which it does once that is
    /// complete and synced.
    fn push(&self, release: &Release, label: &str, state: &str) -> Result<Transfer> {
        let path = stage(self.ground, release, &self.folder.join("source"))?;
        let before = self.begin();
        let watch = Watch::start(self.current());
        let flags = ["--to", DESTINATION, "--no-wait", "--label", label];
        self.ground.time(|| {
            let push = Push { ground: self.ground, folder: &self.folder, state, path: &path };
            let pushed = push.run(&self.proxy, &flags, Side::Near)?;
            let ended = Instant::now();
            let copied = watch.shown(&pushed.release, self.ground)?;
            let measured = pushed.measurement;
            let bytes = [measured.up_bytes, measured.down_bytes];
            let receiver = self.proxy.load().since(before);
            Ok(Done { ended, copied, bytes, sender: measured.sender, receiver })
        })
    }

    /// Brings OLD into a folder of the near host without the link.
    fn pull_old(&self, to: &Path) -> Result<()> {
        let mut pull = self.proxy.agent(self.ground, &self.folder, "target");
        pull.args(["pull", &format!("{APP}@{OLD}")]).arg(to);
        process::run(self.ground.stop, &mut self.ground.hosts.far(pull)).map(drop)
    }

    /// Times a pull of NEW, which ends with everything synced.
    fn pull(&self, to: &Path) -> Result<Transfer> {
        let before = self.begin();
        self.ground.time(|| {
            let mut pull = self.proxy.agent(self.ground, &self.folder, "target");
            pull.args(["pull", APP]).arg(to);
            let pulled = process::run(self.ground.stop, &mut self.ground.hosts.near(pull))?;
            let ended = Instant::now();
            let told: Pulled = serde_json::from_str(pulled.out.trim())
                .map_err(|_| Error::Unreadable { program: "whit pull", expected: "report" })?;
            let sender = self.proxy.load().since(before);
            let bytes = [told.wire.up, told.wire.down];
            Ok(Done { ended, copied: ended, bytes, sender, receiver: pulled.load })
        })
    }

    /// Returns the proxy's load so far, with a new peak.
    fn begin(&self) -> Load {
        self.proxy.forget_peak();
        self.proxy.load()
    }
}

/// Looks at a link until it is dropped, and tells where it leads, each time that it leads elsewhere.
struct Watch {
    seen: Receiver<(Instant, PathBuf)>,
    ended: Arc<atomic::AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(link: PathBuf) -> Self {
        let (tell, seen) = mpsc::channel();
        let ended = Arc::<atomic::AtomicBool>::default();
        let is_ended = Arc::clone(&ended);
        let look = move || {
            let mut last = None;
            while !is_ended.load(atomic::Ordering::Relaxed) {
                if let Some(place) = fs::read_link(&link).ok().filter(|place| last.as_ref() != Some(place)) {
                    last = Some(place.clone());
                    // There may be no receiver.
                    drop(tell.send((Instant::now(), place)));
                }
                std::thread::sleep(LOOK_EVERY);
            }
        };
        Self { seen, ended, thread: Some(std::thread::spawn(look)) }
    }

    /// Waits until the link leads to a release's copy, and returns when it first did.
    fn shown(&self, release: &str, ground: &Ground<'_>) -> Result<Instant> {
        let begun = Instant::now();
        while begun.elapsed() < DELIVERY_PATIENCE {
            ground.stop.check()?;
            match self.seen.recv_timeout(Duration::from_millis(100)) {
                Ok((moment, place)) if place.ends_with(release) => return Ok(moment),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(Error::Undelivered { release: release.to_owned(), seconds: begun.elapsed().as_secs() })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, atomic::Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}
