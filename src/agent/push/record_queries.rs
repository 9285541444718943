//! Queries the records of executables to a proxy that may have older ones.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::encode::relinked::{is_executable, records_of};
use crate::agent::scan::{Body, Located, Spool};
use crate::agent::{Error, Result};
use delta::relink::Offer;
use format::manifest::{self, SegmentIndex};
use ground::limits::{OFFER_BYTES_MAX, OFFERS_MAX, PARCEL_PIECE_BYTES};
use protocol::wire::{RecordAnswer, RecordQuery};

/// What one push has offered.
#[derive(Debug, Default)]
pub struct RecordQueries {
    numbers: HashMap<Body, u32>,
    /// Those that the proxy has older ones of.
    answered: HashSet<u32>,
    bytes: usize,
}

/// Chunks of a file, or of a member of an archive, in some segments.
#[derive(Debug)]
struct Listed {
    body: Body,
    segment: SegmentIndex,
    first: u32,
    chunks: u32,
    /// Whether it is most of a segment, which the proxy lacks: then it probably has changed.
    fills: bool,
    /// The last segment that was looked at.
    counted: SegmentIndex,
    /// Plain bytes of the chunks.
    bytes: u64,
    /// Where in the file they lie.
    place: Range<u64>,
}

impl Listed {
    /// Whether most of the file is listed, as far as these segments reach: it was linked anew, not changed somewhere.
    fn is_dense(&self) -> bool {
        self.bytes * 2 > self.place.end - self.place.start
    }
}

impl RecordQueries {
    /// What was offered with that number.
    pub fn body(&self, number: u32) -> Option<&Body> {
        self.numbers.iter().find(|(_, other)| **other == number).map(|(body, _)| body)
    }

    /// Notes that the proxy answered for these, and gives all for which it did so far: later segments go on with them.
    pub fn answered(&mut self, answers: &[RecordAnswer]) -> Vec<Body> {
        self.answered.extend(answers.iter().map(|answer| answer.file));
        self.answered.iter().filter_map(|number| self.body(*number).cloned()).collect()
    }

    /// Queries the executables that these segments list, in messages to be sent before them. Blocks.
    ///
    /// Files that may have stayed as they were are not offered: names take a hundredth of a file.
    ///
    /// # Errors
    /// The segments cannot be read.
    pub fn of(&mut self, spool: &Spool, segments: &[SegmentIndex]) -> Result<Vec<RecordQuery>> {
        let mut offers = Vec::new();
        for listed in list(spool, segments)? {
            let part = |file, names: &[u8], complete| RecordQuery {
                file,
                segment: listed.segment,
                first: listed.first,
                chunks: listed.chunks,
                names: names.to_vec(),
                complete,
            };
            if let Some(number) = self.numbers.get(&listed.body) {
                offers.push(part(*number, &[], true));
                continue;
            }
            if !listed.fills
                || !listed.is_dense()
                || self.numbers.len() == OFFERS_MAX / 2
                || !is_executable(&listed.body)
            {
                continue;
            }
            let Some(records) = records_of(&listed.body) else { continue };
            let names = Offer::new(records.hashes()).encode();
            if self.bytes + names.len() > OFFER_BYTES_MAX {
                continue;
            }
            self.bytes += names.len();
            let number = u32::try_from(self.numbers.len()).expect("offers are bounded");
            self.numbers.insert(listed.body.clone(), number);
            let pieces = names.chunks(PARCEL_PIECE_BYTES);
            let last = pieces.len();
            offers.extend((1..).zip(pieces).map(|(at, piece)| part(number, piece, at == last)));
        }
        Ok(offers)
    }
}

fn list(spool: &Spool, segments: &[SegmentIndex]) -> Result<Vec<Listed>> {
    let mut files: Vec<Listed> = Vec::new();
    for segment in segments {
        let chunks: Vec<Located> = spool.chunks(*segment)?;
        let items = manifest::decode_segment(&spool.segment(*segment)?).map_err(Error::from)?.len();
        let of = |body: &Body| chunks.iter().filter(|located| located.is_of(body)).count();
        for (number, located) in (0..).zip(&chunks) {
            let end = located.offset + u64::from(located.chunk.bytes);
            if let Some(file) = files.last_mut().filter(|file| located.is_of(&file.body)) {
                file.chunks += 1;
                file.bytes += u64::from(located.chunk.bytes);
                file.place.end = end;
                // Counted once for each segment.
                if file.counted != *segment {
                    file.counted = *segment;
                    file.fills |= of(&file.body) * 2 > items;
                }
                continue;
            }
            let body = located.body();
            files.push(Listed {
                segment: *segment,
                first: number,
                chunks: 1,
                fills: of(&body) * 2 > items,
                counted: *segment,
                bytes: u64::from(located.chunk.bytes),
                place: located.offset..end,
                body,
            });
        }
    }
    Ok(files)
}
