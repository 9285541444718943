//! What a delivery does with each object: put, compare, keep, delete, and in which order.
//!
//! Pure, but for reading manifests. A decision follows from the new release, from what the ledger says is there, and from the
//! options; so a delivery that is tried again decides the same, and goes on where it was.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::super::{Error, Job};
use super::options::{LinkForm, Options, is_same_place};
use crate::restore::{ChunkSource, ReleaseEntries, ReleaseEntry};
use format::manifest::{EntryPath, Root};
use format::shown::{Shown, ShownEntry, ShownState};
use ground::ids::ReleaseId;

/// The turn of an object: no object of a class is written before all of the class before are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nothing was there: nobody looks for it yet.
    New,
    /// Something else was there.
    Changed,
    /// An entry point, or what the options name so.
    Last,
}

impl Class {
    /// All, in order.
    pub const ALL: [Self; 3] = [Self::New, Self::Changed, Self::Last];
}

/// What to do with an object of the new release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is there.
    Keep,
    /// Write it.
    Put(Class),
    /// It may be there already: compare, and write it if it differs.
    Compare(Class),
}

/// What to do for one release.
#[derive(Debug, Default)]
pub struct Decisions {
    /// For each path of the new release: its step and its bytes.
    pub steps: HashMap<Box<str>, (Step, u64)>,
    /// For the path of a file: further paths with its content, by links.
    pub aliases: HashMap<Box<str>, Vec<Box<str>>>,
    /// Paths to remove at the end that complete releases put there.
    pub deletes: Vec<Box<str>>,
    /// Paths that deliveries which did not end may have put there, with the content that they would have: to remove only if they have it.
    pub leftovers: Vec<(Box<str>, ReleaseId)>,
    /// Releases of which all objects stay, the new one first.
    pub kept: Vec<ReleaseId>,
    /// Symbolic links that are not delivered.
    pub skipped_links: u64,
    /// Files of the current release, and how many of them go.
    pub current_files: u64,
    /// As above.
    pub current_deleted: u64,
}

/// For each path of a release: the name of its content, and its bytes.
type Objects = BTreeMap<Box<str>, ([u8; 16], u64)>;

/// The files of one release at the destination.
struct Earlier {
    files: HashMap<Box<str>, [u8; 16]>,
    rules: [u8; 32],
}

/// Decides. Reads the manifests of the new release and of those that the destination still shows; memory: some 150 B for each
/// file of each.
///
/// # Errors
/// A manifest cannot be read; a name or a link of the new release is not possible.
pub fn decide(job: &Job<'_>, options: &Options, rules: [u8; 32], now: u64) -> Result<Decisions, Error> {
    let mut shown = job.shown.shown();
    // The definition may have been of another place before.
    shown.entries.retain(|entry| is_same_place(&entry.rules, &rules));
    let mut decisions = Decisions::default();
    let new = files(job.root, job.source, options, Some(&mut decisions))?;
    let is_ours = |entry: &ShownEntry| entry.delivery == job.id.number && entry.release == job.release();
    let read = |entry: &ShownEntry| -> Result<Option<Earlier>, Error> {
        let Some(root) = root_of(job, entry.release) else { return Ok(None) };
        let files = files(&root, job.source, options, None)?;
        let files = files.into_iter().map(|(path, (content, _))| (path, content)).collect();
        Ok(Some(Earlier { files, rules: *entry.rules }))
    };
    let complete: Vec<(ReleaseId, Option<Earlier>)> =
        shown.complete().map(|entry| Ok((entry.release, read(entry)?))).collect::<Result<_, Error>>()?;
    let others = shown.partial().filter(|entry| !is_ours(entry));
    let partial: Vec<(ReleaseId, Earlier)> = others
        .filter_map(|entry| {
            read(entry).map(|earlier| earlier.map(|earlier| (entry.release, earlier))).transpose()
        })
        .collect::<Result<_, _>>()?;
    // Of releases whose manifest is gone nothing is known: what they put there cannot be told from others' objects.
    let known: Vec<&Earlier> = complete.iter().filter_map(|(_, earlier)| earlier.as_ref()).collect();
    let is_first = known.is_empty() || complete.iter().any(|(_, earlier)| earlier.is_none());
    for (path, (content, size)) in &new {
        let class = |was_there: bool| match (options.is_last(path), was_there) {
            (true, _) => Class::Last,
            (false, true) => Class::Changed,
            (false, false) => Class::New,
        };
        let before = known.iter().find_map(|earlier| Some((earlier.files.get(path)?, earlier.rules)));
        let is_unsure = partial.iter().any(|(_, earlier)| earlier.files.contains_key(path));
        let is_touched = partial.iter().any(|(_, earlier)| {
            earlier.files.get(path).is_some_and(|other| other != content || earlier.rules != rules)
        });
        let step = match before {
            Some((old, old_rules)) if old == content && !is_touched => {
                if old_rules == rules {
                    Step::Keep
                } else {
                    Step::Compare(class(true))
                }
            }
            Some(_) if is_unsure => Step::Compare(class(true)),
            Some(_) => Step::Put(class(true)),
            None if is_first || is_unsure => Step::Compare(class(is_first)),
            None => Step::Put(class(false)),
        };
        decisions.steps.insert(path.clone(), (step, *size));
    }
    decisions.retain(&new, &shown, &complete, &partial, (options, job.release(), now));
    decisions.kept.insert(0, job.release());
    Ok(decisions)
}

