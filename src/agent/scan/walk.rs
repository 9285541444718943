//! Lists the entries that are pushed, in the manifest's order.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::dropped::{Dropped, DroppedKind, Losses};
use super::entries::{FileId, below, child, examine, id_of, mode_of, names_in};
use super::lister::{Lister, Unheard};
use super::names::{self, Name, Names};
use super::selection::Patterns;
use super::{Error, Links, RefusedLinks, Selection, path_below};
use disk::files::OnPath;
use format::manifest::{EntryPath, FOLDER_MODE, Item, Leads, Shape, leads, wound_through};

/// Bounds the entries found by following links, so that a link to `/` ends.
const FOLLOWED_ENTRIES_MAX: u64 = 1_000_000;

/// The top of a scan.
pub(super) struct Top {
    /// The path as given.
    pub path: PathBuf,
    /// The folder that entries are below.
    pub base: PathBuf,
    pub shape: Shape,
    /// Permission bits of the directory.
    pub mode: u16,
}

impl Top {
    /// Looks at the path to scan; a link at the top is followed.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let kind = fs::metadata(path).on("read", path)?;
        if kind.is_dir() {
            Ok(Self {
                path: path.to_owned(),
                base: path.to_owned(),
                shape: Shape::Tree,
                mode: mode_of(&kind),
            })
        } else if kind.is_file() {
            let base = path.parent().unwrap_or(Path::new("")).to_owned();
            Ok(Self { path: path.to_owned(), base, shape: Shape::File, mode: FOLDER_MODE })
        } else {
            Err(Error::Kind(path.to_owned()))
        }
    }
}

/// The results of a walk besides the entries.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Counts what a release does not keep.
    pub dropped: Vec<Dropped>,
    /// The first entry that was excluded, and by which pattern.
    pub left_out: Option<(EntryPath, String)>,
}

/// Lists all entries; ends early, without an error, when the collector has ended.
pub(super) fn list(top: &Top, selection: &Selection, mut lister: Lister<'_>) -> Result<Listing, Error> {
    if top.shape == Shape::File {
        let metadata = fs::metadata(&top.path).on("read", &top.path)?;
        let path = EntryPath::new(top.path.file_name().unwrap_or_default().as_bytes())?;
        let mut losses = Losses::default();
        losses.examine(&path, &top.path, &metadata, metadata.uid());
        drop(lister.file(path, &top.path, &metadata).and_then(|()| lister.send()));
        return Ok(Listing { dropped: losses.finish(), left_out: None });
    }
    let metadata = fs::metadata(&top.path).on("read", &top.path)?;
    let mut walk = Walk {
        base: &top.base,
        selection,
        patterns: selection.patterns()?,
        disjoint: disjoint(top, selection)?,
        owner: metadata.uid(),
        lister,
        losses: Losses::default(),
        left_out: None,
        names: None,
        refused: RefusedLinks::default(),
        following: Vec::new(),
        followed: 0,
    };
    walk.check_disjoint(&top.path, &metadata)?;
    match walk.folder(&top.path, None) {
        Ok(()) => {}
        Err(Stop::Failed(error)) => return Err(error),
        Err(Stop::Unheard) => return Ok(Listing::default()),
    }
    if walk.refused.count > 0 {
        return Err(Error::OutsideLinks(walk.refused));
    }
    if let Some(path) = walk.names.as_ref().and_then(Names::contradiction) {
        return Err(Error::Changed(path_below(&top.base, path)));
    }
    drop(walk.lister.send());
    Ok(Listing { dropped: walk.losses.finish(), left_out: walk.left_out })
}

