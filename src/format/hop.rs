//! A proxy that a release came through, and on whose behalf.

use serde::{Deserialize, Serialize};

use ground::ids::UserName;
use ground::token_id::TokenId;

/// One hop of a release's way through a chain of proxies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The first bytes of the proxy's fingerprint.
    #[serde(with = "short_fingerprint")]
    pub proxy: [u8; 4],
    /// The user who pushed or delivered there.
    pub user: UserName,
    /// That user's token, if it is known.
    pub token: Option<TokenId>,
    /// The number of the release's record there.
    pub sequence: u64,
    /// The number of the delivery that passes it on: the same at each try. None from an older whit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<u64>,
}

impl Hop {
    /// Returns the proxy's eight digits, as they are shown.
    pub fn proxy_text(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.proxy))
    }
}

/// Eight digits where people read, 4 bytes where machines do.
mod short_fingerprint {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub fn serialize<S: Serializer>(proxy: &[u8; 4], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            format!("{:08x}", u32::from_be_bytes(*proxy)).serialize(serializer)
        } else {
            serializer.serialize_bytes(proxy)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 4], D::Error> {
        serde_bytes::ByteArray::<4>::deserialize(deserializer).map(|bytes| *bytes)
    }
}
