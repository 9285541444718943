//! Serves one pull: names the release's segments, then sends what the agent lacks.

use tokio::sync::mpsc;

use super::{Granted, refuse};
use crate::compression::{Compressor, LEVEL_DEFAULT};
use crate::faults::{Fault, Faulty};
use crate::ids::Selector;
use crate::limits::{FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET, MESSAGE_ITEMS_MAX, SEGMENT_BATCH_BYTES};
use crate::link::{Receiver, Sender};
use crate::manifest::{self, NodeRef};
use crate::reassembly::{self, ChunkReader, SourceError};
use crate::recipe::ChunkRef;
use crate::store::{Store, StoreReader};
use crate::token::Action;
use crate::wire::{Batch, Marks, PullReply, PullRequest, Refusal, pack_names};

/// Replies that wait for the link: some 2 MB.
const REPLIES_AHEAD: usize = 4;
/// Requests that wait for the store.
const REQUESTS_AHEAD: usize = 16;

/// Serves a pull until the agent is done or gone.
pub async fn serve(granted: Granted, selector: Selector, mut sender: Sender, mut receiver: Receiver) {
    if let Err(refusal) = granted.allow(Action::Pull, Some(&selector.app)) {
        return refuse(sender, refusal).await;
    }
    let (requests_in, requests) = mpsc::channel(REQUESTS_AHEAD);
    let (replies_in, mut replies) = mpsc::channel(REPLIES_AHEAD);
    let reader = tokio::spawn(async move {
        while let Ok(Some(request)) = receiver.receive::<PullRequest>().await {
            if requests_in.send(request).await.is_err() {
                break;
            }
        }
    });
    let pull = tokio::task::spawn_blocking(move || run(&granted, &selector, requests, &replies_in));
    while let Some(reply) = replies.recv().await {
        if sender.send(&reply).await.is_err() {
            break;
        }
    }
    drop(replies);
    match pull.await {
        Ok(Ok(())) => drop(sender.finish()),
        Ok(Err(refusal)) => refuse(sender, refusal).await,
        Err(_) => {
            let text = "the proxy failed inside; its log says more".to_owned();
            refuse(sender, Refusal { fault: Fault::Bug, text, hint: None }).await;
        }
    }
    reader.abort();
}

fn run(
    granted: &Granted,
    selector: &Selector,
    mut requests: mpsc::Receiver<PullRequest>,
    replies: &mpsc::Sender<PullReply>,
) -> Result<(), Refusal> {
    let store = granted.store()?;
    // What a pull was promised stays until it is done, whatever is removed meanwhile.
    let lease = store.lease();
    let record = store.select(selector).map_err(|error| Refusal::of(&error))?;
    let root = store.root(&record.release).map_err(|error| unreadable(&error))?;
    let mut reader = StoreReader::new(&*store);
    let leaves = reassembly::leaves(&root, &mut reader).map_err(|error| match error {
        reassembly::Error::Source(error) => unreadable(&error),
        error => Refusal::of(&error),
    })?;
    let segments = u32::try_from(leaves.len()).expect("a manifest's segments are bounded");
    drop(replies.blocking_send(PullReply::Release { record, root: root.encode(), segments }));
    for part in leaves.chunks(MESSAGE_ITEMS_MAX) {
        let names = pack_names(part.iter().map(|node| node.id.prefix()));
        drop(replies.blocking_send(PullReply::Names(names)));
    }
    let mut supply = Supply { reader, leaves, compressor: Compressor::new(LEVEL_DEFAULT), replies };
    while let Some(request) = requests.blocking_recv() {
        lease.renew();
        match request {
            PullRequest::WantSegments(marks) => supply.segments(&marks)?,
            PullRequest::WantChunks { first, count, marks } => supply.chunks(first, count, &marks)?,
        }
    }
    Ok(())
}

fn unreadable(error: &SourceError) -> Refusal {
    let hint = (error.fault() == Fault::Corrupt).then(|| {
        "push the release again from where it was built: the proxy asks for what it lost".to_owned()
    });
    Refusal { hint, ..Refusal::of(error) }
}

/// Reads what is wanted and sends it, neighbours together.
struct Supply<'a> {
    reader: StoreReader<&'a Store>,
    leaves: Vec<NodeRef>,
    compressor: Compressor,
    replies: &'a mpsc::Sender<PullReply>,
}

impl Supply<'_> {
    fn segments(&mut self, marks: &Marks) -> Result<(), Refusal> {
        if !marks.fits(self.leaves.len()) {
            return Err(out_of_bounds());
        }
        let wanted: Vec<ChunkRef> =
            marks.places().map(|place| reference(&self.leaves[place as usize])).collect();
        self.send(&wanted, SEGMENT_BATCH_BYTES, PullReply::Segments)
    }

    fn chunks(&mut self, first: u32, count: u32, marks: &Marks) -> Result<(), Refusal> {
        let end = first.checked_add(count).ok_or_else(out_of_bounds)? as usize;
        let segments = self.leaves.get(first as usize..end).ok_or_else(out_of_bounds)?.to_vec();
        if segments.len() > MESSAGE_ITEMS_MAX {
            return Err(out_of_bounds());
        }
        let mut marks = marks.iter();
        let mut wanted = Vec::new();
        for segment in &segments {
            let mut bytes = Vec::new();
            self.read(&reference(segment), &mut bytes)?;
            let chunks = manifest::segment_chunks(&bytes).map_err(|error| Refusal::of(&error))?;
            wanted.extend(chunks.into_iter().filter(|_| marks.next() == Some(true)));
        }
        self.send(&wanted, FRAME_PLAIN_TARGET, PullReply::Chunks)
    }

    /// Sends the parts, in order, as batches of about `target` bytes.
    fn send(
        &mut self,
        parts: &[ChunkRef],
        target: usize,
        reply: fn(Batch) -> PullReply,
    ) -> Result<(), Refusal> {
        let (mut plain, mut lengths) = (Vec::new(), Vec::new());
        for (at, part) in parts.iter().enumerate() {
            self.read(part, &mut plain)?;
            lengths.push(part.bytes);
            if plain.len() >= target || lengths.len() == FRAME_CHUNKS_MAX || at + 1 == parts.len() {
                let (codec, payload) = self.compressor.compress(&plain);
                let batch = Batch { codec, lengths: std::mem::take(&mut lengths), payload };
                plain.clear();
                if self.replies.blocking_send(reply(batch)).is_err() {
                    // The agent is gone; the next request is not there.
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.reader.read(chunk, out).map_err(|error| unreadable(&error))
    }
}

fn reference(node: &NodeRef) -> ChunkRef {
    ChunkRef { id: node.id, bytes: node.bytes }
}

fn out_of_bounds() -> Refusal {
    Refusal {
        fault: Fault::Input,
        text: "the pull asked for what the release does not have".to_owned(),
        hint: None,
    }
}
