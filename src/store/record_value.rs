//! The bytes of a record (FORMAT 4).

use super::Records;
use format::record::Record;
use format::value::{self, NoValue};

const VERSION: u8 = 1;

impl Records {
    /// Encodes a record.
    pub fn encode(record: &Record) -> Vec<u8> {
        value::encode_checked(VERSION, record)
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// The bytes are not a record.
    pub fn decode(bytes: &[u8]) -> Result<Record, NoValue> {
        value::decode_checked(VERSION..=VERSION, bytes)
    }
}
