//! Verifying: every pack against its footer, every chunk against its name, every release against the packs.
//!
//! The intact chunks of a damaged pack are copied into the open pack, then the pack is set aside. Chunks that are gone
//! count as missing: the next push that has them is asked for exactly those. A pass starts where the last one stopped.

mod check;
mod repair;

pub use repair::heal;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::check::Check;
use super::layout;
use super::packs::Pack;
use super::{Error, Pushed, Result, Store};
use crate::restore::{self, ChunkSource};
use disk::files;
use format::maintenance::{Damage, Incomplete, Verified};
use format::manifest::Item;
use format::pack::PackId;
use ground::faults::{Fault, Faulty};
use ground::ids::ReleaseId;

/// The options of a verification.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// Set damaged packs aside, copy their intact chunks, repair the index.
    pub repair: bool,
    /// Stop after this time; the next pass continues from there.
    pub duration_max: Option<Duration>,
    /// The most bytes to read a second; none for as fast as possible.
    pub bytes_per_second: Option<u64>,
}

/// Verifies the packs from where the last pass stopped, then the rest of the space. Stops between packs when `cancelled`.
///
/// Damaged chunks count as missing from then on, whether the pass repairs or not.
///
/// # Errors
/// The disk's or the index's.
pub fn verify_packs(store: &Store, pass: Pass, cancelled: &AtomicBool) -> Result<Verified> {
    let begin = Instant::now();
    let cursor_file = store.shared.folder.join(layout::VERIFY_CURSOR);
    let mut verified = Verified { finished: true, ..Verified::default() };
    // Open packs first: one that is sealed meanwhile is then among the others.
    let read_open = verify_open(store, pass, &mut verified)?;
    let mut packs = store.shared.blobs.list()?;
    packs.sort_unstable();
    let after = files::read_if_there(&cursor_file, 64)?
        .and_then(|text| PackId::from_hex(&String::from_utf8(text).ok()?));
    for id in packs.into_iter().filter(|id| after.is_none_or(|after| *id > after)) {
        let over = pass.duration_max.is_some_and(|most| begin.elapsed() >= most);
        if over || cancelled.load(Ordering::Relaxed) {
            verified.finished = false;
            return Ok(verified);
        }
        // Neither the collector nor another pass moves a pack meanwhile.
        let alone = store.condemned.begin();
        let pack = Pack::sealed(id, &store.shared.blobs);
        let known = store.shared.packs.by_id(id);
        // A pack may have been collected since it was listed, or not be in the index yet: the sealer sees to it.
        let is_open = known.as_ref().is_some_and(|(_, pack)| pack.is_open());
        if pack.bytes().is_err() || is_open || read_open.contains(&id) {
            continue;
        }
        let number = known.map(|(number, _)| number);
        let check = check::check(&pack);
        if check.damaged.is_empty() {
            verified.indexed += repair::mend_index(store, number, &pack, pass.repair)?;
        } else {
            repair::report(store, &pack, &check);
            if pass.repair {
                repair::set_aside(store, number, &pack, &check)?;
                verified.set_aside += 1;
            }
        }
        take_in(store, check, &mut verified);
        drop(alone);
        pack.release(0, usize::MAX);
        note_cursor(&cursor_file, id);
        keep_rate(pass, begin, verified.bytes, cancelled);
    }
    files::remove(&cursor_file)?;
    verify_records(store, pass, &mut verified)?;
    for (file, bytes) in store.rebuilt.damaged(pass.repair, &mut |bytes| {
        verified.bytes += bytes;
        keep_rate(pass, begin, verified.bytes, cancelled);
        !cancelled.load(Ordering::Relaxed)
    }) {
        let what = "a cached archive does not match its name; it is rebuilt when needed".to_owned();
        tracing::error!(file = %file.display(), bytes, "a cached archive is damaged");
        let file = file.display().to_string();
        verified.damaged.push(Damage { file, offset: 0, what, chunks: 0 });
    }
    Ok(verified)
}

/// Verifies the packs that are not sealed yet; returns their names.
fn verify_open(store: &Store, pass: Pass, verified: &mut Verified) -> Result<HashSet<PackId>> {
    let mut read = HashSet::new();
    for (number, pack) in store.shared.packs.all().into_iter().filter(|(_, pack)| pack.is_open()) {
        let alone = store.condemned.begin();
        let check = check::check_open(&pack, store.shared.recent.of_pack(number));
        read.insert(pack.id);
        if !check.damaged.is_empty() {
            repair::report(store, &pack, &check);
            if pass.repair {
                store.writer.seal_now()?;
                let sealed = Pack::sealed(pack.id, &store.shared.blobs);
                repair::set_aside(store, Some(number), &sealed, &check)?;
                verified.set_aside += 1;
            }
        }
        take_in(store, check, verified);
        drop(alone);
    }
    Ok(read)
}

