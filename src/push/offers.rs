//! Executables whose records an agent offers that does not have the older file.

use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;

use super::executables::read_chunks;
use super::{Error, Likeness, Shelf, Whole};
use crate::executable::{Index, Level, Offer, Records, normalise_basis};
use crate::limits::{EXECUTABLE_CHUNKS_MAX, OFFER_BYTES_MAX, OFFERS_MAX};
use crate::manifest::NodeRef;
use crate::recipe::ChunkRef;
use crate::wire::{FileAnswer, FileOffer, PushReply};

/// 2 GiB: older executables that are looked at for one push; some 10 s.
const BASIS_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// In percent: with fewer known records, deltas of what lies between are as good.
const KNOWN_MIN: usize = 20;

/// What was offered and is there.
#[derive(Debug)]
pub(super) struct Answered {
    /// The names of the new file's records.
    pub names: Vec<u8>,
    /// The older file.
    pub chunks: Vec<ChunkRef>,
}

/// The offers of one push. Memory: their names and 36 B for each chunk of the older files, both bounded.
#[derive(Debug)]
pub(super) struct Offers {
    /// Names that are not answered.
    names: HashMap<u32, Vec<u8>>,
    answered: HashMap<u32, Answered>,
    /// What the next segments list of offered files.
    next: Vec<FileOffer>,
    names_left: usize,
    basis_left: u64,
}

impl Default for Offers {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            answered: HashMap::new(),
            next: Vec::new(),
            names_left: OFFER_BYTES_MAX,
            basis_left: BASIS_BYTES_MAX,
        }
    }
}

impl Offers {
    /// Takes a part of an offer.
    pub fn take(&mut self, mut offer: FileOffer) -> Result<(), Error> {
        let names = std::mem::take(&mut offer.names);
        let limit = Error::Limit { what: "bytes of offers", max: OFFER_BYTES_MAX };
        self.names_left = self.names_left.checked_sub(names.len()).ok_or(limit)?;
        if self.names.len() + self.answered.len() + self.next.len() > OFFERS_MAX {
            return Err(Error::Limit { what: "offers", max: OFFERS_MAX });
        }
        if !self.answered.contains_key(&offer.file) {
            self.names.entry(offer.file).or_default().extend_from_slice(&names);
        }
        if offer.complete {
            self.next.push(offer);
        }
        Ok(())
    }

    /// What was offered and is there, once.
    pub fn answered(&mut self, file: u32) -> Option<Answered> {
        self.answered.remove(&file)
    }

    /// Answers the offers for what was just listed: segments by place, and how many references each has. What an
    /// answered file resembles is taken out of `likenesses`, as it needs no signature.
    pub fn answer(
        &mut self,
        likenesses: &mut Vec<Likeness>,
        listed: impl Iterator<Item = (u32, usize)>,
        base: &[NodeRef],
        shelf: &mut impl Shelf,
    ) -> Vec<PushReply> {
        let mut replies = Vec::new();
        if self.next.is_empty() {
            return replies;
        }
        // The number of each segment's first reference.
        let mut counted = 0;
        let mut before = BTreeMap::new();
        for (place, count) in listed {
            before.insert(place, counted);
            counted += count;
        }
        let number = |segment: u32, first: u32| Some(before.get(&segment)? + first as usize);
        for offer in std::mem::take(&mut self.next) {
            let names = self.names.remove(&offer.file);
            let Some(begin) = number(offer.segment, offer.first) else { continue };
            let range = begin..begin + (offer.chunks as usize).min(EXECUTABLE_CHUNKS_MAX);
            let is_of = |likeness: &Likeness| {
                let first = likeness.new.first().and_then(|(segment, first)| number(*segment, *first));
                first.is_some_and(|first| range.contains(&first))
            };
            if let Some(names) = names.filter(|_| !self.answered.contains_key(&offer.file)) {
                let alike: Vec<&Likeness> = likenesses.iter().filter(|likeness| is_of(likeness)).collect();
                let missing: usize = alike.iter().map(|likeness| likeness.new.len()).sum();
                // Where little is missing, the file was changed somewhere, not linked anew.
                let best = alike.into_iter().max_by_key(|likeness| likeness.new.len());
                let best = best.filter(|_| missing * 4 > range.len());
                let Some((answer, chunks)) = best.and_then(|best| self.look_at(best, &names, base, shelf))
                else {
                    continue;
                };
                self.answered.insert(offer.file, Answered { names, chunks });
                replies.push(PushReply::Answer(FileAnswer { file: offer.file, answer }));
            }
            if self.answered.contains_key(&offer.file) {
                likenesses.retain(|likeness| !is_of(likeness));
            }
        }
        replies
    }

    /// Which of the named records the file has that some chunks resemble; its chunks.
    fn look_at(
        &mut self,
        alike: &Likeness,
        names: &[u8],
        base: &[NodeRef],
        shelf: &mut impl Shelf,
    ) -> Option<(Vec<u8>, Vec<ChunkRef>)> {
        let offer = Offer::decode(names).filter(|offer| !offer.names().is_empty())?;
        let read = |place: u32| {
            let node = base.get(place as usize);
            let mut bytes = Vec::new();
            let mut read =
                |node: &NodeRef| shelf.read(&ChunkRef { id: node.id, bytes: node.bytes }, &mut bytes);
            let read = node.map(&mut read).transpose().map_err(Error::Shelf)?;
            Ok::<_, Error>(read.map(|()| bytes))
        };
        let Whole { chunks, .. } = Whole::around(alike.basis.segment, alike.basis.first, read).ok()??;
        let bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        self.basis_left = self.basis_left.checked_sub(bytes)?;
        let workshop = shelf.workshop();
        let _alone = workshop.lock().unwrap_or_else(PoisonError::into_inner);
        let old = read_chunks(&chunks, shelf)?;
        let parts = normalise_basis(&old)?;
        drop(old);
        let records = Records::new(&parts);
        let (answer, places) = Index::new(&parts, &records).answer(Level::Records, &offer);
        let known = places.iter().flatten().count();
        (known * 100 >= places.len() * KNOWN_MIN).then(|| (answer.encode(), chunks))
    }
}
