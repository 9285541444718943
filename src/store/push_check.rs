//! Checks what a push, or a label, would move although nobody has said that it is meant.

use super::current_entry::{CurrentAfter, Intent};
use super::known::{App, Known};
use super::{Error, Result};
use ground::ids::{AppName, Label, ReleaseId};

/// Checks that a push of the release may make it current, and may give it the labels.
pub(super) fn check_push(
    memory: &Known,
    app: &AppName,
    release: &ReleaseId,
    labels: &[Label],
    intent: Intent<'_>,
) -> Result<()> {
    let Some(known) = memory.apps.get(app).filter(|_| !intent.moves) else { return Ok(()) };
    let is_bad = known.head.as_ref().is_some_and(|head| head.is_bad(release));
    if is_bad && intent.current == CurrentAfter::Pushed {
        return Err(Error::RolledBack { app: app.clone(), release: *release });
    }
    check_free(known, app, release, labels)
}

/// Checks that none of the labels names another release.
pub(super) fn check_free(known: &App, app: &AppName, release: &ReleaseId, labels: &[Label]) -> Result<()> {
    for label in labels {
        if let Some(named) = known.labels.release(label, &known.pushed).filter(|named| named != release) {
            return Err(Error::LabelTaken { app: app.clone(), label: label.clone(), release: named });
        }
    }
    Ok(())
}
