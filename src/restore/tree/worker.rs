//! Does jobs: reads chunks, from an earlier copy if they are right there, and writes them in large pieces.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use super::Reuse;
use super::jobs::{Job, LocalBytes, Output, Whole};
use super::linker::Linking;
use super::site::Site;
use crate::restore::hole::is_hole;
use crate::restore::walk::read_chunk;
use crate::restore::{Archive, ChunkReader, Error, Rebuilt, write_archive};
use disk::files;
use format::recipe::{ChunkRef, Container};
use ground::ids::ChunkId;
use ground::limits::CHUNK_BYTES_MAX;
use ground::monitor::Phase;
use ground::poison::Unpoisoned as _;

/// 1 MiB: the most that is written at once.
const WRITE_BYTES: usize = 1024 * 1024;

/// One thread's reader and buffer.
pub(super) struct Worker<'a> {
    site: &'a Site<'a>,
    reader: &'a mut dyn ChunkReader,
    rebuilt: Option<&'a Rebuilt>,
    /// Bytes to be written next.
    buffer: Vec<u8>,
    linking: Linking<'a>,
}

impl<'a> Worker<'a> {
    /// Starts with nothing to do; rebuilt archives are read from `rebuilt`, and stored there.
    pub(super) fn new(
        site: &'a Site<'a>,
        reader: &'a mut dyn ChunkReader,
        rebuilt: Option<&'a Rebuilt>,
    ) -> Self {
        Self { site, reader, rebuilt, buffer: Vec::with_capacity(WRITE_BYTES), linking: Linking::new(site) }
    }