enum Stop {
    Failed(Error),
    Unheard,
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Unheard> for Stop {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

/// Goes through a tree. Memory: the names of each open folder, and those of [`Names`].
struct Walk<'a> {
    base: &'a Path,
    selection: &'a Selection,
    patterns: Patterns,
    disjoint: HashMap<FileId, &'static str>,
    owner: u32,
    lister: Lister<'a>,
    losses: Losses,
    left_out: Option<(EntryPath, String)>,
    /// Counted when the first file with several names is met: most trees have none.
    names: Option<Names>,
    refused: RefusedLinks,
    /// Links that are being followed, outermost first.
    following: Vec<Followed>,
    /// Entries below them, so far.
    followed: u64,
}

/// A link to a folder that is pushed in its place.
struct Followed {
    id: FileId,
    /// Bytes of the link's path.
    length: usize,
}

impl Walk<'_> {
    /// Lists the content of the folder at `place`, which is the entry `path`, or the top.
    fn folder(&mut self, place: &Path, path: Option<&EntryPath>) -> Result<(), Stop> {
        self.patterns.enter(below(path), place, self.lister.monitor());
        for name in names_in(place)? {
            let (place, path) = (place.join(&name), child(path, &name)?);
            let metadata = examine(&place)?;
            if let Some(pattern) = self.patterns.left_out(below(Some(&path)), metadata.is_dir()) {
                self.left_out.get_or_insert((path, pattern));
                continue;
            }
            self.entry(&place, path, &metadata)?;
        }
        self.patterns.leave();
        Ok(())
    }

    fn entry(&mut self, place: &Path, path: EntryPath, metadata: &Metadata) -> Result<(), Stop> {
        if !self.following.is_empty() {
            self.followed += 1;
            if self.followed > FOLLOWED_ENTRIES_MAX {
                return Err(Error::Endless(path, FOLLOWED_ENTRIES_MAX).into());
            }
        }
        if metadata.is_dir() {
            self.check_disjoint(place, metadata)?;
            self.losses.examine(&path, place, metadata, self.owner);
            self.item(Item::Directory { path: path.clone(), mode: mode_of(metadata) })?;
            self.folder(place, Some(&path))
        } else if metadata.is_symlink() {
            self.symlink(place, path)
        } else if metadata.is_file() {
            self.losses.examine(&path, place, metadata, self.owner);
            self.file(place, path, metadata)
        } else {
            self.losses.add(DroppedKind::SpecialFiles, &path);
            Ok(())
        }
    }

    fn file(&mut self, place: &Path, path: EntryPath, metadata: &Metadata) -> Result<(), Stop> {
        // A file found by following a link is pushed as a copy.
        let name = if metadata.nlink() > 1 && self.following.is_empty() {
            if self.names.is_none() {
                self.names = Some(names::count(self.base, &mut self.selection.patterns()?)?);
            }
            self.names.as_mut().map_or(Name::Only, |names| names.name(metadata, &path))
        } else {
            Name::Only
        };
        match name {
            Name::Further(target) => self.item(Item::HardLink { path, target }),
            Name::Only => self.content(path, place, metadata),
            Name::First => {
                self.content(path, place, metadata)?;
                self.item(Item::Linked)
            }
        }
    }

    fn symlink(&mut self, place: &Path, path: EntryPath) -> Result<(), Stop> {
        let target = fs::read_link(place).on("read", place)?.into_os_string().into_vec();
        if self.stays_inside(&path, &target)? {
            return self.item(Item::Symlink { path, target });
        }
        match self.selection.links {
            Links::Keep => self.item(Item::OutsideLink { path, target }),
            Links::Skip => {
                self.losses.add(DroppedKind::OutsideLinks, &path);
                Ok(())
            }
            Links::Refuse => {
                self.refused.add(path, target);
                Ok(())
            }
            Links::Follow => self.follow(place, path),
        }
    }

