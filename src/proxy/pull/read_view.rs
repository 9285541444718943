//! The content of the release that is pulled, as the proxy's half of a pull sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::frame_cache::SharedFrames;
use super::parcel_cache::{Allowance, ParcelCache};
use super::patch_cache::{PatchMaker, name_of};
use crate::ledger::Lease;
use crate::net::link_estimate::Link;
use crate::proxy::Shared;
use crate::restore::{self, ChunkReader, SourceError};
use crate::store::{Store, StoreReader};
use delta::compression::LEVEL_DEFAULT;
use format::manifest::{NodeRef, Root};
use format::pack::FrameKind;
use format::recipe::ChunkRef;
use ground::faults::{Fault, Faulty};
use protocol::pull::{Method, ReleaseView};
use protocol::transfer::Encoding;
use protocol::wire::{PullReply, PullRequest, Refusal};
use protocol::{ContentView, Error};

/// The longest wait of one request for chunks until other heavy work ends.
const PATCH_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest time for executables: far less than the agent's deadline.
const RELINK_TIME_MAX: Duration = Duration::from_secs(60);

/// Reads from a space, under the lease of one pull.
pub(super) struct ReadView<'a> {
    reader: StoreReader<&'a Store>,
    lease: &'a Lease,
    replies: &'a mpsc::Sender<PullReply>,
    maker: PatchMaker<'a>,
    parcels: &'a ParcelCache,
    frames: Arc<SharedFrames<'a>>,
    link: &'a Link,
    /// For the parcel that is being made.
    allowance: Allowance,
    /// When the current request is no longer to wait, or to make more.
    deadline: Instant,
}

impl<'a> ReadView<'a> {
    pub fn new(
        store: &'a Store,
        lease: &'a Lease,
        replies: &'a mpsc::Sender<PullReply>,
        shared: &'a Shared,
        link: &'a Link,
    ) -> Self {
        Self {
            reader: StoreReader::new(store),
            lease,
            replies,
            maker: PatchMaker { cache: &shared.patches, heavy_work: &shared.heavy_work },
            parcels: &shared.parcels,
            frames: Arc::new(shared.frames.begin()),
            link,
            allowance: Allowance::Light,
            deadline: Instant::now(),
        }
    }

    /// Returns the segments of a manifest, in order.
    pub fn segments(&mut self, root: &Root) -> Result<Vec<NodeRef>, Refusal> {
        restore::leaves(root, &mut self.reader).map_err(|error| match error {
            restore::Error::Source(error) => unreadable(&error),
            error => Refusal::of(&error),
        })
    }
}

impl ContentView for ReadView<'_> {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.reader.read(chunk, out).map_err(|error| match error {
            SourceError::Unknown(_) if !self.lease.holds() => Refusal {
                fault: Fault::Retry,
                text: "the pull took so long that the release was removed meanwhile".to_owned(),
                hint: Some("pull again: received content is kept".to_owned()),
            },
            error => unreadable(&error),
        })
    }
}

impl ReleaseView for ReadView<'_> {
    fn begin(&mut self, request: &PullRequest) {
        self.lease.renew();
        let time_max = match request {
            PullRequest::WantExecutables => RELINK_TIME_MAX,
            _ => PATCH_TIME_MAX,
        };
        self.deadline = Instant::now() + time_max;
    }

    fn goes_on(&mut self) -> bool {
        self.lease.renew();
        !self.replies.is_closed() && Instant::now() < self.deadline
    }

    /// Predicts with one processor: others pull, too.
    fn encoding(&mut self) -> Encoding {
        match Encoding::over(self.link.now().rate, 1.0, 1.0) {
            Encoding::Parcels { level } if self.allowance == Allowance::Light => {
                Encoding::Parcels { level: level.min(LEVEL_DEFAULT) }
            }
            encoding => encoding,
        }
    }

    fn frame(
        &mut self,
        kind: FrameKind,
        chunks: &[ChunkRef],
        make: impl FnOnce(&mut Self) -> Result<Vec<u8>, Error>,
    ) -> Result<Arc<Vec<u8>>, Error> {
        let of_kind = match kind {
            FrameKind::Manifest => "whit pull segments",
            FrameKind::Content => "whit pull frame",
        };
        let frames = Arc::clone(&self.frames);
        frames.payload(|| name_of(of_kind, &[], chunks), || make(self))
    }

    fn parcel(
        &mut self,
        chunks: &[ChunkRef],
        make: impl FnOnce(&mut Self) -> Result<Vec<u8>, Error>,
    ) -> Result<Arc<Vec<u8>>, Error> {
        self.parcels.payload(name_of("whit pull parcel", &[], chunks), |allowance| {
            self.allowance = allowance;
            let made = make(self);
            self.allowance = Allowance::Light;
            made
        })
    }

    fn payload(
        &mut self,
        method: Method,
        old: &[ChunkRef],
        new: &[ChunkRef],
        make: impl FnOnce(&mut Self) -> Option<Vec<u8>>,
    ) -> Option<Arc<Vec<u8>>> {
        let kind = match method {
            Method::Patch => "whit pull patch",
            Method::Relinked => "whit pull executable",
        };
        let (maker, deadline) = (self.maker, self.deadline);
        maker.payload(name_of(kind, old, new), deadline, || make(self))
    }
}

/// Returns the refusal for content that cannot be read.
pub(super) fn unreadable(error: &SourceError) -> Refusal {
    let hint = (error.fault() == Fault::Corrupt)
        .then(|| "push the release again from where it was built: only lost content is sent".to_owned());
    Refusal { hint, ..Refusal::of(error) }
}
