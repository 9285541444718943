//! A directory that shows one release at a time, in one of two layouts.
//!
//! ```text
//! plain       DIR                    the release and nothing else; exchanged by each pull
//! releases    DIR/releases/ID        complete copies
//!             DIR/current            the link to the one that is shown
//!             DIR/shared             what lives beside the copies and is linked into them
//! ```
//!
//! The layout is chosen at the first pull and remembered. A [`Place`] is locked against other pulls for as long as it lives, and what a
//! killed pull had begun is finished when it is opened.

mod error;
mod remembered;
mod releases;

pub use self::error::Error;
pub use crate::agent::pull::{BeforeSwitch, Layout};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::releases::ReleasesDirectory;
use self::remembered::Remembered;
use crate::agent::Session;
use crate::agent::pull::{PlainDirectory, PullOptions, Pulled, SetAside, absolute};
pub use crate::delivery::destination::SharedPath;
use ground::ids::{ReleaseId, Selector};
use ground::monitor::Monitor;

/// The result of what is asked of a place.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says how a place is to be laid out.
#[derive(Debug, Clone)]
pub struct PlaceOptions {
    /// The layout that is asked for; none: the remembered one.
    pub layout: Option<Layout>,
    /// The layout of a place that remembers none.
    pub otherwise: Layout,
    /// The paths that all copies of a place of releases share; none: the remembered ones.
    pub shared: Option<Vec<SharedPath>>,
}

/// The copies of a plain directory: the shown one, and the one before.
const PLAIN_KEEPS_MAX: usize = 2;

/// A directory that shows one release at a time.
pub struct Place(Kind);

enum Kind {
    Plain(PlainDirectory),
    Releases(ReleasesDirectory),
}

/// The copy that a place went back to.
#[derive(Debug)]
pub struct WentBack {
    /// Its release.
    pub release: ReleaseId,
    /// Its folder.
    pub copy: PathBuf,
    /// Entries of the directory that was left which the user had changed or put there.
    pub set_aside: SetAside,
}

impl Place {
    /// Opens the place at `dir`, which need not be there, and finishes what a killed pull had begun. Blocks for the disk.
    ///
    /// # Errors
    /// [`Error::OtherLayout`] if it remembers another layout than is asked for, another pull is making it, or the disk's.
    pub fn open(dir: &Path, options: &PlaceOptions, monitor: &dyn Monitor) -> Result<Self> {
        let dir = absolute(dir)?;
        let (is_releases, plain) = (Remembered::read(&dir)?.is_some(), PlainDirectory::was_pulled(&dir)?);
        let has = match plain {
            Some(true) => Some(Layout::Plain),
            _ => is_releases.then_some(Layout::Releases),
        };
        // Another directory was there once.
        let once = plain.map(|_| Layout::Plain);
        let layout = options.layout.or(has).or(once).unwrap_or(options.otherwise);
        match (has, layout) {
            (Some(has), _) if has != layout => Err(Error::OtherLayout { place: dir, has, asked: layout }),
            (_, Layout::Plain) if options.shared.is_some() => Err(Error::PlainShares(dir)),
            (_, Layout::Plain) => Ok(Self(Kind::Plain(PlainDirectory::open(&dir, monitor)?))),
            (_, Layout::Releases) => Ok(Self(Kind::Releases(ReleasesDirectory::open(&dir, options)?))),
        }
    }

    /// Returns the folder of what whit keeps beside the release, which it makes if that is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn own_folder(&mut self) -> Result<PathBuf> {
        match &mut self.0 {
            Kind::Plain(plain) => Ok(plain.own_folder()?),
            Kind::Releases(releases) => Ok(releases.own_folder()),
        }
    }

    /// Returns the layout.
    pub fn layout(&self) -> Layout {
        match &self.0 {
            Kind::Plain(_) => Layout::Plain,
            Kind::Releases(_) => Layout::Releases,
        }
    }

    /// Returns how many copies a pull keeps that does not say it, the shown one included, at least.
    pub fn keeps(&self) -> usize {
        match &self.0 {
            Kind::Plain(_) => 1,
            Kind::Releases(releases) => releases.keeps(),
        }
    }

    /// Returns the release that is shown, and the folder of its copy; none before the first pull, or where somebody has put something
    /// else there. Changes that a user made to files of the copy do not count.
    ///
    /// # Errors
    /// The disk's.
    pub fn shown(&self) -> Result<Option<(ReleaseId, PathBuf)>> {
        match &self.0 {
            Kind::Plain(plain) => Ok(plain.shown()?.map(|release| (release, plain.path().to_owned()))),
            Kind::Releases(releases) => releases.shown(),
        }
    }

    /// Returns the release that was shown before, and the folder of its copy, if that is kept.
    ///
    /// # Errors
    /// The disk's.
    pub fn previous(&self) -> Result<Option<(ReleaseId, PathBuf)>> {
        match &self.0 {
            Kind::Plain(plain) => Ok(plain.previous()?),
            Kind::Releases(releases) => releases.previous(),
        }
    }

    /// Shows the release that `selector` means. `before_switch` is called after all is fetched, verified and written, and before readers
    /// see it; not where it is shown already. If the future is dropped before that call, readers see what they saw before.
    ///
    /// # Errors
    /// Readers see what they saw before.
    pub async fn pull(
        &mut self,
        session: &Session,
        selector: &Selector,
        options: PullOptions,
        before_switch: Option<BeforeSwitch>,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Pulled> {
        match &mut self.0 {
            Kind::Plain(plain) if options.keep.is_some_and(|keep| keep > PLAIN_KEEPS_MAX) => {
                Err(Error::PlainKeeps(plain.path().to_owned()))
            }
            Kind::Plain(plain) => {
                Ok(Box::pin(plain.pull(session, selector, options, before_switch, monitor)).await?)
            }
            Kind::Releases(releases) => {
                Box::pin(releases.pull(session, selector, options, before_switch, monitor)).await
            }
        }
    }

    /// Shows the copy that was shown before `left`, without the proxy, in one step. Where `left` is not shown any more, as after a
    /// going back that was killed after its switch, says what is shown and changes nothing; none leaves whatever is shown. Blocks for
    /// the disk.
    ///
    /// # Errors
    /// No copy is kept to go back to, somebody has put something else there, or the disk's: readers see what they saw before.
    pub fn go_back(&mut self, left: Option<&ReleaseId>, monitor: &dyn Monitor) -> Result<WentBack> {
        let is_done = |shown: &ReleaseId| left.is_some_and(|left| left != shown);
        if let Some((release, copy)) = self.shown()?.filter(|(release, _)| is_done(release)) {
            return Ok(WentBack { release, copy, set_aside: SetAside::default() });
        }
        let set_aside = match &mut self.0 {
            Kind::Plain(plain) => plain.go_back(monitor)?,
            Kind::Releases(releases) => {
                releases.go_back(left)?;
                SetAside::default()
            }
        };
        let (release, copy) = self.shown()?.ok_or_else(|| Error::NothingShown(self.path().to_owned()))?;
        Ok(WentBack { release, copy, set_aside })
    }

    fn path(&self) -> &Path {
        match &self.0 {
            Kind::Plain(plain) => plain.path(),
            Kind::Releases(releases) => releases.path(),
        }
    }
}
