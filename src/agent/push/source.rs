//! A push's input: read on a thread of its own, told segment by segment where that takes long.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::options::PushOptions;
use crate::agent::Result;
use crate::agent::memory::{Key, Memory};
use crate::agent::scan::{self, Archives, Dropped, Ended, Scan, Seen, Spool, Unpacked};
use crate::net::blocking::{self, Running};
use format::chunking::Profile;
use format::manifest::{NodeRef, Root, Shape, Totals};
use ground::monitor::Monitor;

/// Segments that are heard of at a time.
const SEGMENTS_AT_ONCE: usize = 256;

/// The input, read.
#[derive(Debug)]
pub struct Scanned {
    /// The manifest's root.
    pub root: Root,
    /// Its segments, in order.
    pub segments: Vec<NodeRef>,
    /// Their bytes, and where their chunks can be read.
    pub spool: Spool,
    /// Archives that were unpacked.
    pub unpacked: Unpacked,
    /// Counts what the release does not keep of the input.
    pub dropped: Vec<Dropped>,
    /// Gone once it is remembered.
    pub seen: Mutex<Option<Seen>>,
}

impl From<Scan> for Scanned {
    fn from(Scan { root, segments, spool, seen, unpacked, dropped }: Scan) -> Self {
        Self { root, segments, spool, unpacked, dropped, seen: Mutex::new(Some(seen)) }
    }
}

/// The input of a push.
#[derive(Debug)]
pub enum Source {
    /// All of it is known.
    Scanned(Box<Scanned>),
    /// Its segments are still being made.
    Scanning(Scanning),
}

/// What is heard of an input that grows.
#[derive(Debug)]
pub enum SourceEvent {
    /// Its next segments.
    Segments(Vec<NodeRef>),
    /// There are no more.
    All(Box<Scanned>),
}

/// An input that is told while it is read.
#[derive(Debug)]
pub struct Scanning {
    work: Work,
    ended: UnboundedReceiver<Ended>,
    first: Option<NodeRef>,
    shape: Shape,
    /// Where the segments are that were told so far.
    pub spool: Spool,
}

type Work = Running<Result<Scan, scan::Error>>;

impl Source {
    /// Reads what `options` names, on a thread of its own. Where that takes longer than `patience`, and nothing is
    /// remembered of it, the input is given as soon as there is a segment.
    ///
    /// Files that look as they did at the last push are not read where `memory` says so; archives are unpacked where
    /// `archives` does.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn begin(
        options: &PushOptions,
        monitor: &Arc<dyn Monitor>,
        key: &Key,
        (memory, archives): (bool, bool),
        patience: Duration,
    ) -> Result<Self> {
        let memory = options.state.as_deref().filter(|_| memory).and_then(|state| Memory::open(state, key));
        // A dry run ends with the answers to all segments.
        let tells = memory.is_none() && !options.dry_run;
        let (ended_in, mut ended) = unbounded_channel();
        let (options, monitor) = (options.clone(), Arc::clone(monitor));
        let mut work = blocking::start(move || {
            let folder = options.state.clone().filter(|state| disk::files::create_folder(state).is_ok());
            let folder = Archives::new(folder.unwrap_or_else(std::env::temp_dir));
            let reader = scan::Reader {
                selection: &options.selection,
                profile: Profile::DEFAULT,
                threads: options.threads,
                memory: memory.as_ref(),
                archives: archives.then_some(&folder),
                ended: tells.then_some(&ended_in),
                monitor: monitor.as_ref(),
            };
            reader.scan(&options.path)
        });
        if tells {
            if let Ok(read) = tokio::time::timeout(patience, finish(&mut work)).await {
                return read.map(Self::Scanned);
            }
            // None comes where the end is near.
            if let Some(Ended { node, spool, shape }) = ended.recv().await {
                return Ok(Self::Scanning(Scanning { work, ended, first: Some(node), shape, spool }));
            }
        }
        finish(&mut work).await.map(Self::Scanned)
    }

    /// Waits for more of what is still being read; for ever where nothing is. May be dropped and called again.
    ///
    /// # Errors
    /// The rest cannot be read.
    pub async fn hear(&mut self) -> Result<SourceEvent> {
        match self {
            Self::Scanning(growing) => growing.hear().await,
            Self::Scanned(_) => std::future::pending().await,
        }
    }

    /// Waits until all of it is known.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn whole(self) -> Result<Self> {
        match self {
            Self::Scanning(mut growing) => finish(&mut growing.work).await.map(Self::Scanned),
            read @ Self::Scanned(_) => Ok(read),
        }
    }
}

impl Scanning {
    /// The root of the manifest that has no entry yet.
    pub fn beginning(&self) -> Root {
        let (profile, totals) = (Profile::DEFAULT, Totals::default());
        Root::above(profile, self.shape, totals, Vec::new(), |_| {}).expect("nothing is within bounds")
    }

    /// Waits for what comes next. May be dropped and called again; not after the end.
    ///
    /// # Errors
    /// The rest cannot be read.
    pub async fn hear(&mut self) -> Result<SourceEvent> {
        if let Some(first) = self.first.take() {
            return Ok(SourceEvent::Segments(vec![first]));
        }
        let mut ended = Vec::new();
        if self.ended.recv_many(&mut ended, SEGMENTS_AT_ONCE).await > 0 {
            return Ok(SourceEvent::Segments(ended.into_iter().map(|ended| ended.node).collect()));
        }
        finish(&mut self.work).await.map(SourceEvent::All)
    }
}

async fn finish(work: &mut Work) -> Result<Box<Scanned>> {
    let scan = work.await??;
    Ok(Box::new(scan.into()))
}