impl Decisions {
    /// Decides which earlier releases stay, and what goes.
    fn retain(
        &mut self,
        new: &Objects,
        shown: &Shown,
        complete: &[(ReleaseId, Option<Earlier>)],
        partial: &[(ReleaseId, Earlier)],
        (options, release, now): (&Options, ReleaseId, u64),
    ) {
        let stay = staying(shown, release, options.keep, options.keep_time(), now);
        let (kept, gone): (Vec<_>, Vec<_>) = complete.iter().enumerate().partition(|(place, _)| stay[*place]);
        self.kept = kept.iter().map(|(_, (release, _))| *release).collect();
        let kept = |path: &str| {
            kept.iter().any(|(_, (_, earlier))| {
                earlier.as_ref().is_some_and(|earlier| earlier.files.contains_key(path))
            })
        };
        let mut seen: HashSet<&str> = HashSet::new();
        let gone = gone.iter().filter_map(|(_, (_, earlier))| earlier.as_ref());
        for path in gone.flat_map(|earlier| earlier.files.keys()) {
            if !new.contains_key(path) && !kept(path) && seen.insert(path) {
                self.deletes.push(path.clone());
            }
        }
        self.deletes.sort_unstable();
        if let Some((_, Some(current))) = complete.first() {
            self.current_files = current.files.len() as u64;
            let lost = self.deletes.iter().filter(|path| current.files.contains_key(*path));
            self.current_deleted = lost.count() as u64;
        }
        let put = |path: &str| {
            complete
                .iter()
                .any(|(_, earlier)| earlier.as_ref().is_some_and(|earlier| earlier.files.contains_key(path)))
        };
        let mut leftovers: BTreeMap<&str, ReleaseId> = BTreeMap::new();
        for (release, earlier) in partial.iter().rev() {
            for path in earlier.files.keys().filter(|path| !new.contains_key(*path) && !put(path)) {
                leftovers.insert(path, *release);
            }
        }
        self.leftovers = leftovers.into_iter().map(|(path, release)| (path.into(), release)).collect();
    }
}

