//! A directory that a process keeps at what the proxy wants, and what it remembers of it.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::{Error, Result};
use super::hooks::{Event, Hooks, Occasion, reason};
use super::place::{Place, PlaceOptions};
use super::reports::Reports;
use super::state_file::StateFile;
use crate::agent::pull::PullOptions;
use disk::files::Lock;
use format::target::TargetState;
use format::watched::{Watched, Wish};
use ground::faults::Faulty as _;
use ground::ids::{AppName, Label, ReleaseId, SpaceName, TargetName};
use ground::poison::Unpoisoned as _;
use protocol::wire::Wanted;

/// What a target shows, where, and what runs then.
#[derive(Debug, Clone)]
pub struct Options {
    /// The application.
    pub app: AppName,
    /// The directory.
    pub directory: PathBuf,
    /// Its layout.
    pub place: PlaceOptions,
    /// How it is pulled into.
    pub pull: PullOptions,
    /// What runs.
    pub hooks: Hooks,
    /// The name in its token.
    pub name: Option<TargetName>,
    /// The space of its token.
    pub space: Option<SpaceName>,
}

/// A directory that a process of this machine keeps at what the proxy wants.
#[derive(Debug)]
pub struct Target {
    pub(super) options: Options,
    pub(super) reports: Reports,
    pub(super) state: StateFile,
    /// Names the directory.
    instance: u64,
    /// Set to end commands soon.
    pub(super) ending: AtomicBool,
    /// What could not be written yet.
    unwritten: Mutex<Option<Watched>>,
    /// Held against others that watch for the same directory.
    _lock: Lock,
}

/// The place, locked, and what is remembered of it.
pub(super) struct Held {
    pub place: Place,
    pub watched: Watched,
}

impl Target {
    /// Takes the directory for a process that watches. Blocks for the disk.
    ///
    /// # Errors
    /// [`Error::Watched`] if another process watches for it, or the place cannot be opened.
    pub fn open(options: Options, reports: Reports) -> Result<Self> {
        let mut place = Place::open(&options.directory, &options.place, &reports)?;
        let folder = place.own_folder()?;
        let lock = Lock::take(&folder.join("watching"), Duration::ZERO)?;
        let lock = lock.ok_or_else(|| Error::Watched(options.directory.clone()))?;
        let state = StateFile::new(&folder);
        let remembered = state.read()?.filter(|watched| watched.app == options.app);
        let watched = if let Some(watched) = remembered {
            watched
        } else {
            let watched = Watched::new(instance()?, options.app.clone());
            state.write(&watched)?;
            watched
        };
        drop(place);
        reports.say(&watched.report);
        let instance = watched.instance;
        Ok(Self {
            options,
            reports,
            state,
            instance,
            ending: AtomicBool::new(false),
            unwritten: Mutex::new(None),
            _lock: lock,
        })
    }

    /// Returns the number that names the directory.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Returns the application.
    pub fn app(&self) -> &AppName {
        &self.options.app
    }

    /// Returns where reports go.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Returns the file of what is remembered.
    pub fn state(&self) -> &StateFile {
        &self.state
    }

    /// Ends the command that runs soon; what it was for is finished at the next start.
    pub fn end_soon(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Returns what is remembered, and writes what could not be written before.
    pub(super) fn read(&self) -> Result<Watched> {
        let unwritten = self.unwritten.lock().unpoisoned().take();
        if let Some(watched) = unwritten {
            self.write(&watched);
            return Ok(watched);
        }
        let watched = self.state.read()?.filter(|watched| watched.app == self.options.app);
        Ok(watched.unwrap_or_else(|| Watched::new(self.instance, self.options.app.clone())))
    }

    /// Writes what is remembered; on a full disk later. What the file says meanwhile is true as well: it leads to going back again.
    pub(super) fn write(&self, watched: &Watched) {
        if let Err(error) = self.state.write(watched) {
            self.reports
                .note(&format!("{error}: until it can be written, whit remembers it in memory alone"));
            *self.unwritten.lock().unpoisoned() = Some(watched.clone());
        }
    }

    /// Reports that nothing could be done about a wish.
    pub fn report_failure(&self, wanted: Option<&Wanted>, error: &Error) {
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        let state = TargetState::Failed { reason: reason(&format!("{error}{hint}")), fault: error.fault() };
        let Some(mut report) = self.reports.newest() else { return };
        report.state = state;
        if let Some(wanted) = wanted {
            report.about = Some(wanted.record.release);
            report.rollout = wanted.assigned.as_ref().map(|assigned| assigned.rollout);
        }
        self.reports.say(&report);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Writes down and reports how a wish ended.
    pub(super) fn conclude(
        &self,
        held: &mut Held,
        mut watched: Watched,
        wish: Wish,
        about: Option<ReleaseId>,
        state: TargetState,
    ) -> Result<()> {
        watched.report.about = about;
        watched.report.rollout = wish.rollout;
        watched.report.state = state;
        watched.report.shown = held.place.shown()?.map(|(release, _)| release);
        watched.report.previous = held.place.previous()?.map(|(release, _)| release);
        if watched != self.read()? {
            self.write(&watched);
        }
        self.reports.say(&watched.report);
        held.watched = watched;
        Ok(())
    }

    pub(super) fn occasion(
        &self,
        event: Event,
        release: ReleaseId,
        labels: &[Label],
        copy: PathBuf,
    ) -> Occasion {
        Occasion {
            event,
            app: self.options.app.clone(),
            release,
            labels: labels.to_vec(),
            previous: None,
            copy,
            directory: self.options.directory.clone(),
            target: self.options.name.clone(),
            space: self.options.space.clone(),
            reason: None,
        }
    }
}

/// Draws the number that names a directory.
fn instance() -> Result<u64> {
    let mut bytes = [0; 8];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes).map_err(|_| Error::Random)?;
    Ok(u64::from_le_bytes(bytes))
}
