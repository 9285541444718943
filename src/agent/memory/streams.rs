//! Packed streams of archives that were pushed unpacked (FORMAT 8.5): their methods, and the chunks of their plain bytes.
//!
//! A cache beside the memory of the last push, for the same proxy, space and application. It holds more than that release: what
//! was used longest ago goes first. It is read when the first archive is unpacked, and written once the proxy has confirmed a
//! push with streams that it lacks. What it says is believed until the proxy cannot rebuild an archive; then it is removed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::stream_file::{ENTRIES_MAX, StreamFile, Writer};
use super::stream_memory::{KnownMember, StreamMemory, UnpackedStream};
use super::{Key, Result, WriteOptions, folder};
use disk::files::OnPath;
use format::chunking::Profile;
use ground::poison::Unpoisoned as _;
use recode::archive::{KnownStream, KnownStreams, StreamName};

/// What a scan may take from the streams that are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Nothing: everything is read.
    Nothing,
    /// Their methods.
    Methods,
    /// Their methods, and the chunks of their plain bytes, which are then not read.
    Chunks,
}

/// The streams that are remembered, as one push uses them and adds to them.
///
/// Memory: that of the file, 40 B for each of its streams, and as much again for what the push adds.
#[derive(Debug)]
pub struct RememberedStreams {
    state: PathBuf,
    key: Key,
    profile: Profile,
    used: Use,
    file: OnceLock<Option<StreamFile>>,
    seen: Mutex<Seen>,
}

/// The streams of this push.
#[derive(Debug, Default)]
struct Seen {
    names: HashSet<StreamName>,
    /// Without the members that the file has.
    streams: Vec<UnpackedStream>,
    /// True if the file lacks one of them.
    has_new: bool,
}

impl RememberedStreams {
    /// Those of pushes under `key`, cut by `profile`. Nothing is read yet.
    pub fn new(state: &Path, key: &Key, profile: Profile, used: Use) -> Self {
        let (file, seen) = (OnceLock::new(), Mutex::default());
        Self { state: state.to_owned(), key: *key, profile, used, file, seen }
    }

    fn file(&self) -> Option<&StreamFile> {
        let read = || {
            let file = File::open(folder::streams_path(&self.state, &self.key)).ok()?;
            folder::mark_used(&file);
            let mut bytes = Vec::new();
            file.take(StreamFile::BYTES_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
            StreamFile::read(bytes, &self.key, self.profile)
        };
        self.file.get_or_init(read).as_ref()
    }

    /// Writes the streams of a push that the proxy has confirmed over the file, before those that it has of others; does nothing
    /// where it has them all. Not synced.
    ///
    /// # Errors
    /// The state folder cannot be written; an earlier file is then still there.
    pub fn write(&self, options: &WriteOptions) -> Result<()> {
        let seen = self.seen.lock().unpoisoned();
        if !seen.has_new {
            return Ok(());
        }
        let file = self.file();
        let mut writer = Writer::new(&self.key, self.profile);
        for UnpackedStream { name, known, member } in &seen.streams {
            let kept = || file.and_then(|file| file.member(name));
            let member = member.clone().or_else(kept);
            writer.add(&UnpackedStream { name: *name, known: *known, member });
        }
        for stream in file.into_iter().flat_map(StreamFile::streams) {
            if !seen.names.contains(&stream.name) && !writer.add(&stream) {
                break;
            }
        }
        let mut aside = folder::create_aside(&self.state)?;
        let place = aside.path().to_owned();
        aside.write_all(&writer.finish()).on("write", &place)?;
        folder::publish(&self.state, &folder::streams_path(&self.state, &self.key), aside, options)
    }
}

/// Forgets the streams of pushes under `key`: something that they say is wrong.
pub fn forget_streams(state: &Path, key: &Key) {
    drop(fs::remove_file(folder::streams_path(state, key)));
}

impl KnownStreams for RememberedStreams {
    fn find(&self, name: &StreamName) -> Option<KnownStream> {
        if self.used == Use::Nothing { None } else { self.file()?.find(name) }
    }
}

impl StreamMemory for RememberedStreams {
    fn member(&self, name: &StreamName) -> Option<KnownMember> {
        if self.used == Use::Chunks { self.file()?.member(name) } else { None }
    }

    fn remember(&self, streams: Vec<UnpackedStream>) {
        let file = self.file();
        let mut seen = self.seen.lock().unpoisoned();
        for mut stream in streams {
            if seen.streams.len() >= ENTRIES_MAX || !seen.names.insert(stream.name) {
                continue;
            }
            let is_kept = file.and_then(|file| file.find(&stream.name)) == Some(stream.known);
            if stream.member == file.and_then(|file| file.member(&stream.name)) {
                stream.member = None;
            }
            seen.has_new |= !is_kept || stream.member.is_some();
            seen.streams.push(stream);
        }
    }
}
