//! Walks the manifest: creates entries without content, and turns the rest into jobs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;

use super::Written;
use super::jobs::{
    BATCH_BYTES, BATCH_FILES_MAX, Job, LINK_CHUNKS_MAX, LINKS_CHUNKS_MAX, LINKS_MAX, LINKS_MIN, LocalBytes,
    Output, PART_BYTES, PART_CHUNKS_MAX, Part, Whole,
};
use super::linker::{Linker, are_neighbours};
use super::same::SameFiles;
use super::site::{Site, waits_for_its_mode};
use super::{OutsideLinks, Reuse, worker};
use crate::restore::hole::is_hole;
use crate::restore::{ChunkReader, Error, Items};
use disk::files;
use format::manifest::{self, EntryPath, Item, Root};
use format::recipe::{ChunkRef, Container};

/// Makes jobs of a manifest. Memory: the chunks of one part, one batch of small files, one
/// archive.
pub(super) struct Planner<'a> {
    root: &'a Root,
    site: &'a Site<'a>,
    same: &'a SameFiles,
    linker: Option<Linker<'a>>,
    sender: Option<SyncSender<Job>>,
    open: Option<OpenFile>,
    batch: Vec<Whole>,
    batch_bytes: u64,
    batch_chunks: usize,
    links: Vec<Whole>,
    links_chunks: usize,
    sealed_directories: bool,
    hard_links: bool,
    /// Files, and their bytes, that the manifest has so far.
    met: (u64, u64),
    written: Written,
}

/// The file whose chunks come in.
struct OpenFile {
    file: Whole,
    /// An archive's; all of its chunks are gathered.
    container: Option<Container>,
    /// Once the file is known to be large: where its parts go.
    output: Option<Arc<Output>>,
    /// Bytes before `file.chunks`.
    offset: u64,
    /// Bytes of `file.chunks`.
    gathered: u64,
}

impl<'a> Planner<'a> {
    /// Starts before the first entry.
    pub(super) fn new(
        root: &'a Root,
        site: &'a Site<'a>,
        (same, linker): (&'a SameFiles, Option<Linker<'a>>),
        sender: SyncSender<Job>,
    ) -> Self {
        Self {
            root,
            site,
            same,
            linker,
            sender: Some(sender),
            open: None,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_chunks: 0,
            links: Vec::new(),
            links_chunks: 0,
            sealed_directories: false,
            hard_links: false,
            met: (0, 0),
            written: Written::default(),
        }
    }

    /// Walks the whole manifest.
    ///
    /// # Errors
    /// A damaged manifest, an entry that cannot be made, or [`Error::Cancelled`] after another thread failed.
    pub(super) fn run(&mut self, reader: &mut dyn ChunkReader) -> Result<(), Error> {
        for item in Items::new(self.root, reader) {
            let item = item?;
            if item.path().is_some_and(|path| self.site.mapping.leaves_out(path)) {
                self.end_file()?;
                self.site.go_on()?;
                self.leave_out(&item)?;
                continue;
            }
            match item {
                Item::Chunk(chunk) => self.chunk(chunk)?,
                Item::Directory { path, mode } => {
                    self.end_file()?;
                    self.site.go_on()?;
                    let mode = self.site.mapping.mode_of_directory(mode);
                    self.site.create_directory(&path, mode)?;
                    self.sealed_directories |= waits_for_its_mode(mode);
                    self.written.directories += 1;
                }
                Item::Symlink { path, target } => {
                    self.end_file()?;
                    self.site.create_symlink(&path, &target)?;
                    self.written.symlinks += 1;
                }
                Item::OutsideLink { path, target } => {
                    self.end_file()?;
                    if self.site.outside_links == OutsideLinks::Refuse {
                        return Err(Error::OutsideLink { path, target });
                    }
                    self.site.create_symlink(&path, &target)?;
                    self.written.symlinks += 1;
                }
                Item::Linked => {}
                Item::HardLink { .. } => {
                    self.end_file()?;
                    self.hard_links = true;
                }
                Item::File { path, mode, size, recipe } => {
                    self.end_file()?;
                    self.begin_file(path, mode, size, recipe.container())?;
                }
            }
        }
        self.end_file()?;
        self.send_links()?;
        self.send_batch()
    }

    /// Ends the workers' queue.
    pub(super) fn end(&mut self) {
        self.sender = None;
    }

    /// Returns what was written.
    pub(super) fn written(&self) -> Written {
        self.written
    }

