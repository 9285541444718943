//! Carries decisions out: several requests at a time, one class after another.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use super::super::{Delivered, Error, Job, Preview};
use super::decisions::{self, Class, Decisions, Step, decide};
use super::journal::Journal;
use super::place::Place;
use super::service::{Content, Listing, Metadata, Object, Source, Stored};
use crate::restore::{ChunkReader, ReleaseEntries, ReleaseEntry, ReleaseFile};
use disk::clock::now;
use disk::crash_points;
use ground::escape;
use ground::monitor::Phase;
use ground::poison::Unpoisoned as _;

/// Says what [`deliver`] would do. Asks the service where the ledger does not know.
///
/// # Errors
/// As of [`deliver`].
pub fn plan(place: &Place<'_>, job: &Job<'_>) -> Result<Preview, Error> {
    let decisions = decide(job, place.options, place.rules, now())?;
    let run = Run::new(place, job, &decisions);
    let mut preview = Preview::default();
    let mut reader = job.source.reader();
    run.each_file(&mut |file| {
        for path in run.paths(&file)? {
            let (step, bytes) = decisions.steps[&*path];
            let is_there = match step {
                Step::Keep => true,
                Step::Put(_) => false,
                Step::Compare(_) => run.has(&path, &file, &mut *reader)?,
            };
            let to = if is_there { &mut preview.keep } else { &mut preview.put };
            to.push((escape::text(&path), bytes));
        }
        Ok(())
    })?;
    preview.delete = decisions.deletes.iter().map(|path| escape::text(path)).collect();
    Ok(preview)
}

/// Makes the place show the job's release.
///
/// # Errors
/// Entry points that readers see are still those from before, unless only the probe or a deletion failed. Trying again goes
/// on where this try came to. The ledger knows that readers see the release before anything is removed.
pub fn deliver(place: &Place<'_>, job: &Job<'_>) -> Result<Delivered, Error> {
    let decisions = decide(job, place.options, place.rules, now())?;
    let (deleted, files) = (decisions.current_deleted, decisions.current_files);
    if let Some(most) = place.options.max_delete.filter(|most| most.is_exceeded(deleted, files)) {
        return Err(Error::MaxDelete { deleted, files, most: most.to_string() });
    }
    if decisions.skipped_links > 0 {
        job.monitor.note(&format!("{} symbolic links were left out", decisions.skipped_links));
    }
    let mut run = Run::new(place, job, &decisions);
    run.check_names()?;
    let begun = place.service.requests();
    let compares = decisions.steps.values().filter(|(step, _)| matches!(step, Step::Compare(_))).count();
    if compares >= LIST_FROM {
        run.there = place.service.list(place.prefix)?;
    }
    let done = decisions::done(&job.shown.shown(), job.id.number);
    let mut first = 0;
    for class in Class::ALL {
        first = run.class(class, first, done)?;
    }
    run.stamp()?;
    place.probe(job)?;
    crash_points::point("release.shown");
    run.delete()?;
    let (files, bytes) = (job.root.totals.files, job.root.totals.bytes);
    let sent_bytes = run.sent.load(Ordering::Relaxed);
    Ok(Delivered {
        place: place.service.describe(place.prefix),
        files,
        bytes,
        reused_bytes: bytes.saturating_sub(sent_bytes),
        already: sent_bytes == 0 && decisions.deletes.is_empty() && run.puts.load(Ordering::Relaxed) == 0,
        sent_bytes,
        requests: place.service.requests() - begun,
        answer: None,
        kept: decisions.kept.clone(),
    })
}

/// 32: one page of a list answers for more than so many questions about single objects.
const LIST_FROM: usize = 32;

/// One delivery under way.
struct Run<'a> {
    place: &'a Place<'a>,
    job: &'a Job<'a>,
    decisions: &'a Decisions,
    /// What the service had at the beginning, where much is to be compared and it can list.
    there: Option<Listing>,
    /// What was written and is still to be verified, by its key.
    unverified: Mutex<Vec<(String, Stored)>>,
    /// True while a class is so large that a list verifies it with fewer requests.
    verifies_by_list: AtomicBool,
    sent: AtomicU64,
    puts: AtomicU64,
    /// Set by the first failure, and by whoever cancels: all threads end.
    ends: AtomicBool,
}

