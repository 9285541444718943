//! Reads missing chunks again, encodes them in batches, and gives them to the link in order.
//!
//! One thread cuts the missing chunks into batches, workers read, verify and encode them, a forwarder keeps their order. Every
//! queue between them is short, so that a slow link slows the reading down.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::Sender;

use super::batcher::{Batch, Batcher, Match};
use super::encoder::{EncodedBatch, Encoder, PatchBudget};
use super::relinked::{Executable, OlderExecutable};
use crate::agent::chunk_cache::ChunkCache;
use crate::agent::link_speed::LinkSpeed;
use crate::agent::scan::{Error, Spool};
use format::manifest::SegmentIndex;
use ground::ids::ChunkId;
use ground::poison::Unpoisoned as _;
use ground::threads;
use protocol::wire::Marks;

/// Batches under way: bounds memory to some 30 MB.
const BATCHES_AHEAD: usize = 6;

/// Chunks to send, as the push's state machine asked for them.
#[derive(Debug)]
pub struct Job {
    /// The segments.
    pub segments: Vec<SegmentIndex>,
    /// Which of their chunk references, in order.
    pub marks: Marks,
    /// What some of the marked chunks resemble, sorted by the first of them.
    pub matches: Vec<Match>,
    /// Older versions of executables that contain some of the marked chunks.
    pub older: Vec<OlderExecutable>,
    /// The marked chunks that the proxy has evicted; empty where nobody asks why bytes cross.
    pub evicted: Arc<HashSet<ChunkId>>,
    /// True if the segment after these is part of the next job.
    pub goes_on: bool,
}

/// The outputs of the pipeline, in order.
#[derive(Debug)]
pub enum Output {
    /// Chunks to send.
    Batch(EncodedBatch),
    /// All chunks of one job were encoded.
    JobDone,
    /// A file cannot be read, or has changed.
    Failed(Error),
}

enum Ordered {
    Batch(Receiver<Result<EncodedBatch, Error>>),
    JobDone,
    Failed(Error),
}

/// The work of a worker.
enum Work {
    Batch(Batch),
    Executable(Executable),
}

type Given = (Work, SyncSender<Result<EncodedBatch, Error>>);

/// Encodes the missing chunks of one push.
#[derive(Debug)]
pub struct Pipeline<'a> {
    /// Says where the chunks are read again.
    pub spool: &'a Spool,
    /// Decides how hard to compress.
    pub speed: &'a LinkSpeed,
    /// Holds the references; sent chunks are added.
    pub cache: Option<&'a ChunkCache>,
    /// The number of workers.
    pub threads: usize,
    /// True if the outputs explain why bytes cross.
    pub explain: bool,
}

impl Pipeline<'_> {
    /// Works off `jobs` until their sender is dropped or nobody takes the outputs. Blocks; for a thread of its own.
    pub fn run(&self, jobs: &Receiver<Job>, out: &Sender<Output>) {
        let pipeline = self;
        let _ending = Ending(out);
        let budget = PatchBudget::new();
        std::thread::scope(|scope| {
            let budget = &budget;
            let (work_in, work) = sync_channel::<Given>(BATCHES_AHEAD);
            let (ordered_in, ordered) = sync_channel::<Ordered>(BATCHES_AHEAD);
            let work = Arc::new(Mutex::new(work));
            let worker = || {
                let work = Arc::clone(&work);
                move || {
                    compress(
                        &work,
                        pipeline.speed,
                        Encoder::new(pipeline.cache, pipeline.explain, budget),
                        out,
                    );
                }
            };
            let started = threads::start_workers(scope, pipeline.threads, worker)
                .and_then(|()| threads::start(scope, move || forward(&ordered, out)));
            if let Err(error) = started {
                drop(out.blocking_send(Output::Failed(error.into())));
                return;
            }
            let mut deferred = None;
            for job in jobs {
                let gathered = gather(pipeline, job, &mut deferred, |work| {
                    let (sender, receiver) = sync_channel(1);
                    work_in.send((work, sender)).is_ok() && ordered_in.send(Ordered::Batch(receiver)).is_ok()
                });
                let last = gathered.map_or_else(Ordered::Failed, |()| Ordered::JobDone);
                if ordered_in.send(last).is_err() {
                    break;
                }
            }
        });
    }
}

