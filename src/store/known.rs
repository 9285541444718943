//! The releases of a space in memory: their applications, and the often needed facts of each push.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::head::Head;
use super::history::Pushed;
use super::labels::Labels;
use format::current::BACK_MAX;
use format::record::Record;
use ground::ids::{AppName, ReleaseId};

/// The releases of a space in memory.
#[derive(Debug, Default)]
pub struct Known {
    /// Applications by name.
    pub apps: BTreeMap<AppName, App>,
    /// The number of each release's records, and one of them.
    pub releases: HashMap<ReleaseId, Of>,
    /// The applications, by the numbers that `releases` names them by.
    pub names: Vec<AppName>,
}

/// The records of a release.
#[derive(Debug, Clone, Copy)]
pub struct Of {
    records: u32,
    /// The application's number.
    pub app: u32,
    /// The record's number.
    pub sequence: u64,
}

/// An application in memory.
#[derive(Debug)]
pub struct App {
    /// The release's number in `releases`.
    pub number: u32,
    /// Oldest first.
    pub pushed: Vec<Pushed>,
    /// The release; none once every record of it is gone.
    pub latest: Option<Record>,
    /// The highest number of any record, removed ones too: numbers are never given twice.
    pub last_number: u64,
    /// The newest entry of its log that counts; none for an application of before there were logs.
    pub head: Option<Head>,
    /// The highest number of any entry of its log.
    pub last_entry: u64,
    /// The labels that were given or taken away after their pushes.
    pub labels: Labels,
}

impl App {
    fn new(number: u32) -> Self {
        Self {
            number,
            pushed: Vec::new(),
            latest: None,
            last_number: 0,
            head: None,
            last_entry: 0,
            labels: Labels::default(),
        }
    }

    /// Returns whether the application has a record of the release.
    pub fn has(&self, release: &ReleaseId) -> bool {
        self.pushed.iter().any(|pushed| pushed.release == *release)
    }

    /// Returns the newest entry of its log; where there is none, each push counts as one.
    pub fn head(&self) -> Cow<'_, Head> {
        self.head
            .as_ref()
            .map_or_else(|| Cow::Owned(Head::without_log(&self.recent(BACK_MAX + 1))), Cow::Borrowed)
    }

    /// Returns its latest distinct releases, newest first, at most `most`.
    pub fn recent(&self, most: usize) -> Vec<ReleaseId> {
        let mut releases = Vec::new();
        for pushed in self.pushed.iter().rev() {
            if !releases.contains(&pushed.release) {
                releases.push(pushed.release);
            }
            if releases.len() == most {
                break;
            }
        }
        releases
    }

    /// Returns whether its log says that none of its releases is current: the rollout of its first has yet to succeed.
    pub fn awaits_current(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.release.is_none())
    }

    /// Returns the current release: what the log says where that is stored, else the latest release.
    pub fn current(&self) -> Option<ReleaseId> {
        if self.awaits_current() {
            return None;
        }
        let logged = self.head.as_ref().and_then(|head| head.current(|release| self.has(release)));
        logged.or_else(|| self.pushed.last().map(|pushed| pushed.release))
    }

    /// Returns the release that a rollback goes to.
    pub fn previous(&self) -> Option<ReleaseId> {
        self.head().previous(|release| self.has(release))
    }
}

impl Known {
    /// Returns the application, a new one without pushes if it is unknown.
    pub fn app(&mut self, name: &AppName) -> &mut App {
        self.apps.entry(name.clone()).or_insert_with(|| {
            self.names.push(name.clone());
            let number = u32::try_from(self.names.len() - 1).expect("a space has fewer applications");
            App::new(number)
        })
    }

    /// Returns the highest number of any record of the application, removed ones too; 0 without any.
    pub fn last_number(&self, app: &AppName) -> u64 {
        self.apps.get(app).map_or(0, |app| app.last_number)
    }

    /// Returns the application's latest record.
    pub fn latest(&self, app: &AppName) -> Option<&Record> {
        self.apps.get(app)?.latest.as_ref()
    }

    /// Returns the application's pushes, oldest first; none if there is no such application.
    pub fn pushed(&self, app: &AppName) -> &[Pushed] {
        self.apps.get(app).map_or(&[], |app| app.pushed.as_slice())
    }

    /// Counts a record of a release.
    pub fn count(&mut self, app: u32, pushed: &Pushed) {
        let of = Of { records: 0, app, sequence: pushed.sequence };
        self.releases.entry(pushed.release).or_insert(of).records += 1;
    }

    /// Forgets the application's records for which `is_gone` holds; its latest record must be found again.
    pub fn forget(&mut self, app: &AppName, is_gone: impl Fn(&Pushed) -> bool) {
        let Some(known) = self.apps.get_mut(app) else { return };
        let gone: Vec<Pushed> = known.pushed.extract_if(.., |pushed| is_gone(pushed)).collect();
        let number = known.number;
        for pushed in gone {
            let Some(of) = self.releases.get_mut(&pushed.release) else { continue };
            of.records -= 1;
            let was_named = (of.app, of.sequence) == (number, pushed.sequence);
            if of.records == 0 {
                self.releases.remove(&pushed.release);
            } else if was_named && let Some((app, sequence)) = self.find(&pushed.release) {
                self.releases.entry(pushed.release).and_modify(|of| (of.app, of.sequence) = (app, sequence));
            }
        }
    }

    /// Returns some record of a release in an application that may be seen. Searches all pushes only where the release has
    /// several records and the known one may not be seen.
    pub fn seen(&self, release: &ReleaseId, may_see: impl Fn(&AppName) -> bool) -> Option<(&AppName, u64)> {
        let of = self.releases.get(release)?;
        let name = self.names.get(of.app as usize)?;
        if may_see(name) {
            return Some((name, of.sequence));
        }
        let mut others = self.apps.iter().filter(|(name, _)| of.records > 1 && may_see(name));
        others.find_map(|(name, app)| {
            let found = app.pushed.iter().rev().find(|pushed| pushed.release == *release)?;
            Some((name, found.sequence))
        })
    }

    /// Returns some record of a release by searching all pushes.
    fn find(&self, release: &ReleaseId) -> Option<(u32, u64)> {
        self.apps.values().find_map(|app| {
            let found = app.pushed.iter().rev().find(|pushed| pushed.release == *release)?;
            Some((app.number, found.sequence))
        })
    }
}
