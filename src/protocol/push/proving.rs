//! Challenges an agent to prove that it has chunks that its token may not read.

use std::collections::{HashSet, VecDeque};

use serde_bytes::ByteArray;

use crate::likeness::NewSegment;
use crate::wire::{Challenge, Marks, Possession, PushReply, Refusal};
use crate::{Error, SpaceView};
use format::recipe::ChunkRef;
use ground::faults::Fault;
use ground::ids::ChunkId;
use ground::limits::{OWN_CHUNKS_MAX, PROOF_BYTES_MAX, PROVEN_BYTES_MAX};

/// A challenge whose proof has not come yet.
#[derive(Debug)]
struct Unproven {
    nonce: [u8; 32],
    chunks: Vec<ChunkRef>,
}

/// The proofs of one push. Memory: 40 B for each chunk that the agent sent or was asked to prove, which are bounded.
#[derive(Debug)]
pub(super) struct Proving {
    /// Chunks that the agent has sent in this push, or has been asked to prove.
    own: HashSet<ChunkId>,
    unproven: VecDeque<Unproven>,
    bytes_left: u64,
}

impl Default for Proving {
    fn default() -> Self {
        Self { own: HashSet::new(), unproven: VecDeque::new(), bytes_left: PROVEN_BYTES_MAX }
    }
}

impl Proving {
    /// Returns whether a proof is still to come.
    pub fn is_open(&self) -> bool {
        !self.unproven.is_empty()
    }

    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        let unproven: usize = self.unproven.iter().map(|one| one.chunks.len()).sum();
        (self.own.len() + unproven) * size_of::<ChunkRef>()
    }

    /// Notes that the agent has sent the chunk's bytes.
    pub fn sent(&mut self, chunk: &ChunkRef) {
        self.own(chunk);
    }

    /// Notes the chunk as the agent's own; where there is no room, it must be proven again.
    fn own(&mut self, chunk: &ChunkRef) -> bool {
        self.own.len() < OWN_CHUNKS_MAX && self.own.insert(chunk.id)
    }

    /// Challenges the agent about the known chunks of some segments that it may not read and has not sent.
    ///
    /// Marks as unknown those that it must send instead: `offered` ones, which come unasked; all in a dry run, which
    /// proves nothing; and those beyond the bound of one push.
    pub fn challenge(
        &mut self,
        segments: &mut [NewSegment],
        eager: &Marks,
        dry_run: bool,
        view: &mut impl SpaceView,
    ) -> Result<Vec<PushReply>, Error> {
        let references: usize = segments.iter().map(|(_, _, known)| known.len()).sum();
        let mut eager = eager.iter();
        let (mut challenges, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut chunks: Vec<ChunkRef> = Vec::new();
        let known = segments.iter_mut().flat_map(|(_, _, known)| known);
        for (place, known) in known.enumerate() {
            let is_eager = eager.next() == Some(true);
            let Some(chunk) = *known else { continue };
            if self.own.contains(&chunk.id) || view.may_read(&chunk).map_err(Error::Space)? {
                continue;
            }
            let length = u64::from(chunk.bytes);
            if dry_run || is_eager || self.bytes_left < length {
                *known = None;
                continue;
            }
            if bytes + length > PROOF_BYTES_MAX {
                challenges.push(self.ask(&places, references, std::mem::take(&mut chunks), view)?);
                places.clear();
                bytes = 0;
            }
            self.own(&chunk);
            self.bytes_left -= length;
            bytes += length;
            places.push(place);
            chunks.push(chunk);
        }
        if !chunks.is_empty() {
            challenges.push(self.ask(&places, references, chunks, view)?);
        }
        Ok(challenges)
    }

    fn ask(
        &mut self,
        places: &[usize],
        references: usize,
        chunks: Vec<ChunkRef>,
        view: &mut impl SpaceView,
    ) -> Result<PushReply, Error> {
        let mut marks = vec![false; references];
        for place in places {
            marks[*place] = true;
        }
        let nonce = view.nonce().map_err(Error::Space)?;
        self.unproven.push_back(Unproven { nonce, chunks });
        Ok(PushReply::Prove(Challenge::new(nonce, marks.into_iter().collect())))
    }

    /// Checks the agent's answer to the next challenge.
    pub fn answered(&mut self, proof: &ByteArray<32>, view: &mut impl SpaceView) -> Result<bool, Error> {
        let Unproven { nonce, chunks } = self.unproven.pop_front().ok_or(Error::OutOfTurn("Proof"))?;
        let mut possession = Possession::new(&nonce);
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.clear();
            // Damaged or gone: from now on it counts as missing.
            view.read(chunk, &mut bytes).map_err(|refusal| {
                let hint = Some("push again: only that content is sent".to_owned());
                let text = format!("content that the push counted on is gone: {}", refusal.text);
                Error::Space(Refusal { fault: Fault::Retry, text, hint })
            })?;
            possession.add(&bytes);
        }
        Ok(possession.is(proof))
    }
}
