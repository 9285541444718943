//! Reads missing chunks again, compresses neighbours together and hands them to the link in order.
//!
//! A gatherer cuts the missing chunks into frames, workers read, verify and compress them, a forwarder
//! keeps their order. Every queue between them is short, so that a slow link slows the reading down.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::Sender;

use super::scan::{Error, Located, Spool};
use crate::compression::{Compressor, LEVEL_DEFAULT};
use crate::files::{self, OnPath};
use crate::ids::ChunkId;
use crate::limits::{FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET};
use crate::wire::{Batch, Marks};

/// Frames under way: bounds memory to some 5 MB.
const FRAMES_AHEAD: usize = 6;

/// Chunks to send, as the push's state machine asked for them.
#[derive(Debug)]
pub struct Job {
    /// The segments, by place.
    pub segments: Vec<u32>,
    /// Which of their chunk references, in order.
    pub marks: Marks,
}

/// What the feeder gives, in order.
#[derive(Debug)]
pub enum Fed {
    /// Chunks to send, and their plain bytes.
    Batch(Batch, u64),
    /// All chunks of one job were given.
    JobDone,
    /// A file cannot be read, or is not what it was.
    Failed(Error),
}

enum Ordered {
    Batch(Receiver<Result<(Batch, u64), Error>>),
    JobDone,
    Failed(Error),
}

type Work = (Vec<Located>, SyncSender<Result<(Batch, u64), Error>>);

/// Works off `jobs` until their sender is dropped or nobody takes what is given. Blocks; for a thread of its own.
pub fn feed(spool: &Mutex<Spool>, jobs: &Receiver<Job>, out: &Sender<Fed>, threads: usize) {
    std::thread::scope(|scope| {
        let (work_in, work) = sync_channel::<Work>(FRAMES_AHEAD);
        let (ordered_in, ordered) = sync_channel::<Ordered>(FRAMES_AHEAD);
        let work = Arc::new(Mutex::new(work));
        for _ in 0..threads.max(1) {
            let work = Arc::clone(&work);
            scope.spawn(move || compress(&work));
        }
        scope.spawn(move || forward(&ordered, out));
        for job in jobs {
            let result = gather(spool, &job, |frame| {
                let (sender, receiver) = sync_channel(1);
                work_in.send((frame, sender)).is_ok() && ordered_in.send(Ordered::Batch(receiver)).is_ok()
            });
            let last = result.map_or_else(Ordered::Failed, |()| Ordered::JobDone);
            if ordered_in.send(last).is_err() {
                break;
            }
        }
    });
}

/// Cuts a job's chunks into frames; `take` says whether anybody still listens.
fn gather(spool: &Mutex<Spool>, job: &Job, mut take: impl FnMut(Vec<Located>) -> bool) -> Result<(), Error> {
    let mut marks = job.marks.iter();
    let (mut frame, mut bytes) = (Vec::new(), 0);
    for segment in &job.segments {
        let chunks = spool.lock().unwrap_or_else(PoisonError::into_inner).chunks(*segment)?;
        for located in chunks {
            if marks.next() != Some(true) {
                continue;
            }
            bytes += located.chunk.bytes as usize;
            frame.push(located);
            if bytes >= FRAME_PLAIN_TARGET || frame.len() == FRAME_CHUNKS_MAX {
                bytes = 0;
                if !take(std::mem::take(&mut frame)) {
                    return Ok(());
                }
            }
        }
    }
    if !frame.is_empty() {
        take(frame);
    }
    Ok(())
}

/// A worker: reads, verifies and compresses one frame at a time.
fn compress(work: &Mutex<Receiver<Work>>) {
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    let mut plain = Vec::new();
    let mut open: Option<(Arc<Path>, File)> = None;
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((frame, result)) = next else { break };
        plain.clear();
        let read = frame.iter().try_for_each(|located| read(located, &mut open, &mut plain));
        let batch = read.map(|()| {
            let (codec, payload) = compressor.compress(&plain);
            let lengths = frame.iter().map(|located| located.chunk.bytes).collect();
            (Batch { codec, lengths, payload }, plain.len() as u64)
        });
        // Nobody waits for it where the push has ended.
        drop(result.send(batch));
    }
}

/// Appends a chunk's bytes, which must still be what they were.
fn read(located: &Located, open: &mut Option<(Arc<Path>, File)>, plain: &mut Vec<u8>) -> Result<(), Error> {
    let path = &located.path;
    let file = match open {
        Some((opened, file)) if opened == path => file,
        _ => {
            let file = match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::Vanished(path.to_path_buf()));
                }
                result => result.on("open", path)?,
            };
            &open.insert((Arc::clone(path), file)).1
        }
    };
    let begin = plain.len();
    plain.resize(begin + located.chunk.bytes as usize, 0);
    match file.read_exact_at(&mut plain[begin..], located.offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(Error::Changed(path.to_path_buf()));
        }
        Err(source) => {
            return Err(files::Error { action: "read", path: path.to_path_buf(), source }.into());
        }
        Ok(()) => {}
    }
    if ChunkId::of(&plain[begin..]) != located.chunk.id {
        return Err(Error::Changed(path.to_path_buf()));
    }
    Ok(())
}

/// Gives out what the workers make, in order.
fn forward(ordered: &Receiver<Ordered>, out: &Sender<Fed>) {
    for next in ordered {
        let fed = match next {
            Ordered::JobDone => Fed::JobDone,
            Ordered::Failed(error) => Fed::Failed(error),
            Ordered::Batch(result) => match result.recv() {
                Ok(Ok((batch, plain))) => Fed::Batch(batch, plain),
                Ok(Err(error)) => Fed::Failed(error),
                Err(_) => break,
            },
        };
        if out.blocking_send(fed).is_err() {
            break;
        }
    }
}
