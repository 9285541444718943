//! Serves one pull: names the release's segments, then sends what the agent lacks.

mod base;
mod patch_cache;
mod relink_payloads;
mod unit;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TrySendError};

use base::Base;

pub(super) use patch_cache::PatchCache;
use patch_cache::{PatchMaker, name_of};
use unit::Unit;

use super::current_token::checks;
use super::memory_share::MemoryShare;
use super::read_scope::ReadScope;
use super::{Granted, owner, refuse};
use crate::ledger::Lease;
use crate::net::blocking;
use crate::net::link::{Receiver, Sender};
use crate::restore::{self, ChunkReader, SourceError};
use crate::store::{Store, StoreReader};
use delta::compression::{self, Codec, Compressor, LEVEL_DEFAULT};
use delta::patch;
use format::manifest::{NodeRef, RefAt, SegmentIndex, Thin};
use format::pack::{FrameEnd, FrameKind, Framer};
use format::recipe::ChunkRef;
use ground::faults::{Fault, Faulty};
use ground::ids::{ReleaseId, Selector};
use ground::limits::{
    FRAME_PLAIN_TARGET, MESSAGE_ITEMS_MAX, PARCEL_PIECE_BYTES, PULL_REQUESTS_OPEN, SEGMENT_BATCH_BYTES,
};
use ground::stall::Watch;
use protocol::likeness::{Edges, Likeness};
use protocol::token::Action;
use protocol::wire::{Basis, Batch, Marks, Parcel, PullReply, PullRequest, Refusal, pack_names};

/// Replies that wait for the link: some 2 MB.
const REPLIES_AHEAD: usize = 4;

/// Serves a pull until the agent is done or gone.
pub async fn serve(
    granted: Arc<Granted>,
    selector: Selector,
    have: Option<ReleaseId>,
    mut sender: Sender,
    receiver: Receiver,
) {
    if let Err(refusal) = granted.allow(Action::Pull, Some(&selector.app)) {
        return refuse(sender, refusal).await;
    }
    let (requests_in, requests) = mpsc::channel(PULL_REQUESTS_OPEN);
    let (replies_in, mut replies) = mpsc::channel(REPLIES_AHEAD);
    let (held_in, mut held) = tokio::sync::oneshot::channel();
    let open = Arc::new(AtomicUsize::new(0));
    let mut reader = {
        let (granted, open) = (Arc::clone(&granted), Arc::clone(&open));
        tokio::spawn(async move {
            if let Err(refusal) = read(receiver, &requests_in, &granted, &open).await {
                drop(held_in.send(refusal));
            }
            // Dropped only now: the task that serves requests then ends, and reports the reason.
            drop(requests_in);
        })
    };
    let pull = {
        let granted = Arc::clone(&granted);
        blocking::start(move || run(&granted, &selector, have, (requests, &open), &replies_in))
    };
    let mut checks = checks();
    let mut ended = None;
    while ended.is_none() {
        tokio::select! {
            reply = replies.recv() => match reply {
                Some(reply) if sender.send(&reply).await.is_ok() => {}
                _ => break,
            },
            _ = checks.tick() => ended = granted.still_holds().err(),
        }
    }
    // The work is over: no requests come, and nobody reads.
    drop(replies);
    if ended.is_some() {
        reader.abort();
        drop((&mut reader).await);
    }
    let pulled = pull.await;
    let ended = ended.or_else(|| held.try_recv().ok());
    match ended.map_or(pulled, |refusal| Ok(Err(refusal))) {
        Ok(Ok(())) => drop(sender.finish()),
        Ok(Err(refusal)) => refuse(sender, refusal).await,
        Err(error) => refuse(sender, Refusal::of(&error)).await,
    }
    reader.abort();
}

/// Reads the agent's requests, even while replies are being sent, until its half ends. `open` counts unanswered
/// requests.
///
/// # Errors
/// A new token that cannot replace the old; too many requests at a time; an agent that reads too slowly.
async fn read(
    mut receiver: Receiver,
    requests: &mpsc::Sender<PullRequest>,
    granted: &Granted,
    open: &AtomicUsize,
) -> Result<(), Refusal> {
    let mut watch = Watch::new(Instant::now(), receiver.progress_max());
    loop {
        // While something is being sent it is not the agent's turn.
        if open.load(Ordering::Relaxed) > 0 {
            watch.renew(Instant::now());
        }
        watch.hear(receiver.sent_bytes(), Instant::now(), Instant::now());
        let left = watch.left(Instant::now()).ok_or_else(|| stalled(receiver.progress_max()))?;
        let Ok(request) = tokio::time::timeout(left, receiver.receive::<PullRequest>()).await else {
            continue;
        };
        match request {
            Ok(Some(PullRequest::Renew(token))) => granted.renew(&token)?,
            Ok(Some(request)) => {
                open.fetch_add(1, Ordering::Relaxed);
                match requests.try_send(request) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => return Err(out_of_bounds()),
                    // The pull has ended; the agent reads the reason before this half is given up.
                    Err(TrySendError::Closed(_)) => return std::future::pending().await,
                }
            }
            Ok(None) | Err(_) => return Ok(()),
        }
    }
}

