//! Copies what a service has of an application into a folder: the other way.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::Error;
use super::options::Options;
use super::service::Service;
use crate::restore;
use disk::files::{self, OnPath as _};
use format::manifest::EntryPath;
use ground::faults::Fault;
use ground::poison::Unpoisoned as _;
use ground::threads;

/// 8 MiB: the most of an object that is read by one request, and held in memory.
const PIECE_BYTES: u64 = 8 * 1024 * 1024;

/// Copies all objects below a prefix to an empty folder, so that some bytes stay free beside it; false if the service cannot list them. Objects whose names are no
/// paths of a release are left out.
///
/// # Errors
/// There are none, or there is no room for them, one cannot be read, or it is cancelled. The folder then holds a part.
pub fn copy(
    service: &dyn Service,
    options: &Options,
    prefix: &str,
    (into, reserve_bytes): (&Path, u64),
    cancelled: &AtomicBool,
) -> Result<bool, Error> {
    let Some(listing) = service.list(prefix)? else { return Ok(false) };
    if listing.is_empty() {
        let (what, reason) = (service.describe(prefix), "there is nothing".to_owned());
        return Err(Error::Service { what, reason, fault: Fault::Missing, retry_after: None });
    }
    let mut objects: Vec<(String, u64)> = listing.into_iter().map(|(key, (size, _))| (key, size)).collect();
    let needed = objects.iter().fold(0_u64, |needed, (_, size)| needed.saturating_add(*size));
    let free = files::free_bytes(into)?.saturating_sub(reserve_bytes);
    if needed > free {
        return Err(restore::Error::NoRoom { place: into.to_owned(), needed, free, unit: "B" }.into());
    }
    // Of an object and a folder with one name the object comes first, and stays.
    objects.sort();
    let next = Mutex::new(objects.into_iter());
    let (ends, failure) = (AtomicBool::new(false), Mutex::new(None));
    let work = || {
        while !ends.load(Ordering::Relaxed) {
            let Some((key, size)) = next.lock().unpoisoned().next() else { return };
            let path = key.strip_prefix(prefix).and_then(|path| EntryPath::new(path).ok());
            let copied = path.map_or(Ok(()), |path| copy_one(service, (&key, size), &path, into, cancelled));
            if let Err(error) = copied {
                ends.store(true, Ordering::Relaxed);
                failure.lock().unpoisoned().get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| threads::start_workers(scope, options.parallel, || &work))?;
    failure.into_inner().unpoisoned().map_or(Ok(true), Err)
}

/// Copies an object to its path, unless something is there.
fn copy_one(
    service: &dyn Service,
    (key, size): (&str, u64),
    path: &EntryPath,
    into: &Path,
    cancelled: &AtomicBool,
) -> Result<(), Error> {
    let to = into.join(std::str::from_utf8(path.as_bytes()).expect("a key is text"));
    let parent = to.parent().expect("it is below a folder");
    let made = fs::create_dir_all(parent).and_then(|()| File::create_new(&to));
    let is_taken =
        |error: &io::Error| matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory);
    let mut file = match made {
        Err(error) if is_taken(&error) => return Ok(()),
        made => made.on("create", &to)?,
    };
    let mut offset = 0;
    while offset < size {
        if cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let bytes = u32::try_from(PIECE_BYTES.min(size - offset)).expect("8 MiB");
        file.write_all(&service.read(key, offset, bytes)?).on("write", &to)?;
        offset += u64::from(bytes);
    }
    Ok(())
}
