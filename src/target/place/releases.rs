//! A directory of releases: complete copies, and the link to the one that is shown.
//!
//! A pull is a delivery to a directory of this machine, by the same code: only its chunks come from the proxy and from the copy that is
//! shown, whose mark tells without reading what it has. Unchanged files of that copy get a further name in the new one.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::remembered::Remembered;
use super::{Error, PlaceOptions, Result};
use crate::agent::pull::{
    BeforeSwitch, Belief, CopyPlace, FetchOptions, Fetched, FetchedChunks, LEAVE_TIME_MAX, Layout,
    LocalChunks, MarkedCopy, Named, PlaceError, PullOptions, Pulled, Unchanged, fetch,
};
use crate::agent::{self, Session};
use crate::delivery::destination::{
    self, Content, Directory, Kept, OpenDirectory, SharedPath, Showing, Steps, check_shared,
};
use crate::net::blocking::{self, CancelOnDrop};
use crate::restore::{Linkable, Linked, Previous};
use disk::crash_points;
use disk::files::Folder;
use format::manifest::Root;
use ground::escape;
use ground::ids::{ReleaseId, Selector};
use ground::monitor::Monitor;
use ground::poison::Unpoisoned as _;

/// A directory of releases, locked.
pub(super) struct ReleasesDirectory {
    open: Arc<OpenDirectory>,
    remembered: Remembered,
    /// The shared paths that were asked for.
    shared: Option<Vec<SharedPath>>,
}

/// The name in the private folder of the store of fetched chunks.
const STORE: &str = "store";

impl ReleasesDirectory {
    /// Opens the directory at `dir`, an absolute path, and remembers it as one of releases.
    ///
    /// # Errors
    /// Something is in the way, another pull is under way, or the options are wrong.
    pub(super) fn open(dir: &Path, options: &PlaceOptions) -> Result<Self> {
        if let Some(shared) = &options.shared {
            check_shared(shared).map_err(destination::Error::from)?;
        }
        let open = OpenDirectory::open(dir)?;
        let known = Remembered::read(dir)?;
        let remembered =
            known.clone().unwrap_or_else(|| Remembered::default().with(None, options.shared.as_deref()));
        if known.is_none() {
            // So that a first pull that is cut off is gone on with.
            remembered.write(dir).map_err(agent::Error::from)?;
        }
        Ok(Self { open: Arc::new(open), remembered, shared: options.shared.clone() })
    }

    pub(super) fn path(&self) -> &Path {
        self.open.path()
    }

    pub(super) fn own_folder(&self) -> PathBuf {
        self.open.private().path().to_owned()
    }

    pub(super) fn keeps(&self) -> usize {
        self.remembered.keep
    }

    pub(super) fn shown(&self) -> Result<Option<(ReleaseId, PathBuf)>> {
        Ok(self.open.current()?.map(|(release, place)| (release, place.copy)))
    }

    pub(super) fn previous(&self) -> Result<Option<(ReleaseId, PathBuf)>> {
        let Some((shown, _)) = self.open.current()? else { return Ok(None) };
        Ok(self.before(&shown))
    }

    /// Returns the copy that was shown before `release`, if it is kept.
    fn before(&self, release: &ReleaseId) -> Option<(ReleaseId, PathBuf)> {
        let before = self.remembered.before(release)?;
        self.open.copy_of(before).map(|place| (before, place.copy))
    }

    pub(super) fn go_back(&self, left: Option<&ReleaseId>) -> Result<()> {
        let shown = self.open.current()?.map(|(release, _)| release);
        if shown.is_none() && (left.is_none() || self.open.elsewhere()?.is_some()) {
            return Err(Error::NothingShown(self.path().to_owned()));
        }
        let before = shown.as_ref().or(left).and_then(|left| self.before(left));
        let none = || agent::Error::from(PlaceError::NoPrevious(self.path().to_owned()));
        let (release, _) = before.ok_or_else(none)?;
        Ok(self.open.switch(release)?)
    }

