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
    /// Appends bytes that both sides have.
    pub fn known(&mut self, place: Range<usize>) {
        self.known_bytes = self.known_bytes.saturating_add(place.len());
        match self.parts.last_mut() {
            Some(Part::Known(last)) if last.end == place.start => last.end = place.end,
            _ => self.parts.push(Part::Known(place)),
        }
    }

    /// Appends bytes that are sent; joins them to a run of such bytes before them.
    pub fn unseen(&mut self, place: Range<usize>) {
        match self.parts.last_mut() {
            Some(Part::Unseen(last)) => last.end = place.end,
            _ => self.parts.push(Part::Unseen(place)),
        }
    }

    /// Returns the number of bytes that both sides have.
    pub fn known_bytes(&self) -> usize {
        self.known_bytes
    }

    /// Returns the places of the bytes that are sent.
    pub fn unseen_places(&self) -> impl Iterator<Item = &Range<usize>> {
        self.parts.iter().filter_map(|part| if let Part::Unseen(place) = part { Some(place) } else { None })
    }

    /// Returns the bytes that both sides have, one run after another, from the stream that the places refer to.
    pub fn gather_known(&self, stream: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.known_bytes);
        for part in &self.parts {
            if let Part::Known(place) = part {
                bytes.extend_from_slice(stream.get(place.clone())?);
            }
        }
        Some(bytes)
    }

    /// Appends the bytes that are sent, one run after another, from the sender's stream.
    pub fn gather_unseen(&self, stream: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
        for place in self.unseen_places() {
            bytes.extend_from_slice(stream.get(place.clone())?);
        }
        Some(())
    }

    /// Joins both into the stream, given the lengths of the runs that were sent.
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
