//! Chunks of a scanned input, and how they are read again.

use std::fmt;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::Error;
use super::unpack::Streams;
use crate::restore::{self, ChunkReader, SharedSource};
use disk::files::{self, OnPath};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;

/// A chunk and where it can be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The input file that contains the chunk.
    pub path: Arc<Path>,
    /// The file that the chunk is read from.
    pub holder: Holder,
    /// The range of the holder that is the chunk's [`Body`]; `u64::MAX` ends a file.
    pub body: Range<u64>,
    /// The chunk's offset in the holder, in bytes.
    pub offset: u64,
    /// The chunk.
    pub chunk: ChunkRef,
}

/// A unit of content: an input file, or one member of an unpacked archive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Body {
    /// The input file.
    pub path: Arc<Path>,
    /// The file that the content is read from.
    pub holder: Holder,
    /// The range of the holder that is the content; `u64::MAX` ends a file.
    pub place: Range<u64>,
}

/// Where the content of an input file is read from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The file itself.
    File,
    /// The streams that an archive was unpacked to.
    Streams(Streams),
    /// Nowhere: an archive that this scan did not unpack, as the last push had it already.
    Unread,
    /// Nowhere: a member of an archive that this scan did not unpack, as an earlier push had it already.
    Member {
        /// True if it begins as an ELF file does.
        is_elf: bool,
    },
    /// A store, chunk by chunk: the release is in it already.
    Stored(Stored),
}

/// The store that a pushed release is in. Two are equal if they are the same.
#[derive(Clone)]
pub struct Stored(pub Arc<dyn SharedSource>);

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Stored {}

impl Hash for Stored {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stored")
    }
}

/// The input file that was read last, and the reader of the store, kept open for the next chunk.
#[derive(Default)]
pub struct LastOpened {
    file: Option<(Arc<Path>, File)>,
    stored: Option<(Stored, Box<dyn ChunkReader + Send>)>,
}

/// An open holder, and the range in it that is a body.
pub type Opened = (Arc<File>, Range<u64>);

impl Located {
    /// Returns the unit of content that contains the chunk.
    pub fn body(&self) -> Body {
        Body { path: Arc::clone(&self.path), holder: self.holder.clone(), place: self.body.clone() }
    }

    /// Returns whether `body` contains the chunk.
    pub fn is_of(&self, body: &Body) -> bool {
        self.body == body.place && self.holder == body.holder && self.path == body.path
    }

    /// Reads the chunk, verifies its hash, and appends its bytes to `plain`.
    ///
    /// # Errors
    /// The file cannot be read, or has changed since the scan; `plain` may then end in wrong bytes.
    pub fn read_verified(&self, last: &mut LastOpened, plain: &mut Vec<u8>) -> Result<(), Error> {
        let path = &self.path;
        let file = match (&self.holder, &mut last.file) {
            (Holder::Unread | Holder::Member { .. }, _) => return Err(Error::Unread(path.to_path_buf())),
            (Holder::Stored(stored), _) => return self.read_stored(stored, last, plain),
            (Holder::Streams(streams), _) => streams.file(),
            (Holder::File, Some((opened, file))) if opened == path => file,
            (Holder::File, last) => &last.insert((Arc::clone(path), open(path)?)).1,
        };
        let begin = plain.len();
        plain.resize(begin + self.chunk.bytes as usize, 0);
        file.read_exact_at(&mut plain[begin..], self.offset).map_err(|source| of_read(source, path))?;
        if ChunkId::of(&plain[begin..]) != self.chunk.id {
            return Err(Error::Changed(path.to_path_buf()));
        }
        Ok(())
    }

    fn read_stored(&self, stored: &Stored, last: &mut LastOpened, plain: &mut Vec<u8>) -> Result<(), Error> {
        let reader = match &mut last.stored {
            Some((opened, reader)) if opened == stored => reader,
            opened => &mut opened.insert((stored.clone(), Arc::clone(&stored.0).shared_reader())).1,
        };
        Ok(reader.read(&self.chunk, plain).map_err(restore::Error::from)?)
    }
}

impl Body {
    /// Opens the holder; returns it with the range of the content, or none where no file of this machine has it.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(&self) -> Result<Option<Opened>, Error> {
        match &self.holder {
            Holder::Unread | Holder::Member { .. } | Holder::Stored(_) => Ok(None),
            Holder::Streams(streams) => Ok(Some((streams.shared(), self.place.clone()))),
            Holder::File => {
                let file = open(&self.path)?;
                let length = file.metadata().on("read", &self.path)?.len();
                Ok(Some((Arc::new(file), 0..length)))
            }
        }
    }

    /// Reads the whole content; none where it is longer than `bytes_max`, or cannot be read from this scan.
    ///
    /// # Errors
    /// The file cannot be read, or has become shorter.
    pub fn read(&self, bytes_max: usize) -> Result<Option<Vec<u8>>, Error> {
        let Some((file, place)) = self.open()? else { return Ok(None) };
        let length = usize::try_from(place.end - place.start).ok();
        let Some(length) = length.filter(|length| *length <= bytes_max) else { return Ok(None) };
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, place.start).map_err(|source| of_read(source, &self.path))?;
        Ok(Some(bytes))
    }
}

fn open(path: &Path) -> Result<File, Error> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Vanished(path.to_owned())),
        result => Ok(result.on("open", path)?),
    }
}

fn of_read(source: io::Error, path: &Path) -> Error {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => Error::Changed(path.to_owned()),
        _ => files::Error { action: "read", path: path.to_owned(), source }.into(),
    }
}
