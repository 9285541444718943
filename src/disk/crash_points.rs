//! Named moments at which a test can end the process as `kill -9` would.
//!
//! `WHIT_CRASH=seal.footer:2` ends it at the second pass of `seal.footer`. Without the feature
//! `crash-points` nothing of this is in the program: every call is empty.

/// Every point, in the order in which a release passes them.
pub const POINTS: [&str; 119] = [
    // A pack is begun, and a frame appended to it.
    "pack.created",
    "pack.headed",
    "append.before",
    "append.half",
    "append.after",
    "sync.before",
    "sync.after",
    // A pack gets its footer and its name.
    "seal.before",
    "seal.half",
    "seal.footer",
    "seal.synced",
    "pack.renamed",
    "seal.after",
    // The index takes packs in, as a run.
    "run.half",
    "run.renamed",
    "take-in.before",
    "take-in.named",
    "take-in.catalogued",
    "take-in.after",
    // Runs become one.
    "merge.written",
    "merge.named",
    "merge.removed",
    // A push is committed.
    "commit.synced",
    "manifests.created",
    "manifests.half",
    "manifests.written",
    "manifests.renamed",
    "record.created",
    "record.half",
    "record.written",
    "record.renamed",
    "commit.current",
    "commit.recorded",
    "delivery.created",
    "delivery.half",
    "delivery.written",
    "delivery.renamed",
    "commit.queued",
    // A delivery is made to a directory.
    "tree.written",
    "tree.synced",
    "copy.renamed",
    "link.made",
    "current.renamed",
    "copy.removing",
    "copy.removed",
    "delivery.there",
    "shown.half",
    "shown.written",
    "shown.renamed",
    "delivery.shown",
    "delivery.told",
    "delivery.made",
    "delivery.removed",
    // One is made to a server, object by object.
    "object.written",
    "class.verified",
    "class.journalled",
    "stamp.before",
    "stamp.written",
    "release.shown",
    "deletions.before",
    "object.deleted",
    "deletions.after",
    // One is made to another proxy.
    "release.begun",
    "release.passed",
    // A rollout goes through its group.
    "rollout.created",
    "rollout.half",
    "rollout.written",
    "rollout.renamed",
    "rollout.begun",
    "rollout.decided",
    "rollout.assigned",
    "rollout.current",
    "group.renamed",
    "rollout.ended",
    // A release is removed, and garbage collected.
    "removed.renamed",
    "collect.condemned",
    "collect.appended",
    "collect.sealed",
    "take-out.before",
    "take-out.catalogue",
    "collect.index",
    "collect.removed",
    // Archives are unpacked or packed in idle time.
    "improve.archive",
    "improve.forgotten",
    // A damaged pack is set aside.
    "aside.appended",
    "aside.sealed",
    "aside.index",
    "aside.renamed",
    // A store is opened after a crash.
    "recovery.cut",
    "recovery.sealed",
    "recovery.index",
    // A directory is pulled.
    "pull.fetched",
    "pulled-next.half",
    "pulled-next.written",
    "pulled-next.renamed",
    "pull.tree",
    "ready.renamed",
    "pull.exchanged",
    "pulled.renamed",
    "pull.removed",
    "pull.after",
    // The directory before is kept, and comes back.
    "pull.kept",
    "back.begun",
    "back.renamed",
    "back.removed",
    // A watching target shows it, confirms it, goes back from it.
    "watched.half",
    "watched.written",
    "watched.renamed",
    "update.stopped",
    "update.switched",
    "update.started",
    "update.confirmed",
    "update.failed",
    "update.back",
    "update.restarted",
    // A directory of releases gets its copy's mark, and remembers what it shows.
    "pulled.half",
    "pulled.written",
    "layout.half",
    "layout.renamed",
];

#[cfg(feature = "crash-points")]
mod armed {
    use std::fs::File;
    use std::io::Write;
    use std::path::Path;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        name: String,
        passes_left: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var("WHIT_CRASH").ok()?;
        let (name, pass) = text.split_once(':').unwrap_or((&text, "1"));
        assert!(super::POINTS.contains(&name), "there is no crash point `{name}`");
        let passes_left = AtomicU64::new(pass.parse().expect("WHIT_CRASH is NAME:PASS"));
        Some(Armed { name: name.to_owned(), passes_left })
    });

    /// Returns whether the process must end here; the caller may leave something half done before [`end`].
    fn is_due(name: &str) -> bool {
        debug_assert!(super::POINTS.contains(&name) || !name.contains('.'), "`{name}` is not listed");
        let armed = ARMED.as_ref().filter(|armed| armed.name == name);
        armed.is_some_and(|armed| armed.passes_left.fetch_sub(1, Ordering::Relaxed) == 1)
    }

    /// Ends the process at once: nothing is flushed, closed or reported.
    fn end() -> ! {
        let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        if killed.is_err() {
            std::process::abort();
        }
        loop {
            std::thread::park();
        }
    }

    /// Ends the process if `name` is armed and this is the armed pass.
    pub fn point(name: &str) {
        if is_due(name) {
            end();
        }
    }

    /// Ends the process after half of `bytes` was written.
    pub fn half(name: &str, mut file: &File, bytes: &[u8]) {
        if is_due(name) {
            drop(file.write_all(&bytes[..bytes.len() / 2]));
            end();
        }
    }

    /// Returns the point of a step that many kinds of files share; its first word comes from the file's name.
    fn named(path: &Path, step: &str) -> Option<&'static str> {
        let word = path.extension().or(path.file_name())?.to_str()?;
        super::POINTS.into_iter().find(|point| point.strip_prefix(word) == Some(step))
    }

    /// [`point`] for the file at `path`: `.renamed` of a record is `record.renamed`.
    pub fn on(path: &Path, step: &str) {
        if let Some(name) = named(path, step) {
            point(name);
        }
    }

    /// [`half`] for the file at `path`.
    pub fn half_on(path: &Path, step: &str, file: &File, bytes: &[u8]) {
        if let Some(name) = named(path, step) {
            half(name, file, bytes);
        }
    }
}

#[cfg(feature = "crash-points")]
pub use armed::{half, half_on, on, point};

#[cfg(not(feature = "crash-points"))]
mod absent {
    use std::fs::File;
    use std::path::Path;

    /// Nothing, without the feature.
    #[inline]
    pub fn point(_name: &str) {}

    /// Nothing, without the feature.
    #[inline]
    pub fn half(_name: &str, _file: &File, _bytes: &[u8]) {}

    /// Nothing, without the feature.
    #[inline]
    pub fn on(_path: &Path, _step: &str) {}

    /// Nothing, without the feature.
    #[inline]
    pub fn half_on(_path: &Path, _step: &str, _file: &File, _bytes: &[u8]) {}
}

#[cfg(not(feature = "crash-points"))]
pub use absent::{half, half_on, on, point};
