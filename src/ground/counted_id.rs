//! Ids that count: the proxy that gave them, and a number.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id_error::Error;

macro_rules! counted_id {
    ($(#[$doc:meta])* $name:ident, $error:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            /// The first bytes of the proxy's fingerprint.
            pub proxy: [u8; 4],
            /// Counts those of the proxy; never given twice.
            pub number: u64,
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:08x}-{}", u32::from_be_bytes(self.proxy), self.number)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                match counted(text) {
                    Some((proxy, number)) => Ok(Self { proxy, number }),
                    None => Err($error(text.chars().take(80).collect())),
                }
            }
        }

        /// Text where people read, the 4 bytes and the number where machines do.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    (serde_bytes::ByteArray::new(self.proxy), self.number).serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    let (proxy, number) = <(serde_bytes::ByteArray<4>, u64)>::deserialize(deserializer)?;
                    Ok(Self { proxy: *proxy, number })
                }
            }
        }
    };
}

counted_id! {
    /// One delivery among those of all proxies: `5499220e-17`. Receivers tell repetitions by it.
    DeliveryId, Error::Delivery
}
counted_id! {
    /// One rollout among those of all proxies: `5499220e-17`.
    RolloutId, Error::Rollout
}

/// Reads the text of an id that counts: the proxy's digits, and a number.
fn counted(text: &str) -> Option<([u8; 4], u64)> {
    let (proxy, number) = text.split_once('-')?;
    let are_digits = number.bytes().all(|digit| digit.is_ascii_digit());
    if proxy.len() != 8 || !proxy.bytes().all(|digit| digit.is_ascii_hexdigit()) || !are_digits {
        return None;
    }
    Some((u32::from_str_radix(proxy, 16).ok()?.to_be_bytes(), number.parse().ok()?))
}
