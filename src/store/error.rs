//! The errors of a store.

use std::path::PathBuf;

use super::holder::Holder;
use super::index;
use crate::ledger;
use crate::restore;
use disk::files;
use format::pack::{self, PackId};
use ground::escape;
use ground::faults::{Fault, faulty};
use ground::ids::{AppName, Label, ReleaseId, Selector};

/// The errors of a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The index.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// A pack.
    #[error("pack {}: {source}", .path.display())]
    Pack {
        /// The pack's location.
        path: PathBuf,
        /// The fault.
        source: pack::Error,
    },
    /// The index and the disk disagree about a pack, or about chunks in it.
    #[error("the index does not match pack {pack}")]
    Catalogue {
        /// The pack.
        pack: PackId,
    },
    /// The index has a pack that the disk does not have.
    #[error("pack {pack} is missing")]
    PackGone {
        /// The pack.
        pack: PackId,
    },
    /// The disk is nearly full.
    #[error("{} has only {free} B free; {reserve} B are reserved", .folder.display())]
    NoRoom {
        /// The packs' folder.
        folder: PathBuf,
        /// Bytes left.
        free: u64,
        /// Reserved bytes.
        reserve: u64,
    },
    /// An earlier write or sync failed: what was written since the last sync may be lost.
    #[error("an earlier write to the disk failed; the store accepts no more until it is reopened")]
    WriteFailed,
    /// The system gives no random bytes.
    #[error("the system returned no random bytes")]
    Random,
    /// A manifest could not be read, and is not known to be damaged.
    #[error("the manifest of release {} could not be read", .release.short())]
    Manifest {
        /// The release.
        release: ReleaseId,
        /// The reason.
        source: Box<restore::Error>,
    },
    /// A damaged record.
    #[error("the record {place} is damaged")]
    Record {
        /// The record's location.
        place: String,
    },
    /// A record of a newer whit.
    #[error("the record {place} has version {version}, unknown to this version")]
    RecordVersion {
        /// The record's location.
        place: String,
        /// Its version.
        version: u8,
    },
    /// A release that may not be removed.
    #[error("release {} of `{app}` is pinned", .release.short())]
    Pinned {
        /// The application.
        app: AppName,
        /// The release.
        release: ReleaseId,
    },
    /// A release that something holds.
    #[error("release {} of `{app}` may not be removed: {holder}", .release.short())]
    Held {
        /// The application.
        app: AppName,
        /// The release.
        release: ReleaseId,
        /// What holds it.
        holder: Holder,
    },
    /// A push of a release that a rollback left.
    #[error("release {} of `{app}` was rolled back: this push would make it current again", .release.short())]
    RolledBack {
        /// The application.
        app: AppName,
        /// The release.
        release: ReleaseId,
    },
    /// A label that names another release.
    #[error("label `{label}` of `{app}` names release {}", .release.short())]
    LabelTaken {
        /// The application.
        app: AppName,
        /// The label.
        label: Label,
        /// The release that it names.
        release: ReleaseId,
    },
    /// A label that names nothing.
    #[error("no release of `{app}` has the label `{label}`")]
    NoLabel {
        /// The application.
        app: AppName,
        /// The label.
        label: Label,
    },
    /// Labels beyond the limit.
    #[error("more than {max} labels of `{app}` would have been given or taken away after their pushes")]
    TooManyLabels {
        /// The application.
        app: AppName,
        /// The limit.
        max: usize,
    },
    /// A release that was removed meanwhile.
    #[error("release {} of `{app}` is not stored any more", .release.short())]
    NoReleaseOf {
        /// The application.
        app: AppName,
        /// The release.
        release: ReleaseId,
    },
    /// There is nothing to roll back to.
    #[error("`{0}` has no stored release that was current before and was not rolled back")]
    NothingBefore(AppName),
    /// Somebody moved the current release meanwhile.
    #[error("the current release of `{0}` was moved meanwhile")]
    CurrentMoved(AppName),
    /// Content is kept only with a release.
    #[error("this proxy keeps no content without a release")]
    NoCache,
    /// No application has this name.
    #[error("there is no application `{0}` here")]
    NoApp(AppName),
    /// None of its releases is current.
    #[error("no release of `{0}` is current: its first has yet to be rolled out")]
    NoCurrent(AppName),
    /// No release fits the selector.
    #[error("there is no release `{0}`")]
    NoRelease(Selector),
    /// Several releases fit.
    #[error("`{selector}` matches {} releases: {}", .candidates.len(), listed(.candidates))]
    Ambiguous {
        /// The selector.
        selector: Selector,
        /// The releases that fit.
        candidates: Vec<ReleaseId>,
    },
}

