//! Gives labels to stored releases, and takes them away (FORMAT 4.2).

use super::head::Mover;
use super::known::{App, Known};
use super::push_check::check_free;
use super::records::Records;
use super::{Error, Result};
use crate::ledger::{Change, Key, Table};
use format::current::LabelMeaning;
use format::value::NoValue;
use ground::ids::{AppName, Label, ReleaseId};

/// Labels of an application that may be given or taken away after their pushes.
const LABELS_MAX: usize = 10_000;

impl Records {
    /// Gives labels to a release, all or none. One that names another release moves only where `moves` says so.
    ///
    /// # Errors
    /// [`Error::NoReleaseOf`], [`Error::LabelTaken`], [`Error::TooManyLabels`]; the ledger's.
    pub fn label(
        &self,
        app: &AppName,
        release: &ReleaseId,
        labels: &[Label],
        moves: bool,
        mover: &Mover<'_>,
    ) -> Result<()> {
        let mut memory = self.write();
        let known = memory.apps.get(app).filter(|known| known.has(release));
        let known = known.ok_or_else(|| Error::NoReleaseOf { app: app.clone(), release: *release })?;
        if !moves {
            check_free(known, app, release, labels)?;
        }
        let is_new = |label: &&Label| known.labels.release(label, &known.pushed) != Some(*release);
        let meant = labels.iter().filter(is_new).map(|label| {
            let meaning = LabelMeaning {
                release: Some(*release),
                after: known.last_number,
                user: mover.user.clone(),
                time: mover.time,
            };
            (label.clone(), Some(meaning))
        });
        let meant: Vec<_> = meant.collect();
        let more = meant.iter().filter(|(label, _)| !known.labels.has(label)).count();
        if known.labels.len() + more > LABELS_MAX {
            return Err(Error::TooManyLabels { app: app.clone(), max: LABELS_MAX });
        }
        self.mean(&mut memory, app, meant, Vec::new())
    }

    /// Takes labels away from the releases that they name, all or none. Returns these releases.
    ///
    /// # Errors
    /// [`Error::NoLabel`]; the ledger's.
    pub fn unlabel(&self, app: &AppName, labels: &[Label], mover: &Mover<'_>) -> Result<Vec<ReleaseId>> {
        let mut memory = self.write();
        let known = memory.apps.get(app).ok_or_else(|| Error::NoApp(app.clone()))?;
        let named = labels.iter().map(|label| {
            let named = known.labels.release(label, &known.pushed);
            named.ok_or_else(|| Error::NoLabel { app: app.clone(), label: label.clone() })
        });
        let named: Vec<ReleaseId> = named.collect::<Result<_>>()?;
        let meant = without(known, labels, |_| false, mover);
        self.mean(&mut memory, app, meant, Vec::new())?;
        Ok(named)
    }

    /// Writes what labels mean from now on (none: what records say) and, in the same transaction, `more`.
    pub(super) fn mean(
        &self,
        memory: &mut Known,
        app: &AppName,
        meant: Vec<(Label, Option<LabelMeaning>)>,
        more: Vec<Change>,
    ) -> Result<()> {
        let key =
            |label: &Label| Key::Label { space: self.space.clone(), app: app.clone(), label: label.clone() };
        let change = |(label, meaning): &(Label, Option<LabelMeaning>)| match meaning {
            Some(meaning) => Change::Put { key: key(label), value: meaning.encode() },
            None => Change::Remove { key: key(label) },
        };
        let changes: Vec<Change> = meant.iter().map(change).chain(more).collect();
        let applied = self.ledger.apply(&changes);
        if applied.is_err() {
            // The first of the changes may have been made.
            self.read_labels(memory, app)?;
        }
        applied?;
        let known = memory.app(app);
        for (label, meaning) in meant {
            match meaning {
                Some(meaning) => known.labels.set(label, meaning),
                None => known.labels.forget(&label),
            }
        }
        Ok(())
    }

    /// Reads an application's labels when its records are opened.
    pub(super) fn open_labels(&self, memory: &mut Known, app: &AppName) -> Result<()> {
        self.ledger.recover(&Table::Labels { space: self.space.clone(), app: app.clone() })?;
        self.read_labels(memory, app)
    }

    fn read_labels(&self, memory: &mut Known, app: &AppName) -> Result<()> {
        let known = memory.app(app);
        known.labels = super::labels::Labels::default();
        for key in self.ledger.list(&Table::Labels { space: self.space.clone(), app: app.clone() })? {
            let bytes = self.ledger.read(&key)?.unwrap_or_default();
            let place = || self.ledger.describe(&key);
            match LabelMeaning::decode(&bytes) {
                Ok(meaning) => {
                    if let Key::Label { label, .. } = key {
                        known.labels.set(label, meaning);
                    }
                }
                Err(NoValue::Damaged) => {
                    let place = place();
                    tracing::error!(place, "a label is damaged; it means what the records of pushes say");
                }
                Err(NoValue::Version(version)) => {
                    return Err(Error::RecordVersion { place: place(), version });
                }
            }
        }
        Ok(())
    }
}

/// Returns the meanings of labels that name nothing from now on, once the records of releases for which `goes` holds are gone.
pub(super) fn without(
    known: &App,
    labels: &[Label],
    goes: impl Fn(&ReleaseId) -> bool,
    mover: &Mover<'_>,
) -> Vec<(Label, Option<LabelMeaning>)> {
    let meaning = |label: &Label| {
        let stays = known.pushed.iter().filter(|pushed| !goes(&pushed.release));
        let is_given = { stays }.any(|pushed| pushed.labels.contains(label));
        let (after, user) = (known.last_number, mover.user.clone());
        (label.clone(), is_given.then_some(LabelMeaning { release: None, after, user, time: mover.time }))
    };
    labels.iter().map(meaning).collect()
}
