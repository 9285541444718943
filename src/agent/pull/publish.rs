//! Makes a directory equal to a release: fetches beside it, rebuilds beside it, exchanges the two.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::comparison::folder_id;
use super::directory_view::FetchOptions;
use super::fetch::{LEAVE_TIME_MAX, fetch};
use super::local_chunks::LocalChunks;
use super::mark::{Beginning, Mark};
use super::mark_writer::{self, Written};
use super::options::{BeforeSwitch, Layout, PullOptions};
use super::place::{Named, PlaceError, absolute};
use super::prepare::{Belief, Prepared, Was, prepare};
use super::pulled::Pulled;
use super::staging::{SetAside, Staging, is_there, marks_of};
use super::unchanged::Unchanged;
use crate::agent::memory;
use crate::agent::{Error, Result, Session, blocking};
use crate::net::blocking::{CancelOnDrop, start_ending, start_whole};
use crate::restore::{self, ChunkSource, Linkable, Previous, TreeOptions};
use disk::crash_points;
use disk::files::{self, Folder};
use format::manifest::Root;
use format::recipe::ChunkRef;
use ground::ids::{ReleaseId, Selector};
use ground::monitor::Monitor;

/// Makes `target` equal to the release that `selector` means.
///
/// Whoever opens `target` sees the old tree or the new one. Chunks that were fetched before an
/// interruption are not fetched again.
///
/// # Errors
/// Any of [`Error`]; `target` is then as it was.
pub async fn pull_tree(
    session: &Session,
    selector: &Selector,
    target: &Path,
    options: PullOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<Pulled> {
    let begin = Instant::now();
    let opening = {
        let (target, monitor) = (target.to_owned(), Arc::clone(monitor));
        blocking(move || PlainDirectory::open(&target, monitor.as_ref()))
    };
    let pulled = opening.await?.pull(session, selector, options, None, monitor).await?;
    Ok(Pulled { seconds: begin.elapsed().as_secs_f64(), ..pulled })
}

/// A directory that holds a release and nothing else. Each pull exchanges it. Once a pull has put something beside it, it is
/// locked against others for as long as this lives.
pub struct PlainDirectory {
    target: PathBuf,
    staging: Option<Arc<Staging>>,
}

impl PlainDirectory {
    /// Takes the directory at `target`, which need not be there, and finishes what a killed pull had begun.
    ///
    /// # Errors
    /// Another pull is making it, or what is beside it cannot be read or changed.
    pub fn open(target: &Path, monitor: &dyn Monitor) -> Result<Self> {
        let target = absolute(target)?;
        if target.file_name().is_none() {
            return Err(PlaceError::Target(target).into());
        }
        let staging = Staging::find(&target)?.map(Arc::new);
        if let Some(staging) = &staging {
            staging.recover(monitor)?;
        }
        Ok(Self { target, staging })
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Returns the folder beside the directory, which it makes if that is missing.
    ///
    /// # Errors
    /// It cannot be made, or another pull has made it.
    pub fn own_folder(&mut self) -> Result<PathBuf> {
        let staging = match &self.staging {
            Some(staging) => Arc::clone(staging),
            None => Arc::new(Staging::open(&self.target)?),
        };
        Ok(self.staging.insert(staging).folder().to_owned())
    }

    /// Returns whether a pull has made a directory at `target`: none if never, else whether that is the one which is there. Takes no
    /// lock.
    ///
    /// # Errors
    /// What is there cannot be read.
    pub fn was_pulled(target: &Path) -> Result<Option<bool>> {
        let is_here = |mark: &Mark| match mark {
            Mark::Whole(mark) if target.is_dir() => Ok(mark.beginning.folder.is(&folder_id(target)?)),
            // Also where its base went a moment ago, as in another pull that ends.
            Mark::Baseless(folder) if target.is_dir() => Ok(folder.is(&folder_id(target)?)),
            _ => Ok::<_, Error>(false),
        };
        let marks = marks_of(target)?;
        let is_here = marks.iter().map(is_here).collect::<Result<Vec<_>>>()?;
        Ok((!marks.is_empty()).then(|| is_here.contains(&true)))
    }

    /// Returns the release that the directory shows; none where no pull made it. What the user changed in it does not count.
    ///
    /// # Errors
    /// The mark or the directory cannot be read.
    pub fn shown(&self) -> Result<Option<ReleaseId>> {
        let Some(staging) = self.staging.as_ref().filter(|_| self.target.is_dir()) else { return Ok(None) };
        let Mark::Whole(mark) = staging.mark()? else { return Ok(None) };
        let is_ours = mark.beginning.folder.is(&folder_id(&self.target)?);
        Ok(is_ours.then_some(mark.beginning.release))
    }

    /// Returns the copy that was shown before, if it is kept: its release, and its folder.
    ///
    /// # Errors
    /// Its mark or folder cannot be read.
    pub fn previous(&self) -> Result<Option<(ReleaseId, PathBuf)>> {
        let Some(staging) = &self.staging else { return Ok(None) };
        Ok(staging.previous()?.map(|mark| (mark.beginning.release, staging.previous_copy())))
    }

    /// Makes the directory equal to the release that `selector` means.
    ///
    /// # Errors
    /// Any of [`Error`], or that of `before_switch`; the directory is then as it was.
    pub async fn pull(
        &mut self,
        session: &Session,
        selector: &Selector,
        options: PullOptions,
        before_switch: Option<BeforeSwitch>,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Pulled> {
        let begin = Instant::now();
        let mut before_switch = before_switch;
        let before = &mut before_switch;
        let pulled = match self.pull_once(session, selector, Belief::Mark, options, before, monitor).await {
            Err(error) if error.lacks_content() => {
                monitor.note(&format!("{error}: all of the directory is read now"));
                self.pull_once(session, selector, Belief::Nothing, options, before, monitor).await?
            }
            pulled => pulled?,
        };
        let staging = self.staging.clone();
        let previous = blocking(move || staging.map_or(Ok(None), |staging| staging.previous())).await?;
        let previous = previous.map(|mark| mark.beginning.release);
        let kept = [pulled.release].into_iter().chain(previous).collect();
        Ok(Pulled { previous, kept, ..pulled }.ended(begin))
    }

    /// Shows the previous copy again, without the proxy; returns what of the user's was set aside. Blocks for the disk.
    ///
    /// # Errors
    /// [`PlaceError::NoPrevious`], [`PlaceError::NotPulled`] where something else is there by now, or the disk's.
    pub fn go_back(&mut self, monitor: &dyn Monitor) -> Result<SetAside> {
        let place = || self.target.clone();
        let Some(staging) = self.staging.as_ref().filter(|_| matches!(self.previous(), Ok(Some(_)))) else {
            return Err(PlaceError::NoPrevious(place()).into());
        };
        if is_there(&self.target)? && self.shown()?.is_none() {
            let strangers = Named::of([&PathBuf::from(".")]);
            return Err(PlaceError::NotPulled { place: place(), strangers }.into());
        }
        staging.go_back(monitor)
    }

    async fn pull_once(
        &mut self,
        session: &Session,
        selector: &Selector,
        belief: Belief,
        options: PullOptions,
        before_switch: &mut Option<BeforeSwitch>,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Pulled> {
        let prepared = {
            let (target, monitor, staging) = (self.target.clone(), Arc::clone(monitor), self.staging.clone());
            blocking(move || prepare(&target, staging, belief, options, &monitor)).await
        };
        let Prepared { staging, present, store, was, untouched } = match (prepared, self.staging.clone()) {
            (Err(error), Some(staging)) => {
                if blocking(move || staging.leave_if_empty()).await? {
                    self.staging = None;
                }
                return Err(error);
            }
            (prepared, _) => prepared?,
        };
        self.staging = Some(Arc::clone(&staging));
        let target = &self.target;
        let (present, store) = (Arc::new(present), Arc::new(store));
        let (place, pace) = (Some(staging.folder().to_owned()), options.pace(session));
        let how = FetchOptions {
            place,
            exchanged: Some(target.clone()),
            holds: untouched.into_iter().collect(),
            pace,
            lock: Some(Arc::clone(&staging) as Arc<_>),
        };
        let fetched = match fetch(session, selector, &present, &store, how, monitor).await {
            Ok(fetched) => fetched,
            Err(error) => {
                let left = blocking(move || {
                    store.leave();
                    drop(store);
                    staging.leave_if_empty()
                });
                if left.await? {
                    self.staging = None;
                }
                return Err(error);
            }
        };
        let release = fetched.root.release();
        let (unchanged, place) = (untouched == Some(release), (target.as_path(), target.as_path()));
        let pulled = Pulled::new(session, &fetched, Layout::Plain, place, unchanged);
        let root = fetched.root;
        if pulled.unchanged {
            // The directory, its files and its mark stay as they are.
            blocking(move || store.remove()).await?;
            return Ok(pulled);
        }
        let (staging, store) = {
            let (monitor, target, before_switch) =
                (Arc::clone(monitor), target.clone(), before_switch.take());
            let cancel = CancelOnDrop::default();
            let cancelled = cancel.cancelled();
            let mut writing = start_ending(LEAVE_TIME_MAX, move || {
                crash_points::point("pull.fetched");
                let local = LocalChunks { present: present.chunks(), fetched: &store };
                let how = (options, &*cancelled);
                let written = write(&staging, &target, &root, &local, was.as_ref(), how, monitor.as_ref());
                written.inspect_err(|_| store.leave())?;
                crash_points::point("pull.tree");
                before_switch.map_or(Ok(()), |before| before(&release)).inspect_err(|_| store.leave())?;
                Ok::<_, Error>((staging, store))
            });
            // Dropped with this future, before the other.
            let _cancel = cancel;
            (&mut writing).await??
        };
        let stands_inside = is_inside(target);
        let set_aside = {
            let monitor = Arc::clone(monitor);
            let exchanging = move || {
                let set_aside =
                    staging.exchange(options.delete, options.keep.map(|keep| keep > 1), monitor.as_ref())?;
                // The fetched chunks are in the tree now; what remains beside it is a mark and a lock.
                store.remove()?;
                crash_points::point("pull.after");
                Ok::<_, Error>(set_aside)
            };
            // An interrupted pull has either all of this or nothing.
            start_whole(exchanging).await??
        };
        if stands_inside {
            monitor.note("this shell is still in the replaced directory: run `cd .` to enter the new one");
        }
        Ok(Pulled { set_aside, ..pulled })
    }
}

/// Writes the new tree and its mark.
fn write(
    staging: &Staging,
    target: &Path,
    root: &Root,
    local: &LocalChunks<'_>,
    was: Option<&Was>,
    (options, cancelled): (PullOptions, &AtomicBool),
    monitor: &dyn Monitor,
) -> Result<()> {
    let tree = staging.tree();
    let mode = was.map_or(root.totals.folder_mode(), |was| was.mode_of(root));
    let placed = was.and_then(|was| was.placed.as_ref());
    let others = Folder::led_to(&staging.previous_copy()).into_iter().collect();
    let unchanged = placed.map(|placed| Unchanged::new(placed, others)).transpose()?;
    let folder = placed.and_then(|_| Folder::led_to(target).ok());
    let previous = folder.as_ref().zip(local.present.root());
    let tree_options = TreeOptions {
        folder_mode: Some(mode),
        outside_links: options.outside_links,
        cancelled: Some(cancelled),
        previous: previous.map(|(folder, root)| Previous {
            folder,
            root,
            linkable: unchanged.as_ref().map(|unchanged| unchanged as &dyn Linkable),
        }),
        ..TreeOptions::default()
    };
    restore::write_tree(root, local, &tree, &tree_options, monitor)?;
    was.map_or(Ok(()), |was| was.keep_owner(&tree, mode, monitor))?;
    let has_linked = unchanged.is_some_and(|unchanged| unchanged.has_any());
    let began = memory::now();
    let beginning = Beginning {
        release: root.release(),
        folder_mode: root.totals.folder_mode,
        folder: folder_id(&tree)?,
        mode,
        limit: was.and_then(|was| was.limit),
        began,
        deletes: options.delete,
        root: Some(root.id()),
        believed_since: was.map(|was| was.believed_since).filter(|_| has_linked),
        relinked_until: has_linked.then_some(began),
        relinks_until_named: has_linked,
    };
    let written = segments(root, local).and_then(|segments| {
        let tree = Written { tree: &tree, was: placed, linked: &[] };
        mark_writer::write(&staging.next_mark_path(), &beginning, root, tree, segments)
    });
    // A disk that is full is not left so.
    written.inspect_err(|_| drop(files::remove(&tree)))
}

/// Returns the segments of a release.
pub(super) fn segments<'a>(
    root: &Root,
    local: &'a LocalChunks<'_>,
) -> Result<impl Iterator<Item = Result<Vec<u8>>> + 'a> {
    let mut reader = local.reader();
    let nodes = restore::leaves(root, &mut *reader)?;
    Ok(nodes.into_iter().map(move |node| {
        let mut segment = Vec::new();
        let chunk = ChunkRef::from(node);
        reader.read(&chunk, &mut segment).map_err(restore::Error::from)?;
        Ok(segment)
    }))
}

/// Returns whether the process's working directory, most likely its shell's too, is inside the replaced one.
fn is_inside(target: &Path) -> bool {
    let (here, there) = (std::env::current_dir(), fs::canonicalize(target));
    here.is_ok_and(|here| there.is_ok_and(|there| here.starts_with(there)))
}
