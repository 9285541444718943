//! Definitions whose keys are a kind's own and those of [`Options`] together.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::options::Options;

/// The keys of [`Options`].
const SHARED: [&str; 8] =
    ["last", "keep", "keep_hours", "max_delete", "metadata", "links", "parallel", "stamp"];

/// Reads a definition: `K` has the keys in `all` that [`Options`] has not.
///
/// # Errors
/// A key that is not in `all`, or a value that does not fit.
pub fn deserialize<'de, K: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
    all: &'static [&'static str],
) -> Result<(K, Options), D::Error> {
    let mut own = toml::Table::deserialize(deserializer)?;
    if let Some(unknown) = own.keys().find(|key| !all.contains(&key.as_str())) {
        return Err(D::Error::unknown_field(unknown, all));
    }
    let shared = SHARED.into_iter().filter_map(|key| own.remove_entry(key)).collect::<toml::Table>();
    let fails = |error: toml::de::Error| D::Error::custom(error.message());
    Ok((own.try_into().map_err(fails)?, shared.try_into().map_err(fails)?))
}