/// A file and those of its paths that are to be written in this turn, each with its place in the plan.
type Turn = (ReleaseFile, Vec<(u64, Box<str>)>);

impl<'a> Run<'a> {
    fn new(place: &'a Place<'a>, job: &'a Job<'a>, decisions: &'a Decisions) -> Self {
        let (sent, puts, ends) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self {
            place,
            job,
            decisions,
            there: None,
            unverified: Mutex::default(),
            verifies_by_list: AtomicBool::new(false),
            sent,
            puts,
            ends,
        }
    }

    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.place.prefix)
    }

    /// Checks all names before anything is written.
    fn check_names(&self) -> Result<(), Error> {
        for path in self.decisions.steps.keys() {
            if let Some(reason) = self.place.service.refuses(&self.key(path)) {
                return Err(Error::KeyName { path: escape::text(path), reason });
            }
        }
        match &self.place.options.stamp {
            Some(stamp) if self.decisions.steps.contains_key(stamp.as_str()) => {
                let reason = "is that of the destination's stamp".to_owned();
                Err(Error::KeyName { path: stamp.clone(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Hands each file of the release to `visit`.
    fn each_file(&self, visit: &mut dyn FnMut(ReleaseFile) -> Result<(), Error>) -> Result<(), Error> {
        for entry in ReleaseEntries::new(self.job.root, &mut *self.job.source.reader()) {
            if self.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if let ReleaseEntry::File(file) = entry? {
                visit(file)?;
            }
        }
        Ok(())
    }

    /// Returns the path of a file, and those of links to it.
    fn paths(&self, file: &ReleaseFile) -> Result<Vec<Box<str>>, Error> {
        let path = std::str::from_utf8(file.path.as_bytes());
        let path = path
            .map_err(|_| Error::KeyName { path: file.path.to_string(), reason: "is not UTF-8".to_owned() })?;
        let aliases = self.decisions.aliases.get(path).into_iter().flatten().cloned();
        Ok(std::iter::once(path.into()).chain(aliases).collect())
    }

    fn is_cancelled(&self) -> bool {
        self.ends.load(Ordering::Relaxed) || self.job.cancelled.load(Ordering::Relaxed)
    }

    /// Writes and verifies the objects of a class. `first` is the place of its first object in the plan; returns the place
    /// after its last. Objects before `done` were written by an earlier try.
    fn class(&self, class: Class, first: u64, done: u64) -> Result<u64, Error> {
        let journal = Journal::new(self.job.shown, first.max(done));
        let is_of = |step: &Step| matches!(step, Step::Put(of) | Step::Compare(of) if *of == class);
        let steps = self.decisions.steps.values().filter(|(step, _)| is_of(step)).count();
        self.verifies_by_list.store(steps >= LIST_FROM && self.place.service.lists(), Ordering::Relaxed);
        let mut next = first;
        let threads = NonZeroUsize::new(self.place.options.parallel).unwrap_or(NonZeroUsize::MIN).get();
        let (turns_in, turns) = mpsc::sync_channel::<Turn>(threads);
        // Once no thread is left, nobody waits for one to take its turn.
        let turns = Arc::new(Mutex::new(turns));
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let fail = |error: Error| {
            self.ends.store(true, Ordering::Relaxed);
            // A thread that was told to end is not the cause.
            let mut failure = failure.lock().unpoisoned();
            if failure.is_none() || matches!(*failure, Some(Error::Cancelled)) {
                *failure = Some(error);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (turns, fail, journal) = (Arc::clone(&turns), &fail, &journal);
                let work = move || {
                    let mut reader = self.job.source.reader();
                    loop {
                        let turn = turns.lock().unpoisoned().recv();
                        let Ok((file, paths)) = turn else { return };
                        for (place, path) in paths {
                            if self.is_cancelled() {
                                fail(Error::Cancelled);
                                continue;
                            }
                            let written = self.write(&path, &file, &mut *reader).and_then(|()| {
                                crash_points::point("object.written");
                                journal.done(place)
                            });
                            if let Err(error) = written {
                                fail(error);
                            }
                        }
                    }
                };
                if let Err(source) =
                    std::thread::Builder::new().name("whit-put".to_owned()).spawn_scoped(scope, work)
                {
                    fail(ground::threads::Error::Start(source).into());
                    break;
                }
            }
            drop(turns);
            let given = self.each_file(&mut |file| {
                let mut paths = Vec::new();
                for path in self.paths(&file)? {
                    let (step, _) = self.decisions.steps[&*path];
                    if is_of(&step) {
                        if next >= done {
                            paths.push((next, path));
                        } else if self.verifies_by_list.load(Ordering::Relaxed) {
                            // An earlier try may have ended before it verified what it wrote.
                            let stored = Stored { tag: None, bytes: file.size };
                            self.unverified.lock().unpoisoned().push((self.key(&path), stored));
                        }
                        next += 1;
                    }
                }
                if paths.is_empty() || turns_in.send((file, paths)).is_ok() {
                    Ok(())
                } else {
                    Err(Error::Cancelled)
                }
            });
            drop(turns_in);
            if let Err(error) = given {
                fail(error);
            }
        });
        match failure.into_inner().unpoisoned() {
            Some(_) if self.job.cancelled.load(Ordering::Relaxed) => Err(Error::Cancelled),
            Some(error) => Err(error),
            None => {
                if let Err(error) = self.verify() {
                    // What is not there is written again.
                    self.job.shown.note(first, first)?;
                    return Err(error);
                }
                self.verifies_by_list.store(false, Ordering::Relaxed);
                crash_points::point("class.verified");
                journal.end(next.max(done))?;
                crash_points::point("class.journalled");
                Ok(next)
            }
        }
    }

    /// Writes one object and verifies it, unless it is there.
    fn write(&self, path: &str, file: &ReleaseFile, reader: &mut dyn ChunkReader) -> Result<(), Error> {
        let (step, _) = self.decisions.steps[path];
        if matches!(step, Step::Compare(_)) && self.has(path, file, reader)? {
            return Ok(());
        }
        self.put(path, file.size, Source::File(file, reader))
    }

    fn put(&self, path: &str, size: u64, source: Source<'_, '_>) -> Result<(), Error> {
        let (key, metadata) = (self.key(path), self.place.options.metadata_of(path));
        let object = Object { key: &key, size: Some(size), metadata: &metadata };
        let told = AtomicU64::new(0);
        let sent = |bytes| {
            told.fetch_add(bytes, Ordering::Relaxed);
            self.job.monitor.advance(Phase::Transfer, bytes);
        };
        let mut content = Content { source, cancelled: self.job.cancelled, sent: &sent };
        let content = &mut content;
        let stored = self.place.service.put(&object, content)?;
        if self.verifies_by_list.load(Ordering::Relaxed) {
            self.unverified.lock().unpoisoned().push((key, stored));
        } else if !self.place.service.verify(&object, &stored, content)? {
            return Err(Error::Unverified(self.place.service.describe(&key)));
        }
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.sent.fetch_add(size, Ordering::Relaxed);
        self.job.monitor.advance(Phase::Transfer, size.saturating_sub(told.load(Ordering::Relaxed)));
        Ok(())
    }

    /// Verifies what was written since the last call, and forgets it.
    fn verify(&self) -> Result<(), Error> {
        let written = std::mem::take(&mut *self.unverified.lock().unpoisoned());
        if written.is_empty() {
            return Ok(());
        }
        let listing = self.place.service.list(self.place.prefix)?;
        for (key, stored) in &written {
            let is_there = if let Some(listing) = &listing {
                listing.get(key).is_some_and(|(size, tag)| {
                    let is_same = |(stored, found)| stored == found;
                    *size == stored.bytes && stored.tag.as_ref().zip(tag.as_ref()).is_none_or(is_same)
                })
            } else {
                let metadata = Metadata::default();
                let object = Object { key, size: Some(stored.bytes), metadata: &metadata };
                let mut nothing = Content::unsent(Source::Bytes(&[]), self.job.cancelled);
                self.place.service.verify(&object, stored, &mut nothing)?
            };
            if !is_there {
                return Err(Error::Unverified(self.place.service.describe(key)));
            }
        }
        Ok(())
    }

    fn has(&self, path: &str, file: &ReleaseFile, reader: &mut dyn ChunkReader) -> Result<bool, Error> {
        let (key, metadata) = (self.key(path), self.place.options.metadata_of(path));
        let listed = self.there.as_ref().map(|there| there.get(&key));
        if listed.is_some_and(|found| found.is_none_or(|(size, _)| *size != file.size)) {
            return Ok(false);
        }
        let object = Object { key: &key, size: Some(file.size), metadata: &metadata };
        let mut content = Content::unsent(Source::File(file, reader), self.job.cancelled);
        self.place.service.has(&object, &mut content)
    }

    /// Writes the release's id where the options say.
    fn stamp(&self) -> Result<(), Error> {
        let Some(stamp) = &self.place.options.stamp else { return Ok(()) };
        let bytes = format!("{}\n", self.job.release()).into_bytes();
        let (key, metadata) = (self.key(stamp), self.place.options.metadata_of(stamp));
        let object = Object { key: &key, size: Some(bytes.len() as u64), metadata: &metadata };
        let mut content = Content::unsent(Source::Bytes(&bytes), self.job.cancelled);
        if self.place.service.has(&object, &mut content)? {
            return Ok(());
        }
        crash_points::point("stamp.before");
        self.put(stamp, bytes.len() as u64, Source::Bytes(&bytes))?;
        crash_points::point("stamp.written");
        Ok(())
    }

    /// Removes what no release that stays has, and what earlier tries of others left.
    fn delete(&self) -> Result<(), Error> {
        let mut paths = self.decisions.deletes.clone();
        paths.extend(self.leftovers()?);
        if paths.is_empty() {
            return Ok(());
        }
        self.job.shown.switch(&self.decisions.kept)?;
        crash_points::point("deletions.before");
        let next = AtomicU64::new(0);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.place.options.parallel.min(paths.len()) {
                let work = || {
                    while let Some(path) = usize::try_from(next.fetch_add(1, Ordering::Relaxed))
                        .ok()
                        .and_then(|next| paths.get(next))
                    {
                        let deleted = if self.is_cancelled() {
                            Err(Error::Cancelled)
                        } else {
                            let deleted = self.place.service.delete(&self.key(path));
                            crash_points::point("object.deleted");
                            deleted
                        };
                        if let Err(error) = deleted {
                            self.ends.store(true, Ordering::Relaxed);
                            failure.lock().unpoisoned().get_or_insert(error);
                        }
                    }
                };
                if std::thread::Builder::new()
                    .name("whit-delete".to_owned())
                    .spawn_scoped(scope, work)
                    .is_err()
                {
                    break;
                }
            }
        });
        match failure.into_inner().unpoisoned() {
            Some(error) => Err(error),
            None if next.load(Ordering::Relaxed) < paths.len() as u64 => Err(Error::Cancelled),
            None => {
                crash_points::point("deletions.after");
                Ok(())
            }
        }
    }

    /// Returns the paths that deliveries which did not end put there: those whose objects have the content that they would have.
    fn leftovers(&self) -> Result<Vec<Box<str>>, Error> {
        let releases: BTreeSet<_> = self.decisions.leftovers.iter().map(|(_, release)| *release).collect();
        let mut found = Vec::new();
        for release in releases {
            let Some(root) = (self.job.root_of)(&release) else { continue };
            let mut reader = self.job.source.reader();
            for entry in ReleaseEntries::new(&root, &mut *self.job.source.reader()) {
                let ReleaseEntry::File(file) = entry? else { continue };
                let Ok(path) = std::str::from_utf8(file.path.as_bytes()) else { continue };
                let is_left = self.decisions.leftovers.binary_search_by(|(left, _)| (**left).cmp(path));
                let is_left = is_left.is_ok_and(|place| self.decisions.leftovers[place].1 == release);
                if is_left && self.has(path, &file, &mut *reader)? {
                    found.push(path.into());
                }
            }
        }
        Ok(found)
    }
}
