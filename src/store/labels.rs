//! The meanings of labels: those that records give, and the meanings that were given or taken away later.

use std::collections::{BTreeMap, HashSet};

use super::history::Pushed;
use format::current::LabelMeaning;
use ground::ids::{Label, ReleaseId};

/// The meanings of an application's labels that were given or taken away after their pushes.
#[derive(Debug, Clone, Default)]
pub struct Labels(BTreeMap<Label, LabelMeaning>);

impl Labels {
    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether labels mean what records say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a label was given or taken away after its push.
    pub fn has(&self, label: &Label) -> bool {
        self.0.contains_key(label)
    }

    /// Notes what a label means from now on.
    pub fn set(&mut self, label: Label, meaning: LabelMeaning) {
        self.0.insert(label, meaning);
    }

    /// Notes that a label means again what records say.
    pub fn forget(&mut self, label: &Label) {
        self.0.remove(label);
    }

    /// Returns whether the label in a record counts: nobody has said otherwise since.
    fn counts(&self, label: &Label, sequence: u64) -> bool {
        self.0.get(label).is_none_or(|meaning| sequence > meaning.after)
    }

    /// Returns the push that a label names; `pushed` are the application's, oldest first.
    pub fn find<'a>(&self, label: &Label, pushed: &'a [Pushed]) -> Option<&'a Pushed> {
        self.by_record(label, pushed).or_else(|| {
            let named = self.0.get(label)?.release?;
            pushed.iter().rev().find(|pushed| pushed.release == named)
        })
    }

    /// Returns the release that a label names.
    pub fn release(&self, label: &Label, pushed: &[Pushed]) -> Option<ReleaseId> {
        self.find(label, pushed).map(|pushed| pushed.release)
    }

    /// Returns the newest push whose record gives the label and counts.
    fn by_record<'a>(&self, label: &Label, pushed: &'a [Pushed]) -> Option<&'a Pushed> {
        let mut given = pushed.iter().rev().take_while(|pushed| self.counts(label, pushed.sequence));
        given.find(|pushed| pushed.labels.contains(label))
    }

    /// Returns the labels that mean a release although no record that counts gives them to it.
    pub fn given_to(&self, release: &ReleaseId, pushed: &[Pushed]) -> Vec<Label> {
        let named = self.0.iter().filter(|(_, meaning)| meaning.release == Some(*release));
        let still = named.filter(|(label, _)| self.by_record(label, pushed).is_none());
        still.map(|(label, _)| label.clone()).collect()
    }

    /// Returns the labels that a record shows: those it was given that count, and, on the newest record of a release, those
    /// that the release was given later.
    pub fn of(&self, given: &[Label], one: &Pushed, pushed: &[Pushed]) -> Vec<Label> {
        let mut labels: Vec<Label> =
            given.iter().filter(|label| self.counts(label, one.sequence)).cloned().collect();
        let newest = pushed.iter().rev().find(|other| other.release == one.release);
        if newest.is_some_and(|newest| newest.sequence == one.sequence) {
            labels.extend(self.given_to(&one.release, pushed));
        }
        labels
    }

    /// Returns pushes with the labels that they show. Time O(pushes + labels).
    pub fn applied(&self, pushed: &[Pushed]) -> Vec<Pushed> {
        let mut all = pushed.to_vec();
        if self.is_empty() {
            return all;
        }
        let superseded: HashSet<&Label> = pushed
            .iter()
            .flat_map(|pushed| pushed.labels.iter().map(move |label| (label, pushed.sequence)))
            .filter(|(label, sequence)| self.has(label) && self.counts(label, *sequence))
            .map(|(label, _)| label)
            .collect();
        let mut later: BTreeMap<ReleaseId, Vec<Label>> = BTreeMap::new();
        for (label, meaning) in &self.0 {
            if let Some(release) = meaning.release.filter(|_| !superseded.contains(label)) {
                later.entry(release).or_default().push(label.clone());
            }
        }
        for one in all.iter_mut().rev() {
            let counting = one.labels.iter().filter(|label| self.counts(label, one.sequence)).cloned();
            let mut labels: Vec<Label> = counting.collect();
            // The newest record of a release comes first here.
            labels.extend(later.remove(&one.release).unwrap_or_default());
            one.labels = labels.into();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Label {
        text.parse().expect("a word")
    }

    fn release(content: &str) -> ReleaseId {
        ReleaseId::of(content.as_bytes())
    }

    /// Pushes of some content under some labels each.
    fn pushes(all: &[(&str, &[&str])]) -> Vec<Pushed> {
        let pushed = |(sequence, (content, labels)): (u64, &(&str, &[&str]))| Pushed {
            sequence,
            created: 0,
            release: release(content),
            labels: labels.iter().map(|text| label(text)).collect(),
        };
        (1..).zip(all).map(pushed).collect()
    }

    fn labels(all: &[(&str, Option<&str>, u64)]) -> Labels {
        let mut labels = Labels::default();
        for (text, content, after) in all {
            let user = "ada".parse().expect("a name");
            let meaning = LabelMeaning { release: content.map(release), after: *after, user, time: 0 };
            labels.set(label(text), meaning);
        }
        labels
    }

    #[test]
    fn a_label_means_what_was_said_of_it_last() {
        let pushed = pushes(&[("a", &["v1", "prod"]), ("b", &["v2"]), ("a", &[]), ("c", &["prod"])]);
        let none = Labels::default();
        assert_eq!(none.release(&label("prod"), &pushed), Some(release("c")));
        assert_eq!(none.release(&label("v1"), &pushed), Some(release("a")));
        // Moved after the second push; the fourth push gives it again.
        let moved =
            labels(&[("prod", Some("b"), 2), ("v1", None, 3), ("new", Some("b"), 4), ("x", Some("z"), 4)]);
        assert_eq!(moved.release(&label("prod"), &pushed), Some(release("c")));
        assert_eq!(moved.release(&label("prod"), &pushed[..3]), Some(release("b")));
        assert_eq!(moved.release(&label("v1"), &pushed), None);
        assert_eq!(moved.release(&label("new"), &pushed), Some(release("b")));
        assert_eq!(moved.release(&label("x"), &pushed), None, "no record has that release");
        for pushed in [&pushed[..], &pushed[..3]] {
            let applied = moved.applied(pushed);
            for (one, shown) in pushed.iter().zip(&applied) {
                assert_eq!(moved.of(&one.labels, one, pushed), shown.labels.to_vec(), "{one:?}");
            }
        }
        let shown = |applied: Vec<Pushed>| -> Vec<String> {
            let words =
                applied.iter().map(|one| one.labels.iter().map(Label::as_str).collect::<Vec<_>>().join(" "));
            words.collect()
        };
        assert_eq!(shown(moved.applied(&pushed)), ["", "v2 new", "", "prod"]);
        assert_eq!(shown(moved.applied(&pushed[..3])), ["", "v2 new prod", ""]);
        assert_eq!(shown(none.applied(&pushed)), ["v1 prod", "v2", "", "prod"]);
    }

    #[test]
    fn a_label_of_a_release_that_was_pushed_again_is_shown_once() {
        let pushed = pushes(&[("a", &["v1"]), ("a", &["v1"]), ("b", &[])]);
        let given = labels(&[("v1", Some("a"), 2)]);
        assert_eq!(given.given_to(&release("a"), &pushed), [label("v1")]);
        let shown: Vec<usize> = given.applied(&pushed).iter().map(|one| one.labels.len()).collect();
        assert_eq!(shown, [0, 1, 0]);
    }
}
