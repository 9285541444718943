//! The cache: manifests that were pushed without a release, whose chunks stay until their marks lapse (FORMAT 4.3).
//!
//! A mark promises room, not content: where chunks of it are lost, the push that follows sends these again. So nothing of it is
//! healed, and no collection waits for it.

use std::collections::{BTreeMap, HashSet};

use super::{Error, Records, Result, Store};
use crate::ledger::{Change, Key, Table};
use disk::clock::now;
use format::cache_mark::CacheMark;
use ground::ids::{AppName, ChunkId, ReleaseId, UserName};

/// 16: more builds than one application has under way. Beyond them, those that lapse first go.
const MARKS_MAX: usize = 16;

impl Store {
    /// Refuses content without a release where none is kept.
    ///
    /// # Errors
    /// [`Error::NoCache`].
    pub fn check_cache(&self) -> Result<()> {
        if self.options.cached_for.is_zero() { Err(Error::NoCache) } else { Ok(()) }
    }

    /// Keeps the manifest of a root and its chunks for a time, for a later push of a user; returns until when, in seconds since 1970. They
    /// are durable, and a lease holds them until now. `bytes` are those of its files, and those that were sent.
    ///
    /// # Errors
    /// [`Error::NoCache`]; the ledger's.
    pub fn cache(
        &self,
        app: &AppName,
        root: &ChunkId,
        user: &UserName,
        [bytes, sent_bytes]: [u64; 2],
    ) -> Result<u64> {
        self.check_cache()?;
        let until = now() + self.options.cached_for.as_secs();
        self.records.keep_cached(app, root, &CacheMark { user: user.clone(), until, bytes, sent_bytes })?;
        Ok(until)
    }
}

impl Records {
    /// Keeps the chunks of a manifest until the mark lapses. They are durable, and a lease holds them until now.
    ///
    /// # Errors
    /// The ledger's.
    fn keep_cached(&self, app: &AppName, root: &ChunkId, mark: &CacheMark) -> Result<()> {
        let key = self.cached_key(app, root);
        self.ledger.apply(&[Change::Put { key, value: mark.encode() }])?;
        for (surplus, _) in self.cached(app)?.into_iter().skip(MARKS_MAX) {
            self.uncache(app, &surplus)?;
        }
        Ok(())
    }

    /// Ends a mark; that there was none is no error.
    fn uncache(&self, app: &AppName, root: &ChunkId) -> Result<()> {
        Ok(self.ledger.apply(&[Change::Remove { key: self.cached_key(app, root) }])?)
    }

    /// Returns the changes that end the marks of a release's manifests, where there are some.
    pub(super) fn uncached(&self, app: &AppName, release: &ReleaseId) -> Vec<Change> {
        let roots = self.roots(release).unwrap_or_default();
        let keys = roots.iter().map(|root| self.cached_key(app, root));
        keys.filter(|key| self.ledger.has(key).unwrap_or(false)).map(|key| Change::Remove { key }).collect()
    }

    /// Returns the roots of an application's cached manifests, the one that lapses last first, with those that have lapsed since.
    ///
    /// # Errors
    /// The ledger's.
    fn cached(&self, app: &AppName) -> Result<Vec<(ChunkId, CacheMark)>> {
        let table = Table::Cached { space: self.space.clone(), app: app.clone() };
        let mut cached = Vec::new();
        for (key, retired) in self.ledger.scan(&table)? {
            let Key::Cached { root, .. } = &key else { continue };
            let value = if retired.is_none() { self.ledger.read(&key)? } else { None };
            cached.extend(value.and_then(|value| Some((*root, CacheMark::decode(&value)?))));
        }
        cached.sort_by(|(one, mark), (other, its)| its.until.cmp(&mark.until).then(one.cmp(other)));
        Ok(cached)
    }

    /// Returns an application's cached manifests, as [`Records::cached`], without those that have lapsed.
    ///
    /// # Errors
    /// The ledger's.
    pub fn cached_now(&self, app: &AppName) -> Result<Vec<(ChunkId, CacheMark)>> {
        let now = now();
        let mut cached = self.cached(app)?;
        cached.retain(|(_, mark)| !mark.has_lapsed(now));
        Ok(cached)
    }

    /// Returns the roots of all cached manifests that have not lapsed. One whose mark cannot be read is lost, which costs only bytes.
    pub(super) fn cached_anywhere(&self) -> HashSet<ChunkId> {
        let apps = self.ledger.apps(&self.space).unwrap_or_default();
        let cached = apps.iter().filter_map(|app| match self.cached_now(app) {
            Ok(cached) => Some(cached),
            Err(error) => {
                tracing::warn!(%app, %error, "cached content is not kept: its marks cannot be read");
                None
            }
        });
        cached.flatten().map(|(root, _)| root).collect()
    }

    /// Returns the bytes of the files that each user has in the cache, of an application or of all.
    ///
    /// # Errors
    /// The ledger's.
    pub fn cached_bytes(&self, app: Option<&AppName>) -> Result<BTreeMap<UserName, u64>> {
        let apps = match app {
            Some(app) => vec![app.clone()],
            None => self.ledger.apps(&self.space)?,
        };
        let mut users = BTreeMap::new();
        for app in &apps {
            for (_, mark) in self.cached_now(app)? {
                *users.entry(mark.user).or_default() += mark.bytes;
            }
        }
        Ok(users)
    }

    /// Returns whether anything is cached, or was and its mark is still there; true where that cannot be known.
    pub fn has_cached(&self) -> bool {
        let apps = self.ledger.apps(&self.space).unwrap_or_default();
        apps.iter().any(|app| self.cached(app).map_or(true, |cached| !cached.is_empty()))
    }

    /// Removes the marks that have lapsed. Returns their number.
    ///
    /// # Errors
    /// The ledger's.
    pub fn lapse(&self) -> Result<usize> {
        let (now, mut lapsed) = (now(), 0);
        for app in self.ledger.apps(&self.space)? {
            for (root, _) in self.cached(&app)?.iter().filter(|(_, mark)| mark.has_lapsed(now)) {
                self.uncache(&app, root)?;
                lapsed += 1;
            }
        }
        Ok(lapsed)
    }

    /// Removes the mark that lapses first, to make room; returns whose it was, none where nothing is cached.
    ///
    /// # Errors
    /// The ledger's.
    pub fn lapse_next(&self) -> Result<Option<(AppName, ChunkId)>> {
        let mut next: Option<(u64, AppName, ChunkId)> = None;
        for app in self.ledger.apps(&self.space)? {
            if let Some((root, mark)) = self.cached(&app)?.pop()
                && next.as_ref().is_none_or(|(until, _, _)| mark.until < *until)
            {
                next = Some((mark.until, app, root));
            }
        }
        let Some((_, app, root)) = next else { return Ok(None) };
        self.uncache(&app, &root)?;
        Ok(Some((app, root)))
    }

    fn cached_key(&self, app: &AppName, root: &ChunkId) -> Key {
        Key::Cached { space: self.space.clone(), app: app.clone(), root: *root }
    }
}