faulty! {
    Error passes on File, Ledger, Index;
    Self::Pack { source, .. } => source.fault();
    Self::Manifest { source, .. } => source.fault();
    Self::NoCache => Fault::Input,
        "push a release; the proxy's admin sets `cache_hours` to keep more";
    Self::NoRoom { folder, .. } => Fault::Full, format!(
        "make room on the file system of {}, or remove old releases with `whit rm` and `whit gc`",
        folder.display()
    );
    Self::Catalogue { .. } | Self::PackGone { .. } | Self::Record { .. } => Fault::Corrupt;
    Self::RecordVersion { .. } => Fault::Version;
    Self::WriteFailed => Fault::Retry, "check the proxy's disk, then restart the proxy";
    Self::Random => Fault::Retry;
    Self::NoApp(_) => Fault::Missing, "`whit apps` lists what there is";
    Self::NoCurrent(app) => Fault::Missing, format!(
        "name one, like {app}@latest; `whit rollouts {app}` shows how far it is, `whit promote {app}@RELEASE` makes one current"
    );
    Self::NoRelease(selector) => Fault::Missing,
        format!("`whit releases {}` lists what there is", selector.app);
    Self::Ambiguous { .. } => Fault::Input, "give more digits";
    Self::Pinned { .. } => Fault::Input, "`whit unpin` it first";
    Self::Held { app, holder: Holder::Current | Holder::Previous, .. } => Fault::Input, format!(
        "make another release current with `whit promote` or `whit rollback {app}`, or add --force"
    );
    Self::Held { holder: Holder::Shown(destination), .. } => Fault::Input, format!(
        "deliver another release to `{destination}` first, or add --force; if it is gone for good: `whit destinations drop {destination}`"
    );
    Self::Held { holder: Holder::Target(target), .. } => Fault::Input, format!(
        "bring `{target}` to another release first, or add --force; if it is gone for good: `whit targets forget {target}`"
    );
    Self::RolledBack { .. } => Fault::Input,
        "add --move to make it current again, or --no-current to only store it";
    Self::LabelTaken { .. } => Fault::Input, "add --move to move it, or choose another label";
    Self::NoLabel { app, .. } => Fault::Missing, format!("`whit releases {app}` lists labels");
    Self::TooManyLabels { .. } => Fault::Full, "remove releases whose labels nobody needs (`whit rm`)";
    Self::NoReleaseOf { app, .. } => Fault::Missing, format!("`whit releases {app}` lists what there is");
    Self::NothingBefore(app) => Fault::Missing,
        format!("`whit releases {app}` lists what there is, `whit promote {app}@RELEASE` makes one current");
    Self::CurrentMoved(app) => Fault::Retry, format!("look at `whit current {app}`, then decide again");
}

/// An error names this many releases, and counts the others.
const LISTED_MAX: usize = 8;
/// Enough digits to distinguish releases; the user gave fewer.
const LISTED_DIGITS: usize = 24;

fn listed(releases: &[ReleaseId]) -> String {
    let digits = |release: &ReleaseId| release.to_string()[..LISTED_DIGITS].to_owned();
    let first: Vec<String> = releases.iter().take(LISTED_MAX).map(digits).collect();
    escape::list(&first, releases.len() as u64)
}
