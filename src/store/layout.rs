//! The names in a store's folder. docs/FORMAT.md 7 shows the tree; tests/it/documents.rs holds it to [`LAYOUT`].

/// The packs.
pub const PACKS: &str = "packs";
/// Below [`PACKS`]: packs that are still written to.
pub const OPEN: &str = "open";
/// Below [`PACKS`]: damaged packs that were set aside.
pub const DAMAGED: &str = "damaged";
/// Below [`PACKS`]: the mark that a sync of an open pack failed.
pub const UNSYNCED: &str = "unsynced";
/// Below [`PACKS`]: the pack at which verifying continues.
pub const VERIFY_CURSOR: &str = "verify.cursor";
/// The records of releases.
pub const RELEASES: &str = "releases";
/// The index.
pub const INDEX: &str = "index";
/// A damaged index that was set aside.
pub const INDEX_DAMAGED: &str = "index.damaged";
/// The cache of rebuilt archives.
pub const REBUILT: &str = "rebuilt";
/// The sketches of chunks.
pub const SKETCHES: &str = "sketches";
/// The mark that a release may lack a chunk.
pub const INCOMPLETE: &str = "incomplete";
/// The list of damaged copies.
pub const LOST: &str = "lost";
/// Temporary files that take as much room as content; removed when the store is opened.
pub const SCRATCH: &str = "scratch";
/// The folders that were delivered to.
pub const DELIVERED: &str = "delivered";

/// Every path in a store's folder, in parts; a capital letter stands for a name, an empty part for what a folder holds.
#[cfg(feature = "testing")]
pub const LAYOUT: [&[&str]; 26] = [
    &[PACKS, "AB", "ID.pack"],
    &[PACKS, OPEN, "ID.part"],
    &[PACKS, DAMAGED, ""],
    &[PACKS, UNSYNCED],
    &[PACKS, VERIFY_CURSOR],
    &[RELEASES, "APP", "N.record"],
    &[RELEASES, "APP", "N.removed"],
    &[RELEASES, "APP", "N.damaged"],
    &[RELEASES, "APP", "N.unreadable"],
    &[RELEASES, "APP", "RELEASE.pin"],
    &[RELEASES, "APP", "DESTINATION.shown"],
    &[RELEASES, "APP", "current", "N.current"],
    &[RELEASES, "APP", "labels", "LABEL.label"],
    &[RELEASES, "APP", "cached", "ROOT.cached"],
    &[RELEASES, "APP", "targets", "TARGET.target"],
    &[RELEASES, "APP", "groups", "GROUP.group"],
    &[RELEASES, "APP", "history"],
    &["manifests", "RELEASE.manifests"],
    &[INDEX, ""],
    &[INDEX_DAMAGED, ""],
    &[SCRATCH, ""],
    &[REBUILT, "HASH"],
    &[SKETCHES],
    &[INCOMPLETE],
    &[LOST],
    &[DELIVERED, "NAME.place"],
];
