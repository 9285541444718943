//! Rebuilds executables from the directory's older ones, where the proxy encodes them by their functions.

use std::sync::Arc;

use super::assembly::keep_anew;
use super::local_chunks::{DirectoryChunks, LocalChunks};
use super::stream::PullStream;
use crate::agent::{Error, Result, blocking};
use crate::restore::ChunkSource;
use crate::store::Store;
use format::pack::split;
use format::recipe::ChunkRef;
use ground::limits::{EXECUTABLE_BASIS_RATIO_MAX, EXECUTABLE_BYTES_MAX, RECORD_QUERIES_MAX};
use protocol::wire::{Basis, Parcel, PullReply, PullRequest};

impl PullStream {
    /// Asks for executables and stores the chunks of those that can be rebuilt; returns how many chunks, and their bytes.
    ///
    /// Chunks of others are asked for later, as those of any file. Memory: 4 times the largest executable.
    ///
    /// # Errors
    /// The link, a refusal, or more than the release has.
    pub async fn executables(
        &mut self,
        bytes_max: u64,
        present: &Arc<DirectoryChunks>,
        store: &Arc<Store>,
    ) -> Result<(u64, u64)> {
        self.ask(&PullRequest::WantExecutables).await?;
        let PullReply::Executables(count) = self.reply().await? else {
            return Err(Error::OutOfTurn("another message before the executables"));
        };
        if count as usize > RECORD_QUERIES_MAX {
            return Err(Error::OutOfTurn("too many executables"));
        }
        let (mut chunks, mut bytes) = (0, 0);
        for _ in 0..count {
            let PullReply::Parcel(parcel) = self.reply().await? else {
                return Err(Error::OutOfTurn("another message among the executables"));
            };
            let (parcel, payload) = self.payload(parcel).await?;
            let (count, plain_bytes) =
                (parcel.lengths.len() as u64, parcel.plain_bytes().map_err(protocol::Error::from)?);
            bytes += plain_bytes as u64;
            if bytes > bytes_max {
                return Err(Error::OutOfTurn("more executables than the release has"));
            }
            let (present, store) = (Arc::clone(present), Arc::clone(store));
            let made = blocking(move || {
                let Some(plain) = make(&parcel, &payload, &present, &store)? else { return Ok(false) };
                let chunks: Vec<ChunkRef> = split(&plain, &parcel.lengths).map(ChunkRef::of).collect();
                keep_anew(&store, &chunks, &plain)?;
                Ok::<_, Error>(true)
            });
            if made.await? {
                chunks += count;
            } else {
                bytes -= plain_bytes as u64;
            }
        }
        Ok((chunks, bytes))
    }
}

/// Rebuilds the chunks of an executable; returns none where the directory no longer has what they are encoded against.
fn make(
    parcel: &Parcel,
    payload: &[u8],
    present: &DirectoryChunks,
    store: &Store,
) -> Result<Option<Vec<u8>>> {
    let Basis::Executable(spans, cuts) = &parcel.basis else {
        return Err(Error::OutOfTurn("a parcel of another kind"));
    };
    let plain_bytes = parcel.plain_bytes().map_err(protocol::Error::from)?;
    let bytes_max = plain_bytes.saturating_mul(EXECUTABLE_BASIS_RATIO_MAX).min(EXECUTABLE_BYTES_MAX);
    let local = LocalChunks { present, fetched: store };
    let (mut reader, mut older) = (local.reader(), Vec::new());
    for span in spans {
        let left = bytes_max - older.len();
        let Some(chunks) = present.chunks_of(*span, left) else { return Ok(None) };
        if chunks.iter().any(|chunk| reader.read(chunk, &mut older).is_err()) {
            return Ok(None);
        }
    }
    let mut plain = Vec::new();
    match protocol::transfer::make_executable(older, parcel, cuts, payload, &mut plain) {
        Ok(()) if plain.len() == plain_bytes => Ok(Some(plain)),
        Ok(()) | Err(protocol::Error::Mismatch) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
