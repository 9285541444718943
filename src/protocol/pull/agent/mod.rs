//! The agent's half of a pull.

mod fetching;
mod listing;

use self::fetching::Fetching;
use self::listing::{Listing, Naming, Outlined};
use super::DirectoryView;
use crate::transfer::{self, Bounds, Credit, Parcels};
use crate::wire::{Basis, Batch, Parcel, PullReply, PullRequest};
use crate::{Error, StorageView};
use delta::compression::{Compressor, Decompressor, LEVEL_FAST};
use format::manifest::{self, NodeRef, Root};
use format::pack::split;
use format::recipe::ChunkRef;
use format::record::Record;
use ground::limits::{MANIFEST_SEGMENTS_MAX, PULL_REQUESTS_OPEN, RECORD_QUERIES_MAX};

/// Bounds what an agent has under way at a time.
///
/// Any window will do; with a smaller one, a pull waits for answers more often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Requests for chunks: from 1 to less than [`PULL_REQUESTS_OPEN`], which the proxy's credit is for.
    pub requests: usize,
    /// Segments whose chunks one of them asks for, at least 1.
    pub segments: usize,
}

impl Default for Window {
    /// Four requests for some 60 MB of content each.
    fn default() -> Self {
        Self { requests: 4, segments: 64 }
    }
}

/// What came of a pull so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// Chunks that were asked for, and those of executables that came rebuilt.
    pub chunks: u64,
    /// The plain bytes of the chunks that came.
    pub bytes: u64,
    /// The plain bytes that were asked for so far; chunks of unknown length are counted as average ones.
    pub expected_bytes: u64,
}

/// The release that is pulled.
#[derive(Debug)]
struct Pulled {
    record: Record,
    root: Root,
}

/// Where a pull stands.
#[derive(Debug)]
enum State {
    /// The release is to come.
    Opened,
    /// The names of its segments are to come, or how they follow from the base's.
    Announced { pulled: Pulled, naming: Naming },
    /// The new segments are to come, thin.
    Outlined { pulled: Pulled, outlined: Outlined },
    /// The segments are to come that are not here.
    Named { pulled: Pulled, naming: Naming },
    /// The number of executables is to come.
    Relinking { pulled: Pulled, listing: Listing },
    /// That many more executables are to come; so many plain bytes of them came.
    Relinked { pulled: Pulled, listing: Listing, left: u32, bytes: u64 },
    /// Chunks are to come.
    Fetching { pulled: Pulled, fetching: Fetching },
    /// All is there.
    Finished { pulled: Pulled },
    /// An error has ended the pull.
    Failed,
}

/// What a message brought of content.
enum Received {
    /// A frame.
    Batch(Batch),
    /// A whole parcel and its payload.
    Parcel(Parcel, Vec<u8>),
}

/// The tools and counts of a pull in any state.
#[derive(Debug)]
struct Work {
    /// The segments of the release that the directory holds.
    base: Vec<NodeRef>,
    window: Window,
    /// Requests for chunks.
    credit: Credit,
    parcels: Parcels,
    fetched: Fetched,
    decompressor: Decompressor,
    compressor: Compressor,
    plain: Vec<u8>,
}

/// The agent's half: replies of the proxy in, requests out.
///
/// Memory: 36 B for each segment of the manifest, 16 MiB of thin segments, some 200 B for each reference of segments that
/// wait for chunks, and one parcel; all bounded.
#[derive(Debug)]
pub struct Agent {
    state: State,
    work: Work,
}

/// What a state makes of a message: the next state, and requests to send.
type Step = Result<(State, Vec<PullRequest>), Error>;

impl Agent {
    /// Begins once a release was asked for; `base` are the segments of the release that the request said the directory
    /// holds, and empty where it named none.
    pub fn new(window: Window, base: Vec<NodeRef>) -> Self {
        debug_assert!((1..PULL_REQUESTS_OPEN).contains(&window.requests) && window.segments > 0);
        let work = Work {
            base,
            window,
            credit: Credit::new(Bounds { questions: window.requests, ..Bounds::PULL }),
            parcels: Parcels::default(),
            fetched: Fetched::default(),
            decompressor: Decompressor::new(),
            compressor: Compressor::new(LEVEL_FAST),
            plain: Vec::new(),
        };
        Self { state: State::Opened, work }
    }

    /// Returns whether the release is here whole.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished { .. })
    }

    /// Returns what came so far.
    pub fn fetched(&self) -> Fetched {
        self.work.fetched
    }

    /// Returns the release's record and root, once they were announced; all of it is here once [`Agent::is_finished`].
    pub fn into_release(self) -> Option<(Record, Root)> {
        match self.state {
            State::Opened | State::Failed => None,
            State::Announced { pulled, .. }
            | State::Outlined { pulled, .. }
            | State::Named { pulled, .. }
            | State::Relinking { pulled, .. }
            | State::Relinked { pulled, .. }
            | State::Fetching { pulled, .. }
            | State::Finished { pulled } => Some((pulled.record, pulled.root)),
        }
    }

    /// Takes a message of the proxy and returns the requests to send.
    ///
    /// # Errors
    /// A refusal; a message out of turn, that breaks a bound, or whose content does not match its name; a failing view.
    /// [`Error::Mismatch`] where a shortened id met a wrong chunk: the release is pulled again without a base, and no chunk
    /// is fetched twice.
    pub fn receive(
        &mut self,
        reply: PullReply,
        view: &mut impl DirectoryView,
    ) -> Result<Vec<PullRequest>, Error> {
        if let PullReply::Refused(refusal) = reply {
            return Err(Error::Refused(refusal));
        }
        let work = &mut self.work;
        let (state, requests) = match std::mem::replace(&mut self.state, State::Failed) {
            State::Opened => announced(reply, work, view),
            State::Announced { pulled, naming } => work.named(pulled, naming, reply, view),
            State::Outlined { pulled, outlined } => work.outlined(pulled, outlined, reply, view),
            State::Named { pulled, naming } => work.segments(pulled, naming, reply, view),
            State::Relinking { pulled, listing } => work.relinking(pulled, listing, reply, view),
            State::Relinked { pulled, listing, left, bytes } => {
                work.relinked(pulled, listing, (left, bytes), reply, view)
            }
            State::Fetching { pulled, fetching } => work.fetching(pulled, fetching, reply, view),
            State::Finished { .. } | State::Failed => Err(Error::OutOfTurn(reply.name())),
        }?;
        self.state = state;
        Ok(requests)
    }
}

