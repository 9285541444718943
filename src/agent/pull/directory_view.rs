//! The directory that is pulled into, and the store of what was fetched, as the agent's half of a pull sees them.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use super::exchange::try_exchange;
use super::fetched_chunks::FetchedChunks;
use super::local_chunks::{DirectoryChunks, LocalChunks, LocalReader};
use crate::agent::pace::{Method, Pace};
use crate::agent::{Error, Result, check_meant};
use crate::restore::{self, ChunkReader as _, SourceError, check_fits};
use format::manifest::{NodeRef, Reference, Root, SegmentName};
use format::pack::Frame;
use format::recipe::ChunkRef;
use format::record::Record;
use ground::ids::{ReleaseId, Selector};
use protocol::pull::DirectoryView;
use protocol::wire::Refusal;
use protocol::{ContentView, StorageView};

/// 4 MiB: a usual executable.
const EXECUTABLE_BYTES_USUAL: u64 = 4 * 1024 * 1024;

/// Says how to fetch a release.
#[derive(Debug, Clone, Default)]
pub struct FetchOptions {
    /// Where the release will be written; nothing is fetched unless there is room for it.
    pub place: Option<PathBuf>,
    /// The directory that it will be exchanged with; nothing is fetched unless it can be.
    pub exchanged: Option<PathBuf>,
    /// The releases that are there: they need no room, and nothing of them is fetched.
    pub holds: Vec<ReleaseId>,
    /// The pace, where the link's rate is known. On a slow link executables cross by their functions, which takes both sides
    /// seconds.
    pub pace: Option<Pace>,
    /// What must not be let go while the store is written to, also after the fetch was dropped: the directory's lock.
    pub lock: Option<Arc<dyn Any + Send + Sync>>,
}

/// One pull's view of its directory. Every call reads files, hashes or compresses: none is for an async thread.
pub(super) struct PullView<'a> {
    asked: &'a Selector,
    present: &'a DirectoryChunks,
    fetched: &'a FetchedChunks,
    reader: LocalReader<'a>,
    options: FetchOptions,
    /// True if the directory holds the release that is pulled.
    is_held: bool,
    /// The last error, as the user is to see it.
    failed: Option<Error>,
}

impl<'a> PullView<'a> {
    /// Begins a pull of what `asked` means.
    pub fn new(
        asked: &'a Selector,
        present: &'a DirectoryChunks,
        fetched: &'a FetchedChunks,
        options: FetchOptions,
    ) -> Self {
        let reader = LocalReader::of(&LocalChunks { present, fetched });
        Self { asked, present, fetched, reader, options, is_held: false, failed: None }
    }

    /// Returns whether the directory holds the announced release: there is nothing to fetch.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Returns the error that a failing view is the reason of.
    pub fn reason(&mut self, error: protocol::Error) -> Error {
        match error {
            protocol::Error::Space(refusal) => self.failed.take().unwrap_or(Error::Refused(refusal)),
            protocol::Error::Refused(refusal) => Error::Refused(refusal),
            protocol::Error::OutOfTurn(message) => Error::OutOfTurn(message),
            error => error.into(),
        }
    }

    fn noted<T>(&mut self, result: Result<T>) -> Result<T, Refusal> {
        result.map_err(|error| {
            let refusal = Refusal::of(&error);
            self.failed = Some(error);
            refusal
        })
    }

    fn find_one(&self, reference: &Reference) -> Result<Option<ChunkRef>> {
        let present = match reference {
            Reference::Short(short) => self.present.find_short(*short),
            Reference::Full(chunk) => self.present.has(&chunk.id).then_some(*chunk),
        };
        if present.is_some() {
            return Ok(present);
        }
        Ok(match reference {
            Reference::Short(short) => self.fetched.find_short(*short)?,
            Reference::Full(chunk) => self.fetched.holds(chunk)?.then_some(*chunk),
        })
    }
}

impl ContentView for PullView<'_> {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let read = self.reader.read(chunk, out).map_err(|error| match error {
            // It was there when the directory was scanned.
            SourceError::Unknown(_) => Error::DirectoryChanged,
            error => restore::Error::from(error).into(),
        });
        self.noted(read)
    }
}

impl StorageView for PullView<'_> {
    fn find(&mut self, references: &[Reference]) -> Result<Vec<Option<ChunkRef>>, Refusal> {
        let found = references.iter().map(|reference| self.find_one(reference)).collect();
        self.noted(found)
    }

    fn keep(&mut self, frame: Frame) -> Result<(), Refusal> {
        let kept = self.fetched.append(frame).map_err(Error::from);
        self.noted(kept)
    }
}

impl DirectoryView for PullView<'_> {
    fn announced(&mut self, record: &Record, root: &Root) -> Result<(), Refusal> {
        let meant = check_meant(record, self.asked);
        let FetchOptions { place, exchanged, holds, .. } = &self.options;
        self.is_held = holds.contains(&record.release);
        let fits = meant.and_then(|()| match place {
            Some(place) if !self.is_held => {
                exchanged.as_ref().map_or(Ok(()), |exchanged| try_exchange(place, exchanged))?;
                Ok(check_fits(place, root.totals)?)
            }
            _ => Ok(()),
        });
        self.noted(fits)
    }

    fn resolve(&mut self, names: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal> {
        let find = |name: &SegmentName| match self.present.segment(*name) {
            Some((node, _)) => Ok(Some(*node)),
            None => Ok(self.fetched.find_name(*name)?),
        };
        let found = names.iter().map(find).collect();
        self.noted(found)
    }

    fn is_unkept(&mut self, segment: &NodeRef) -> Result<bool, Refusal> {
        if self.present.segment(segment.name()).is_none() {
            return Ok(false);
        }
        let found = self.fetched.holds(&(*segment).into()).map(|holds| !holds).map_err(Error::from);
        self.noted(found)
    }

    fn wants_executables(&self) -> bool {
        self.options.pace.as_ref().is_some_and(|pace| pace.pays(Method::Executables, EXECUTABLE_BYTES_USUAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::manifest::{Profile, Shape, Totals};
    use format::record::Cost;

    #[test]
    fn a_release_that_is_there_needs_no_room() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = FetchedChunks::new(folder.path().join("store"));
        let totals = Totals { bytes: u64::MAX / 4, files: 1, ..Totals::default() };
        let root = Root::above(Profile::DEFAULT, Shape::Tree, totals, Vec::new(), |_| {}).expect("small");
        let record = Record {
            app: "web".parse().expect("a name"),
            release: root.release(),
            sequence: 1,
            created: 0,
            user: "ada".parse().expect("a name"),
            labels: Vec::new(),
            totals,
            cost: Cost::default(),
            behalf: Vec::new(),
        };
        let (asked, present) = ("web".parse().expect("a selector"), DirectoryChunks::default());
        let fits = |holds| {
            let options =
                FetchOptions { place: Some(folder.path().to_owned()), holds, ..FetchOptions::default() };
            PullView::new(&asked, &present, &store, options).announced(&record, &root)
        };
        assert!(fits(vec![]).is_err(), "no disk has room for it");
        fits(vec![root.release()]).expect("nothing will be written");
    }
}
