//! The records that the receiver lacks, once the sender knows which it has.

use super::answer::{Agreed, RecordIndex, take_back};
use super::assembly::Assembly;
use super::frame::{compress, decompress};
use super::layout::Layout;
use super::normalised::{Error, Normalised, Skeleton};
use super::numbers::Cursor;
use super::record_names::NAMES_MAX;
use super::records::Records;
use super::targets;
use ground::leb128;

/// The first byte of the head: the format has room for failed runs of groups of records, which no sender offers.
const NO_GROUPS: u8 = 0;

/// The records that the receiver lacks, the layout and all targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// A zero and the runs of claims that failed, compressed.
    head: Vec<u8>,
    head_bytes: usize,
    /// The lengths of unseen runs, the layout, and the unseen records, compressed with the known ones as
    /// prefix.
    body: Vec<u8>,
    body_bytes: usize,
    targets: Vec<u8>,
}

impl Payload {
    /// Encodes the part of `new` that `agreed` lacks; `records` are those of `new`. Memory beside `new`: its known part,
    /// which is freed before zstd runs, and zstd's own.
    pub fn new(mut new: Normalised, records: &Records, agreed: &Agreed, level: i32) -> Self {
        let mut head = vec![NO_GROUPS];
        leb128::write(agreed.failed.len() as u64, &mut head);
        for run in &agreed.failed {
            leb128::write(*run as u64, &mut head);
        }
        let mut assembly = Assembly::default();
        for (record, known) in agreed.known.iter().enumerate() {
            let place = records.place(record);
            if *known { assembly.known(place) } else { assembly.unseen(place) }
        }
        let mut body = Vec::new();
        assembly.unseen_places().for_each(|run| leb128::write(run.len() as u64, &mut body));
        new.layout.encode(&mut body);
        assembly.gather_unseen(new.stream(), &mut body).expect("records lie in their stream");
        let known = assembly.gather_known(new.stream()).expect("records lie in their stream");
        new.drop_body();
        Self {
            head: compress(&[], &head, level),
            head_bytes: head.len(),
            body: compress(&known, &body, level),
            body_bytes: body.len(),
            targets: targets::encode(&new.known(), &new.targets, None),
        }
    }

    /// Encodes it: two parts, each after varints of its plain and compressed bytes, then the targets.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.body.len() + self.targets.len() + self.head.len() + 16);
        for (part, plain_bytes) in [(&self.head, self.head_bytes), (&self.body, self.body_bytes)] {
            leb128::write(plain_bytes as u64, &mut bytes);
            leb128::write(part.len() as u64, &mut bytes);
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&self.targets);
        bytes
    }

    /// Decodes a payload; `None` if it is malformed.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let mut part = || {
            let plain_bytes = cursor.size()?;
            let bytes = cursor.size()?;
            Some((cursor.take(bytes)?.to_vec(), plain_bytes))
        };
        let ((head, head_bytes), (body, body_bytes)) = (part()?, part()?);
        Some(Self { head, head_bytes, body, body_bytes, targets: cursor.rest().to_vec() })
    }
}

/// Rebuilds the new file from the older one and a payload; the caller checks its hash.
///
/// `claimed` is what [`RecordIndex::answer`] returned. Memory: about 2.5 times the larger file, the older one
/// included; a multiple of `bytes_max` at most, whatever the payload says.
///
/// # Errors
/// The payload contradicts itself or the answers, or the file would be larger than `bytes_max`.
pub fn rebuild(
    index: RecordIndex,
    claimed: &[Option<usize>],
    payload: &Payload,
    bytes_max: usize,
) -> Result<Vec<u8>, Error> {
    // The stream adds a few bytes to each function, the layout some more.
    let stream_bytes_max = bytes_max.saturating_mul(2);
    for bytes in [payload.body_bytes, payload.head_bytes] {
        if bytes > stream_bytes_max {
            return Err(Error::Bytes(bytes));
        }
    }
    let assembly = assembly(&index, claimed, payload).ok_or(Error::Parts)?;
    if assembly.known_bytes() > stream_bytes_max {
        return Err(Error::Bytes(assembly.known_bytes()));
    }
    let (stream, layout) = streams(index, &assembly, payload).ok_or(Error::Parts)?;
    let skeleton = Skeleton::new(&stream, &layout, bytes_max)?;
    drop(stream);
    let targets = targets::decode(&skeleton.known(), &payload.targets, None, skeleton.targets_max());
    skeleton.finish(&targets.ok_or(Error::Parts)?)
}

/// Returns the runs of the new file's stream, from the answer and the payload's head.
fn assembly(index: &RecordIndex, claimed: &[Option<usize>], payload: &Payload) -> Option<Assembly> {
    if payload.head_bytes > 2 * NAMES_MAX {
        return None;
    }
    let head = decompress(&[], &payload.head, payload.head_bytes)?;
    let mut cursor = Cursor::new(&head);
    cursor.byte().filter(|groups| *groups == NO_GROUPS)?;
    let count = cursor.size()?;
    let failed: Option<Vec<usize>> = (0..count).map(|_| cursor.size()).collect();
    let mut claims: Vec<bool> = claimed.iter().map(Option::is_some).collect();
    take_back(&mut claims, &failed?);
    let mut assembly = Assembly::default();
    for (record, claim) in claimed.iter().zip(claims) {
        match record.filter(|_| claim) {
            Some(record) => assembly.known(index.records.place(record)),
            None => assembly.unseen(0..0),
        }
    }
    cursor.rest().is_empty().then_some(assembly)
}

/// Returns the new file's stream and layout.
fn streams(index: RecordIndex, assembly: &Assembly, payload: &Payload) -> Option<(Vec<u8>, Layout)> {
    let known = assembly.gather_known(index.reference.stream())?;
    drop(index);
    let body = decompress(&known, &payload.body, payload.body_bytes)?;
    let mut cursor = Cursor::new(&body);
    let lengths: Option<Vec<usize>> = assembly.unseen_places().map(|_| cursor.size()).collect();
    let layout = Layout::decode(&mut cursor)?;
    let stream = assembly.join(&known, lengths?.into_iter(), cursor.rest())?;
    Some((stream, layout))
}