    fn begin_file(
        &mut self,
        path: EntryPath,
        mode: u16,
        size: u64,
        container: Option<Container>,
    ) -> Result<(), Error> {
        let same = self.same.has(self.met.0);
        self.meet(size)?;
        self.written.files += 1;
        self.written.bytes += size;
        let mode = self.site.mapping.mode_of_file(mode);
        let linker = self.linker.as_mut().filter(|_| same);
        let linkable = linker.and_then(|linker| linker.looks(&path, size, mode));
        let file = Whole { path, mode, size, chunks: Vec::new(), same, linkable };
        let is_large = container.is_some() || size > PART_BYTES;
        self.open = Some(OpenFile { file, container, output: None, offset: 0, gathered: 0 });
        if is_large { self.link_open() } else { Ok(()) }
    }

    /// Links the open file here and now, if it may be linked, as the list of its chunks becomes long.
    fn link_open(&mut self) -> Result<(), Error> {
        self.site.go_on()?;
        let (Some(open), Some(linker)) = (&mut self.open, &mut self.linker) else { return Ok(()) };
        if linker.link(&open.file) {
            self.site.linked(open.file.size);
            self.open = None;
        } else {
            open.file.linkable = None;
        }
        Ok(())
    }

    /// Counts a file. The root's totals bound what a release may take, before anything is written.
    fn meet(&mut self, size: u64) -> Result<(), Error> {
        self.met = (self.met.0 + 1, self.met.1.saturating_add(size));
        let is_within = self.met.1 <= self.root.totals.bytes && self.met.0 <= self.root.totals.files;
        if is_within { Ok(()) } else { Err(manifest::Error::Totals.into()) }
    }

    /// Counts an entry that is left out. Its chunks follow it, and belong to no open file.
    fn leave_out(&mut self, item: &Item) -> Result<(), Error> {
        self.written.left_out += 1;
        if let Item::File { size, .. } = item { self.meet(*size) } else { Ok(()) }
    }

    fn chunk(&mut self, chunk: ChunkRef) -> Result<(), Error> {
        let is_long =
            |open: &OpenFile| open.file.linkable.is_some() && open.file.chunks.len() >= PART_CHUNKS_MAX;
        if self.open.as_ref().is_some_and(is_long) {
            self.link_open()?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.file.chunks.push(chunk);
        open.gathered += u64::from(chunk.bytes);
        let linked = open.file.same && self.site.reuse == Reuse::HardLink && open.output.is_none();
        let full = if open.container.is_some() || open.file.linkable.is_some() {
            false
        } else if linked {
            open.file.chunks.len() >= LINK_CHUNKS_MAX
        } else {
            open.gathered >= PART_BYTES || open.file.chunks.len() >= PART_CHUNKS_MAX
        };
        let complete = open.offset + open.gathered == open.file.size;
        if full && !complete { self.send_part() } else { Ok(()) }
    }

    /// Sends what was gathered of a large file, which is created with its first part.
    fn send_part(&mut self) -> Result<(), Error> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let output = match &open.output {
            Some(output) => Arc::clone(output),
            None => Arc::clone(open.output.insert(Arc::new(create(self.site, &open.file)?))),
        };
        let chunks = std::mem::take(&mut open.file.chunks);
        if !matches!(output.basis, LocalBytes::InPlace) {
            reserve(self.site, &output, open.offset, &chunks)?;
        }
        let part = Part { output, offset: open.offset, chunks };
        open.offset += std::mem::take(&mut open.gathered);
        self.send(Job::Part(part))
    }

    fn end_file(&mut self) -> Result<(), Error> {
        if self.open.as_ref().is_some_and(|open| open.output.is_some() && open.gathered > 0) {
            self.send_part()?;
        }
        match self.open.take() {
            None => Ok(()),
            Some(OpenFile { output: Some(output), .. }) => Ok(worker::finish(self.site, output)?),
            Some(OpenFile { file, container: Some(container), .. }) => {
                self.send(Job::Archive(file, container))
            }
            Some(OpenFile { file, .. }) if file.linkable.is_some() => self.add_to_links(file),
            Some(OpenFile { file, .. }) => self.add_to_batch(file),
        }
    }

    fn add_to_links(&mut self, file: Whole) -> Result<(), Error> {
        let is_elsewhere =
            |last: &Whole| self.links.len() >= LINKS_MIN && !are_neighbours(&last.path, &file.path);
        if self.links.len() >= LINKS_MAX
            || self.links_chunks >= LINKS_CHUNKS_MAX
            || self.links.last().is_some_and(is_elsewhere)
        {
            self.send_links()?;
        }
        self.links_chunks += file.chunks.len();
        self.links.push(file);
        Ok(())
    }

    fn send_links(&mut self) -> Result<(), Error> {
        self.links_chunks = 0;
        match std::mem::take(&mut self.links) {
            files if files.is_empty() => Ok(()),
            files => self.send(Job::Links(files)),
        }
    }

