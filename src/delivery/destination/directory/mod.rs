//! A folder that shows one release at a time.
//!
//! `PATH/current` is a relative link to a complete copy. Whoever opens files through it sees the old
//! release or the new one, and whoever has resolved it once keeps a whole copy, as the one just left is
//! never removed. Copies are never changed after they are complete: a damaged one is replaced by another, which gets
//! its name.

mod copies;
mod folders;
mod permissions;
mod content;
mod shared;
mod showing;
mod open;
mod trial;
mod untouched;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Deserializer};

pub use self::content::Content;
use self::copies::Copies;
use self::folders::Folders;
pub use self::open::OpenDirectory;
use self::permissions::{Account, Kind, Permissions};
pub use self::shared::{SharedPath, check as check_shared};
pub use self::showing::{Kept, Showing, Steps};
use super::mistake::Mistake;
use super::{Check, Delivered, Destination, Error, Job, KeptCopy, Preview, Template};
use crate::restore::{Linked, Mapping, OutsideLinks, Previous, Reuse, looks_complete};
use disk::files::{Folder, OnPath as _};
use format::manifest::{EntryPath, Root};
use ground::ids::{AppName, ReleaseId};

/// Copies kept by default: the current one and two to go back to.
pub const KEEP_DEFAULT: usize = 3;

/// A directory destination, and the keys that define one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// The folder; created with its first release.
    pub path: Template,
    /// Copies kept, the current one included; 3 by default. The one just left is kept in any case.
    #[serde(default = "keep_default")]
    pub keep: usize,
    /// How to reuse unchanged files of the current copy; `copy` by default.
    #[serde(default)]
    pub reuse: Reuse,
    /// How to treat links that lead outside a release; refused by default. A definition says `true` to keep them.
    #[serde(default, deserialize_with = "outside_links")]
    pub outside_links: OutsideLinks,
    /// Paths of the application that live beside the releases and are linked into each copy; none by default.
    #[serde(default)]
    pub shared: Vec<SharedPath>,
    /// The user that copies belong to; the proxy's own by default.
    pub owner: Option<Account>,
    /// The group that copies belong to; the one that the system gives by default.
    pub group: Option<Account>,
    /// The permission bits of files, executable ones by all who may read them; those of the release by default.
    pub file_mode: Option<Permissions>,
    /// The permission bits of directories; those of the release by default.
    pub dir_mode: Option<Permissions>,
}

fn keep_default() -> usize {
    KEEP_DEFAULT
}

fn outside_links<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OutsideLinks, D::Error> {
    let keeps = bool::deserialize(deserializer)?;
    Ok(if keeps { OutsideLinks::Keep } else { OutsideLinks::Refuse })
}

impl Directory {
    /// Creates a destination at `path` with the defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (reuse, outside_links) = (Reuse::default(), OutsideLinks::default());
        Self {
            path: Template::new(path),
            keep: KEEP_DEFAULT,
            reuse,
            outside_links,
            shared: Vec::new(),
            owner: None,
            group: None,
            file_mode: None,
            dir_mode: None,
        }
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first key whose value is a mistake.
    pub fn check(&self) -> Result<(), (&'static str, Mistake)> {
        if !self.path.as_path().is_absolute() {
            return Err(("path", Mistake::Relative(self.path.as_path().to_owned())));
        }
        if let Some(text) = self.path.unknown_placeholder() {
            return Err(("path", Mistake::Placeholder(text)));
        }
        shared::check(&self.shared).map_err(|mistake| ("shared", mistake))?;
        // The proxy itself could not read, or not fill, what has fewer.
        for (key, mode, least) in [("file_mode", self.file_mode, 0o400), ("dir_mode", self.dir_mode, 0o500)] {
            if mode.is_some_and(|mode| mode.bits() & least != least) {
                return Err((key, Mistake::Closed));
            }
        }
        self.owner().map_err(|mistake| ("owner", mistake))?;
        self.group().map_err(|mistake| ("group", mistake))?;
        if self.keep == 0 { Err(("keep", Mistake::Nothing)) } else { Ok(()) }
    }

    fn owner(&self) -> Result<Option<u32>, Mistake> {
        self.owner.as_ref().map(|owner| owner.number(Kind::User)).transpose()
    }

    fn group(&self) -> Result<Option<u32>, Mistake> {
        self.group.as_ref().map(|group| group.number(Kind::Group)).transpose()
    }

    /// Returns what copies have instead of what their release says. Names of accounts are looked up each time, as their
    /// numbers may change.
    fn mapping<'a>(&self, linked: &'a [Linked]) -> Result<Mapping<'a>, Error> {
        Ok(Mapping {
            owner: self.owner()?,
            group: self.group()?,
            file_mode: self.file_mode.map(Permissions::bits),
            directory_mode: self.dir_mode.map(Permissions::bits),
            linked,
        })
    }
}

