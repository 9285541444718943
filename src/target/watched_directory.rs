//! A directory that a process keeps at what the proxy wants, and what it remembers of it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::error::{Error, Result};
use super::hooks::{Event, Hooks, Occasion, reason};
use super::place::{Place, PlaceOptions};
use super::reports::Reports;
use super::state_file::StateFile;
use crate::agent::pull::PullOptions;
use crate::net::blocking::start_whole;
use disk::files::{self, Lock};
use format::target::TargetState;
use format::watched::{WantedRelease, Watched};
use ground::faults::Faulty as _;
use ground::ids::{AppName, Label, ReleaseId, SpaceName, TargetName};
use ground::poison::Unpoisoned as _;
use protocol::wire::Wanted;

/// A machine's id has 32 digits.
const MACHINE_BYTES_MAX: u64 = 256;

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
    /// What is remembered. A person who shows a release changes the file; of all else this knows better.
    memory: Mutex<Watched>,
    /// False if the file does not say so yet.
    is_written: AtomicBool,
    /// Held against others that watch for the same directory.
    _lock: Lock,
}

/// How long to wait for the directory at the start: a command that a killed process was about to run holds its locks until then.
const KILLED_TIME_MAX: Duration = Duration::from_secs(3);
/// How often to look meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The place, locked, and what is remembered of it.
pub(super) struct Held {
    pub place: Place,
    pub watched: Watched,
}

impl Target {
    /// Takes the directory for a process that watches; waits a moment for one that was killed. Blocks for the disk.
    ///
    /// # Errors
    /// [`Error::Watched`] if another process watches for it, or the place cannot be opened.
    pub fn open(options: Options, reports: Reports) -> Result<Self> {
        let deadline = Instant::now() + KILLED_TIME_MAX;
        let mut place = loop {
            let opened = Place::open(&options.directory, &options.place, &reports).map_err(Error::from);
            match opened {
                Err(error) if error.is_busy() && Instant::now() < deadline => thread::sleep(LOOK_EVERY),
                opened => break opened?,
            }
        };
        let folder = place.own_folder()?;
        let lock = Lock::take(&folder.join("watching"), KILLED_TIME_MAX)?;
        let lock = lock.ok_or_else(|| Error::Watched(options.directory.clone()))?;
        let state = StateFile::new(&folder);
        let (found, home) = (state.read()?, home(&folder));
        let watched = match found.clone().filter(|watched| watched.app == options.app) {
            Some(watched) if watched.home == home => watched,
            // A copy of the folder is of another directory.
            Some(watched) => Watched { instance: instance()?, home, ..watched },
            // What is shown has yet to be proven, also where the file is damaged.
            None => Watched::new(instance()?, home, options.app.clone()),
        };
        if found.as_ref() != Some(&watched) {
            state.write(&watched)?;
        }
        drop(place);
        reports.say(&watched.report);
        let instance = watched.instance;
        Ok(Self {
            options,
            reports,
            state,
            instance,
            ending: AtomicBool::new(false),
            memory: Mutex::new(watched),
            is_written: AtomicBool::new(true),
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

    /// Returns what is remembered, and writes it where the file says something else. The place is held.
    pub(super) fn read(&self) -> Watched {
        let file = self.state.read().ok().flatten().filter(|file| file.app == self.options.app);
        let mut memory = self.memory.lock().unpoisoned();
        match file {
            Some(file) if file.hands != memory.hands => *memory = file,
            Some(file) if file == *memory => {}
            _ => {
                self.is_written.store(self.state.write(&memory).is_ok(), Ordering::Relaxed);
                return memory.clone();
            }
        }
        self.is_written.store(true, Ordering::Relaxed);
        memory.clone()
    }

    /// Writes what is remembered; on a full disk later.
    pub(super) fn write(&self, watched: &Watched) {
        if let Err(error) = self.write_now(watched) {
            self.reports
                .note(&format!("{error}: until it can be written, whit remembers it in memory alone"));
            *self.memory.lock().unpoisoned() = watched.clone();
        }
    }

    /// Writes what is to be remembered.
    ///
    /// # Errors
    /// What was remembered before still is.
    pub(super) fn write_now(&self, watched: &Watched) -> files::Result<()> {
        let written = self.state.write(watched);
        self.is_written.store(written.is_ok(), Ordering::Relaxed);
        if written.is_ok() {
            *self.memory.lock().unpoisoned() = watched.clone();
        }
        written
    }

    /// Writes what could not be written before, if there is any and it can be.
    ///
    /// # Errors
    /// The place cannot be opened.
    pub async fn flush(self: &Arc<Self>) -> Result<()> {
        if self.is_written.load(Ordering::Relaxed) {
            return Ok(());
        }
        let target = Arc::clone(self);
        let flushing = start_whole(move || {
            let _place = Place::open(&target.options.directory, &target.options.place, &target.reports)?;
            target.read();
            Ok(())
        });
        flushing.await?
    }

    /// Reports that nothing could be done about what is wanted.
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

    /// Writes down and reports what came of a wanted release.
    pub(super) fn conclude(
        &self,
        held: &mut Held,
        mut watched: Watched,
        wanted: WantedRelease,
        about: Option<ReleaseId>,
        state: TargetState,
    ) -> Result<()> {
        watched.report.about = about;
        watched.report.rollout = wanted.rollout;
        watched.report.state = state;
        watched.report.shown = held.place.shown()?.map(|(release, _)| release);
        watched.report.previous = held.place.previous()?.map(|(release, _)| release);
        if watched != self.read() {
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

/// Tells a folder from copies of it, here or on another machine.
fn home(folder: &Path) -> String {
    let machine = files::read_if_there(Path::new("/etc/machine-id"), MACHINE_BYTES_MAX).ok().flatten();
    let machine = String::from_utf8(machine.unwrap_or_default()).unwrap_or_default();
    let found = fs::metadata(folder).ok();
    let born =
        found.as_ref().and_then(|found| found.created().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok());
    let (inode, born) = (found.map_or(0, |found| found.ino()), born.unwrap_or_default().as_nanos());
    format!("{} {inode} {born}", machine.trim())
}

/// Draws the number that names a directory.
fn instance() -> Result<u64> {
    let mut bytes = [0; 8];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes).map_err(|_| Error::Random)?;
    Ok(u64::from_le_bytes(bytes))
}
