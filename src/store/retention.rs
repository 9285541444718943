//! Retention: selects releases to remove, by number, by age, by label, by the size of the whole store.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::marking::plain_bytes;
use super::{Error, Pushed, Result, Store};
use ground::ids::{AppName, ReleaseId, UserName};
use ground::pattern::Pattern;

/// The rules of an application. A release stays while any rule keeps it; the latest, and what nobody may remove, always stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// The number of latest distinct releases to keep; none keeps all.
    pub keep_last: Option<usize>,
    /// Releases pushed within that time before the application's latest push, by the proxy's clock: no time
    /// without a push makes them old. A push while the clock is far ahead does; `keep_last`, labels and pins ask no
    /// clock.
    pub keep_within: Option<Duration>,
    /// Releases with a label that fits.
    pub keep_labels: Vec<Pattern>,
}

impl Retention {
    /// Returns whether any release can ever go.
    pub fn is_limited(&self) -> bool {
        self.keep_last.is_some() || self.keep_within.is_some()
    }

    /// Returns the releases of one application that may go; `pushed` are its pushes, oldest first. Time O(pushes).
    ///
    /// Releases for which `is_held` holds stay.
    pub fn expired(&self, pushed: &[Pushed], is_held: impl Fn(&ReleaseId) -> bool) -> Vec<ReleaseId> {
        let now = pushed.last().map_or(0, |latest| latest.created);
        if !self.is_limited() {
            return Vec::new();
        }
        let (mut kept, mut seen) = (HashSet::new(), HashSet::new());
        let mut newest_first = Vec::new();
        for record in pushed.iter().rev() {
            if seen.insert(record.release) {
                newest_first.push(record.release);
            }
            let is_young =
                self.keep_within.is_some_and(|within| now.saturating_sub(record.created) < within.as_secs());
            let fits = |label: &ground::ids::Label| {
                self.keep_labels.iter().any(|pattern| pattern.matches(label.as_str()))
            };
            if is_young || record.labels.iter().any(fits) {
                kept.insert(record.release);
            }
        }
        let last = self.keep_last.unwrap_or(0).max(1);
        kept.extend(newest_first.iter().take(last).copied());
        newest_first.retain(|release| !kept.contains(release) && !is_held(release));
        newest_first
    }
}

/// The rules of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Rules for applications; the first pattern that fits decides.
    pub apps: Vec<(Pattern, Retention)>,
    /// Bytes on disk beyond which the least recently used releases go.
    pub size_max: Option<u64>,
}

/// Removes the records of releases that may be removed; collecting then frees their chunks. Returns the removed ones.
///
/// Those for which `is_needed` is true, also in the moment of their removal, stay: deliveries of them wait, or targets have them.
///
/// # Errors
/// The disk's.
pub fn expire(
    store: &Store,
    rules: &Rules,
    is_needed: &dyn Fn(&AppName, &ReleaseId) -> bool,
) -> Result<Vec<(AppName, ReleaseId)>> {
    let (records, mut gone) = (store.records(), Vec::new());
    for summary in records.apps() {
        let app = summary.app;
        let rule = rules.apps.iter().find(|(pattern, _)| pattern.matches(app.as_str()));
        let Some((_, retention)) = rule else { continue };
        if !retention.is_limited() {
            continue;
        }
        let held = records.held(&app)?;
        let is_held = |release: &ReleaseId| {
            held.contains(release) || is_needed(&app, release) || records.is_pinned(&app, release)
        };
        for release in retention.expired(&records.pushed(&app)?, is_held) {
            if remove(store, &app, &release, is_needed)? {
                gone.push((app.clone(), release));
            }
        }
    }
    Ok(gone)
}