impl Destination for Directory {
    /// Does nothing if the release is current and complete by names, sizes, modes, owners and links. Otherwise writes a
    /// new copy, from a kept copy of the same release or the current one as far as their bytes are right, so that
    /// nothing an application changed in its folder comes back. A kept copy that nobody has changed is shown as it is.
    fn deliver(&self, job: &Job<'_>) -> Result<Delivered, Error> {
        let (linked, content) = (self.links(), Content::of(job));
        let mapping = self.mapping(&linked)?;
        let folders = Folders::open(&self.path.of(job.app))?;
        let basis = Delivery::basis(&folders.copies, job)?;
        let delivery = Delivery { private: &folders.private, release: job.release(), basis };
        let shown = self.show(&folders, &content, &mapping, &delivery)?;
        let (files, bytes) = (job.root.totals.files, job.root.totals.bytes);
        Ok(Delivered {
            place: folders.copies.place(shown.slot).display().to_string(),
            files,
            bytes,
            reused_bytes: shown.reused_bytes,
            already: shown.already,
            sent_bytes: shown.written_bytes,
            kept: folders.copies.kept(),
            ..Delivered::default()
        })
    }

    fn plan(&self, job: &Job<'_>) -> Result<Preview, Error> {
        let (linked, copies) = (self.links(), Copies::look(&self.path.of(job.app))?);
        let mapping = self.mapping(&linked)?;
        shared::missing(&self.shared, copies.as_ref().map(|copies| &copies.folder), &Content::of(job))?;
        let current = copies.as_ref().map_or(Ok(None), Copies::current)?;
        let current = current.and_then(|slot| (job.root_of)(&slot.release));
        super::preview::compare(job.root, current.as_ref(), job.source, &mapping)
    }

    fn check(&self, cancelled: &AtomicBool) -> Vec<Check> {
        trial::steps(self.path.as_path(), self.path.depends_on_app(), self.mapping(&[]), cancelled)
    }

    fn rules(&self) -> [u8; 32] {
        let Self { shared, owner, group, file_mode, dir_mode, .. } = self;
        let rules = (shared, owner, group, file_mode, dir_mode);
        if rules == (&Vec::new(), &None, &None, &None, &None) {
            return [0; 32];
        }
        blake3::hash(format!("{rules:?}").as_bytes()).into()
    }

    fn kind(&self) -> &'static str {
        "dir"
    }

    /// The copy that readers see comes first, then the newest.
    fn read_back(&self, app: &AppName, release: &ReleaseId) -> Vec<Box<dyn KeptCopy>> {
        let copies = Copies::look(&self.path.of(app)).ok().flatten();
        let copies = copies.map_or_else(Vec::new, |copies| copies.of(release));
        copies.into_iter().map(|folder| Box::new(FolderCopy(folder)) as Box<dyn KeptCopy>).collect()
    }

    /// What `current` leads to, in a folder that has it, whether a delivery made it or somebody else; else all of the folder.
    fn held(&self, app: &AppName, _: (&Path, u64), _: &AtomicBool) -> Result<Option<PathBuf>, Error> {
        let path = self.path.of(app);
        let path = fs::canonicalize(&path).on("find", &path)?;
        let current = path.join("current");
        match fs::canonicalize(&current) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(path)),
            // Somebody who may write here shows no folder that is elsewhere.
            found => match found.on("find", &current)? {
                found if found.starts_with(&path) && found.is_dir() => Ok(Some(found)),
                _ => Err(Error::NotAFolder(current)),
            },
        }
    }

    fn describe(&self, app: Option<&AppName>) -> String {
        let path = app.map_or_else(|| self.path.as_path().to_owned(), |app| self.path.of(app));
        path.display().to_string()
    }

    fn folders(&self) -> &[Template] {
        std::slice::from_ref(&self.path)
    }
}

/// A delivery knows of a copy what can be seen of it, and what was noted when it was complete.
struct Delivery<'a> {
    private: &'a Folder,
    release: ReleaseId,
    basis: Option<(Folder, Root)>,
}

impl Delivery<'_> {
    /// Returns the copy that has most of a release's files, with the release it was made from: a kept copy of the same
    /// one, else the current one.
    fn basis(copies: &Copies, job: &Job<'_>) -> Result<Option<(Folder, Root)>, Error> {
        let same = copies.slots()?.into_iter().find(|slot| slot.release == job.release());
        let found = match same {
            Some(slot) => Some((slot, job.root.clone())),
            None => copies.current()?.and_then(|slot| Some((slot, (job.root_of)(&slot.release)?))),
        };
        Ok(found.and_then(|(slot, root)| Some((copies.open(slot)?, root))))
    }
}

impl Steps for Delivery<'_> {
    fn is_whole(&self, kept: &Kept<'_>, content: &Content<'_>) -> Result<bool, Error> {
        let Kept { folder, is_current, private, mapping } = *kept;
        if is_current {
            return Ok(looks_complete(content.root, content.source, folder, mapping, None)?);
        }
        untouched::is_untouched(private, folder, content.root, content.source, mapping)
    }

    fn basis(&self) -> Option<Previous<'_>> {
        self.basis.as_ref().map(|(folder, root)| Previous { folder, root, linkable: None })
    }

    fn written(&self, copy: &Folder) -> Result<(), Error> {
        untouched::note(self.private, copy, self.release)
    }

    fn before_switch(&self) -> Result<(), Error> {
        Ok(())
    }

    fn old_removed(&self) {}
}

/// The folder of a complete copy.
struct FolderCopy(Folder);

impl KeptCopy for FolderCopy {
    fn read(&self, path: &EntryPath, offset: u64, bytes: u32) -> Option<Vec<u8>> {
        // Somebody may have put a link or a pipe there since.
        let file = self.0.open_file(path.as_bytes()).ok()?;
        let mut content = vec![0; bytes as usize];
        file.read_exact_at(&mut content, offset).ok()?;
        Some(content)
    }
}

#[cfg(test)]
mod tests;
