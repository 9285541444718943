//! The bytes of a record (FORMAT 4): a version, the record in MessagePack, and a check of both.

use super::Records;
use format::record::Record;

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 16;

/// The reason why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRecord {
    /// The bytes are damaged.
    Damaged,
    /// A newer whit wrote them, in this version.
    Version(u8),
}

impl Records {
    /// Encodes a record.
    pub fn encode(record: &Record) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        rmp_serde::encode::write(&mut bytes, record).expect("a Vec takes every write");
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
        bytes
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// The bytes are not a record.
    pub fn decode(bytes: &[u8]) -> Result<Record, NoRecord> {
        let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(NoRecord::Damaged)?;
        if blake3::hash(body).as_bytes()[..CHECK_BYTES] != check[..] {
            return Err(NoRecord::Damaged);
        }
        match body.split_first() {
            Some((&VERSION, record)) => rmp_serde::from_slice(record).map_err(|_| NoRecord::Damaged),
            Some((&version, _)) => Err(NoRecord::Version(version)),
            None => Err(NoRecord::Damaged),
        }
    }
}