fn take_in(store: &Store, check: Check, verified: &mut Verified) {
    verified.packs += 1;
    verified.chunks += check.intact.len() as u64;
    verified.bytes += check.bytes;
    verified.damaged.extend(check.damaged);
    store.sketches.insert(check.sketches.into_iter());
}

/// Notes how far the pass got. If that fails, the next pass reads more.
fn note_cursor(file: &Path, pack: PackId) {
    if let Err(error) = files::publish(file, pack.to_string().as_bytes(), 0o600) {
        tracing::warn!(%error, "the position of verifying could not be written");
    }
}

/// Reads every record again. Rewrites a damaged one that the history has; reports one that was damaged when the space was
/// opened, and gives it up if the pass repairs.
fn verify_records(store: &Store, pass: Pass, verified: &mut Verified) -> Result<()> {
    let mut named = |file: String, what: &str| {
        tracing::error!(file, what, "damage was found");
        let what = what.to_owned();
        verified.damaged.push(Damage { file, offset: 0, what, chunks: 0 });
    };
    for place in store.records().damaged_on_disk(pass.repair)? {
        named(place, "a record is damaged; the store still has its content");
    }
    for record in store.records().unreadable() {
        named(
            store.records().describe(&record),
            "the record of a push is damaged: which release it was is unknown",
        );
        if pass.repair {
            store.records().let_go(&record)?;
            verified.records_let_go += 1;
        }
    }
    Ok(())
}

/// Looks up every chunk of every release; if all are there, the store counts as whole again.
///
/// # Errors
/// The index's.
pub fn verify_releases(store: &Store) -> Result<Vec<Incomplete>> {
    let mut incomplete = Vec::new();
    let mut checked: HashMap<ReleaseId, Completeness> = HashMap::new();
    for summary in store.records().apps() {
        let mut reported = HashSet::new();
        for Pushed { release, .. } in store.records().pushed(&summary.app).unwrap_or_default() {
            let missing = match checked.get(&release) {
                Some(known) => *known,
                None => *checked.entry(release).or_insert(completeness(store, &release)?),
            };
            let missing_chunks = match missing {
                Completeness::Complete => continue,
                Completeness::Lacks(chunks) => Some(chunks),
                Completeness::Unreadable => None,
            };
            if reported.insert(release) {
                incomplete.push(Incomplete { app: summary.app.clone(), release, missing_chunks });
            }
        }
    }
    if incomplete.is_empty() {
        store.mark_whole()?;
    } else {
        store.mark_incomplete();
    }
    Ok(incomplete)
}

/// The part of a release that is stored.
#[derive(Debug, Clone, Copy)]
enum Completeness {
    Complete,
    /// This many chunks of content are gone.
    Lacks(u64),
    /// Parts of the manifest are gone.
    Unreadable,
}

fn completeness(store: &Store, release: &ReleaseId) -> Result<Completeness> {
    let mut missing = HashSet::new();
    let roots = match store.records().roots(release) {
        Ok(roots) => roots,
        Err(error) => return unreadable(*release, error.into()),
    };
    for root in roots {
        let mut failed = Ok(());
        let read = store.root_at(&root).map_err(restore::Error::from);
        let walked = read.and_then(|root| {
            restore::walk::<restore::Error>(&root, store.reader().as_mut(), &mut |item| {
                if let Item::Chunk(chunk) = item {
                    match store.find(&chunk.id) {
                        Ok(None) => drop(missing.insert(chunk.id)),
                        Ok(Some(_)) => {}
                        Err(error) => failed = Err(error),
                    }
                }
                Ok(())
            })
        });
        failed?;
        if let Err(error) = walked {
            return unreadable(*release, error);
        }
    }
    if missing.is_empty() {
        Ok(Completeness::Complete)
    } else {
        Ok(Completeness::Lacks(missing.len() as u64))
    }
}

/// A damaged manifest is unreadable; one that could not be read now is an error.
fn unreadable(release: ReleaseId, error: restore::Error) -> Result<Completeness> {
    if matches!(error.fault(), Fault::Corrupt | Fault::Version) {
        return Ok(Completeness::Unreadable);
    }
    Err(Error::Manifest { release, source: Box::new(error) })
}

/// Waits until no more was read than the rate allows.
fn keep_rate(pass: Pass, begin: Instant, bytes: u64, cancelled: &AtomicBool) {
    let Some(rate) = pass.bytes_per_second else { return };
    let due = Duration::from_millis(bytes.saturating_mul(1000) / rate.max(1));
    while begin.elapsed() < due && !cancelled.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20).min(due.saturating_sub(begin.elapsed())));
    }
}
