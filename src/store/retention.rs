//! Which releases may go: by number, by age, by label, by the size of the whole store.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::{Result, Store};
use crate::ids::{AppName, ReleaseId};
use crate::record::Record;
use crate::token::Pattern;

/// What an application keeps. A release stays while any rule keeps it, and the latest always stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// The last so many distinct releases; none keeps all.
    pub keep_last: Option<usize>,
    /// Releases pushed within that time before the application's latest push, by the proxy's clock: no time
    /// without a push makes them old. A push while the clock is far ahead does; `keep_last`, labels and pins ask no
    /// clock.
    pub keep_within: Option<Duration>,
    /// Releases with a label that fits.
    pub keep_labels: Vec<Pattern>,
}

impl Retention {
    /// Whether any release can ever go.
    pub fn is_limited(&self) -> bool {
        self.keep_last.is_some() || self.keep_within.is_some()
    }

    /// The releases of one application that may go; `records` are oldest first.
    pub fn expired(&self, records: &[Record], is_pinned: impl Fn(&ReleaseId) -> bool) -> Vec<ReleaseId> {
        let now = records.last().map_or(0, |latest| latest.created);
        if !self.is_limited() {
            return Vec::new();
        }
        let mut kept = HashSet::new();
        let mut newest_first = Vec::new();
        for record in records.iter().rev() {
            if !newest_first.contains(&record.release) {
                newest_first.push(record.release);
            }
            let is_young =
                self.keep_within.is_some_and(|within| now.saturating_sub(record.created) < within.as_secs());
            let fits = |label: &crate::ids::Label| {
                self.keep_labels.iter().any(|pattern| pattern.matches(label.as_str()))
            };
            if is_young || record.labels.iter().any(fits) {
                kept.insert(record.release);
            }
        }
        let last = self.keep_last.unwrap_or(0).max(1);
        kept.extend(newest_first.iter().take(last).copied());
        newest_first.retain(|release| !kept.contains(release) && !is_pinned(release));
        newest_first
    }
}

/// The rules of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// For applications that fit a pattern, the first that fits.
    pub apps: Vec<(Pattern, Retention)>,
    /// Bytes on disk beyond which the least recently used releases go.
    pub size_max: Option<u64>,
}

/// Removes the records of releases that may go; collecting then frees their chunks. Returns what went.
///
/// # Errors
/// The disk's.
pub fn expire(store: &Store, rules: &Rules) -> Result<Vec<(AppName, ReleaseId)>> {
    let mut gone = Vec::new();
    for summary in store.records().apps() {
        let app = summary.app;
        let rule = rules.apps.iter().find(|(pattern, _)| pattern.matches(app.as_str()));
        let Some((_, retention)) = rule else { continue };
        let records = store.records().of(&app)?;
        for release in retention.expired(&records, |release| store.records().is_pinned(&app, release)) {
            store.records().remove(&app, &release)?;
            gone.push((app.clone(), release));
        }
    }
    Ok(gone)
}

/// Removes the least recently used release, the latest of each application and pinned ones apart.
///
/// # Errors
/// The disk's.
pub fn evict_one(store: &Store) -> Result<Option<(AppName, ReleaseId)>> {
    let mut uses: BTreeMap<(AppName, ReleaseId), u64> = BTreeMap::new();
    for summary in store.records().apps() {
        for record in store.records().of(&summary.app)? {
            if record.release == summary.latest.release
                || store.records().is_pinned(&record.app, &record.release)
            {
                continue;
            }
            let used = store.records().last_used(&record);
            let known = uses.entry((record.app, record.release)).or_default();
            *known = used.max(*known);
        }
    }
    let Some(((app, release), _)) = uses.into_iter().min_by_key(|(_, used)| *used) else { return Ok(None) };
    store.records().remove(&app, &release)?;
    Ok(Some((app, release)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Totals;
    use crate::record::Cost;

    fn record(number: u64, labels: &[&str]) -> Record {
        Record {
            app: "a".parse().expect("a word"),
            release: ReleaseId::of(&number.to_le_bytes()),
            sequence: number,
            created: number * 100,
            user: "u".parse().expect("a word"),
            labels: labels.iter().map(|label| label.parse().expect("a word")).collect(),
            totals: Totals::default(),
            cost: Cost::default(),
        }
    }

    #[test]
    fn a_release_stays_while_any_rule_keeps_it() {
        let records = [record(1, &["v1"]), record(2, &[]), record(3, &[]), record(4, &[]), record(5, &[])];
        let retention = Retention {
            keep_last: Some(2),
            keep_within: Some(Duration::from_secs(250)),
            keep_labels: vec!["v*".parse().expect("a pattern")],
        };
        let pinned = ReleaseId::of(&9u64.to_le_bytes());
        // 5 and 4 by number, 3 by age, 1 by its label.
        assert_eq!(retention.expired(&records, |release| *release == pinned), [records[1].release]);
        assert_eq!(retention.expired(&records, |release| *release == records[1].release), []);
        assert_eq!(Retention::default().expired(&records, |_| false), []);
    }

    #[test]
    fn the_latest_release_always_stays() {
        let records = [record(1, &[])];
        let retention = Retention { keep_within: Some(Duration::from_secs(1)), ..Retention::default() };
        assert_eq!(retention.expired(&records, |_| false), []);
    }
}
