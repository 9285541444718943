//! Removes releases that nothing holds.

use std::collections::HashSet;

use super::head::Mover;
use super::holder::Holder;
use super::known::{App, Known};
use super::labelling;
use super::records::Records;
use super::{Error, Result};
use crate::ledger::{Change, Key, Retired, Table};
use format::shown::Shown;
use ground::ids::{AppName, DestinationName, ReleaseId};

impl Records {
    /// Returns the releases of an application that nobody may remove. What targets need the proxy knows.
    ///
    /// # Errors
    /// It cannot be known what destinations show.
    pub fn held(&self, app: &AppName) -> Result<HashSet<ReleaseId>> {
        let mut held: HashSet<ReleaseId> = self.shown(app)?.into_iter().map(|(_, release)| release).collect();
        let memory = self.read();
        let known = memory.apps.get(app);
        held.extend(known.and_then(App::current));
        held.extend(known.and_then(App::previous));
        Ok(held)
    }

    /// Returns what holds a release, if anything does.
    fn holder(&self, memory: &Known, app: &AppName, release: &ReleaseId) -> Result<Option<Holder>> {
        let Some(known) = memory.apps.get(app) else { return Ok(None) };
        if known.current() == Some(*release) {
            return Ok(Some(Holder::Current));
        }
        if known.previous() == Some(*release) {
            return Ok(Some(Holder::Previous));
        }
        let shown = self.shown(app)?.into_iter().find(|(_, shown)| shown == release);
        Ok(shown.map(|(destination, _)| Holder::Shown(destination)))
    }

    /// Returns the release of an application that readers of a destination see; none where that is not known.
    ///
    /// # Errors
    /// The ledger's.
    pub fn shows(&self, app: &AppName, destination: &DestinationName) -> Result<Option<ReleaseId>> {
        let (space, app, destination) = (self.space.clone(), app.clone(), destination.clone());
        let bytes = self.ledger.read(&Key::Shown { space, app, destination })?.unwrap_or_default();
        Ok(Shown::decode(&bytes).unwrap_or_default().current().map(|entry| entry.release))
    }

    /// Returns the releases that destinations show of an application, or keep files of.
    fn shown(&self, app: &AppName) -> Result<Vec<(DestinationName, ReleaseId)>> {
        let mut all = Vec::new();
        for key in self.ledger.list(&Table::Shown { space: self.space.clone(), app: app.clone() })? {
            let bytes = self.ledger.read(&key)?.unwrap_or_default();
            let Key::Shown { destination, .. } = key else { continue };
            let shown = Shown::decode(&bytes).unwrap_or_default();
            all.extend(shown.entries.into_iter().map(|entry| (destination.clone(), entry.release)));
        }
        Ok(all)
    }

    /// Forgets what a destination shows and keeps, of the applications for which `is_wanted`. Returns the releases that it no
    /// longer holds.
    ///
    /// # Errors
    /// The ledger's; what was forgotten before stays so.
    pub fn forget_shown(
        &self,
        destination: &DestinationName,
        is_wanted: impl Fn(&AppName) -> bool,
    ) -> Result<Vec<(AppName, ReleaseId)>> {
        let mut forgotten = Vec::new();
        for app in self.ledger.apps(&self.space)?.into_iter().filter(is_wanted) {
            let mut releases: Vec<ReleaseId> = self
                .shown(&app)?
                .into_iter()
                .filter(|(shown, _)| shown == destination)
                .map(|(_, release)| release)
                .collect();
            releases.sort_unstable();
            releases.dedup();
            let (space, destination) = (self.space.clone(), destination.clone());
            let key = Key::Shown { space, app: app.clone(), destination };
            if self.ledger.has(&key)? {
                self.ledger.apply(&[Change::Remove { key }])?;
            }
            forgotten.extend(releases.into_iter().map(|release| (app.clone(), release)));
        }
        Ok(forgotten)
    }

    /// Removes the records of a release of an application that nothing holds. Returns their number.
    ///
    /// The ledger retires them: who pushed what when is not forgotten.
    ///
    /// # Errors
    /// The ledger's; [`Error::Pinned`] where the release is pinned, [`Error::Held`] where it is current or the one before, or at
    /// a destination.
    pub fn remove(&self, app: &AppName, release: &ReleaseId) -> Result<usize> {
        self.remove_checked(app, release, true)
    }

    /// Removes the records of a release of an application, whatever holds it but a pin.
    ///
    /// # Errors
    /// The ledger's; [`Error::Pinned`].
    pub fn remove_held(&self, app: &AppName, release: &ReleaseId) -> Result<usize> {
        self.remove_checked(app, release, false)
    }

    fn remove_checked(&self, app: &AppName, release: &ReleaseId, keeps_held: bool) -> Result<usize> {
        if self.is_pinned(app, release) {
            return Err(Error::Pinned { app: app.clone(), release: *release });
        }
        let mut memory = self.write();
        let known = memory.apps.get(app).filter(|known| !known.pushed.is_empty());
        let known = known.ok_or_else(|| Error::NoApp(app.clone()))?;
        if keeps_held && let Some(holder) = self.holder(&memory, app, release)? {
            return Err(Error::Held { app: app.clone(), release: *release, holder });
        }
        let those = known.pushed.iter().filter(|pushed| pushed.release == *release);
        let numbers: Vec<u64> = those.map(|pushed| pushed.sequence).collect();
        // Pushed again, the release does not get back labels that it was given before.
        let labels = known.labels.given_to(release, &known.pushed);
        let meant = match &known.latest {
            Some(latest) => {
                let mover = Mover { user: &latest.user, token: "", time: latest.created, because: None };
                labelling::without(known, &labels, |other| other == release, &mover)
            }
            None => Vec::new(),
        };
        let retire = |number: &u64| Change::Retire { key: self.key(app, *number), reason: Retired::Removed };
        let mut retired: Vec<Change> = numbers.iter().map(retire).collect();
        // Whoever removes a release wants its bytes back.
        retired.extend(self.uncached(app, release));
        self.mean(&mut memory, app, meant, retired)?;
        memory.forget(app, |pushed| pushed.release == *release);
        self.find_latest(&mut memory, app)?;
        Ok(numbers.len())
    }
}