/// An executable whose chunks the next job may continue.
struct Deferred {
    executable: Executable,
    /// The segment that would continue it.
    next: SegmentIndex,
}

/// Cuts a job's chunks into batches; ends when `take` returns false, as nobody listens.
fn gather(
    pipeline: &Pipeline<'_>,
    job: Job,
    deferred: &mut Option<Deferred>,
    mut take: impl FnMut(Work) -> bool,
) -> Result<(), Error> {
    let mut marks = job.marks.iter();
    let mut batcher = Batcher::new(pipeline.speed, job.matches).with_evicted(job.evicted);
    let mut older = job.older;
    let (first, last) = (job.segments.first().copied(), job.segments.last().copied());
    // A job that does not continue the previous one is independent.
    let (mut current, earlier) = match deferred.take() {
        Some(Deferred { executable, next }) if Some(next) == first => (Some(executable), None),
        earlier => (None, earlier),
    };
    let goes_on = job.goes_on;
    for segment in &job.segments {
        let located = pipeline.spool.chunks(*segment)?;
        for located in located {
            if let Some(executable) = current.take_if(|current| !located.is_of(current.body()))
                && !take(Work::Executable(executable))
            {
                return Ok(());
            }
            if marks.next() != Some(true) {
                continue;
            }
            if current.is_none()
                && let Some(found) = older.iter().position(|older| located.is_of(&older.new))
            {
                current = Some(Executable::new(older.swap_remove(found), pipeline.speed.encoding()));
            }
            if let Some(executable) = current.as_mut() {
                executable.push(located, batcher.skip());
            } else if let Some(batch) = batcher.push(located)
                && !take(Work::Batch(batch))
            {
                return Ok(());
            }
        }
    }
    *deferred = earlier;
    if let (true, Some(last), true) = (goes_on, last, current.is_some()) {
        *deferred = current.take().map(|executable| Deferred { executable, next: last.next() });
    }
    if let Some(executable) = current
        && !take(Work::Executable(executable))
    {
        return Ok(());
    }
    if let Some(batch) = batcher.finish() {
        take(Work::Batch(batch));
    }
    Ok(())
}

/// Reports that a thread panicked: whoever waits for its output would wait for ever.
struct Ending<'a>(&'a Sender<Output>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.blocking_send(Output::Failed(threads::Error::Panicked.into())));
        }
    }
}

/// Reads, verifies and encodes batches on a worker's thread.
fn compress(
    work: &Mutex<Receiver<Given>>,
    speed: &LinkSpeed,
    mut encoder: Encoder<'_>,
    out: &Sender<Output>,
) {
    let _ending = Ending(out);
    loop {
        let next = work.lock().unpoisoned().recv();
        let Ok((work, result)) = next else { break };
        // Nobody waits for a result when the push has ended.
        let give = |encoded| result.send(encoded).is_ok();
        match work {
            Work::Batch(batch) => drop(give(encoder.encode(batch))),
            Work::Executable(executable) => match encoder.encode_executable(&executable) {
                Ok(Some(encoded)) => drop(give(Ok(encoded))),
                Ok(None) => drop(executable.batches(speed, |batch| give(encoder.encode(batch)))),
                Err(error) => drop(give(Err(error))),
            },
        }
    }
}

/// Forwards what the workers make, in the order of the batches.
fn forward(ordered: &Receiver<Ordered>, out: &Sender<Output>) {
    let _ending = Ending(out);
    for next in ordered {
        let fed = match next {
            Ordered::JobDone => Output::JobDone,
            Ordered::Failed(error) => Output::Failed(error),
            Ordered::Batch(results) => {
                for result in results {
                    let fed = result.map_or_else(Output::Failed, Output::Batch);
                    if out.blocking_send(fed).is_err() {
                        return;
                    }
                }
                continue;
            }
        };
        if out.blocking_send(fed).is_err() {
            break;
        }
    }
}
