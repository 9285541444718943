//! Why the bytes of a push crossed, file by file.

use std::collections::BTreeMap;

use serde::Serialize;

use super::gather::{Older, Unit};
use super::keep::KeptReader;
use super::pack::is_dense;
use super::scan::{Holder, Located};
use crate::basis::Rule;
use crate::compression::{self, LEVEL_DEFAULT};
use crate::delta::Matcher;

/// Why chunks of a file crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing older was found that they resemble.
    New,
    /// What they resemble stood between the same neighbours.
    ChangedInPlace,
    /// They resemble the file of the same path.
    ChangedFile,
    /// They resemble the file of the most similar path.
    SimilarName,
    /// They are of an executable whose functions moved.
    MovedCode,
    /// They are compressed already, or look so.
    Incompressible,
}

/// What crossed for one file, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The file.
    pub path: String,
    /// Why.
    pub reason: Reason,
    /// What its chunks resemble.
    pub older: Option<String>,
    /// Plain bytes of the chunks that crossed.
    pub plain: u64,
    /// Bytes that crossed for them; files share frames, so this is their part by what each would take alone.
    pub sent: u64,
    /// What would have helped.
    pub advice: Option<&'static str>,
}

/// All of a push; keeps nothing unless asked to.
#[derive(Debug, Default)]
pub struct Explanation {
    files: BTreeMap<(String, Reason), Explained>,
}

impl Explanation {
    /// Adds what one unit gives.
    pub fn add(&mut self, explained: Vec<Explained>) {
        for part in explained {
            let key = (part.path.clone(), part.reason);
            let file =
                self.files.entry(key).or_insert_with(|| Explained { plain: 0, sent: 0, ..part.clone() });
            file.plain += part.plain;
            file.sent += part.sent;
        }
    }

    /// The files, what cost most first.
    pub fn finish(self) -> Vec<Explained> {
        let mut files: Vec<Explained> = self.files.into_values().collect();
        files.sort_by(|one, other| other.sent.cmp(&one.sent).then_with(|| one.path.cmp(&other.path)));
        files
    }
}

/// Explains a unit whose bytes are `plain`; what each file sends is still what it would take alone.
pub(super) fn of_unit(unit: &Unit, plain: &[u8], mut kept: Option<&mut KeptReader>) -> Vec<Explained> {
    let mut explained = Vec::new();
    let mut at = 0;
    let mut rest = plain;
    let mut resembled = unit.resembled.iter().peekable();
    while at < unit.chunks.len() {
        let like = resembled.next_if(|like| like.first == at);
        let next = resembled.peek().map_or(unit.chunks.len(), |next| next.first);
        let Located { path, holder, .. } = &unit.chunks[at];
        let same_file = unit.chunks[at..next].iter().take_while(|located| located.path == *path).count();
        let count = like.map_or(same_file, |like| like.count.min(same_file)).max(1);
        let length = unit.chunks[at..at + count].iter().map(|located| located.chunk.bytes as usize).sum();
        let (bytes, after) = rest.split_at(length);
        (rest, at) = (after, at + count);
        let (reason, alone) = match like.map(|like| (like.rule, &like.older)) {
            Some((rule, Older::Signed(_, signature))) => {
                let mut literals = Vec::new();
                let delta = Matcher::new(signature).delta(bytes, &mut literals);
                let mut encoded = Vec::new();
                delta.encode(&mut encoded);
                (reason_of(rule), encoded.len() + alone(&[], &literals))
            }
            Some((rule, Older::Kept(_, chunks))) => {
                let mut older = Vec::new();
                let read =
                    kept.as_mut().is_some_and(|kept| chunks.iter().all(|chunk| kept.read(chunk, &mut older)));
                (reason_of(rule), alone(if read { &older } else { &[] }, bytes))
            }
            None if is_dense(bytes) => (Reason::Incompressible, bytes.len()),
            None => (Reason::New, alone(&[], bytes)),
        };
        let path = path.to_string_lossy().into_owned();
        let advice = if *holder == Holder::File { advice(&path, reason) } else { None };
        let older = like.and_then(|like| like.older_path.clone());
        explained.push(Explained { path, reason, older, plain: length as u64, sent: alone as u64, advice });
    }
    explained
}

/// Gives each file its part of what the unit sent.
pub(super) fn settle(explained: &mut [Explained], sent: u64) {
    let alone: u64 = explained.iter().map(|file| file.sent).sum::<u64>().max(1);
    for file in explained {
        file.sent =
            u64::try_from(u128::from(file.sent) * u128::from(sent) / u128::from(alone)).unwrap_or(sent);
    }
}

fn alone(older: &[u8], bytes: &[u8]) -> usize {
    compression::compress_against(older, bytes, LEVEL_DEFAULT).len()
}

fn reason_of(rule: Rule) -> Reason {
    match rule {
        Rule::Neighbours => Reason::ChangedInPlace,
        Rule::Path => Reason::ChangedFile,
        Rule::Name => Reason::SimilarName,
        Rule::Nothing => Reason::New,
    }
}

/// Names of archives that are compressed as a whole.
const ARCHIVES: [&str; 9] = [".tgz", ".gz", ".zip", ".jar", ".war", ".whl", ".xz", ".zst", ".bz2"];

/// What would have saved bytes.
fn advice(path: &str, reason: Reason) -> Option<&'static str> {
    let is_archive = ARCHIVES.iter().any(|end| path.ends_with(end));
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_hashed = name.split(['.', '-', '_']).any(|word| {
        word.len() >= 8
            && word.bytes().all(|byte| byte.is_ascii_hexdigit())
            && word.bytes().any(|byte| byte.is_ascii_digit())
    });
    match reason {
        _ if is_archive => {
            Some("an archive compressed as a whole: push what is in it, or build it reproducibly")
        }
        Reason::Incompressible => Some("compressed or encrypted content: push it uncompressed"),
        Reason::New if is_hashed => Some("a hashed name that resembles none of the release before"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_share_what_was_sent_by_what_each_would_take() {
        let file = |path: &str, sent| Explained {
            path: path.to_owned(),
            reason: Reason::New,
            older: None,
            plain: 100,
            sent,
            advice: None,
        };
        let mut unit = vec![file("a", 10), file("b", 30)];
        settle(&mut unit, 20);
        let mut all = Explanation::default();
        all.add(unit.clone());
        all.add(unit);
        let told: Vec<(String, u64, u64)> =
            all.finish().into_iter().map(|file| (file.path, file.plain, file.sent)).collect();
        assert_eq!(told, [("b".to_owned(), 200, 30), ("a".to_owned(), 200, 10)]);
    }

    #[test]
    fn advice_is_given_where_something_can_be_done() {
        assert!(advice("lib/app.jar", Reason::New).is_some());
        assert!(advice("web/main.3f2a1b09.js", Reason::New).is_some());
        assert!(advice("web/main.js", Reason::ChangedInPlace).is_none());
    }
}