/// Returns for each complete entry whether its objects stay beside `release`: those of `keep - 1` other releases, the latest
/// ones, and those that were replaced at most `time` ago.
fn staying(shown: &Shown, release: ReleaseId, keep: usize, time: Duration, now: u64) -> Vec<bool> {
    let (mut replaced, mut others) = (now, BTreeSet::new());
    let stays = shown.complete().map(|entry| {
        let within = now.saturating_sub(replaced) < time.as_secs();
        replaced = entry.since;
        // A release that is delivered again takes nobody's place.
        if entry.release != release {
            others.insert(entry.release);
        }
        entry.release == release || others.len() < keep || within
    });
    stays.collect()
}

fn root_of(job: &Job<'_>, release: ReleaseId) -> Option<Root> {
    if release == job.release() { Some(job.root.clone()) } else { (job.root_of)(&release) }
}

/// The objects of a release: for each path the name of its content and its bytes. Notes links in `decisions`, if given.
fn files(
    root: &Root,
    source: &dyn ChunkSource,
    options: &Options,
    mut decisions: Option<&mut Decisions>,
) -> Result<Objects, Error> {
    let (mut found, mut links) = (BTreeMap::new(), Vec::new());
    let (mut skipped, mut impossible) = (0, None);
    for entry in ReleaseEntries::new(root, &mut *source.reader()) {
        let taken = match entry? {
            ReleaseEntry::Directory(_) => continue,
            ReleaseEntry::Symlink { .. } if options.links == LinkForm::Skip => {
                skipped += 1;
                continue;
            }
            ReleaseEntry::File(file) => text(&file.path).map(|path| {
                found.insert(path, (file.content_name(), file.size));
            }),
            ReleaseEntry::HardLink { path, target } => text(&path).and_then(|path| {
                links.push((path, text(&target)?));
                Ok(())
            }),
            ReleaseEntry::Symlink { path, target } => text(&path).and_then(|path| {
                let target = resolve(&path, &target).ok_or_else(|| Error::Link(path.to_string()))?;
                links.push((path, target));
                Ok(())
            }),
        };
        impossible = impossible.or(taken.err());
    }
    let targets: HashMap<&str, &str> = links.iter().map(|(path, target)| (&**path, &**target)).collect();
    let mut copies = Vec::new();
    for (path, target) in &links {
        // A link may lead to a link; forty in a row are a circle, as for the kernel.
        let steps = std::iter::successors(Some(&**target), |end| targets.get(end).copied());
        let Some(file) = steps.take(40).find(|end| found.contains_key(*end)) else {
            impossible.get_or_insert_with(|| Error::Link(path.to_string()));
            continue;
        };
        copies.push((path.clone(), found[file]));
        if let Some(decisions) = &mut decisions {
            decisions.aliases.entry(file.into()).or_default().push(path.clone());
        }
    }
    found.extend(copies);
    match (decisions, impossible) {
        // Of an earlier release, what is not possible was never delivered.
        (None, _) => Ok(found),
        (Some(_), Some(error)) => Err(error),
        (Some(decisions), None) => {
            decisions.skipped_links = skipped;
            Ok(found)
        }
    }
}

/// Returns a path as text.
///
/// # Errors
/// [`Error::KeyName`]: it is not UTF-8, as keys and URLs are.
fn text(path: &EntryPath) -> Result<Box<str>, Error> {
    let text = std::str::from_utf8(path.as_bytes());
    text.map(Into::into)
        .map_err(|_| Error::KeyName { path: path.to_string(), reason: "is not UTF-8".to_owned() })
}

/// Resolves a link's target from the link's folder; none if it leads outside, or is not UTF-8.
fn resolve(path: &str, target: &[u8]) -> Option<Box<str>> {
    let target = std::str::from_utf8(target).ok().filter(|target| !target.starts_with('/'))?;
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/").into())
}

/// Returns how many steps of a delivery's plan an earlier try has done.
pub fn done(shown: &Shown, delivery: u64) -> u64 {
    match shown.entries.first() {
        Some(ShownEntry { state: ShownState::Partial { done, .. }, delivery: of, .. }) if *of == delivery => {
            *done
        }
        _ => 0,
    }
}
