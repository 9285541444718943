//! The input of a push: scanned on a thread of its own, and announced segment by segment where that takes long.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};

use super::options::PushOptions;
use crate::agent::Result;
use crate::agent::chunk_cache::ChunkCache;
use crate::agent::memory::{Key, Memory, RememberedStreams, Use};
use crate::agent::pace::Pace;
use crate::agent::scan::{self, Archives, Dropped, EndedSegment, Scan, Seen, Spool, Unpacked};
use crate::net::blocking::{self, Running};
use crate::store::ArchiveForm;
use format::chunking::Profile;
use format::manifest::{NodeRef, Root, Shape, Totals};
use ground::limits::MANIFEST_SEGMENTS_MAX;
use ground::monitor::Monitor;

/// Segments that are taken up at a time.
const SEGMENTS_AT_ONCE: usize = 256;

/// How an input is read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Which files are read.
    pub files: FilesRead,
    /// How archives are pushed.
    pub archives: ArchiveForm,
}

/// Which files of an input are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesRead {
    /// Those that look different than at the last push.
    Changed,
    /// All.
    All,
}

/// An input that was scanned.
#[derive(Debug)]
pub struct Scanned {
    /// The manifest's root.
    pub root: Root,
    /// Its segments, in order.
    pub segments: Vec<NodeRef>,
    /// The segments' bytes, and where their chunks can be read.
    pub spool: Spool,
    /// Counts the archives that were unpacked.
    pub unpacked: Unpacked,
    /// Counts what the release does not keep of the input.
    pub dropped: Vec<Dropped>,
    /// How the files looked; none once it is written down.
    pub seen: Mutex<Option<Seen>>,
    /// The memory of the last push that the scan had.
    pub memory: Option<Arc<Memory>>,
    /// The packed streams that are remembered.
    pub streams: Option<Arc<RememberedStreams>>,
}

impl From<Scan> for Scanned {
    fn from(Scan { root, segments, spool, seen, unpacked, dropped }: Scan) -> Self {
        let seen = Mutex::new(Some(seen));
        Self { root, segments, spool, unpacked, dropped, seen, memory: None, streams: None }
    }
}

/// The input of a push.
#[derive(Debug)]
pub enum Source {
    /// All of it is known.
    Scanned(Box<Scanned>),
    /// It is still being scanned.
    Scanning(Scanning),
}

/// More of an input that is being scanned.
#[derive(Debug)]
pub enum SourceEvent {
    /// Its next segments.
    Segments(Vec<NodeRef>),
    /// There are no more.
    End(Box<Scanned>),
}

/// An input that is being scanned.
#[derive(Debug)]
pub struct Scanning {
    scan: RunningScan,
    ended: Receiver<EndedSegment>,
    first: Option<NodeRef>,
    shape: Shape,
    spool: Spool,
}

type RunningScan = Running<Result<Box<Scanned>, scan::Error>>;