    /// Does jobs until none come; after an error anywhere it only takes them, so that the sender can end.
    pub(super) fn run(mut self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            let job = jobs.lock().unpoisoned().recv();
            let Ok(job) = job else { return };
            if let Err(error) = self.site.go_on().and_then(|()| self.job(job)) {
                self.site.fail(error);
            }
        }
    }

    fn job(&mut self, job: Job) -> Result<(), Error> {
        match job {
            Job::Files(files) => files.into_iter().try_for_each(|file| {
                self.site.go_on()?;
                self.whole(file)
            }),
            Job::Links(files) => files.into_iter().try_for_each(|file| {
                self.site.go_on()?;
                if self.linking.link(&file) {
                    self.site.linked(file.size);
                    return Ok(());
                }
                self.whole(file)
            }),
            Job::Archive(file, container) => self.archive(&file, container),
            Job::Part(part) => {
                self.fill(&part.output, part.offset, &part.chunks)?;
                Ok(finish(self.site, part.output)?)
            }
        }
    }

    fn whole(&mut self, wanted: Whole) -> Result<(), Error> {
        let site = self.site;
        let earlier = if wanted.same { site.open_earlier(&wanted.path, wanted.size) } else { None };
        let (links, reflinks) = (site.reuse == Reuse::HardLink, site.may_reflink());
        if let Some(earlier) = &earlier
            && links
            && !reflinks
            && self.link(&earlier.file, &wanted)
        {
            return Ok(());
        }
        let file = site.create_file(&wanted.path, wanted.mode)?;
        let modified = earlier.as_ref().map(|earlier| earlier.modified);
        let basis = site.basis(earlier, &file, &wanted)?;
        if links && reflinks && matches!(basis, LocalBytes::Earlier(_)) {
            // The first refused reflink: now that this is known, a link can be tried.
            site.remove_file(&wanted.path)?;
            return self.whole(wanted);
        }
        if !matches!(basis, LocalBytes::InPlace) && wanted.chunks.iter().any(is_hole) {
            site.set_length(&file, &wanted)?;
        }
        let output = Output { path: wanted.path, file, basis, modified, rebuilt: AtomicBool::new(false) };
        self.fill(&output, 0, &wanted.chunks)?;
        Ok(finish(site, Arc::new(output))?)
    }

    /// Writes an archive: the earlier one's bytes where it is the same, else those that were rebuilt before, else
    /// rebuilt.
    fn archive(&mut self, wanted: &Whole, container: Container) -> Result<(), Error> {
        let site = self.site;
        let earlier = if wanted.same { site.open_earlier(&wanted.path, wanted.size) } else { None };
        if let Some(earlier) = &earlier
            && site.reuse == Reuse::HardLink
            && !site.may_reflink()
            && is_artifact(&earlier.file, wanted.size, container, &mut self.buffer, |_, _| Ok(()))?
            && site.hard_link(&earlier.file, wanted)
        {
            self.reused_archive(wanted);
            return Ok(());
        }
        let file = site.create_file(&wanted.path, wanted.mode)?;
        let write = |bytes: &[u8], offset| {
            site.go_on()?;
            Ok(site.on(file.write_all_at(bytes, offset), "write", &wanted.path)?)
        };
        let modified = earlier.as_ref().map(|earlier| earlier.modified);
        let is_there = match &site.basis(earlier, &file, wanted)? {
            LocalBytes::None => false,
            LocalBytes::InPlace => {
                is_artifact(&file, wanted.size, container, &mut self.buffer, |_, _| Ok(()))?
            }
            LocalBytes::Earlier(earlier) => {
                is_artifact(earlier, wanted.size, container, &mut self.buffer, write)?
            }
        };
        if is_there {
            self.reused_archive(wanted);
            return Ok(site.finish_file(&file, &wanted.path, modified)?);
        }
        if let Some(rebuilt) = self.rebuilt
            && let Some(before) = rebuilt.get(&container.artifact, wanted.size)
        {
            if is_artifact(&before, wanted.size, container, &mut self.buffer, write)? {
                site.monitor.advance(Phase::Rebuild, wanted.size);
                return Ok(site.finish_file(&file, &wanted.path, None)?);
            }
            rebuilt.forget(&container.artifact);
        }
        let mut keeping = self.rebuilt.and_then(|rebuilt| rebuilt.keep(&container.artifact, wanted.size));
        let mut offset = 0;
        let archive = Archive { path: &wanted.path, size: wanted.size, container, chunks: &wanted.chunks };
        write_archive(archive, self.reader, &site.turns, &mut |bytes| {
            write(bytes, offset)?;
            offset += bytes.len() as u64;
            if let Some(keeping) = &mut keeping {
                keeping.write(bytes);
            }
            site.monitor.advance(Phase::Rebuild, bytes.len() as u64);
            Ok(())
        })?;
        if let Some(keeping) = keeping {
            keeping.end();
        }
        Ok(site.finish_file(&file, &wanted.path, None)?)
    }

    fn reused_archive(&self, wanted: &Whole) {
        self.site.reused(wanted.size);
        self.site.reused_whole();
        self.site.monitor.advance(Phase::Rebuild, wanted.size);
    }

    /// Links the earlier file, once it is verified, instead of writing a new one.
    fn link(&mut self, earlier: &File, wanted: &Whole) -> bool {
        let mut offset = 0;
        for chunk in &wanted.chunks {
            self.buffer.clear();
            if !self.take_from(earlier, offset, chunk) {
                return false;
            }
            offset += u64::from(chunk.bytes);
        }
        let linked = self.site.hard_link(earlier, wanted);
        if linked {
            self.site.reused(wanted.size);
            self.site.reused_whole();
            self.site.monitor.advance(Phase::Rebuild, wanted.size);
        }
        linked
    }

    /// Writes `chunks` from `offset` on.
    fn fill(&mut self, output: &Output, offset: u64, chunks: &[ChunkRef]) -> Result<(), Error> {
        self.buffer.clear();
        // The offset of the buffer's first byte, and that of the next chunk.
        let (mut begin, mut next) = (offset, offset);
        for chunk in chunks {
            let pending = self.buffer.len();
            if is_hole(chunk) && self.hole(output, (begin, next))? {
                next += u64::from(chunk.bytes);
                begin = next;
                continue;
            }
            let found = match &output.basis {
                LocalBytes::None => false,
                LocalBytes::Earlier(earlier) => self.take_from(earlier, next, chunk),
                LocalBytes::InPlace => self.take_from(&output.file, next, chunk),
            };
            next += u64::from(chunk.bytes);
            if found {
                self.site.reused(u64::from(chunk.bytes));
            } else {
                output.rebuilt.store(true, Ordering::Relaxed);
                read_chunk(self.reader, chunk, &mut self.buffer)?;
            }
            if found && matches!(output.basis, LocalBytes::InPlace) {
                self.buffer.truncate(pending);
                self.write(output, begin)?;
                begin = next;
            } else if self.buffer.len() >= WRITE_BYTES {
                self.write(output, begin)?;
                begin = next;
            }
        }
        self.write(output, begin)?;
        self.site.monitor.advance(Phase::Rebuild, next - offset);
        Ok(())
    }

    /// Leaves a hole for a chunk of zeros at the second offset, and writes the pending bytes from the first offset on;
    /// returns false where the zeros must be written.
    fn hole(&mut self, output: &Output, (begin, next): (u64, u64)) -> Result<bool, Error> {
        let part = next..next + u64::from(CHUNK_BYTES_MAX);
        if matches!(output.basis, LocalBytes::InPlace)
            && !files::punch(&output.file, &self.site.path(&output.path), part)?
        {
            return Ok(false);
        }
        self.write(output, begin)?;
        Ok(true)
    }

    /// Appends a chunk from a file that may have changed; false, and nothing appended, where it has.
    fn take_from(&mut self, file: &File, offset: u64, chunk: &ChunkRef) -> bool {
        let before = self.buffer.len();
        self.buffer.resize(before + chunk.bytes as usize, 0);
        let read = file.read_exact_at(&mut self.buffer[before..], offset);
        let right = read.is_ok() && ChunkId::of(&self.buffer[before..]) == chunk.id;
        if !right {
            self.buffer.truncate(before);
        }
        right
    }

    fn write(&mut self, output: &Output, offset: u64) -> Result<(), files::Error> {
        let written = output.file.write_all_at(&self.buffer, offset);
        self.buffer.clear();
        self.site.on(written, "write", &output.path)
    }
}

/// Returns whether a file holds the archive; `take` gets its bytes with their offsets, right or wrong.
fn is_artifact(
    file: &File,
    size: u64,
    container: Container,
    buffer: &mut Vec<u8>,
    mut take: impl FnMut(&[u8], u64) -> Result<(), Error>,
) -> Result<bool, Error> {
    let (mut hasher, mut offset) = (blake3::Hasher::new(), 0);
    while offset < size {
        let length = usize::try_from(size - offset).unwrap_or(usize::MAX).min(WRITE_BYTES);
        buffer.resize(length, 0);
        if file.read_exact_at(buffer, offset).is_err() {
            return Ok(false);
        }
        hasher.update(buffer);
        take(buffer, offset)?;
        offset += length as u64;
    }
    buffer.clear();
    Ok(hasher.finalize().as_bytes() == container.artifact.as_bytes())
}

/// Drops a file; the last thread to do so counts it, and gives it its time and owner.
pub(super) fn finish(site: &Site<'_>, output: Arc<Output>) -> Result<(), files::Error> {
    let Some(output) = Arc::into_inner(output) else { return Ok(()) };
    let whole = !matches!(output.basis, LocalBytes::None) && !output.rebuilt.into_inner();
    if whole {
        site.reused_whole();
    }
    site.finish_file(&output.file, &output.path, output.modified.filter(|_| whole))
}
