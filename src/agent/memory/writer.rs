//! Writes a memory.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::block::{BLOCK_PLAIN_TARGET, Listed};
use super::confirmed::Confirmed;
use super::footer::{self, CHECK_BYTES, HEADER};
use super::stat::STAT_BYTES;
use super::{Error, Key, MEMORY_BYTES_MAX, Result, Stats, WriteOptions, folder};
use delta::compression::{Compressor, LEVEL_FAST};
use disk::files::{self, OnPath};
use format::manifest::SegmentIndex;

/// Writes the memory of a push over the one before it, and removes old ones where all are too large.
///
/// `segment` returns the bytes of each segment; `stats` are those of the release's files. Two writers at a time are
/// harmless: the later rename wins. Nothing is synced.
///
/// # Errors
/// [`Error::TooLarge`], or the step that failed; an earlier memory is then still there.
pub fn write(
    folder: &Path,
    key: &Key,
    confirmed: &Confirmed<'_>,
    segment: impl FnMut(SegmentIndex) -> files::Result<Vec<u8>>,
    stats: &mut Stats,
    options: &WriteOptions,
) -> Result<()> {
    debug_assert_eq!(stats.count(), confirmed.root.totals.files, "each file has a stat");
    let source = std::path::absolute(confirmed.source).on("find", confirmed.source)?;
    let mut aside = folder::create_aside(folder)?;
    let place = aside.path().to_owned();
    let mut output = Output {
        file: BufWriter::with_capacity(BLOCK_PLAIN_TARGET, aside.as_file_mut()),
        place: &place,
        hasher: blake3::Hasher::new(),
        length: 0,
        length_max: options.memory_bytes_max.min(MEMORY_BYTES_MAX),
        items: confirmed.root.totals.files + confirmed.root.totals.chunks,
        compressor: Compressor::new(LEVEL_FAST),
    };
    output.bytes(&HEADER)?;
    let segment_blocks = output.segments(confirmed.segments.len(), segment)?;
    let mut stat_blocks = Vec::new();
    let mut failed = None;
    let read = stats.read(BLOCK_PLAIN_TARGET / STAT_BYTES, |bytes, count| {
        match output.block(bytes, count) {
            Ok(block) => stat_blocks.push(block),
            Err(error) => failed = failed.take().or(Some(error)),
        }
        Ok(())
    });
    if let Some(error) = failed {
        return Err(error);
    }
    read?;
    output.bytes(&footer::encode(key, confirmed, &source, segment_blocks, stat_blocks))?;
    output.finish()?;
    folder::publish(folder, &folder::path(folder, key), aside, options)
}

/// The file under way; hashes and counts what is written.
struct Output<'a, W: Write> {
    file: W,
    place: &'a Path,
    hasher: blake3::Hasher,
    length: u64,
    length_max: u64,
    items: u64,
    compressor: Compressor,
}

impl<W: Write> Output<'_, W> {
    fn segments(
        &mut self,
        count: usize,
        mut segment: impl FnMut(SegmentIndex) -> files::Result<Vec<u8>>,
    ) -> Result<Vec<Listed>> {
        let (mut blocks, mut plain, mut gathered) = (Vec::new(), Vec::new(), 0);
        for index in SegmentIndex::range(0..count) {
            plain.extend_from_slice(&segment(index)?);
            gathered += 1;
            if plain.len() >= BLOCK_PLAIN_TARGET {
                blocks.push(self.block(&plain, gathered)?);
                plain.clear();
                gathered = 0;
            }
        }
        if gathered > 0 {
            blocks.push(self.block(&plain, gathered)?);
        }
        Ok(blocks)
    }

    fn block(&mut self, plain: &[u8], count: u32) -> Result<Listed> {
        let (codec, stored) = self.compressor.compress(plain);
        self.bytes(&stored)?;
        let bytes = |bytes: &[u8]| u32::try_from(bytes.len()).expect("blocks are some hundred KiB");
        Ok(Listed { codec, stored: bytes(&stored), plain: bytes(plain), count })
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        if self.length + CHECK_BYTES as u64 > self.length_max {
            return Err(Error::TooLarge(self.items));
        }
        self.hasher.update(bytes);
        self.write(bytes)
    }

    fn finish(mut self) -> Result<()> {
        let check = self.hasher.finalize();
        self.write(&check.as_bytes()[..CHECK_BYTES])?;
        let flushed: io::Result<()> = self.file.flush();
        Ok(flushed.on("write", self.place)?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.file.write_all(bytes).on("write", self.place)?)
    }
}