/// Removes the records of a release unless it is held since, or gone already. Returns whether it did.
fn remove(
    store: &Store,
    app: &AppName,
    release: &ReleaseId,
    is_needed: &dyn Fn(&AppName, &ReleaseId) -> bool,
) -> Result<bool> {
    // Who queues a delivery has the turn from finding its release until it is queued.
    let _turn = store.records().turn();
    if is_needed(app, release) {
        return Ok(false);
    }
    match store.records().remove(app, release) {
        Ok(_) => Ok(true),
        Err(Error::Held { .. } | Error::Pinned { .. } | Error::NoApp(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The releases that may be evicted from a store that is too large, in order.
///
/// The user who takes the most gives first: of the application that takes the most, the release that was used longest ago. A
/// user within a fair share loses nothing to others, however many applications these have; nor does an application to the
/// user's others. Shares are as large as they can be: room that some do not use is the others' (max-min fairness). An
/// application is of the user who pushed its latest release. The latest release of each application stays, the current one and
/// the one before, those that destinations have or wait for, and pinned ones.
#[derive(Debug)]
pub struct Eviction {
    size_max: u64,
    apps: Vec<AppUsage>,
}

/// The bytes that an application takes, and its releases that may be evicted.
#[derive(Debug)]
struct AppUsage {
    app: AppName,
    user: UserName,
    bytes: u64,
    /// Each with the time of its last use; the last one goes first.
    releases: Vec<(u64, ReleaseId)>,
}

impl Eviction {
    /// Computes the bytes that each application takes. Reads the manifests of all releases; memory: 16 B for each chunk
    /// reference in distinct segments of one application. Deliveries of the releases that `queued` lists wait.
    ///
    /// # Errors
    /// The disk's.
    pub fn of(store: &Store, size_max: u64, queued: &[ReleaseId]) -> Result<Self> {
        let records = store.records();
        let mut apps = Vec::new();
        for summary in records.apps() {
            let app = summary.app;
            let mut uses: HashMap<ReleaseId, u64> = HashMap::new();
            for pushed in records.pushed(&app).unwrap_or_default() {
                let used = uses.entry(pushed.release).or_default();
                *used = records.last_used(&app, &pushed).max(*used);
            }
            let bytes = plain_bytes(store, uses.keys());
            let held = records.held(&app)?;
            uses.retain(|release, _| {
                let stays = *release == summary.latest.release || queued.contains(release);
                !stays && !held.contains(release) && !records.is_pinned(&app, release)
            });
            let mut releases: Vec<(u64, ReleaseId)> =
                uses.into_iter().map(|(release, used)| (used, release)).collect();
            releases.sort_unstable_by(|one, other| other.cmp(one));
            apps.push(AppUsage { app, user: summary.latest.user, bytes, releases });
        }
        Ok(Self { size_max, apps })
    }

    /// Removes the records of the next release; none where no release is left that may go. Collecting then frees its chunks.
    ///
    /// # Errors
    /// The disk's.
    pub fn next(
        &mut self,
        store: &Store,
        is_needed: &dyn Fn(&AppName, &ReleaseId) -> bool,
    ) -> Result<Option<(AppName, ReleaseId)>> {
        // Plain bytes as if they were stored: chunks are shared and compressed.
        let plain: u64 = self.apps.iter().map(|taking| taking.bytes).sum();
        let stored = store.stored_bytes()?;
        let size_max = u128::from(self.size_max) * u128::from(plain) / u128::from(stored.max(1));
        let taken = self.apps.iter().map(|taking| (&taking.user, taking.bytes));
        let shares = shares_of(&taken.collect::<Vec<_>>(), u64::try_from(size_max).unwrap_or(u64::MAX));
        let beyond = self
            .apps
            .iter_mut()
            .zip(shares)
            .filter(|(taking, (_, share))| taking.bytes > *share && !taking.releases.is_empty());
        let most = beyond.max_by_key(|(taking, (of_user, _))| (*of_user, taking.bytes));
        let Some((most, _)) = most else { return Ok(None) };
        let Some((_, release)) = most.releases.pop() else { return Ok(None) };
        if !remove(store, &most.app, &release, is_needed)? {
            return self.next(store, is_needed);
        }
        let left = store.records().pushed(&most.app).unwrap_or_default();
        let left: HashSet<ReleaseId> = left.iter().map(|pushed| pushed.release).collect();
        most.bytes = plain_bytes(store, left.iter());
        Ok(Some((most.app.clone(), release)))
    }
}

/// Returns for each application, given with its user and bytes, the bytes that its user takes in all, and the most that the
/// application may take.
fn shares_of(taken: &[(&UserName, u64)], total: u64) -> Vec<(u64, u64)> {
    let mut users: HashMap<&UserName, Vec<u64>> = HashMap::new();
    for (user, bytes) in taken {
        users.entry(user).or_default().push(*bytes);
    }
    let of_user: HashMap<&UserName, u64> =
        users.iter().map(|(user, takes)| (*user, takes.iter().sum())).collect();
    let share = fair_share(of_user.values().copied().collect(), total);
    let of_app: HashMap<&UserName, u64> =
        users.into_iter().map(|(user, takes)| (user, fair_share(takes, share))).collect();
    taken.iter().map(|(user, _)| (of_user[user], of_app[user])).collect()
}

/// Returns the most that each may take so that all together take no more than `total`.
fn fair_share(mut takes: Vec<u64>, total: u64) -> u64 {
    takes.sort_unstable();
    let mut left = total;
    for (at, take) in takes.iter().enumerate() {
        let share = left / (takes.len() - at) as u64;
        if *take > share {
            return share;
        }
        left -= take;
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    fn record(number: u64, labels: &[&str]) -> Pushed {
        Pushed {
            sequence: number,
            created: number * 100,
            release: ReleaseId::of(&number.to_le_bytes()),
            labels: labels.iter().map(|label| label.parse().expect("a word")).collect(),
        }
    }

    #[test]
    fn what_some_leave_of_a_fair_share_is_the_others() {
        assert_eq!(fair_share(vec![30, 8], 20), 12);
        assert_eq!(fair_share(vec![30, 8, 1, 1], 20), 10);
        assert_eq!(fair_share(vec![11, 12], 20), 10);
        assert_eq!(fair_share(vec![5, 5], 20), u64::MAX);
        assert_eq!(fair_share(Vec::new(), 20), u64::MAX);
    }

    #[test]
    fn who_has_many_applications_takes_no_more_from_others() {
        let [eve, ada] = ["eve", "ada"].map(|name| name.parse::<UserName>().expect("a name"));
        let mut taken = vec![(&eve, 10); 10];
        taken.push((&ada, 28));
        let shares = shares_of(&taken, 60);
        assert_eq!(shares[..10], [(100, 3); 10]);
        assert_eq!(shares[10], (28, u64::MAX), "ada takes less than half");
        // A user alone shares between the applications, as before.
        assert_eq!(shares_of(&[(&eve, 30), (&eve, 8)], 20), [(38, 12); 2]);
        assert_eq!(shares_of(&[(&eve, 5), (&ada, 5)], 20), [(5, u64::MAX); 2]);
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
