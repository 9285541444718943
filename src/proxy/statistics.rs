//! Counts the content of a space, or of one application in it, and the bytes saved.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::restore::{self, ChunkSource};
use crate::store::{self, Store};
use format::manifest::{Item, Root};
use format::pack::FrameKind;
use format::record::Record;
use ground::ids::{AppName, ChunkId, ReleaseId, UserName};
use protocol::wire::{ArchiveStatistics, MethodStatistics, SizeClass, Statistics, UserStatistics};
use recode::archive::{Piece, Plan};
use recode::codec::Method;

/// Upper bounds of the classes of chunk sizes, in bytes.
const CLASSES: [u32; 6] = [1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

/// The reason why nothing could be counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A release that cannot be read.
    #[error(transparent)]
    Release(#[from] restore::Error),
}

impl ground::faults::Faulty for Error {
    fn fault(&self) -> ground::faults::Fault {
        match self {
            Self::Store(error) => error.fault(),
            Self::Release(error) => error.fault(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Release(_) => None,
        }
    }
}

/// Counts an application, or the whole space.
///
/// Time: for a space O(chunks stored), for an application O(chunks of its releases). Memory: 40 B for
/// each distinct chunk.
///
/// # Errors
/// There is no such application, or its releases cannot be read.
pub fn count(store: &Store, app: Option<&AppName>) -> Result<Statistics, Error> {
    let records = if let Some(app) = app {
        store.records().of(app)?
    } else {
        let apps = store.records().apps();
        let all = apps.iter().map(|summary| store.records().of(&summary.app));
        all.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect()
    };
    let mut statistics = Statistics {
        app: app.cloned(),
        users: users(&records, &store.records().cached_bytes(app)?),
        ..Statistics::default()
    };
    for record in &records {
        statistics.releases += 1;
        statistics.files += record.totals.files;
        statistics.logical_bytes += record.totals.bytes;
    }
    let mut sizes = CLASSES.map(|up_to| SizeClass { up_to, ..SizeClass::default() });
    let mut add = |bytes: u32| {
        let class = CLASSES.iter().position(|up_to| bytes <= *up_to).unwrap_or(CLASSES.len() - 1);
        sizes[class].chunks += 1;
        sizes[class].bytes += u64::from(bytes);
    };
    if app.is_some() {
        statistics.stored_bytes = of_releases(store, &records, &mut add)?;
        statistics.archives = Some(archives(store, &records)?);
    } else {
        statistics.stored_bytes = of_packs(store, &mut add)?;
    }
    statistics.chunks = sizes.iter().map(|class| class.chunks).sum();
    statistics.unique_bytes = sizes.iter().map(|class| class.bytes).sum();
    statistics.sizes = sizes.to_vec();
    Ok(statistics)
}

/// Counts the distinct content chunks of all packs; returns the packs' bytes.
fn of_packs(store: &Store, add: &mut impl FnMut(u32)) -> Result<u64, Error> {
    let mut seen = HashSet::new();
    let mut stored = 0;
    store.visit_frames(&mut |frame| {
        stored += frame.bytes;
        for chunk in &frame.chunks {
            if frame.kind == FrameKind::Content && seen.insert(chunk.id) {
                add(chunk.bytes);
            }
        }
    })?;
    Ok(stored)
}

/// Counts the distinct chunks of some releases; returns their share of the packs' bytes.
fn of_releases(store: &Store, records: &[Record], add: &mut impl FnMut(u32)) -> Result<u64, Error> {
    let mut chunks: HashMap<ChunkId, u32> = HashMap::new();
    let mut reader = store.reader();
    let distinct: HashSet<ReleaseId> = records.iter().map(|record| record.release).collect();
    for root in roots(store, &distinct)? {
        restore::walk::<restore::Error>(&root, reader.as_mut(), &mut |item| {
            if let Item::Chunk(chunk) = item {
                chunks.insert(chunk.id, chunk.bytes);
            }
            Ok(())
        })?;
    }
    for bytes in chunks.values() {
        add(*bytes);
    }
    // A frame's bytes are shared out by its chunks' plain bytes; each chunk counts once.
    let mut stored = 0;
    store.visit_frames(&mut |frame| {
        let plain: u64 = frame.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        let mut ours = 0;
        for chunk in &frame.chunks {
            ours += chunks.remove(&chunk.id).map_or(0, u64::from);
        }
        stored += frame.bytes * ours / plain.max(1);
    })?;
    Ok(stored)
}

/// Returns the roots of all manifests of some releases.
fn roots(store: &Store, releases: &HashSet<ReleaseId>) -> Result<Vec<Root>, Error> {
    let mut roots = Vec::new();
    for release in releases {
        for id in store.records().roots(release).map_err(restore::Error::from)? {
            roots.push(store.root_at(&id).map_err(restore::Error::from)?);
        }
    }
    Ok(roots)
}

/// Counts the distinct archives of some releases.
fn archives(store: &Store, records: &[Record]) -> Result<ArchiveStatistics, Error> {
    let distinct: HashSet<ReleaseId> = records.iter().map(|record| record.release).collect();
    let (mut reader, mut seen) = (store.reader(), HashSet::new());
    let mut plans = store.reader();
    let (mut counts, mut methods) = (ArchiveStatistics::default(), HashMap::new());
    for root in roots(store, &distinct)? {
        restore::each_archive(&root, reader.as_mut(), &mut |archive| {
            if seen.insert(archive.container.artifact) {
                counts.files += 1;
                counts.bytes += archive.size;
                counts.stream_bytes += archive.container.stream_bytes;
                count_methods(&restore::read_plan(archive, plans.as_mut())?, &mut methods);
            }
            Ok(())
        })?;
    }
    let count = |(method, (streams, bytes)): (Method, (u64, u64))| MethodStatistics {
        method: method.to_string(),
        streams,
        bytes,
    };
    counts.methods = methods.into_iter().map(count).collect();
    counts
        .methods
        .sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.method.cmp(&other.method)));
    Ok(counts)
}

/// Adds the streams of a plan, and the bytes that each inflates to, by method.
fn count_methods(plan: &Plan, methods: &mut HashMap<Method, (u64, u64)>) -> u64 {
    let count = |piece: &Piece| match piece {
        Piece::Framing(bytes) | Piece::Content(bytes) => *bytes,
        Piece::Packed { method, plain, .. } => {
            // Nested archives count with their content's bytes; their packed size is unknown.
            let bytes = count_methods(plain, methods);
            let counted = methods.entry(*method).or_default();
            *counted = (counted.0 + 1, counted.1 + bytes);
            bytes
        }
    };
    plan.pieces().iter().map(count).sum()
}

fn users(records: &[Record], cached: &BTreeMap<UserName, u64>) -> Vec<UserStatistics> {
    let nothing = |user: &UserName| UserStatistics {
        user: user.clone(),
        pushes: 0,
        pushed_bytes: 0,
        saved_bytes: 0,
        cached_bytes: 0,
    };
    let mut users: BTreeMap<&UserName, UserStatistics> = BTreeMap::new();
    for (user, bytes) in cached {
        users.entry(user).or_insert_with(|| nothing(user)).cached_bytes = *bytes;
    }
    for record in records {
        let user = users.entry(&record.user).or_insert_with(|| nothing(&record.user));
        user.pushes += 1;
        user.pushed_bytes += record.totals.bytes;
        user.saved_bytes += record.totals.bytes.saturating_sub(record.cost.sent_bytes);
    }
    users.into_values().collect()
}
