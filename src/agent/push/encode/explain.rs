//! Explains, file by file, why the bytes of a push crossed.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use super::batcher::{Batch, DeltaReference};
use crate::agent::chunk_cache::CacheReader;
use crate::agent::scan::{Holder, Located};
use delta::compression::{self, LEVEL_DEFAULT};
use delta::probe;
use delta::rsync::Matcher;
use delta::similar::Rule;
use ground::escape;

/// Why chunks of a file crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing older was found that they resemble.
    New,
    /// They resemble content that stood between the same neighbours.
    ChangedInPlace,
    /// They resemble the file of the same path.
    ChangedFile,
    /// They resemble the file of the most similar path.
    SimilarName,
    /// They resemble content of the space that was found by a sketch.
    SimilarContent,
    /// They are of an executable whose functions moved.
    MovedCode,
    /// They are compressed already, or look so.
    Incompressible,
    /// The proxy confirmed them once and has evicted them.
    Evicted,
}

/// The bytes that crossed for one file, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The file.
    pub path: String,
    /// Why.
    pub reason: Reason,
    /// The older file that its chunks resemble.
    pub older: Option<String>,
    /// The number of regions: runs of chunks with one reason each.
    pub regions: u64,
    /// Plain bytes of the chunks that crossed.
    pub plain: u64,
    /// Bytes that crossed for them; files share frames, so this is its share by what each file would take alone.
    pub sent: u64,
    /// Says how to save these bytes.
    pub advice: Option<&'static str>,
}

/// The explanation of a whole push.
#[derive(Debug, Default)]
pub struct Explanation {
    files: BTreeMap<(String, Reason), Explained>,
}

impl Explanation {
    /// Adds the files of one batch.
    pub fn add(&mut self, explained: Vec<Explained>) {
        for part in explained {
            let key = (part.path.clone(), part.reason);
            let file = self.files.entry(key).or_insert_with(|| Explained {
                regions: 0,
                plain: 0,
                sent: 0,
                ..part.clone()
            });
            file.regions += part.regions;
            file.plain += part.plain;
            file.sent += part.sent;
        }
    }

    /// Returns the files, the most expensive first.
    pub fn finish(self) -> Vec<Explained> {
        let mut files: Vec<Explained> = self.files.into_values().collect();
        files.sort_by(|one, other| other.sent.cmp(&one.sent).then_with(|| one.path.cmp(&other.path)));
        files
    }
}

/// Explains a batch whose bytes are `plain`. Each file's `sent` is what it would take alone, until [`settle`].
pub fn of_batch(batch: &Batch, plain: &[u8], mut cached: Option<&mut CacheReader>) -> Vec<Explained> {
    let mut explained = Vec::new();
    let mut at = 0;
    let mut rest = plain;
    let mut matches = batch.matches.iter().peekable();
    while at < batch.chunks.len() {
        let like = matches.next_if(|like| like.first == at);
        let next = matches.peek().map_or(batch.chunks.len(), |next| next.first);
        let Located { path, holder, offset, chunk, .. } = &batch.chunks[at];
        let is_evicted = batch.evicted.contains(&chunk.id);
        let alike = |located: &&Located| {
            located.path == *path && batch.evicted.contains(&located.chunk.id) == is_evicted
        };
        let alike = batch.chunks[at..next].iter().take_while(alike).count();
        let count = like.map_or(alike, |like| like.count.min(alike)).max(1);
        let length = batch.chunks[at..at + count].iter().map(|located| located.chunk.bytes as usize).sum();
        let (bytes, after) = rest.split_at(length);
        (rest, at) = (after, at + count);
        let mut older = Vec::new();
        let (reason, alone) = match like.map(|like| (like.rule, &like.older)) {
            Some((rule, DeltaReference::BlockSums(_, signature))) => {
                let mut literals = Vec::new();
                let delta = Matcher::new(signature).delta(bytes, &mut literals);
                let mut encoded = Vec::new();
                delta.encode(&mut encoded);
                (reason_of(rule), encoded.len() + alone(&[], &literals))
            }
            Some((rule, DeltaReference::Cached(_, chunks))) => {
                let read = cached
                    .as_mut()
                    .is_some_and(|cached| chunks.iter().all(|chunk| cached.read(chunk, &mut older)));
                (reason_of(rule), alone(if read { &older } else { &[] }, bytes))
            }
            None if probe::is_dense(bytes, 0) => (Reason::Incompressible, bytes.len()),
            None => (Reason::New, alone(&[], bytes)),
        };
        let reason = if is_evicted { Reason::Evicted } else { reason };
        let path = escape::json_path(path.as_os_str().as_bytes());
        let by_content = || {
            let is_begin = *offset == 0 && *holder == Holder::File;
            advice_of_content(&older, bytes, is_begin)
        };
        let by_name = || if *holder == Holder::File { advice_of_name(&path, reason) } else { None };
        let advice = match reason {
            Reason::Evicted => Some(KEEP_MORE),
            _ => by_content().or_else(by_name),
        };
        let older = like.and_then(|like| like.path.clone());
        let (plain, sent) = (length as u64, alone as u64);
        explained.push(Explained { path, reason, older, regions: 1, plain, sent, advice });
    }
    explained
}

