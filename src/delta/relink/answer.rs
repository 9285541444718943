//! The answer to record names: one bit for each, and checks of what the bits claim.
//!
//! Names are short, so that one may match by chance. The answer carries a check over the full hashes of every run of
//! claims; the sender, who knows them too, takes back the claims of a run whose check fails.

use ground::leb128;
use std::collections::HashMap;

use blake3::Hash;

use super::normalised::Normalised;
use super::numbers::Cursor;
use super::record_names::{NAMES_MAX, Name, RecordNames, name};
use super::records::Records;

/// Claims that share one check.
const RUN: usize = 64;
/// Bytes of a check.
const CHECK_BYTES: usize = 2;

/// The older file's records by their names, to answer and to rebuild from.
#[derive(Debug, Clone)]
pub struct RecordIndex {
    /// The older file.
    pub(super) reference: Normalised,
    /// Its records.
    pub(super) records: Records,
    names: HashMap<Name, usize>,
}

impl RecordIndex {
    /// Builds the table of names. Memory: 40 B for each.
    pub fn new(reference: Normalised, records: Records) -> Self {
        Self { names: records.hashes().iter().map(name).zip(0..).collect(), reference, records }
    }

    /// Answers names; also returns for each the older file's record of that name.
    pub fn answer(&self, names: &RecordNames) -> (Answer, Vec<Option<usize>>) {
        let known: Vec<Option<usize>> =
            names.names().iter().map(|name| self.names.get(name).copied()).collect();
        let claims = known.iter().map(Option::is_some).collect();
        let claimed: Vec<&Hash> =
            known.iter().flatten().map(|record| &self.records.hashes()[*record]).collect();
        let checks = claimed.chunks(RUN).map(check).collect();
        (Answer { claims, checks }, known)
    }
}

fn check(run: &[&Hash]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for hash in run {
        hasher.update(hash.as_bytes());
    }
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than a check")
}

/// The records of the new file that the older file has, verified by both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreed {
    /// For each record, true if the older file has it.
    pub known: Vec<bool>,
    /// The runs of claims whose check failed, in rising order.
    pub(super) failed: Vec<usize>,
}

/// Claims which of the new file's records the older file has, by their short names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    claims: Vec<bool>,
    checks: Vec<[u8; CHECK_BYTES]>,
}

impl Answer {
    /// Encodes it: the number of names, a bit for each, then the checks.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.claims.len() / 8 + CHECK_BYTES * self.checks.len() + 8);
        leb128::write(self.claims.len() as u64, &mut bytes);
        let byte = |claims: &[bool]| claims.iter().rev().fold(0, |byte, claim| byte << 1 | u8::from(*claim));
        bytes.extend(self.claims.chunks(8).map(byte));
        bytes.extend_from_slice(self.checks.as_flattened());
        bytes
    }

    /// Decodes an answer; `None` if it is malformed or has more than [`NAMES_MAX`] bits.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let count = cursor.size().filter(|count| *count <= NAMES_MAX)?;
        let bits = cursor.take(count.div_ceil(8))?;
        let claims: Vec<bool> =
            bits.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).take(count).collect();
        let (checks, rest) = cursor.rest().as_chunks();
        let claimed = claims.iter().filter(|claim| **claim).count();
        (checks.len() == claimed.div_ceil(RUN) && rest.is_empty())
            .then(|| Self { claims, checks: checks.to_vec() })
    }

    /// Checks the claims against the records' full hashes, in the order of their names.
    ///
    /// `None` if the answer is to other names.
    pub fn agreed(&self, hashes: &[Hash]) -> Option<Agreed> {
        if hashes.len() != self.claims.len() {
            return None;
        }
        let claimed: Vec<&Hash> =
            hashes.iter().zip(&self.claims).filter(|(_, claim)| **claim).map(|(hash, _)| hash).collect();
        let failed: Vec<usize> = claimed
            .chunks(RUN)
            .zip(&self.checks)
            .enumerate()
            .filter(|(_, (run, expected))| check(run) != **expected)
            .map(|(number, _)| number)
            .collect();
        let mut known = self.claims.clone();
        take_back(&mut known, &failed);
        Some(Agreed { known, failed })
    }
}

/// Clears the claims of the runs that failed.
pub(super) fn take_back(claims: &mut [bool], failed: &[usize]) {
    for (claimed, claim) in claims.iter_mut().filter(|claim| **claim).enumerate() {
        *claim = failed.binary_search(&(claimed / RUN)).is_err();
    }
}
