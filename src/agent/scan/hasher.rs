//! Workers that read, cut and hash files.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

use super::archives::Archives;
use super::sparse::{self, Piece};
use super::unpack::{Unpacker, may_be_archive};
use super::{Error, Part, Parts};
use disk::files::{self, OnPath};
use format::chunking::Profile;
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::monitor::{Monitor, Phase};
use ground::poison::Unpoisoned as _;
use ground::threads;

/// Chunk references handed over at a time.
const PART_CHUNKS: usize = 512;
/// Parts of one file that may wait: with those above, some 600 KB a worker.
const PARTS_AHEAD: usize = 32;
/// Files that wait for a worker.
const JOBS_AHEAD: usize = 64;

struct Job {
    path: PathBuf,
    size: u64,
    parts: SyncSender<Result<Part, Error>>,
}

/// Workers; they end when the pool is dropped and all files are read.
///
/// Files are read in the order in which they come, so that the one whose parts are awaited is always being read.
pub(super) struct Pool {
    jobs: SyncSender<Job>,
}

impl Pool {
    /// Starts up to `count` workers.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        profile: Profile,
        count: usize,
        archives: Option<&'scope Archives>,
        monitor: &'scope dyn Monitor,
    ) -> Result<Self, threads::Error> {
        let (jobs, queue) = sync_channel::<Job>(JOBS_AHEAD);
        let queue = Arc::new(Mutex::new(queue));
        threads::start_workers(scope, count, || {
            let queue = Arc::clone(&queue);
            move || work(&queue, profile, archives, count, monitor)
        })?;
        Ok(Self { jobs })
    }

    /// Has the file read; its chunks come in parts.
    pub fn hash(&mut self, path: PathBuf, size: u64) -> Parts {
        let (parts, receiver) = sync_channel(PARTS_AHEAD);
        // The workers outlive the pool, so that the queue is always open.
        drop(self.jobs.send(Job { path, size, parts }));
        receiver
    }
}

fn work(
    queue: &Mutex<Receiver<Job>>,
    profile: Profile,
    archives: Option<&Archives>,
    threads: usize,
    monitor: &dyn Monitor,
) {
    let mut buffer = Vec::new();
    let mut unpacker = archives.map(|archives| Unpacker::new(archives, threads));
    loop {
        let job = queue.lock().unpoisoned().recv();
        let Ok(job) = job else { break };
        match read(&job, profile, unpacker.as_mut(), &mut buffer, monitor) {
            // An error of the channel means that the scan has ended: nobody waits for this file.
            Ok(()) | Err(Stop::Unheard) => {}
            Err(Stop::Failed(error)) => drop(job.parts.send(Err(error))),
        }
    }
}

enum Stop {
    Failed(Error),
    Unheard,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An error of the file while it is read; the path is added where it is known.
struct Reading(io::Error);

enum ReadStop {
    Io(Reading),
    Unheard,
}

impl From<io::Error> for ReadStop {
    fn from(error: io::Error) -> Self {
        Self::Io(Reading(error))
    }
}

fn read(
    job: &Job,
    profile: Profile,
    unpacker: Option<&mut Unpacker<'_>>,
    buffer: &mut Vec<u8>,
    monitor: &dyn Monitor,
) -> Result<(), Stop> {
    let path = &job.path;
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Vanished(path.clone()).into());
        }
        result => result.on("open", path).map_err(Error::from)?,
    };
    let before = examine(&file, path)?;
    if before.len() != job.size {
        return Err(Error::Changed(path.clone()).into());
    }
    let is_archive = may_be_archive(&file, job.size).on("read", path).map_err(Error::from)?;
    let unpacked = match unpacker.filter(|_| is_archive) {
        Some(unpacker) => unpacker.take(&file, path, job.size, profile, buffer).map_err(Error::from)?,
        None => None,
    };
    if let Some((unpacked, chunks)) = unpacked {
        check_again(job, &file, &before)?;
        monitor.advance(Phase::Scan, job.size);
        let send = |part| job.parts.send(Ok(part)).map_err(|_| Stop::Unheard);
        send(Part::UnpackedArchive(unpacked))?;
        return chunks.chunks(PART_CHUNKS).try_for_each(|some| send(Part::Chunks(some.to_vec())));
    }
    if is_archive {
        job.parts.send(Ok(Part::PackedArchive)).map_err(|_| Stop::Unheard)?;
    }
    let mut part = Vec::with_capacity(PART_CHUNKS);
    let mut unreported = 0;
    let read = sparse::cut_all::<ReadStop>(&file, job.size, profile, buffer, |piece| {
        let chunk = match piece {
            Piece::Data(bytes) => {
                let length = u32::try_from(bytes.len()).expect("chunks are at most 64 KiB");
                ChunkRef { id: ChunkId::of(bytes), bytes: length }
            }
            Piece::Zeros(chunk) => chunk,
        };
        part.push(chunk);
        unreported += u64::from(chunk.bytes);
        if part.len() == PART_CHUNKS {
            monitor.advance(Phase::Scan, std::mem::take(&mut unreported));
            job.parts.send(Ok(Part::Chunks(std::mem::take(&mut part)))).map_err(|_| ReadStop::Unheard)?;
        }
        Ok(())
    });
    let total = match read {
        Ok(total) => total,
        Err(ReadStop::Unheard) => return Err(Stop::Unheard),
        Err(ReadStop::Io(Reading(source))) => {
            return Err(Error::File(files::Error { action: "read", path: path.clone(), source }).into());
        }
    };
    monitor.advance(Phase::Scan, unreported);
    if total != job.size {
        return Err(Error::Changed(path.clone()).into());
    }
    check_again(job, &file, &before)?;
    if !part.is_empty() {
        job.parts.send(Ok(Part::Chunks(part))).map_err(|_| Stop::Unheard)?;
    }
    Ok(())
}

/// Checks that the file has not changed while it was read.
fn check_again(job: &Job, file: &File, before: &Metadata) -> Result<(), Stop> {
    let after = examine(file, &job.path)?;
    let same = |field: fn(&Metadata) -> i64| field(before) == field(&after);
    if after.len() == job.size && same(MetadataExt::mtime) && same(MetadataExt::mtime_nsec) {
        Ok(())
    } else {
        Err(Error::Changed(job.path.clone()).into())
    }
}

fn examine(file: &File, path: &Path) -> Result<Metadata, Stop> {
    Ok(file.metadata().on("examine", path).map_err(Error::from)?)
}