/// Shares the bytes that the batch sent among its files.
pub fn settle(explained: &mut [Explained], sent: u64) {
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
        Rule::Content => Reason::SimilarContent,
        Rule::Nothing => Reason::New,
    }
}

/// Names of archives that are compressed as a whole.
const ARCHIVES: [&str; 9] = [".tgz", ".gz", ".zip", ".jar", ".war", ".whl", ".xz", ".zst", ".bz2"];

const KEEP_MORE: &str = "the proxy has evicted the older version: keep more releases there, or pin one";
const TIME_INSIDE: &str = "a gzip file with a timestamp: build it with `gzip -n`";
const NUMBERS_DIFFER: &str =
    "only digits differ, as in a timestamp or a build number: SOURCE_DATE_EPOCH may fix it";

/// Returns advice by the file's name.
fn advice_of_name(path: &str, reason: Reason) -> Option<&'static str> {
    let is_archive = ARCHIVES.iter().any(|end| path.ends_with(end));
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_hashed = name.split(['.', '-', '_']).any(|word| {
        word.len() >= 8
            && word.bytes().all(|byte| byte.is_ascii_hexdigit())
            && word.bytes().any(|byte| byte.is_ascii_digit())
    });
    match reason {
        _ if is_archive => {
            Some("an archive compressed as a whole: push its content, or build it reproducibly")
        }
        Reason::Incompressible => Some("compressed or encrypted content: push it uncompressed"),
        Reason::New if is_hashed => Some("a hashed name that no file of the previous release resembles"),
        _ => None,
    }
}

/// Returns advice by how the content differs from the older one; `is_begin` says that it is the file's beginning.
fn advice_of_content(older: &[u8], bytes: &[u8], is_begin: bool) -> Option<&'static str> {
    // RFC 1952, section 2.3: two bytes of magic, deflate, flags, four bytes of time.
    if is_begin && bytes.starts_with(&[0x1f, 0x8b, 8]) && bytes.get(4..8).is_some_and(|time| time != [0; 4]) {
        return Some(TIME_INSIDE);
    }
    if older.len() != bytes.len() || older == bytes {
        return None;
    }
    let mut differ = older.iter().zip(bytes).filter(|(old, new)| old != new);
    differ.all(|(old, new)| old.is_ascii_digit() && new.is_ascii_digit()).then_some(NUMBERS_DIFFER)
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
            regions: 1,
            plain: 100,
            sent,
            advice: None,
        };
        let mut batch = vec![file("a", 10), file("b", 30)];
        settle(&mut batch, 20);
        let mut all = Explanation::default();
        all.add(batch.clone());
        all.add(batch);
        let rows: Vec<(String, u64, u64)> =
            all.finish().into_iter().map(|file| (file.path, file.plain, file.sent)).collect();
        assert_eq!(rows, [("b".to_owned(), 200, 30), ("a".to_owned(), 200, 10)]);
    }

    #[test]
    fn advice_is_given_where_something_can_be_done() {
        assert!(advice_of_name("lib/app.jar", Reason::New).is_some());
        assert!(advice_of_name("web/main.3f2a1b09.js", Reason::New).is_some());
        assert!(advice_of_name("web/main.js", Reason::ChangedInPlace).is_none());
    }

    #[test]
    fn times_are_seen_in_what_differs() {
        let (old, new) = (b"built 2024-01-09 by make", b"built 2025-11-30 by make");
        assert_eq!(advice_of_content(old, new, false), Some(NUMBERS_DIFFER));
        assert_eq!(advice_of_content(old, b"built 2024-01-09 by ninj", false), None);
        assert_eq!(advice_of_content(old, old, false), None);
        assert_eq!(advice_of_content(&[], new, true), None);
        let gzip = |time| [0x1f, 0x8b, 8, 0, time, 0, 0, 0, 0, 3, 9];
        assert_eq!(advice_of_content(&[], &gzip(1), true), Some(TIME_INSIDE));
        assert_eq!(advice_of_content(&[], &gzip(1), false), None);
        assert_eq!(advice_of_content(&[], &gzip(0), true), None);
    }
}
