//! Finds the release that a selector means.

use std::collections::BTreeSet;

use super::history::Pushed;
use super::records::Records;
use super::{Error, Result};
use format::record::Record;
use ground::ids::{ReleaseId, Selector};

impl Records {
    /// Returns the newest record that a selector means. A release's id or its first digits come before a label that reads
    /// as an id, which an older version of whit may have given; so do the words for the current and the latest release.
    ///
    /// # Errors
    /// Nothing fits, or several releases share the digits.
    pub fn select(&self, selector: &Selector) -> Result<Record> {
        let nothing = || Error::NoRelease(selector.clone());
        loop {
            let memory = self.read();
            let app = memory.apps.get(&selector.app).filter(|app| !app.pushed.is_empty());
            let app = app.ok_or_else(|| Error::NoApp(selector.app.clone()))?;
            let newest = |fits: &dyn Fn(&Pushed) -> bool| app.pushed.iter().rev().find(|pushed| fits(pushed));
            let is_word = selector.is_current() || selector.is_latest();
            let found = if selector.is_current() {
                if app.awaits_current() {
                    return Err(Error::NoCurrent(selector.app.clone()));
                }
                let current = app.current();
                newest(&|pushed| Some(pushed.release) == current)
            } else if selector.is_latest() {
                app.pushed.last()
            } else if let Some(release) = selector.release() {
                newest(&|pushed| pushed.release == release)
            } else {
                let digits = selector.digits();
                let begins =
                    |pushed: &Pushed| digits.as_ref().is_some_and(|digits| pushed.begins_with(digits));
                let fits = app.pushed.iter().filter(|pushed| begins(pushed));
                let candidates: BTreeSet<ReleaseId> = fits.map(|pushed| pushed.release).collect();
                if candidates.len() > 1 {
                    let candidates = candidates.into_iter().collect();
                    return Err(Error::Ambiguous { selector: selector.clone(), candidates });
                }
                let labelled = || selector.at.as_ref().and_then(|label| app.labels.find(label, &app.pushed));
                newest(&begins).or_else(labelled)
            };
            let sequence = found.ok_or_else(nothing)?.sequence;
            drop(memory);
            match self.read_record(&selector.app, sequence)? {
                Some(record) => return Ok(record),
                // The record was damaged and is forgotten: another one is current, or the latest.
                None if is_word => {}
                None => return Err(nothing()),
            }
        }
    }
}
