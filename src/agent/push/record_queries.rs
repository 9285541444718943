//! Asks the proxy which records of new executables it has, from older ones (docs/EXECUTABLES.md).

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::encode::relinked::{is_executable, records_of};
use crate::agent::scan::{Body, Located, Spool};
use crate::agent::{Error, Result};
use delta::relink::RecordNames;
use format::manifest::{self, SegmentIndex};
use ground::limits::{PARCEL_PIECE_BYTES, RECORD_QUERIES_MAX, RECORD_QUERY_BYTES_MAX};
use protocol::wire::{RecordAnswer, RecordQuery};

/// The queries of one push.
#[derive(Debug, Default)]
pub struct RecordQueries {
    numbers: HashMap<Body, u32>,
    /// The numbers of those for which the proxy has an older executable.
    answered: HashSet<u32>,
    bytes: usize,
}

/// The chunks of one body in some segments.
#[derive(Debug)]
struct Listed {
    body: Body,
    segment: SegmentIndex,
    first: u32,
    chunks: u32,
    /// True if it fills most of a segment that the proxy lacks: then it has probably changed.
    fills: bool,
    /// The last segment that was counted.
    counted: SegmentIndex,
    /// Plain bytes of the chunks.
    bytes: u64,
    /// Where in the file they lie.
    place: Range<u64>,
}

impl Listed {
    /// Returns whether these segments list most of the part of the file that they span: it was relinked, not edited.
    fn is_dense(&self) -> bool {
        self.bytes * 2 > self.place.end - self.place.start
    }
}

impl RecordQueries {
    /// Returns the executable whose query had that number.
    pub fn body(&self, number: u32) -> Option<&Body> {
        self.numbers.iter().find(|(_, other)| **other == number).map(|(body, _)| body)
    }

    /// Notes the proxy's answers; returns all executables that it has answered for, as later segments may continue them.
    pub fn answered(&mut self, answers: &[RecordAnswer]) -> Vec<Body> {
        self.answered.extend(answers.iter().map(|answer| answer.file));
        self.answered.iter().filter_map(|number| self.body(*number).cloned()).collect()
    }

    /// Returns queries for the executables in these segments, to be sent before the segments. Blocks.
    ///
    /// Leaves out files that have probably not changed: the names of a file's records take a hundredth of its size.
    ///
    /// # Errors
    /// The segments cannot be read.
    pub fn of(&mut self, spool: &Spool, segments: &[SegmentIndex]) -> Result<Vec<RecordQuery>> {
        let mut queries = Vec::new();
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
                queries.push(part(*number, &[], true));
                continue;
            }
            if !listed.fills
                || !listed.is_dense()
                || self.numbers.len() == RECORD_QUERIES_MAX / 2
                || !is_executable(&listed.body)
            {
                continue;
            }
            let Some(records) = records_of(&listed.body) else { continue };
            let names = RecordNames::new(records.hashes()).encode();
            if self.bytes + names.len() > RECORD_QUERY_BYTES_MAX {
                continue;
            }
            self.bytes += names.len();
            let number = u32::try_from(self.numbers.len()).expect("queries are bounded");
            self.numbers.insert(listed.body.clone(), number);
            let pieces = names.chunks(PARCEL_PIECE_BYTES);
            let last = pieces.len();
            queries.extend((1..).zip(pieces).map(|(at, piece)| part(number, piece, at == last)));
        }
        Ok(queries)
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
