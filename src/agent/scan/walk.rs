//! Lists what is to be pushed, in the manifest's order.

use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use ignore::WalkBuilder;
use ignore::overrides::{Override, OverrideBuilder};

use super::super::memory::{Recall, Stat};
use super::hasher::Pool;
use super::{Error, Listed};
use crate::files::OnPath;
use crate::manifest::{EntryPath, FOLDER_MODE, Item, MODE_MASK, Shape};
use crate::monitor::{Monitor, Phase};
use crate::recipe::Recipe;

/// The file whose patterns, in gitignore syntax, keep paths out of a release.
const IGNORE_FILE: &str = ".whitignore";

/// What of a tree is pushed.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Patterns in gitignore syntax, relative to the top; what they match is left out.
    pub exclude: Vec<String>,
    /// Whether `.whitignore` files are heeded; they are by default.
    pub ignore_files_off: bool,
}

impl Selection {
    /// Compiles the patterns for a tree at `top`; what they match is left out as `Match::Ignore`.
    ///
    /// # Errors
    /// [`Error::Pattern`] names the first that is none.
    pub fn overrides(&self, top: &Path) -> Result<Override, Error> {
        let refused = |pattern: &str, source| Error::Pattern { pattern: pattern.to_owned(), source };
        let mut builder = OverrideBuilder::new(top);
        for pattern in &self.exclude {
            // An override names what is kept; with `!` before it, what is left out.
            builder.add(&format!("!{pattern}")).map_err(|source| {
                // What is wrong with it, without the `!` that was not given.
                refused(pattern, OverrideBuilder::new(top).add(pattern).err().unwrap_or(source))
            })?;
        }
        builder.build().map_err(|source| refused(&self.exclude.join(" "), source))
    }
}

/// Where a scan begins.
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

/// Entries handed over together, and chunk references in all but the last of them: a batch is at most 200 KB.
const BATCH_ENTRIES: usize = 64;

/// Hands entries to the collector, and files to the workers.
pub(super) struct Lister<'a> {
    pool: Pool,
    recall: Option<Recall<'a>>,
    /// Whether archives are taken apart.
    apart: bool,
    listed: SyncSender<Vec<Listed>>,
    batch: Vec<Listed>,
    monitor: &'a dyn Monitor,
}

/// Nobody listens any more.
struct Unheard;

impl<'a> Lister<'a> {
    pub fn new(
        pool: Pool,
        recall: Option<Recall<'a>>,
        apart: bool,
        listed: SyncSender<Vec<Listed>>,
        monitor: &'a dyn Monitor,
    ) -> Self {
        Self { pool, recall, apart, listed, batch: Vec::with_capacity(BATCH_ENTRIES), monitor }
    }

    fn entry(&mut self, item: Item) -> Result<(), Unheard> {
        self.add(Listed::Entry(item))
    }

    fn file(&mut self, path: EntryPath, place: &Path, metadata: &Metadata) -> Result<(), Unheard> {
        let (mode, size, stat) = (mode_of(metadata), metadata.len(), Stat::of(metadata));
        if let Some(recall) = &mut self.recall
            && recall.find(&path, size, &stat)
            && let Some(recipe) = recall.recipe()
            && (self.apart || recipe == Recipe::Chunks)
        {
            self.monitor.advance(Phase::Scan, size);
            return self.remembered(Item::File { path, mode, size, recipe }, stat);
        }
        // A worker waits for the collector, so that the collector must know of the files before this one.
        self.send()?;
        let parts = self.pool.hash(place.to_owned(), size);
        self.add(Listed::File { path, mode, size, stat, parts })
    }

    fn remembered(&mut self, file: Item, stat: Stat) -> Result<(), Unheard> {
        self.add(Listed::Remembered(file, stat))?;
        while let Some(chunks) = self.recall.as_mut().and_then(Recall::chunks) {
            self.add(Listed::Chunks(chunks))?;
        }
        Ok(())
    }

    fn add(&mut self, entry: Listed) -> Result<(), Unheard> {
        let is_large = matches!(&entry, Listed::Chunks(chunks) if chunks.len() > BATCH_ENTRIES);
        self.batch.push(entry);
        if is_large || self.batch.len() >= BATCH_ENTRIES { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Unheard> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_ENTRIES));
        self.listed.send(batch).map_err(|_| Unheard)
    }
}

/// Lists all entries; ends early, without an error, when nobody listens any more.
pub(super) fn list(top: &Top, selection: &Selection, mut lister: Lister<'_>) -> Result<(), Error> {
    if top.shape == Shape::File {
        let metadata = fs::metadata(&top.path).on("read", &top.path)?;
        let path = EntryPath::new(top.path.file_name().unwrap_or_default().as_bytes())?;
        drop(lister.file(path, &top.path, &metadata).and_then(|()| lister.send()));
        return Ok(());
    }
    let mut walk = WalkBuilder::new(&top.path);
    walk.standard_filters(false).parents(false).follow_links(false).sort_by_file_name(std::cmp::Ord::cmp);
    if !selection.ignore_files_off {
        walk.add_custom_ignore_filename(IGNORE_FILE);
    }
    walk.overrides(selection.overrides(&top.path)?);
    for entry in walk.build() {
        let entry = entry.map_err(|source| walk_error(&top.path, source))?;
        let below = entry.path().strip_prefix(&top.path).unwrap_or(entry.path());
        if below.as_os_str().is_empty() {
            continue;
        }
        let path = EntryPath::new(below.as_os_str().as_bytes())?;
        let kind = match fs::symlink_metadata(entry.path()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Vanished(entry.path().to_owned()));
            }
            result => result.on("examine", entry.path())?,
        };
        let heard = if kind.is_dir() {
            lister.entry(Item::Directory { path, mode: mode_of(&kind) })
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path()).on("read", entry.path())?;
            lister.entry(Item::Symlink { path, target: target.into_os_string().into_vec() })
        } else if kind.is_file() {
            lister.file(path, entry.path(), &kind)
        } else {
            lister
                .monitor
                .note(&format!("skipped {}: neither a file, a directory nor a link", entry.path().display()));
            continue;
        };
        if heard.is_err() {
            return Ok(());
        }
    }
    drop(lister.send());
    Ok(())
}

fn mode_of(kind: &Metadata) -> u16 {
    u16::try_from(kind.permissions().mode() & u32::from(MODE_MASK)).expect("nine bits fit")
}

fn walk_error(top: &Path, source: ignore::Error) -> Error {
    let gone = source.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if gone { Error::Vanished(top.to_owned()) } else { Error::Walk { path: top.to_owned(), source } }
}
