//! Reads missing chunks again, encodes them in batches, and gives them to the link in order.
//!
//! One thread cuts the missing chunks into batches, workers read, verify and encode them, a forwarder keeps their order. Every
//! queue between them is short, so that a slow link slows the reading down.

use std::collections::HashSet;
use std::iter;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::Sender;

use super::batcher::{Batch, Batcher, Match, OlderExecutable, Ramp};
use super::encoder::{EncodedBatch, Encoder, PatchBudget};
use crate::agent::chunk_cache::ChunkCache;
use crate::agent::pace::Pace;
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
pub enum Output<B = EncodedBatch> {
    /// Chunks to send.
    Batch(B),
    /// All chunks of one job were encoded.
    JobDone,
    /// A file cannot be read, or has changed.
    Failed(Error),
}

/// What comes of one batch: an executable may become several.
type Results = SyncSender<Result<EncodedBatch, Error>>;
/// The outputs, while workers still encode them.
type Awaited = Output<Receiver<Result<EncodedBatch, Error>>>;

/// Encodes the missing chunks of one push.
#[derive(Debug)]
pub struct Pipeline<'a> {
    /// Says where the chunks are read again.
    pub spool: &'a Spool,
    /// Chooses what saves time on this link.
    pub pace: &'a Pace,
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
        // A push that sends nothing needs no workers.
        let Ok(first) = jobs.recv() else { return };
        let budget = PatchBudget::new();
        std::thread::scope(|scope| {
            let budget = &budget;
            let (work_in, work) = sync_channel::<(Batch, Results)>(BATCHES_AHEAD);
            let (ordered_in, ordered) = sync_channel::<Awaited>(BATCHES_AHEAD);
            let work = Arc::new(Mutex::new(work));
            let worker = || {
                let work = Arc::clone(&work);
                move || {
                    compress(
                        &work,
                        pipeline.pace,
                        Encoder::new(pipeline.cache, pipeline.explain, budget, pipeline.pace),
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
            let (mut deferred, mut ramp) = (None, Ramp::begin(pipeline.pace));
            for job in iter::once(first).chain(jobs) {
                let gathered = gather(pipeline, job, (&mut deferred, &mut ramp), |batch| {
                    let (sender, receiver) = sync_channel(1);
                    work_in.send((batch, sender)).is_ok() && ordered_in.send(Output::Batch(receiver)).is_ok()
                });
                let last = gathered.map_or_else(Output::Failed, |()| Output::JobDone);
                if ordered_in.send(last).is_err() {
                    break;
                }
            }
        });
    }
}

/// An executable whose chunks the next job may continue.
struct Deferred {
    executable: Batch,
    /// The segment that would continue it.
    next: SegmentIndex,
}

/// Cuts a job's chunks into batches; ends when `take` returns false, as nobody listens.
fn gather(
    pipeline: &Pipeline<'_>,
    job: Job,
    (deferred, ramp): (&mut Option<Deferred>, &mut Ramp),
    mut take: impl FnMut(Batch) -> bool,
) -> Result<(), Error> {
    let mut marks = job.marks.iter();
    let mut batcher = Batcher::new(pipeline.pace, ramp, job.matches).with_evicted(job.evicted);
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
            if let Some(executable) = current.take_if(|current| current.excludes(&located))
                && !take(executable)
            {
                return Ok(());
            }
            if marks.next() != Some(true) {
                continue;
            }
            if current.is_none()
                && let Some(found) = older.iter().position(|older| located.is_of(&older.new))
            {
                current = Some(Batch::of_executable(older.swap_remove(found), pipeline.pace.encoding()));
            }
            if let Some(executable) = current.as_mut() {
                executable.push(located, batcher.skip());
            } else if let Some(batch) = batcher.push(located)
                && !take(batch)
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
        && !take(executable)
    {
        return Ok(());
    }
    if let Some(batch) = batcher.finish() {
        take(batch);
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
    work: &Mutex<Receiver<(Batch, Results)>>,
    pace: &Pace,
    mut encoder: Encoder<'_>,
    out: &Sender<Output>,
) {
    let _ending = Ending(out);
    loop {
        let next = work.lock().unpoisoned().recv();
        let Ok((batch, results)) = next else { break };
        // Nobody waits for a result when the push has ended.
        let give = |encoded| results.send(encoded).is_ok();
        if batch.executable.is_none() {
            give(encoder.encode(batch));
            continue;
        }
        match encoder.encode_executable(&batch) {
            Ok(Some(encoded)) => drop(give(Ok(encoded))),
            Ok(None) => drop(batch.cut(pace, |batch| give(encoder.encode(batch)))),
            Err(error) => drop(give(Err(error))),
        }
    }
}

/// Forwards what the workers make, in the order of the batches.
fn forward(ordered: &Receiver<Awaited>, out: &Sender<Output>) {
    let _ending = Ending(out);
    for next in ordered {
        let is_heard = match next {
            Output::JobDone => out.blocking_send(Output::JobDone).is_ok(),
            Output::Failed(error) => out.blocking_send(Output::Failed(error)).is_ok(),
            Output::Batch(results) => results.into_iter().all(|result| {
                let output = result.map_or_else(Output::Failed, Output::Batch);
                out.blocking_send(output).is_ok()
            }),
        };
        if !is_heard {
            break;
        }
    }
}