    pub(super) async fn pull(
        &mut self,
        session: &Session,
        selector: &Selector,
        options: PullOptions,
        before_switch: Option<BeforeSwitch>,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Pulled> {
        let begin = Instant::now();
        self.tell_no_longer_shared(&**monitor);
        let before_switch = Arc::new(Mutex::new(before_switch));
        let pull = Pull { session, selector, options, monitor, before_switch };
        let pulled = match self.pull_once(&pull, Belief::Mark).await {
            Err(error) if error.lacks_content() => {
                monitor.note(&format!("{error}: all of the copy is read now"));
                self.pull_once(&pull, Belief::Nothing).await?
            }
            pulled => pulled?,
        };
        Ok(pulled.ended(begin))
    }

    /// Says which paths lie beside the copies and are not asked for any more: the release has their place again.
    fn tell_no_longer_shared(&self, monitor: &dyn Monitor) {
        let shared = self.shared.iter().flatten().map(ToString::to_string).collect::<Vec<_>>();
        let left =
            self.remembered.shared.iter().filter(|path| self.shared.is_some() && !shared.contains(path));
        for path in left {
            let path = escape::text(path);
            monitor.note(&format!(
                "{path} is not shared any more, as --shared names all that is; it stays in DIR/shared"
            ));
        }
    }

    async fn pull_once(&mut self, pull: &Pull<'_>, belief: Belief) -> Result<Pulled> {
        let Pull { session, selector, options, monitor, .. } = *pull;
        check_link(&self.open, options)?;
        let asked = self.remembered.with(options.keep, self.shared.as_deref());
        let rules = Arc::new(Directory {
            keep: asked.keep,
            shared: asked.shared(self.path())?,
            outside_links: options.outside_links,
            ..Directory::new(self.path())
        });
        let looking = {
            let (open, rules, monitor) = (Arc::clone(&self.open), Arc::clone(&rules), Arc::clone(monitor));
            move || {
                let current = open.current()?.map(|(_, place)| place).filter(|place| place.copy.is_dir());
                let private = open.private().path();
                let known = (private, options);
                let copy = MarkedCopy::look(current.as_ref(), &rules.links(), belief, known, &monitor)?;
                let has_shared = open.has_shared(&rules)?;
                // Whether they are whole is looked at once one of them is wanted.
                let shown = open.current()?.map(|(release, _)| release);
                let has_mark =
                    |release: &ReleaseId| Some(*release) != shown && open.mark_of(release).exists();
                let kept = open.kept().into_iter().filter(has_mark);
                let kept: Vec<ReleaseId> = kept.filter(|_| has_shared && belief == Belief::Mark).collect();
                let store = FetchedChunks::new(private.join(STORE));
                Ok::<_, Error>((current, copy, has_shared, kept, store))
            }
        };
        let (current, copy, has_shared, kept, store) = start(looking).await?;
        let shown = copy.untouched().filter(|_| has_shared);
        let (present, store) = (Arc::clone(copy.present()), Arc::new(store));
        let place = Some(self.open.private().path().to_owned());
        let holds = kept.into_iter().chain(shown).collect();
        let (pace, lock) = (options.pace(session), Some(Arc::clone(&self.open) as Arc<_>));
        let how = FetchOptions { place, exchanged: None, holds, pace, lock };
        let fetched = match fetch(session, selector, &present, &store, how, monitor).await {
            Ok(fetched) => fetched,
            Err(error) => {
                start(move || {
                    store.leave();
                    Ok(())
                })
                .await?;
                return Err(error.into());
            }
        };
        // Ends the writing of a copy whose pull is dropped; once it is to be shown, it is.
        let cancel = CancelOnDrop::default();
        let writing = Writing {
            open: Arc::clone(&self.open),
            rules,
            remembered: (self.remembered.clone(), asked),
            options,
            copy,
            current,
            store,
            before_switch: Arc::clone(&pull.before_switch),
            cancelled: cancel.cancelled(),
        };
        let is_held = shown == Some(fetched.root.release());
        let (pulled_of, monitor) = (fetched.root.release(), Arc::clone(monitor));
        let mut running = blocking::start_ending(LEAVE_TIME_MAX, move || {
            let (place, already, remembered) = writing.run(&fetched, is_held, &*monitor)?;
            Ok::<_, Error>((fetched, place, already, remembered))
        });
        // Dropped with this future, before the other.
        let _cancel = cancel;
        let (fetched, place, already, remembered) = (&mut running).await.map_err(agent::Error::from)??;
        self.remembered = remembered;
        let unchanged = is_held && already;
        let pulled = Pulled::new(session, &fetched, Layout::Releases, (self.path(), &place), unchanged);
        let previous = self.before(&pulled_of).map(|(release, _)| release);
        let others = self.open.kept().into_iter().filter(|release| *release != pulled_of);
        let kept = [pulled_of].into_iter().chain(others).collect();
        Ok(Pulled { previous, kept, ..pulled })
    }
}

/// Refuses to replace a link that somebody has put in the place of the one that readers follow.
fn check_link(open: &OpenDirectory, options: PullOptions) -> Result<(), destination::Error> {
    let Some(to) = open.elsewhere()?.filter(|_| !options.delete) else { return Ok(()) };
    let strangers = Named { count: 1, some: vec![format!("current -> {}", escape::path(&to))] };
    let place = open.path().to_owned();
    Err(failed(PlaceError::NotPulled { place, strangers }.into()))
}

/// What one pull was asked for.
struct Pull<'a> {
    session: &'a Session,
    selector: &'a Selector,
    options: PullOptions,
    monitor: &'a Arc<dyn Monitor>,
    before_switch: Arc<Mutex<Option<BeforeSwitch>>>,
}

/// Runs blocking work off the async threads.
async fn start<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    blocking::start(work).await.map_err(agent::Error::from)?
}

/// A release that is fetched, and is written and shown.
struct Writing {
    open: Arc<OpenDirectory>,
    rules: Arc<Directory>,
    /// What is remembered, and what was asked for.
    remembered: (Remembered, Remembered),
    options: PullOptions,
    copy: MarkedCopy,
    /// The copy that readers see.
    current: Option<CopyPlace>,
    store: Arc<FetchedChunks>,
    before_switch: Arc<Mutex<Option<BeforeSwitch>>>,
    cancelled: Arc<AtomicBool>,
}

