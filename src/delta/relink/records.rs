//! Cuts a normalised file into records and hashes them.

use std::ops::Range;

use blake3::Hash;
use fastcdc::v2020::FastCDC;

use super::normalised::Normalised;

/// The least, average and most bytes of a record within a long function.
const FUNCTION_CUT: (usize, usize, usize) = (128, 512, 1024);
/// A function up to this length is one record.
const FUNCTION_BYTES_MAX: usize = 1024;
/// The least, average and most bytes of a record of plain bytes.
const PLAIN_CUT: (usize, usize, usize) = (128, 512, 2048);

/// The records of a normalised file: where they end, and their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    ends: Vec<usize>,
    hashes: Vec<Hash>,
}

impl Records {
    /// Cuts a file into records and hashes them. Time: one BLAKE3 pass over the stream in small pieces, about 300 MB/s.
    pub fn new(normalised: &Normalised) -> Self {
        let mut records = Self { ends: Vec::new(), hashes: Vec::new() };
        let mut start = 0;
        for end in normalised.function_ends.iter().copied() {
            records.add_function(&normalised.stream()[start..end], start);
            start = end;
        }
        records.add(&normalised.stream()[start..], start, PLAIN_CUT);
        records
    }

    fn add_function(&mut self, bytes: &[u8], start: usize) {
        if bytes.len() <= FUNCTION_BYTES_MAX {
            self.add_record(bytes, start + bytes.len());
        } else {
            self.add(bytes, start, FUNCTION_CUT);
        }
    }

    fn add(&mut self, bytes: &[u8], start: usize, (least, usual, most): (usize, usize, usize)) {
        for chunk in FastCDC::new(bytes, least, usual, most) {
            let end = chunk.offset + chunk.length;
            self.add_record(&bytes[chunk.offset..end], start + end);
        }
    }

    fn add_record(&mut self, bytes: &[u8], end: usize) {
        self.ends.push(end);
        self.hashes.push(blake3::hash(bytes));
    }

    /// Returns the records' hashes, in order.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Returns where a record lies in the stream.
    pub fn place(&self, record: usize) -> Range<usize> {
        let start = if record == 0 { 0 } else { self.ends[record - 1] };
        start..self.ends[record]
    }
}
