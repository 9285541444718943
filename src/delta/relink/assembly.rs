//! The new file's stream as runs of what the older file has and what it lacks.

use std::ops::Range;

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Bytes that both sides have, at this place of the stream that made the assembly.
    Known(Range<usize>),
    /// Bytes that are sent: a place of the sender's stream; the receiver knows no place yet.
    Unseen(Range<usize>),
}

/// The runs in the order of the new file's stream. Both sides make the same ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assembly {
    parts: Vec<Part>,
    known_bytes: usize,
}

impl Assembly {
    /// Adds what both sides have.
    pub fn known(&mut self, place: Range<usize>) {
        self.known_bytes = self.known_bytes.saturating_add(place.len());
        match self.parts.last_mut() {
            Some(Part::Known(last)) if last.end == place.start => last.end = place.end,
            _ => self.parts.push(Part::Known(place)),
        }
    }

    /// Adds what is sent; it joins what was added before it.
    pub fn unseen(&mut self, place: Range<usize>) {
        match self.parts.last_mut() {
            Some(Part::Unseen(last)) => last.end = place.end,
            _ => self.parts.push(Part::Unseen(place)),
        }
    }

    /// Bytes of all that both sides have.
    pub fn known_bytes(&self) -> usize {
        self.known_bytes
    }

    /// The places of what is sent.
    pub fn unseen_places(&self) -> impl Iterator<Item = &Range<usize>> {
        self.parts.iter().filter_map(|part| if let Part::Unseen(place) = part { Some(place) } else { None })
    }

    /// All that both sides have, one after another, from the stream that the places are of.
    pub fn gather_known(&self, stream: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.known_bytes);
        for part in &self.parts {
            if let Part::Known(place) = part {
                bytes.extend_from_slice(stream.get(place.clone())?);
            }
        }
        Some(bytes)
    }

    /// All that is sent, one after another, from the sender's stream.
    pub fn gather_unseen(&self, stream: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
        for place in self.unseen_places() {
            bytes.extend_from_slice(stream.get(place.clone())?);
        }
        Some(())
    }

    /// Puts the stream together from both, given the lengths of the runs that were sent.
    pub fn join(
        &self,
        known: &[u8],
        mut lengths: impl Iterator<Item = usize>,
        unseen: &[u8],
    ) -> Option<Vec<u8>> {
        let mut stream = Vec::with_capacity(known.len().checked_add(unseen.len())?);
        let (mut known, mut unseen) = (known, unseen);
        for part in &self.parts {
            let (from, count) = match part {
                Part::Known(place) => (&mut known, place.len()),
                Part::Unseen(_) => (&mut unseen, lengths.next()?),
            };
            let (taken, rest) = from.split_at_checked(count)?;
            stream.extend_from_slice(taken);
            *from = rest;
        }
        (known.is_empty() && unseen.is_empty() && lengths.next().is_none()).then_some(stream)
    }
}
