//! Reports of collecting, verifying and removing.

use serde::{Deserialize, Serialize};

use crate::record::Record;
use ground::ids::{AppName, Label, ReleaseId, Selector};

/// The result of a garbage collection, real or dry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Packs examined.
    pub packs: u64,
    /// Packs removed, as nothing or little in them was live.
    pub packs_removed: u64,
    /// Chunks that releases name.
    pub live_chunks: u64,
    /// Chunks removed from disk.
    pub removed_chunks: u64,
    /// Bytes of disk freed, less those of rewritten chunks.
    pub reclaimed_bytes: u64,
    /// Chunks that no release names and that stay for now, in packs that are mostly live.
    pub dead_chunks_left: u64,
    /// True if unused chunks remain because pushes under way may need them; the next run removes them.
    pub waits_for_pushes: bool,
    /// Releases whose manifests, and pushes whose records, cannot be read. Nothing is removed while there are any, as their
    /// chunks are unknown.
    pub unreadable: u64,
    /// Packs that were not rewritten, as the disk has no room for their live chunks.
    pub packs_without_room: u64,
}

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The file: a pack, a record, a kept archive.
    pub file: String,
    /// The offset in it, in bytes.
    pub offset: u64,
    /// The damage.
    pub what: String,
    /// Chunks lost, as far as is known.
    pub chunks: u64,
}

/// A release that lacks chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incomplete {
    /// The application.
    pub app: AppName,
    /// The release.
    pub release: ReleaseId,
    /// Chunks of content that are gone; none where parts of the manifest itself are gone.
    pub missing_chunks: Option<u64>,
}

/// The result of a verification pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Packs read.
    pub packs: u64,
    /// Chunks hashed.
    pub chunks: u64,
    /// Bytes read.
    pub bytes: u64,
    /// True if the pass reached the end; otherwise the next one continues from there.
    pub finished: bool,
    /// The damaged places.
    pub damaged: Vec<Damage>,
    /// Packs set aside.
    pub set_aside: u64,
    /// Entries that the index lacked and now has.
    pub indexed: u64,
    /// Chunks healed from delivered copies.
    pub healed_chunks: u64,
    /// Damaged records of pushes that could not be repaired and were given up.
    pub records_let_go: u64,
    /// Releases that lack chunks, after all repairs.
    pub incomplete: Vec<Incomplete>,
}

/// A release that was removed, or would be, and the effect on labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The push that was named.
    pub record: Record,
    /// Pushes of the same content to the application, that one included: all of them go.
    pub pushes: u64,
    /// Labels that mean this release.
    pub labels: Vec<LabelFate>,
    /// The application's latest release afterwards, if there is one.
    pub latest: Option<ReleaseId>,
    /// True if it was removed.
    pub removed: bool,
}

/// A label that loses its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelFate {
    /// The label.
    pub label: Label,
    /// The latest push that gave it.
    pub sequence: u64,
    /// Its release afterwards: an older one, or none.
    pub then: Option<ReleaseId>,
    /// True if the user named the release by it.
    pub named: bool,
}

impl Removal {
    /// Finds what is removed with `record`, which `selector` means; `records` are the application's, oldest first.
    pub fn of(records: &[Record], selector: &Selector, record: Record) -> Self {
        let goes = |other: &&Record| other.release == record.release;
        let newest = |label: &Label, among: &dyn Fn(&Record) -> bool| {
            records.iter().rfind(|record| among(record) && record.labels.contains(label))
        };
        let mut labels: Vec<LabelFate> = Vec::new();
        for label in records.iter().filter(goes).flat_map(|record| &record.labels) {
            let is_listed = labels.iter().any(|listed| listed.label == *label);
            let Some(means) = newest(label, &|_| true).filter(|means| goes(means)) else { continue };
            if !is_listed {
                let named = selector.at.as_ref() == Some(label);
                let then = newest(label, &|other| !goes(&other)).map(|record| record.release);
                labels.push(LabelFate { label: label.clone(), sequence: means.sequence, then, named });
            }
        }
        labels.sort_by_key(|fate| fate.sequence);
        let pushes = records.iter().filter(goes).count() as u64;
        let latest = records.iter().rfind(|other| !goes(other)).map(|record| record.release);
        Self { record, pushes, labels, latest, removed: false }
    }

    /// Returns whether more would go than the user named: other labels, where the release was named by a label; or labels
    /// that would then mean an older release.
    pub fn takes_more(&self) -> bool {
        let by_label = self.labels.iter().any(|fate| fate.named);
        self.labels.iter().any(|fate| !fate.named && (by_label || fate.then.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Totals;
    use crate::record::Cost;
    use ground::ids::ChunkId;

    fn release(content: &str) -> ReleaseId {
        ChunkId::of(content.as_bytes()).into()
    }

    /// Pushes, each of some content under some labels.
    fn records(pushes: &[(&str, &[&str])]) -> Vec<Record> {
        let record = |(sequence, (content, labels)): (u64, &(&str, &[&str]))| Record {
            app: "web".parse().expect("a name"),
            release: release(content),
            sequence,
            created: 0,
            user: "ada".parse().expect("a name"),
            labels: labels.iter().map(|label| label.parse().expect("a word")).collect(),
            totals: Totals::default(),
            cost: Cost::default(),
            behalf: Vec::new(),
        };
        (1..).zip(pushes).map(record).collect()
    }

    fn removal(records: &[Record], at: &str) -> Removal {
        let selector: Selector = format!("web@{at}").parse().expect("a selector");
        let record = records.iter().rfind(|record| record.is_meant_by(&selector)).expect("it is there");
        Removal::of(records, &selector, record.clone())
    }

    #[test]
    fn what_goes_beside_a_label_is_every_other_label_that_means_the_release() {
        let records = records(&[("a", &["v1", "old"]), ("b", &["old"]), ("a", &["prod"]), ("c", &[])]);
        let found = removal(&records, "v1");
        let fate = |label: &str, sequence, named| {
            let label = label.parse().expect("a word");
            LabelFate { label, sequence, then: None, named }
        };
        let fates = [fate("v1", 1, true), fate("prod", 3, false)];
        assert_eq!((&found.labels[..], found.pushes, found.latest), (&fates[..], 2, Some(release("c"))));
        assert!(found.takes_more(), "`prod` was not named");
        let found = removal(&records, "old");
        assert_eq!((found.labels[0].then, found.record.release), (Some(release("a")), release("b")));
        assert!(!found.takes_more());
    }

    #[test]
    fn an_id_takes_the_labels_that_end_and_none_that_would_mean_something_older() {
        let id = release("b").to_string();
        let ends = records(&[("a", &["v1"]), ("b", &["v2"])]);
        let found = removal(&ends, &id);
        assert_eq!((found.labels.len(), found.latest), (1, Some(release("a"))));
        assert!(!found.takes_more());
        let jumps = records(&[("a", &["v1", "prod"]), ("b", &["v2", "prod"])]);
        let found = removal(&jumps, &id[..8]);
        assert_eq!(found.labels[1].then, Some(release("a")));
        assert!(found.takes_more());
    }
}