impl Writing {
    /// Shows the release; returns the folder of its copy, whether it was shown before, and what is remembered now.
    fn run(
        self,
        fetched: &Fetched,
        is_held: bool,
        monitor: &dyn Monitor,
    ) -> Result<(PathBuf, bool, Remembered)> {
        let shown = match self.current.as_ref().filter(|_| is_held) {
            Some(current) => {
                self.remove_old(monitor).and_then(|()| Ok((current.copy.clone(), true, self.remember(None)?)))
            }
            None => self.show(fetched, monitor),
        };
        let shown = shown.inspect_err(|_| self.store.leave())?;
        crash_points::point("pull.after");
        self.store.remove().map_err(agent::Error::from)?;
        MarkedCopy::remove_unused_bases(self.open.private().path());
        Ok(shown)
    }

    fn show(&self, fetched: &Fetched, monitor: &dyn Monitor) -> Result<(PathBuf, bool, Remembered)> {
        crash_points::point("pull.fetched");
        let local = LocalChunks { present: self.copy.present().chunks(), fetched: &self.store };
        let root = &fetched.root;
        let folder = self.current.as_ref().map(|current| Folder::open(&current.copy)).transpose();
        let folder = folder.map_err(agent::Error::from)?;
        let unchanged = self.copy.unchanged(self.open.others()?)?;
        let linked = self.rules.links();
        let steps = PullSteps {
            writing: self,
            local: &local,
            root,
            basis: folder.as_ref().zip(local.present.root()),
            unchanged: unchanged.as_ref(),
            linked: &linked,
            remembered: RefCell::new(self.remembered.0.clone()),
        };
        let created = fetched.record.created;
        let content = Content { root, source: &local, created, monitor, cancelled: &self.cancelled };
        let Showing { copy, already, .. } = self.open.show(&self.rules, &content, &steps)?;
        Ok((copy, already, steps.remembered.into_inner()))
    }

    /// Removes the copies that are not to be kept: fewer than before, or a pull was killed once it had shown its release.
    fn remove_old(&self, monitor: &dyn Monitor) -> Result<()> {
        let (remembered, _) = &self.remembered;
        Ok(self.open.remove_old(&self.rules, |shown| remembered.before(shown), monitor)?)
    }

    /// Remembers what was asked for, and that `release` comes after what is shown.
    fn remember(&self, release: Option<ReleaseId>) -> Result<Remembered, destination::Error> {
        let (remembered, asked) = &self.remembered;
        let left = self.open.current()?.map(|(left, _)| left);
        let next = match (left, release) {
            (Some(left), Some(release)) if left != release => asked.after(left, release, &self.open.kept()),
            _ => asked.clone(),
        };
        if next != *remembered {
            next.write(self.open.path())?;
        }
        Ok(next)
    }
}

/// A pull knows of a copy what its mark says.
struct PullSteps<'a> {
    writing: &'a Writing,
    local: &'a LocalChunks<'a>,
    root: &'a Root,
    basis: Option<(&'a Folder, &'a Root)>,
    unchanged: Option<&'a Unchanged<'a>>,
    linked: &'a [Linked],
    remembered: RefCell<Remembered>,
}

fn failed(error: agent::Error) -> destination::Error {
    destination::Error::Pull(Box::new(error))
}

impl Steps for PullSteps<'_> {
    fn is_whole(&self, kept: &Kept<'_>, content: &Content<'_>) -> Result<bool, destination::Error> {
        let release = content.root.release();
        if kept.is_current {
            return Ok(self.writing.copy.untouched() == Some(release));
        }
        let mark = self.writing.open.mark_of(&release);
        let place = CopyPlace { copy: kept.folder.path().to_owned(), mark };
        place.is_whole(release, self.linked).map_err(failed)
    }

    fn basis(&self) -> Option<Previous<'_>> {
        let linkable = self.unchanged.map(|unchanged| unchanged as &dyn Linkable);
        self.basis.map(|(folder, root)| Previous { folder, root, linkable })
    }

    fn written(&self, copy: &Folder) -> Result<(), destination::Error> {
        crash_points::point("pull.tree");
        let mark = self.writing.open.mark_of(&self.root.release());
        let (content, tree) = ((self.root, self.local), (copy.path(), self.linked));
        self.writing.copy.write_mark(&mark, content, tree, self.unchanged).map_err(failed)
    }

    fn before_switch(&self) -> Result<(), destination::Error> {
        if self.writing.cancelled.load(Ordering::Relaxed) {
            return Err(destination::Error::Cancelled);
        }
        let release = self.root.release();
        // Somebody may have put it there meanwhile.
        check_link(&self.writing.open, self.writing.options)?;
        let before = self.writing.before_switch.lock().unpoisoned().take();
        before.map_or(Ok(()), |before| before(&release)).map_err(failed)?;
        self.remembered.replace(self.writing.remember(Some(release))?);
        Ok(())
    }

    fn old_removed(&self) {
        MarkedCopy::note_named(&self.writing.open.mark_of(&self.root.release()));
    }
}