    fn add_to_batch(&mut self, file: Whole) -> Result<(), Error> {
        self.batch_bytes += file.size;
        self.batch_chunks += file.chunks.len();
        self.batch.push(file);
        let full = self.batch_bytes >= BATCH_BYTES
            || self.batch_chunks >= PART_CHUNKS_MAX
            || self.batch.len() >= BATCH_FILES_MAX;
        if full { self.send_batch() } else { Ok(()) }
    }

    fn send_batch(&mut self) -> Result<(), Error> {
        (self.batch_bytes, self.batch_chunks) = (0, 0);
        match std::mem::take(&mut self.batch) {
            files if files.is_empty() => Ok(()),
            files => self.send(Job::Files(files)),
        }
    }

    fn send(&self, job: Job) -> Result<(), Error> {
        self.site.go_on()?;
        let sender = self.sender.as_ref().expect("jobs are sent before the end");
        sender.send(job).map_err(|_| Error::Cancelled)
    }

    /// Makes the hard links, now that all files are written.
    ///
    /// Reads the manifest once more, if it has any, so that no list of them is kept.
    ///
    /// # Errors
    /// The manifest cannot be read any more, or a name cannot be made.
    pub(super) fn link(&self, reader: &mut dyn ChunkReader) -> Result<(), Error> {
        if !self.hard_links {
            return Ok(());
        }
        // The reader has proven that each target is a file that was written here, below real directories.
        let mut copies: HashMap<EntryPath, EntryPath> = HashMap::new();
        for item in Items::new(self.root, reader) {
            let Item::HardLink { path, target } = item? else { continue };
            self.site.go_on()?;
            if self.site.mapping.leaves_out(&path) {
                continue;
            }
            if self.site.mapping.leaves_out(&target) {
                return Err(Error::LeftOut { path, left_out: target });
            }
            let first = copies.get(&target).unwrap_or(&target);
            if !self.site.link_within(first, &path)? {
                // Where the file system allows no further name, or no hard links at all, the name gets a copy.
                self.site.copy_within(&target, &path)?;
                copies.insert(target, path);
            }
        }
        Ok(())
    }

    /// Gives directories their time and owner, and those that their owner may not write to their mode, each after what
    /// lies below it.
    ///
    /// Reads the manifest once more, and only where one of these is wanted, so that no list of directories
    /// is kept. Memory: one path for each open directory.
    ///
    /// # Errors
    /// The manifest cannot be read any more, or a directory cannot be finished.
    pub(super) fn finish_directories(&self, reader: &mut dyn ChunkReader) -> Result<(), Error> {
        if !self.sealed_directories && !self.site.finishes() {
            return Ok(());
        }
        let mut above: Vec<(EntryPath, u16)> = Vec::new();
        for item in Items::new(self.root, reader) {
            let Item::Directory { path, mode } = item? else { continue };
            if self.site.mapping.leaves_out(&path) {
                continue;
            }
            self.site.go_on()?;
            let mode = self.site.mapping.mode_of_directory(mode);
            while above.last().is_some_and(|(last, _)| path.parent() != Some(last.as_bytes())) {
                self.finish(above.pop())?;
            }
            above.push((path, mode));
        }
        while !above.is_empty() {
            self.finish(above.pop())?;
        }
        Ok(())
    }

    fn finish(&self, directory: Option<(EntryPath, u16)>) -> Result<(), files::Error> {
        let Some((path, mode)) = directory else { return Ok(()) };
        let mode = waits_for_its_mode(mode).then_some(mode);
        if mode.is_none() && !self.site.finishes() {
            return Ok(());
        }
        self.site.finish_directory_at(&path, mode)
    }
}

/// Reserves room for chunks from `offset` on, except for those that become holes.
fn reserve(site: &Site<'_>, output: &Output, offset: u64, chunks: &[ChunkRef]) -> Result<(), files::Error> {
    let path = site.path(&output.path);
    let mut run = offset..offset;
    for chunk in chunks {
        let end = run.end + u64::from(chunk.bytes);
        if is_hole(chunk) {
            files::reserve(&output.file, &path, run)?;
            run = end..end;
        } else {
            run.end = end;
        }
    }
    files::reserve(&output.file, &path, run)
}

/// Creates a large file at its full length, or as a reflink of the earlier one.
fn create(site: &Site<'_>, wanted: &Whole) -> Result<Output, files::Error> {
    let file = site.create_file(&wanted.path, wanted.mode)?;
    let earlier = if wanted.same { site.open_earlier(&wanted.path, wanted.size) } else { None };
    let modified = earlier.as_ref().map(|earlier| earlier.modified);
    let basis = site.basis(earlier, &file, wanted)?;
    if !matches!(basis, LocalBytes::InPlace) {
        site.set_length(&file, wanted)?;
    }
    Ok(Output { path: wanted.path.clone(), file, basis, modified, rebuilt: AtomicBool::new(false) })
}
