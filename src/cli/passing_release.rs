//! A release that is fetched to be written once: as a tar file, or one file of it.

use std::path::Path;
use std::sync::Arc;

use super::error::Error;
use super::output::Output;
use super::progress::{monitor, watched};
use crate::agent::Session;
use crate::agent::pull::{DirectoryChunks, FetchOptions, Fetched, FetchedChunks, LocalChunks, fetch};
use crate::net::blocking;
use format::manifest::Root;
use ground::faults::{Fault, io_hint};
use ground::ids::Selector;

/// A release with its chunks. Dropped, both are gone.
pub struct PassingRelease {
    /// Its record, its root and what was fetched.
    pub fetched: Fetched,
    // Closed before its folder goes.
    store: Arc<FetchedChunks>,
    _folder: tempfile::TempDir,
}

impl PassingRelease {
    /// Fetches a whole release. What memory does not hold of it is in a temporary folder inside `folder`.
    ///
    /// # Errors
    /// The folder cannot be made; as [`fetch`].
    pub async fn fetch(
        session: &Session,
        release: &Selector,
        folder: &Path,
        output: &Output,
    ) -> Result<Self, Error> {
        let aside = tempfile::tempdir_in(folder).map_err(|source| cannot_write(folder, &source))?;
        let store = Arc::new(FetchedChunks::passing(aside.path().join("store")));
        let monitor = monitor(output, "fetching");
        let present = Arc::new(DirectoryChunks::default().into());
        let fetching = fetch(session, release, &present, &store, FetchOptions::default(), &monitor);
        let fetched = watched(session, &*monitor, fetching).await?;
        Ok(Self { fetched, store, _folder: aside })
    }

    /// Hands its root and its chunks to `write`, on a thread. Ctrl-C does not wait for that, and removes the folder.
    ///
    /// # Errors
    /// That of `write`.
    pub async fn write(
        &self,
        write: impl FnOnce(&Root, &LocalChunks<'_>) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let (root, store) = (self.fetched.root.clone(), Arc::clone(&self.store));
        let writing = blocking::start(move || {
            let nothing = DirectoryChunks::default();
            write(&root, &LocalChunks { present: &nothing, fetched: &store })
        });
        writing.await?
    }
}

/// Refuses `--json` where standard output is for the content.
///
/// # Errors
/// It is given.
pub fn check_plain(output: &Output) -> Result<(), Error> {
    if output.is_json() {
        return Err(Error::input(
            "standard output holds the content, so it cannot hold JSON",
            "leave out --json",
        ));
    }
    Ok(())
}

/// Returns the error of a file that cannot be written.
pub fn cannot_write(path: &Path, source: &std::io::Error) -> Error {
    Error::Message {
        fault: Fault::of_io(source),
        text: format!("could not write {}: {source}", path.display()),
        hint: io_hint(source, path),
    }
}
