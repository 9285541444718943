//! A delivery that has not ended, as it is written down.

use serde::{Deserialize, Serialize};

use ground::ids::{AppName, DestinationName, ReleaseId, SpaceName, UserName};

/// First byte of a delivery's value (FORMAT 5).
const VERSION: u8 = 1;

/// One delivery, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The space of the release.
    pub space: SpaceName,
    /// Its application.
    pub app: AppName,
    /// The release to deliver.
    pub release: ReleaseId,
    /// The destination.
    pub destination: DestinationName,
    /// The user who asked for it; none in those that an older whit wrote down.
    #[serde(default)]
    pub user: Option<UserName>,
}

impl Delivery {
    /// Encodes a delivery.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        rmp_serde::encode::write(&mut bytes, self).expect("a Vec takes every write");
        bytes
    }

    /// Decodes a delivery; none if the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&VERSION, delivery)) => rmp_serde::from_slice(delivery).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_that_an_older_version_wrote_down_is_nobodys() {
        let delivery = Delivery {
            space: "shop".parse().expect("a name"),
            app: "web".parse().expect("a name"),
            release: ReleaseId::of(b"a root"),
            destination: "edge".parse().expect("a name"),
            user: None,
        };
        let Delivery { space, app, release, destination, .. } = &delivery;
        let older = rmp_serde::to_vec(&(space, app, release, destination)).expect("bytes");
        assert_eq!(Delivery::decode(&[&[VERSION], older.as_slice()].concat()), Some(delivery));
    }
}
