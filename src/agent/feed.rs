//! Reads missing chunks again, compresses neighbours together and hands them to the link in order.
//!
//! A gatherer cuts the missing chunks into units, workers read, verify and compress them, a forwarder keeps
//! their order. Every queue between them is short, so that a slow link slows the reading down.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::Sender;

use super::gather::{Gathering, Resembled, Unit};
use super::keep::Keep;
use super::pace::Pace;
use super::pack::{Effort, PackedUnit, Packer};
use super::scan::{Error, Spool};
use crate::wire::Marks;

/// Units under way: bounds memory to some 30 MB.
const UNITS_AHEAD: usize = 6;

/// Chunks to send, as the push's state machine asked for them.
#[derive(Debug)]
pub struct Job {
    /// The segments, by place.
    pub segments: Vec<u32>,
    /// Which of their chunk references, in order.
    pub marks: Marks,
    /// What some of the marked chunks resemble, by the first of them.
    pub resembled: Vec<Resembled>,
}

/// What the feeder gives, in order.
#[derive(Debug)]
pub enum Fed {
    /// Chunks to send.
    Unit(PackedUnit),
    /// All chunks of one job were given.
    JobDone,
    /// A file cannot be read, or is not what it was.
    Failed(Error),
}

enum Ordered {
    Unit(Receiver<Result<PackedUnit, Error>>),
    JobDone,
    Failed(Error),
}

type Work = (Unit, SyncSender<Result<PackedUnit, Error>>);

/// What a feeder works with.
#[derive(Debug)]
pub struct Source<'a> {
    /// Where the chunks can be read again.
    pub spool: &'a Mutex<Spool>,
    /// How hard to compress.
    pub pace: &'a Pace,
    /// The older content, to which what is sent is added.
    pub keep: Option<&'a Keep>,
    /// Workers.
    pub threads: usize,
    /// Whether to say why bytes cross.
    pub explain: bool,
}

/// Works off `jobs` until their sender is dropped or nobody takes what is given. Blocks; for a thread of its own.
pub fn feed(source: &Source<'_>, jobs: &Receiver<Job>, out: &Sender<Fed>) {
    let effort = Effort::new();
    std::thread::scope(|scope| {
        let effort = &effort;
        let (work_in, work) = sync_channel::<Work>(UNITS_AHEAD);
        let (ordered_in, ordered) = sync_channel::<Ordered>(UNITS_AHEAD);
        let work = Arc::new(Mutex::new(work));
        for _ in 0..source.threads.max(1) {
            let work = Arc::clone(&work);
            scope.spawn(move || compress(&work, Packer::new(source.keep, source.explain, effort)));
        }
        scope.spawn(move || forward(&ordered, out));
        for job in jobs {
            let gathered = gather(source, job, |unit| {
                let (sender, receiver) = sync_channel(1);
                work_in.send((unit, sender)).is_ok() && ordered_in.send(Ordered::Unit(receiver)).is_ok()
            });
            let last = gathered.map_or_else(Ordered::Failed, |()| Ordered::JobDone);
            if ordered_in.send(last).is_err() {
                break;
            }
        }
    });
}

/// Cuts a job's chunks into units; `take` says whether anybody still listens.
fn gather(source: &Source<'_>, job: Job, mut take: impl FnMut(Unit) -> bool) -> Result<(), Error> {
    let mut marks = job.marks.iter();
    let mut gathering = Gathering::new(source.pace, job.resembled);
    for segment in &job.segments {
        let located = source.spool.lock().unwrap_or_else(PoisonError::into_inner).chunks(*segment)?;
        for located in located {
            if marks.next() != Some(true) {
                continue;
            }
            if let Some(unit) = gathering.push(located)
                && !take(unit)
            {
                return Ok(());
            }
        }
    }
    if let Some(unit) = gathering.finish() {
        take(unit);
    }
    Ok(())
}

/// A worker: reads, verifies and compresses one unit at a time.
fn compress(work: &Mutex<Receiver<Work>>, mut packer: Packer<'_>) {
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((unit, result)) = next else { break };
        // Nobody waits for it where the push has ended.
        drop(result.send(packer.pack(unit)));
    }
}

/// Gives out what the workers make, in order.
fn forward(ordered: &Receiver<Ordered>, out: &Sender<Fed>) {
    for next in ordered {
        let fed = match next {
            Ordered::JobDone => Fed::JobDone,
            Ordered::Failed(error) => Fed::Failed(error),
            Ordered::Unit(result) => match result.recv() {
                Ok(Ok(unit)) => Fed::Unit(unit),
                Ok(Err(error)) => Fed::Failed(error),
                Err(_) => break,
            },
        };
        if out.blocking_send(fed).is_err() {
            break;
        }
    }
}
