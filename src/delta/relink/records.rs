//! Cuts a normalised file into records and names them, alone and in groups.

use std::ops::Range;

use blake3::Hash;
use fastcdc::v2020::FastCDC;

use super::normalised::Normalised;

/// Least, usual and most bytes of a record within a long function.
const FUNCTION_CUT: (usize, usize, usize) = (128, 512, 1024);
/// A function up to this length is one record.
const FUNCTION_BYTES_MAX: usize = 1024;
/// A function of this length has groups of its own, as what is long changes more often.
const FENCED_BYTES_MIN: usize = 2048;
/// Least, usual and most bytes of a record of plain bytes.
const PLAIN_CUT: (usize, usize, usize) = (128, 512, 2048);
/// A group ends where a name has this many zero bits: one in eight.
const GROUP_BITS: u32 = 3;
/// No group has more records.
pub const GROUP_RECORDS_MAX: usize = 64;

/// The records of a normalised file: where they end, and their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    ends: Vec<usize>,
    hashes: Vec<Hash>,
    group_ends: Vec<usize>,
    groups: Vec<Hash>,
}

impl Records {
    /// Cuts and names. Time: one BLAKE3 pass over the stream in small pieces, about 300 MB/s.
    pub fn new(normalised: &Normalised) -> Self {
        let mut records =
            Self { ends: Vec::new(), hashes: Vec::new(), group_ends: Vec::new(), groups: Vec::new() };
        let mut start = 0;
        for end in normalised.function_ends.iter().copied() {
            records.add_function(&normalised.stream()[start..end], start);
            start = end;
        }
        records.add(&normalised.stream()[start..], start, PLAIN_CUT);
        records.end_group();
        records
    }

    fn add_function(&mut self, bytes: &[u8], start: usize) {
        let fenced = bytes.len() >= FENCED_BYTES_MIN;
        if fenced {
            self.end_group();
        }
        if bytes.len() <= FUNCTION_BYTES_MAX {
            self.add_record(bytes, start + bytes.len());
        } else {
            self.add(bytes, start, FUNCTION_CUT);
        }
        if fenced {
            self.end_group();
        }
    }

    fn add(&mut self, bytes: &[u8], start: usize, (least, usual, most): (usize, usize, usize)) {
        for chunk in FastCDC::new(bytes, least, usual, most) {
            let end = chunk.offset + chunk.length;
            self.add_record(&bytes[chunk.offset..end], start + end);
        }
    }

    fn add_record(&mut self, bytes: &[u8], end: usize) {
        let hash = blake3::hash(bytes);
        let ends_group = u32::from(hash.as_bytes()[31]).trailing_zeros() >= GROUP_BITS;
        self.ends.push(end);
        self.hashes.push(hash);
        if ends_group || self.hashes.len() - self.group_ends.last().unwrap_or(&0) == GROUP_RECORDS_MAX {
            self.end_group();
        }
    }

    fn end_group(&mut self) {
        let members = *self.group_ends.last().unwrap_or(&0)..self.hashes.len();
        if !members.is_empty() {
            self.group_ends.push(members.end);
            let mut hasher = blake3::Hasher::new();
            self.hashes[members].iter().for_each(|hash| {
                hasher.update(hash.as_bytes());
            });
            self.groups.push(hasher.finalize());
        }
    }

    /// The records' hashes, in order.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The groups' hashes, in order: each of those of its records.
    pub fn groups(&self) -> &[Hash] {
        &self.groups
    }

    /// Where a record lies in the stream.
    pub fn place(&self, record: usize) -> Range<usize> {
        let start = if record == 0 { 0 } else { self.ends[record - 1] };
        start..self.ends[record]
    }

    /// Which records a group has.
    pub fn members(&self, group: usize) -> Range<usize> {
        let start = if group == 0 { 0 } else { self.group_ends[group - 1] };
        start..self.group_ends[group]
    }

    /// Where a group lies in the stream.
    pub fn group_place(&self, group: usize) -> Range<usize> {
        let members = self.members(group);
        self.place(members.start).start..self.place(members.end - 1).end
    }
}