/// Returns the refusal that ends a pull without progress.
fn stalled(time: Duration) -> Refusal {
    let text = format!("the pull made no progress for {} s", time.as_secs());
    let hint = "pull again: received content is not sent again".to_owned();
    Refusal { fault: Fault::Retry, text, hint: Some(hint) }
}

fn run(
    granted: &Granted,
    selector: &Selector,
    have: Option<ReleaseId>,
    (mut requests, open): (mpsc::Receiver<PullRequest>, &AtomicUsize),
    replies: &mpsc::Sender<PullReply>,
) -> Result<(), Refusal> {
    let store = granted.store()?;
    // What the pull was promised is kept until it ends, whatever is removed meanwhile.
    let lease = store.lease().map_err(|error| Refusal::of(&error))?;
    let record = store.select(selector).map_err(|error| Refusal::of(&error))?;
    store.records().touch(&record.app, &record.release);
    let root = store.root(&record.release).map_err(|error| unreadable(&error))?;
    let mut reader = StoreReader::new(&*store);
    let leaves = restore::leaves(&root, &mut reader).map_err(|error| match error {
        restore::Error::Source(error) => unreadable(&error),
        error => Refusal::of(&error),
    })?;
    let segments = u32::try_from(leaves.len()).expect("a manifest's segments are bounded");
    drop(replies.blocking_send(PullReply::Release { record, root: root.encode(), segments }));
    let base = have.and_then(|have| Base::open(&store, &ReadScope::of(&granted.grant), &have, &leaves));
    let mut memory = MemoryShare::new(&granted.shared.memory, owner(&granted.grant));
    memory.resize(leaves.len() * size_of::<NodeRef>() + base.as_ref().map_or(0, Base::memory_bytes))?;
    // Once, and where the agent holds older ones.
    let mut may_ask = false;
    match base.as_ref().and_then(|base| Some((base, base.outline(&leaves)?))) {
        Some((base, outline)) => {
            drop(replies.blocking_send(PullReply::Outline(outline)));
            let send = |batch| replies.blocking_send(PullReply::Thin(batch)).is_ok();
            base.tell(&leaves, &mut reader, send)?;
            may_ask = true;
        }
        None => {
            for part in leaves.chunks(MESSAGE_ITEMS_MAX) {
                let names = pack_names(part.iter().map(NodeRef::name));
                drop(replies.blocking_send(PullReply::Names(names)));
            }
        }
    }
    let compressor = Compressor::new(LEVEL_DEFAULT);
    let shared = &granted.shared;
    let maker = PatchMaker { cache: &shared.patches, heavy_work: &shared.heavy_work };
    let mut supply =
        Supply { reader, leaves, compressor, replies, base, maker, is_slow: false, lease: &lease };
    while let Some(request) = requests.blocking_recv() {
        if replies.is_closed() {
            break;
        }
        lease.renew();
        match request {
            // The reader notices it.
            PullRequest::Renew(_) => {}
            PullRequest::WantSegments(marks) => supply.segments(&marks)?,
            PullRequest::WantExecutables if std::mem::take(&mut may_ask) => {
                supply.is_slow = true;
                supply.executables(|| {
                    lease.renew();
                    !replies.is_closed()
                });
            }
            PullRequest::WantExecutables => return Err(out_of_bounds()),
            PullRequest::WantChunks { first, count, marks } => supply.chunks(first, count, &marks)?,
        }
        open.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(())
}

fn unreadable(error: &SourceError) -> Refusal {
    let hint = (error.fault() == Fault::Corrupt)
        .then(|| "push the release again from where it was built: only lost content is sent".to_owned());
    Refusal { hint, ..Refusal::of(error) }
}

fn read_segment(reader: &mut StoreReader<&Store>, node: &NodeRef) -> Result<Vec<u8>, restore::Error> {
    let mut bytes = Vec::new();
    reader.read(&(*node).into(), &mut bytes)?;
    Ok(bytes)
}

/// 1 MiB: content that may be sent as a patch to each machine (10 MB take a second); more only over slow links, once
/// for all.
const PATCH_BYTES: usize = 1024 * 1024;
/// The longest wait of one request's units for other heavy work to end.
const PATCH_TIME_MAX: Duration = Duration::from_secs(10);

/// Reads the wanted chunks and sends them, neighbouring ones together.
struct Supply<'a> {
    reader: StoreReader<&'a Store>,
    leaves: Vec<NodeRef>,
    compressor: Compressor,
    replies: &'a mpsc::Sender<PullReply>,
    base: Option<Base>,
    maker: PatchMaker<'a>,
    /// True if the agent's link is slow: it asked for executables.
    is_slow: bool,
    lease: &'a Lease,
}

