//! The head of a request: what a proxy reads before it knows who asks.

use serde::Deserialize;

use super::{Refusal, check_version};

/// The first byte of a [`Request`](super::Request) in MessagePack.
const ARRAY_OF_THREE: u8 = 0x93;

/// The beginning of a [`Request`](super::Request): all that a proxy reads of it before it knows the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// As in [`Request`](super::Request).
    pub version: u16,
    /// As in [`Request`](super::Request).
    pub token: String,
}

impl RequestHead {
    /// Compares the version with ours.
    ///
    /// # Errors
    /// A refusal that says which version this side speaks.
    pub fn check_version(&self) -> Result<(), Refusal> {
        check_version(self.version)
    }

    /// Reads the beginning of a message; none where it is cut before the token's end, or is no request's.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (&ARRAY_OF_THREE, fields) = bytes.split_first()? else { return None };
        let mut fields = rmp_serde::Deserializer::from_read_ref(fields);
        let version = u16::deserialize(&mut fields).ok()?;
        let token = String::deserialize(&mut fields).ok()?;
        Some(Self { version, token })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Operation, Request, VERSION};
    use super::*;

    #[test]
    fn a_request_is_known_by_its_beginning_and_by_no_less() {
        let request = Request::new("whit1.abc.def", &Operation::Applications);
        let bytes = rmp_serde::to_vec(&request).expect("bytes");
        let end = bytes.len() - request.operation.len() - 2;
        let expected = RequestHead { version: VERSION, token: request.token };
        for cut in end..=bytes.len() {
            assert_eq!(RequestHead::read(&bytes[..cut]).as_ref(), Some(&expected), "cut at {cut}");
        }
        for cut in 0..end {
            assert_eq!(RequestHead::read(&bytes[..cut]), None, "cut at {cut}");
        }
        let long = Request::new(&"x".repeat(4096), &Operation::Applications);
        let bytes = rmp_serde::to_vec(&long).expect("bytes");
        let bytes = &bytes[..ground::limits::REQUEST_HEAD_BYTES_MAX];
        assert!(RequestHead::read(bytes).is_some_and(|head| head.token.len() == 4096));
    }
}
