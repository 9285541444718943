//! Small values: a byte with the version of their form, then MessagePack, and for some a check of both (FORMAT 4, 5).

use std::ops::RangeInclusive;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first bytes of the BLAKE3 of all before them.
const CHECK_BYTES: usize = 16;

/// Why bytes are no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoValue {
    /// The bytes are damaged.
    Damaged,
    /// A newer whit wrote them, in this version.
    Version(u8),
}

/// Encodes a value without a check.
pub fn encode(version: u8, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![version];
    rmp_serde::encode::write(&mut bytes, value).expect("a Vec takes every write");
    bytes
}

/// Decodes a value of one of these versions.
///
/// # Errors
/// The bytes are no such value.
pub fn decode<T: DeserializeOwned>(versions: RangeInclusive<u8>, bytes: &[u8]) -> Result<T, NoValue> {
    match bytes.split_first() {
        Some((version, value)) if versions.contains(version) => {
            rmp_serde::from_slice(value).map_err(|_| NoValue::Damaged)
        }
        Some((&version, _)) => Err(NoValue::Version(version)),
        None => Err(NoValue::Damaged),
    }
}

/// Encodes a value with a check.
pub fn encode_checked(version: u8, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = encode(version, value);
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    bytes
}

/// Decodes a value of one of these versions, with a check.
///
/// # Errors
/// The bytes are no such value. A version is only believed where the check is right.
pub fn decode_checked<T: DeserializeOwned>(versions: RangeInclusive<u8>, bytes: &[u8]) -> Result<T, NoValue> {
    let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(NoValue::Damaged)?;
    if blake3::hash(body).as_bytes()[..CHECK_BYTES] != check[..] {
        return Err(NoValue::Damaged);
    }
    decode(versions, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_known_version_is_read_and_a_later_one_is_not_taken_for_damage() {
        let bytes = encode(2, &("web", 7));
        assert_eq!(decode(1..=2, &bytes), Ok(("web".to_owned(), 7)));
        assert_eq!(decode::<(String, u8)>(1..=1, &bytes), Err(NoValue::Version(2)));
        assert_eq!(decode::<(String, u8)>(1..=2, &[]), Err(NoValue::Damaged));
        assert_eq!(decode::<(String, u8)>(1..=2, &bytes[..3]), Err(NoValue::Damaged));
        assert_eq!(
            decode_checked::<(String, u8)>(1..=1, &encode_checked(2, &("web", 7))),
            Err(NoValue::Version(2))
        );
    }

    #[test]
    fn a_value_with_a_check_is_whole_or_none() {
        let bytes = encode_checked(1, &("web", 7));
        assert_eq!(decode_checked(1..=1, &bytes), Ok(("web".to_owned(), 7)));
        let read = |bytes: &[u8]| decode_checked::<(String, u8)>(1..=1, bytes);
        assert!((0..bytes.len()).all(|length| read(&bytes[..length]) == Err(NoValue::Damaged)));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(read(&changed), Err(NoValue::Damaged), "{at}");
        }
    }
}