impl Supply<'_> {
    fn segments(&mut self, marks: &Marks) -> Result<(), Refusal> {
        if !marks.fits(self.leaves.len()) {
            return Err(out_of_bounds());
        }
        let wanted: Vec<ChunkRef> = marks.places().map(|place| self.leaves[place as usize].into()).collect();
        self.send(&wanted, SEGMENT_BATCH_BYTES, PullReply::Segments)
    }

    /// Sends executables encoded by their functions: their number, then each.
    fn executables(&mut self, goes_on: impl FnMut() -> bool) {
        let payloads = match &self.base {
            Some(base) => relink_payloads::encode(base, &self.leaves, &mut self.reader, &self.maker, goes_on),
            None => Vec::new(),
        };
        let count = u32::try_from(payloads.len()).expect("they are bounded");
        drop(self.replies.blocking_send(PullReply::Executables(count)));
        for (parcel, payload) in payloads {
            self.send_parcel(parcel, &payload);
        }
    }

    fn send_parcel(&self, parcel: Parcel, payload: &[u8]) {
        drop(self.replies.blocking_send(PullReply::Parcel(parcel)));
        for piece in payload.chunks(PARCEL_PIECE_BYTES) {
            drop(self.replies.blocking_send(PullReply::Piece(piece.to_vec())));
        }
    }

    fn chunks(&mut self, first: SegmentIndex, count: u32, marks: &Marks) -> Result<(), Refusal> {
        let end = first.get().checked_add(count).ok_or_else(out_of_bounds)? as usize;
        let segments = self.leaves.get(first.into()..end).ok_or_else(out_of_bounds)?.to_vec();
        if segments.len() > MESSAGE_ITEMS_MAX {
            return Err(out_of_bounds());
        }
        let mut marks = marks.iter();
        let (mut wanted, mut asked) = (Vec::new(), HashMap::new());
        let mut new = Vec::with_capacity(segments.len());
        for (index, node) in SegmentIndex::range(first.into()..end).zip(segments) {
            let mut bytes = Vec::new();
            self.read(&node.into(), &mut bytes)?;
            let thin = Thin::decode(&bytes).map_err(|error| Refusal::of(&error))?;
            let mut known = Vec::new();
            for (number, chunk) in (0..).zip(thin.references().filter_map(|reference| reference.full())) {
                let missing = marks.next() == Some(true);
                if missing {
                    asked.insert(RefAt { segment: index, reference: number }, wanted.len());
                    wanted.push(chunk);
                }
                known.push((!missing).then_some(chunk));
            }
            new.push((index, thin, known));
        }
        let likenesses = self.likenesses(&new, &asked);
        let deadline = Instant::now() + PATCH_TIME_MAX;
        let mut likenesses = likenesses.into_iter().peekable();
        let mut unit = Unit::default();
        for (number, chunk) in wanted.iter().enumerate() {
            if let Some((_, likeness)) = likenesses.next_if(|(first, _)| *first == number) {
                if !unit.takes(&likeness) {
                    self.send_unit(std::mem::take(&mut unit), deadline)?;
                }
                unit.add_basis(likeness);
            }
            unit.add(*chunk);
            if unit.is_full() {
                self.send_unit(std::mem::take(&mut unit), deadline)?;
            }
        }
        self.send_unit(unit, deadline)
    }

    /// Returns the runs of the agent's release that the wanted chunks resemble, each with the first of these chunks.
    fn likenesses(
        &mut self,
        new: &[(SegmentIndex, Thin, Vec<Option<ChunkRef>>)],
        asked: &HashMap<RefAt, usize>,
    ) -> Vec<(usize, Likeness)> {
        let Some(base) = &self.base else { return Vec::new() };
        let (leaves, reader) = (&self.leaves, &mut self.reader);
        let new: Vec<_> = new.iter().map(|(index, thin, known)| (*index, thin, known.as_slice())).collect();
        let stays = |index: SegmentIndex| match leaves.get(usize::from(index)) {
            Some(node) if base.has(node) => read_segment(reader, node).map(Some),
            _ => Ok(None),
        };
        // Without them the chunks go whole.
        let found = base.changed.likenesses(&new, &Edges::new(), stays).unwrap_or_default();
        let mut found: Vec<(usize, Likeness)> = found
            .into_iter()
            .filter_map(|likeness| {
                let first = likeness.new.iter().filter_map(|at| asked.get(at)).min()?;
                Some((*first, likeness))
            })
            .collect();
        found.sort_by_key(|(first, _)| *first);
        found.dedup_by_key(|(first, _)| *first);
        found
    }

    /// Sends a unit, encoded against its basis where it has one.
    fn send_unit(&mut self, unit: Unit, deadline: Instant) -> Result<(), Refusal> {
        if self.replies.is_closed() {
            return Ok(());
        }
        self.lease.renew();
        if unit.spans.is_empty() {
            return self.send(&unit.chunks, FRAME_PLAIN_TARGET, PullReply::Chunks);
        }
        let (mut plain, mut older) = (Vec::with_capacity(unit.bytes), Vec::with_capacity(unit.basis_bytes));
        for chunk in &unit.basis {
            self.read(chunk, &mut older)?;
        }
        for chunk in &unit.chunks {
            self.read(chunk, &mut plain)?;
        }
        let (basis, codec, payload) = if let Some(patch) = self.patch(&unit, &plain, &older, deadline) {
            (Basis::Patch(unit.spans), Codec::Raw, patch)
        } else {
            let payload = compression::compress_against(&older, &plain, LEVEL_DEFAULT);
            (Basis::Prefix(unit.spans), Codec::Zstd, Arc::new(payload))
        };
        let payload_bytes = u32::try_from(payload.len()).expect("a unit is some MiB");
        let lengths = unit.chunks.iter().map(|chunk| chunk.bytes).collect();
        self.send_parcel(Parcel { lengths, basis, codec, payload_bytes }, &payload);
        Ok(())
    }

    /// Returns the patch for a unit, if it is worth the time.
    fn patch(&self, unit: &Unit, plain: &[u8], older: &[u8], deadline: Instant) -> Option<Arc<Vec<u8>>> {
        let make = || Some(patch::compress(plain, older).expect("a unit's basis is within a patch's"));
        if plain.len() <= PATCH_BYTES {
            return make().map(Arc::new);
        }
        let name = self.is_slow.then(|| name_of("whit pull patch", &unit.basis, &unit.chunks))?;
        self.maker.payload(name, deadline, make)
    }

    /// Sends the parts, in order, as batches of about `target` bytes.
    fn send(
        &mut self,
        parts: &[ChunkRef],
        target: usize,
        reply: fn(Batch) -> PullReply,
    ) -> Result<(), Refusal> {
        let Self { reader, compressor, replies, lease, .. } = self;
        let framer = Framer::new(FrameKind::Content, FrameEnd::Reached, compressor);
        let mut framer = framer.with_target(target);
        let mut plain = Vec::new();
        for part in parts {
            plain.clear();
            read_chunk(reader, lease, part, &mut plain)?;
            if let Some(frame) = framer.push(*part, &plain)
                && replies.blocking_send(reply(frame.into())).is_err()
            {
                // The agent is gone; the next request is not there.
                return Ok(());
            }
        }
        if let Some(frame) = framer.finish() {
            drop(replies.blocking_send(reply(frame.into())));
        }
        Ok(())
    }

    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        read_chunk(&mut self.reader, self.lease, chunk, out)
    }
}

fn read_chunk(
    reader: &mut StoreReader<&Store>,
    lease: &Lease,
    chunk: &ChunkRef,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    reader.read(chunk, out).map_err(|error| match error {
        SourceError::Unknown(_) if !lease.holds() => Refusal {
            fault: Fault::Retry,
            text: "the pull took so long that the release was removed meanwhile".to_owned(),
            hint: Some("pull again: received content is kept".to_owned()),
        },
        error => unreadable(&error),
    })
}

fn out_of_bounds() -> Refusal {
    Refusal {
        fault: Fault::Input,
        text: "the pull requested content that the release does not have".to_owned(),
        hint: None,
    }
}