/// Takes the record and the root of the release that was asked for.
fn announced(reply: PullReply, work: &mut Work, view: &mut impl DirectoryView) -> Step {
    let PullReply::Release { record, root, segments } = reply else {
        return Err(Error::OutOfTurn(reply.name()));
    };
    let root = Root::decode(&root)?;
    let (expected, found) = (record.release.into(), root.release().into());
    if expected != found {
        return Err(manifest::Error::OtherRoot { expected, found }.into());
    }
    view.announced(&record, &root).map_err(Error::Space)?;
    let count = segments as usize;
    if count > MANIFEST_SEGMENTS_MAX {
        return Err(manifest::Error::TooLarge(MANIFEST_SEGMENTS_MAX).into());
    }
    let (pulled, naming) = (Pulled { record, root }, Naming::of(count));
    if count > 0 {
        Ok((State::Announced { pulled, naming }, Vec::new()))
    } else {
        work.resolve(pulled, naming, view)
    }
}

impl Work {
    /// Asks for executables, or for chunks at once.
    fn listed(&mut self, pulled: Pulled, listing: Listing, view: &mut impl DirectoryView) -> Step {
        if listing.is_thin() && view.wants_executables() {
            return Ok((State::Relinking { pulled, listing }, vec![PullRequest::WantExecutables]));
        }
        self.go_on(pulled, Fetching::of(listing), view)
    }

    fn relinking(
        &mut self,
        pulled: Pulled,
        listing: Listing,
        reply: PullReply,
        view: &mut impl DirectoryView,
    ) -> Step {
        match reply {
            PullReply::Executables(0) => self.go_on(pulled, Fetching::of(listing), view),
            PullReply::Executables(left) if left as usize <= RECORD_QUERIES_MAX => {
                Ok((State::Relinked { pulled, listing, left, bytes: 0 }, Vec::new()))
            }
            reply => Err(Error::OutOfTurn(reply.name())),
        }
    }

    /// Takes executables that are encoded against older ones of the directory. Chunks of those that cannot be rebuilt are
    /// asked for later, as those of any file. Memory: 4 times the largest.
    fn relinked(
        &mut self,
        pulled: Pulled,
        listing: Listing,
        (left, bytes): (u32, u64),
        reply: PullReply,
        view: &mut impl DirectoryView,
    ) -> Step {
        let (parcel, payload) = match self.gather(reply)? {
            None => return Ok((State::Relinked { pulled, listing, left, bytes }, Vec::new())),
            Some(Received::Parcel(parcel, payload)) => (parcel, payload),
            Some(Received::Batch(_)) => return Err(Error::OutOfTurn("Chunks")),
        };
        let plain_bytes = parcel.plain_bytes()?;
        let mut bytes = bytes + plain_bytes as u64;
        if bytes > pulled.root.totals.bytes {
            return Err(Error::OutOfTurn("more executables than the release has"));
        }
        if self.relink(&parcel, &payload, view)? {
            self.fetched.chunks += parcel.lengths.len() as u64;
            self.fetched.bytes += plain_bytes as u64;
            self.fetched.expected_bytes += plain_bytes as u64;
        } else {
            bytes -= plain_bytes as u64;
        }
        match left - 1 {
            0 => self.go_on(pulled, Fetching::of(listing), view),
            left => Ok((State::Relinked { pulled, listing, left, bytes }, Vec::new())),
        }
    }

    /// Rebuilds and stores the chunks of an executable; returns false where the directory no longer has what they are
    /// encoded against.
    fn relink(
        &mut self,
        parcel: &Parcel,
        payload: &[u8],
        view: &mut impl StorageView,
    ) -> Result<bool, Error> {
        let Basis::Executable(spans, cuts) = &parcel.basis else {
            return Err(Error::OutOfTurn("a parcel of another kind"));
        };
        let mut plain = Vec::new();
        match transfer::open_kept(parcel, spans, cuts, payload, &self.base, view, &mut plain) {
            Ok(()) if plain.len() == parcel.plain_bytes()? => {}
            Ok(()) | Err(Error::Mismatch | Error::Space(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        let chunks: Vec<_> = split(&plain, &parcel.lengths).map(|part| Some(ChunkRef::of(part))).collect();
        transfer::keep_chunks(&plain, &parcel.lengths, &chunks, &mut self.compressor, view)?;
        Ok(true)
    }

    /// Takes a message of content; returns what it completes, as parcels come in pieces.
    fn gather(&mut self, reply: PullReply) -> Result<Option<Received>, Error> {
        match reply {
            PullReply::Chunks(batch) if !self.parcels.is_open() => Ok(Some(Received::Batch(batch))),
            PullReply::Parcel(parcel) => self.parcels.begin(parcel).map(|()| None),
            PullReply::Piece(piece) => {
                let whole = self.parcels.piece(&piece)?;
                Ok(whole.map(|(parcel, payload)| Received::Parcel(parcel, payload)))
            }
            reply => Err(Error::OutOfTurn(reply.name())),
        }
    }
}