    /// Returns whether a link stays inside the tree, or, below a followed link, inside the folder that this one leads to.
    fn stays_inside(&self, path: &EntryPath, target: &[u8]) -> Result<bool, Stop> {
        let from = self.following.last().map_or(0, |followed| followed.length + 1);
        Ok(match leads(&EntryPath::new(&path.as_bytes()[from..])?, target) {
            Leads::Inside => true,
            Leads::Outside => false,
            // A name before a `..` may itself be a link, and lead elsewhere.
            Leads::Winding => wound_through(path, target).iter().all(|through| {
                let place = self.base.join(OsStr::from_bytes(through));
                !fs::symlink_metadata(place).is_ok_and(|kind| kind.is_symlink())
            }),
        })
    }

    /// Lists the link's target in its place.
    fn follow(&mut self, place: &Path, path: EntryPath) -> Result<(), Stop> {
        let metadata = match fs::metadata(place) {
            // It leads nowhere, or in a circle.
            Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(LOOP) => {
                self.losses.add(DroppedKind::OutsideLinks, &path);
                return Ok(());
            }
            result => result.on("follow", place)?,
        };
        if !metadata.is_dir() {
            return self.entry(place, path, &metadata);
        }
        let id = id_of(&metadata);
        let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = fs::canonicalize(parent).on("find", parent)?;
        let is_above = self.following.iter().any(|followed| followed.id == id)
            || parent.ancestors().any(|above| fs::metadata(above).is_ok_and(|above| id_of(&above) == id));
        if is_above {
            return Err(Error::Circle(path).into());
        }
        self.following.push(Followed { id, length: path.as_bytes().len() });
        self.entry(place, path, &metadata)?;
        self.following.pop();
        Ok(())
    }

    fn content(&mut self, path: EntryPath, place: &Path, metadata: &Metadata) -> Result<(), Stop> {
        // The push is refused already: only further links are of interest.
        if self.refused.count > 0 { Ok(()) } else { Ok(self.lister.file(path, place, metadata)?) }
    }

    fn item(&mut self, item: Item) -> Result<(), Stop> {
        if self.refused.count > 0 { Ok(()) } else { Ok(self.lister.entry(item)?) }
    }

    fn check_disjoint(&self, place: &Path, metadata: &Metadata) -> Result<(), Error> {
        match self.disjoint.get(&id_of(metadata)) {
            Some(what) => Err(Error::Overlaps { place: place.to_owned(), what }),
            None => Ok(()),
        }
    }
}

/// ELOOP: more links one after another than the system follows.
const LOOP: i32 = rustix::io::Errno::LOOP.raw_os_error();

/// Returns the folders that must not be part of the tree.
///
/// # Errors
/// One that is not there yet would be.
fn disjoint(top: &Top, selection: &Selection) -> Result<HashMap<FileId, &'static str>, Error> {
    let mut found = HashMap::new();
    for (place, what) in &selection.disjoint {
        match fs::metadata(place) {
            Ok(metadata) => drop(found.insert(id_of(&metadata), *what)),
            Err(_) if would_be_pushed(top, selection, &std::path::absolute(place).on("find", place)?)? => {
                return Err(Error::Overlaps { place: place.clone(), what });
            }
            Err(_) => {}
        }
    }
    Ok(found)
}

/// Returns whether a folder that does not exist yet would be part of the tree.
fn would_be_pushed(top: &Top, selection: &Selection, place: &Path) -> Result<bool, Error> {
    let is_there = |path: &&Path| fs::metadata(path).is_ok();
    let (Some(above), Ok(base)) = (place.ancestors().find(is_there), fs::canonicalize(&top.base)) else {
        return Ok(false);
    };
    // Below a file there will never be a folder.
    let Some(real) = fs::canonicalize(above).ok().filter(|real| real.is_dir()) else { return Ok(false) };
    let real = real.join(place.strip_prefix(above).unwrap_or(place));
    let Ok(within) = real.strip_prefix(&base) else { return Ok(false) };
    let mut patterns = selection.patterns()?;
    let mut at = PathBuf::new();
    for name in within.components() {
        patterns.enter(&at, &base.join(&at), &ground::monitor::Silent);
        at.push(name);
        if patterns.left_out(&at, true).is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}
