//! Offers the records of executables to a proxy that may have older ones.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::executables::{is_executable, records_of};
use super::scan::{Holder, Located, Spool};
use super::{Error, Result};
use crate::executable::Offer;
use crate::limits::{OFFER_BYTES_MAX, OFFERS_MAX, PARCEL_PIECE_BYTES};
use crate::manifest;
use crate::wire::FileOffer;

/// What one push has offered.
#[derive(Debug, Default)]
pub(super) struct Offers {
    numbers: HashMap<Arc<Path>, u32>,
    bytes: usize,
}

/// A file's chunks in some segments.
#[derive(Debug)]
struct Listed {
    path: Arc<Path>,
    segment: u32,
    first: u32,
    chunks: u32,
    /// Whether it is most of a segment, which the proxy lacks: then it probably has changed.
    fills: bool,
    /// The last segment that was looked at.
    counted: u32,
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

impl Offers {
    /// The file that was offered with that number.
    pub fn path(&self, number: u32) -> Option<&Arc<Path>> {
        self.numbers.iter().find(|(_, other)| **other == number).map(|(path, _)| path)
    }

    /// Offers the executables that these segments list, in messages to be sent before them. Blocks.
    ///
    /// Files that may have stayed as they were are not offered: names take a hundredth of a file.
    ///
    /// # Errors
    /// The segments cannot be read.
    pub fn of(&mut self, spool: &Spool, segments: &[u32]) -> Result<Vec<FileOffer>> {
        let mut offers = Vec::new();
        for listed in list(spool, segments)? {
            let part = |file, names: &[u8], complete| FileOffer {
                file,
                segment: listed.segment,
                first: listed.first,
                chunks: listed.chunks,
                names: names.to_vec(),
                complete,
            };
            if let Some(number) = self.numbers.get(&listed.path) {
                offers.push(part(*number, &[], true));
                continue;
            }
            if !listed.fills
                || !listed.is_dense()
                || self.numbers.len() == OFFERS_MAX / 2
                || !is_executable(&listed.path)
            {
                continue;
            }
            let Some(records) = records_of(&listed.path) else { continue };
            let names = Offer::new(records.hashes()).encode();
            if self.bytes + names.len() > OFFER_BYTES_MAX {
                continue;
            }
            self.bytes += names.len();
            let number = u32::try_from(self.numbers.len()).expect("offers are bounded");
            self.numbers.insert(Arc::clone(&listed.path), number);
            let pieces = names.chunks(PARCEL_PIECE_BYTES);
            let last = pieces.len();
            offers.extend((1..).zip(pieces).map(|(at, piece)| part(number, piece, at == last)));
        }
        Ok(offers)
    }
}

fn list(spool: &Spool, segments: &[u32]) -> Result<Vec<Listed>> {
    let mut files: Vec<Listed> = Vec::new();
    for segment in segments {
        let chunks: Vec<Located> = spool.chunks(*segment)?;
        let items = manifest::decode_segment(&spool.segment(*segment)?).map_err(Error::from)?.len();
        let of = |path: &Arc<Path>| chunks.iter().filter(|located| located.path == *path).count();
        for (number, located) in (0..).zip(&chunks) {
            if located.holder != Holder::File {
                continue;
            }
            match files.last_mut().filter(|file| file.path == located.path) {
                Some(file) => {
                    file.chunks += 1;
                    file.bytes += u64::from(located.chunk.bytes);
                    file.place.end = located.offset + u64::from(located.chunk.bytes);
                    // Counted once for each segment.
                    if file.counted != *segment {
                        file.counted = *segment;
                        file.fills |= of(&located.path) * 2 > items;
                    }
                }
                None => files.push(Listed {
                    path: Arc::clone(&located.path),
                    segment: *segment,
                    first: number,
                    chunks: 1,
                    fills: of(&located.path) * 2 > items,
                    counted: *segment,
                    bytes: u64::from(located.chunk.bytes),
                    place: located.offset..located.offset + u64::from(located.chunk.bytes),
                }),
            }
        }
    }
    Ok(files)
}