impl Source {
    /// Scans the input on a thread of its own. Returns when all of it is scanned; after `patience`, where no memory of it
    /// is used, already when there is a segment.
    ///
    /// # Errors
    /// The input cannot be read.
    pub async fn begin(
        options: &PushOptions,
        pace: &Pace,
        monitor: &Arc<dyn Monitor>,
        key: &Key,
        reading: Reading,
        patience: Duration,
    ) -> Result<Self> {
        let state = options.state.as_deref().filter(|_| reading.files == FilesRead::Changed);
        let memory = match state.map(Path::to_owned) {
            Some(state) => {
                let key = *key;
                blocking::start(move || Memory::open(&state, &key)).await?.map(Arc::new)
            }
            None => None,
        };
        let streams = remembered_streams(options, key, reading);
        // A dry run ends with the answers to all segments.
        let is_announced = memory.is_none() && !options.dry_run;
        // It never fills: a manifest has no more segments.
        let (ended_in, mut ended) = channel(MANIFEST_SEGMENTS_MAX);
        let (options, pace, monitor, its_memory) =
            (options.clone(), pace.clone(), Arc::clone(monitor), memory.clone());
        let mut scan = blocking::start(move || {
            let folder = options.state.clone().filter(|state| disk::files::create_folder(state).is_ok());
            let archives = Archives::new(folder.unwrap_or_else(std::env::temp_dir));
            let mut archives = archives.paced(pace, its_memory.clone());
            if let Some(streams) = &streams {
                archives = archives.knowing(Arc::<RememberedStreams>::clone(streams));
            }
            // Nobody may listen any longer.
            let announce = move |ended| drop(ended_in.try_send(ended));
            let reader = scan::Reader {
                selection: &options.selection,
                profile: Profile::DEFAULT,
                threads: options.threads,
                memory: its_memory.as_deref(),
                archives: (reading.archives == ArchiveForm::Unpacked).then_some(&archives),
                on_segment: if is_announced { Some(&announce) } else { None },
                monitor: monitor.as_ref(),
            };
            let scan = reader.scan(&options.path)?;
            Ok(Box::new(Scanned { streams, ..scan.into() }))
        });
        if is_announced {
            if let Ok(scanned) = tokio::time::timeout(patience, finish(&mut scan)).await {
                return scanned.map(Self::Scanned);
            }
            // None where the scan ends or fails without one.
            if let Some(EndedSegment { node, spool, shape }) = ended.recv().await {
                return Ok(Self::Scanning(Scanning { scan, ended, first: Some(node), shape, spool }));
            }
        }
        let scanned = finish(&mut scan).await?;
        Ok(Self::Scanned(Box::new(Scanned { memory, ..*scanned })))
    }

    /// Returns where the segments are written to.
    pub fn spool(&self) -> Spool {
        match self {
            Self::Scanned(scanned) => scanned.spool.clone(),
            Self::Scanning(scanning) => scanning.spool.clone(),
        }
    }

    /// Returns the memory of the last push, if it was read.
    pub fn memory(&self) -> Option<Arc<Memory>> {
        match self {
            Self::Scanned(scanned) => scanned.memory.clone(),
            Self::Scanning(_) => None,
        }
    }

    /// Waits for more of an input that is being scanned; for ever where all is known. May be cancelled.
    ///
    /// # Errors
    /// The rest cannot be read.
    pub async fn next(&mut self) -> Result<SourceEvent> {
        match self {
            Self::Scanning(scanning) => scanning.next().await,
            Self::Scanned(_) => std::future::pending().await,
        }
    }

    /// Waits until all of it is scanned.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn whole(self) -> Result<Self> {
        match self {
            Self::Scanning(mut scanning) => finish(&mut scanning.scan).await.map(Self::Scanned),
            scanned @ Self::Scanned(_) => Ok(scanned),
        }
    }
}

impl Scanning {
    /// Returns the root of a manifest without entries, with which the push opens.
    pub fn empty_root(&self) -> Root {
        let (profile, totals) = (Profile::DEFAULT, Totals::default());
        Root::above(profile, self.shape, totals, Vec::new(), |_| {}).expect("nothing is within bounds")
    }

    /// As [`Source::next`]; not to be called after the end.
    async fn next(&mut self) -> Result<SourceEvent> {
        if let Some(first) = self.first.take() {
            return Ok(SourceEvent::Segments(vec![first]));
        }
        let mut ended = Vec::new();
        if self.ended.recv_many(&mut ended, SEGMENTS_AT_ONCE).await > 0 {
            return Ok(SourceEvent::Segments(ended.into_iter().map(|ended| ended.node).collect()));
        }
        finish(&mut self.scan).await.map(SourceEvent::End)
    }
}

async fn finish(scan: &mut RunningScan) -> Result<Box<Scanned>> {
    Ok(scan.await??)
}

/// Returns what is remembered of packed streams, as far as this reading may use it.
fn remembered_streams(options: &PushOptions, key: &Key, reading: Reading) -> Option<Arc<RememberedStreams>> {
    let state = options.state.as_deref().filter(|_| reading.archives == ArchiveForm::Unpacked)?;
    let used = match reading.files {
        FilesRead::All => Use::Nothing,
        // What is not unpacked cannot be cached, and an empty cache is to be filled.
        FilesRead::Changed if options.cache_bytes_max > 0 && !ChunkCache::is_there(state, key) => {
            Use::Methods
        }
        FilesRead::Changed => Use::Chunks,
    };
    Some(Arc::new(RememberedStreams::new(state, key, Profile::DEFAULT, used)))
}
