//! The contract of a service of objects, and an object's content and metadata.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::bundle::Bundle;
use super::super::{Error, Job};
use crate::restore::{ChunkReader, ReleaseFile, StreamOptions};

/// 256 KiB: the least of a bundle that is passed on at once, but for its end.
const PIECE_BYTES: usize = 256 * 1024;

/// A service that keeps one object under each key. Methods block, may be called from many threads, and end soon after
/// `Content::cancelled` is set; each has deadlines of its own.
pub trait Service: Sync {
    /// Names the object at a key, for people: without secrets.
    fn describe(&self, key: &str) -> String;

    /// Says why a key is not possible here, if it is not.
    fn refuses(&self, key: &str) -> Option<String>;

    /// Stores an object, in place of one that has the key.
    ///
    /// # Errors
    /// It is not stored, or that is not known; readers see the object that was there, or the new one.
    fn put(&self, object: &Object<'_>, content: &mut Content<'_, '_>) -> Result<Stored, Error>;

    /// Returns whether there is an object of that content under the key, with all metadata that rules name. What cannot be
    /// compared differs.
    ///
    /// # Errors
    /// The service does not answer.
    fn has(&self, object: &Object<'_>, content: &mut Content<'_, '_>) -> Result<bool, Error>;

    /// Returns whether the object that was just stored is there: by its size, and by its tag where the service says one.
    ///
    /// # Errors
    /// The service does not answer.
    fn verify(
        &self,
        object: &Object<'_>,
        stored: &Stored,
        content: &mut Content<'_, '_>,
    ) -> Result<bool, Error>;

    /// Removes an object. One that is not there is no error.
    ///
    /// # Errors
    /// It may still be there.
    fn delete(&self, key: &str) -> Result<(), Error>;

    /// Returns whether the service can list its objects.
    fn lists(&self) -> bool {
        false
    }

    /// Lists the objects whose keys begin with a prefix, a page of many at a request; none where the service cannot, or has more
    /// than fit in memory.
    ///
    /// # Errors
    /// The service does not answer.
    fn list(&self, prefix: &str) -> Result<Option<Listing>, Error> {
        let _ = prefix;
        Ok(None)
    }

    /// Returns `bytes` bytes of an object from `offset` on.
    ///
    /// # Errors
    /// It lacks them or cannot be read.
    fn read(&self, key: &str, offset: u64, bytes: u32) -> Result<Vec<u8>, Error>;

    /// Returns the number of requests so far.
    fn requests(&self) -> u64;
}

/// Objects by key: bytes, and the tag if the service says one.
pub type Listing = HashMap<String, (u64, Option<String>)>;

/// A service's answer to a put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Its tag of the content (`ETag`), if it said one.
    pub tag: Option<String>,
    /// Bytes that were sent.
    pub bytes: u64,
}

/// An object to store or to look for.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// The key, below which nothing is added.
    pub key: &'a str,
    /// Bytes of its content; none where they are known at its end.
    pub size: Option<u64>,
    /// The metadata that goes with it.
    pub metadata: &'a Metadata,
}

/// The metadata of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The media type.
    pub content_type: String,
    /// True if a rule names the media type; it was found by the file's name otherwise.
    pub is_type_ruled: bool,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
}

/// The content of an object, which can be read as often as needed.
pub struct Content<'a, 'b> {
    pub(super) source: Source<'a, 'b>,
    pub(super) cancelled: &'a AtomicBool,
    /// Is told of bytes of a large object while they are sent.
    pub sent: &'a (dyn Fn(u64) + Sync),
}

/// Where the content comes from.
pub(super) enum Source<'a, 'b> {
    /// A file of the release.
    File(&'a ReleaseFile, &'a mut (dyn ChunkReader + 'b)),
    /// Some bytes.
    Bytes(&'a [u8]),
    /// All of a release, as one stream.
    Bundle(Bundle, &'a Job<'b>),
}

impl<'a, 'b> Content<'a, 'b> {
    /// Content of which nobody is told how much was sent.
    pub(super) fn unsent(source: Source<'a, 'b>, cancelled: &'a AtomicBool) -> Self {
        Self { source, cancelled, sent: &|_| {} }
    }

    /// Hands the content to `take`, in pieces of some 256 KiB.
    ///
    /// # Errors
    /// It cannot be read: nothing that was taken may be used. The delivery is cancelled; `take` fails.
    pub fn read(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let cancelled = self.cancelled;
        match &mut self.source {
            Source::Bytes(bytes) => take(bytes),
            Source::Bundle(bundle, job) => stream(*bundle, job, take),
            Source::File(file, reader) => file.read(*reader, &mut |piece| {
                if cancelled.load(Ordering::Relaxed) {
                    return Err(Error::Cancelled);
                }
                take(piece)
            }),
        }
    }

    /// Returns all of it; for small objects.
    ///
    /// # Errors
    /// As [`Content::read`].
    pub fn bytes(&mut self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.read(&mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }
}

/// Hands a bundle to `take` in pieces.
fn stream(
    bundle: Bundle,
    job: &Job<'_>,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let options = StreamOptions { time: job.created, ..StreamOptions::default() };
    let mut out = Taking { take, buffer: Vec::with_capacity(PIECE_BYTES), failure: None };
    let written = bundle.write(job.root, job.source, &options, (job.cancelled, job.monitor), &mut out);
    match (out.failure, written) {
        (Some(error), _) => Err(error),
        (None, Err(_)) if job.cancelled.load(Ordering::Relaxed) => Err(Error::Cancelled),
        (None, written) => Ok(written.map(drop)?),
    }
}

/// Collects what is written, and passes it on in pieces.
struct Taking<'a> {
    take: &'a mut dyn FnMut(&[u8]) -> Result<(), Error>,
    buffer: Vec<u8>,
    failure: Option<Error>,
}

impl Write for Taking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty()
            && let Err(error) = (self.take)(&self.buffer)
        {
            self.failure = Some(error);
            return Err(io::Error::other("the service takes no more"));
        }
        self.buffer.clear();
        Ok(())
    }
}
