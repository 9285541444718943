//! Definitions whose keys are a kind's own and those of [`Options`] together.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::options::Options;

/// The keys of [`Options`].
const SHARED: [&str; 11] = [
    "last",
    "keep",
    "keep_hours",
    "max_delete",
    "metadata",
    "links",
    "parallel",
    "stamp",
    "probe",
    "probe_seconds",
    "bundle",
];

/// Reads a definition: `K` has the keys in `own_keys`.
///
/// # Errors
/// A key that is neither there nor in [`Options`], or a value that does not fit.
pub fn deserialize<'de, K: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
    own_keys: &[&str],
) -> Result<(K, Options), D::Error> {
    let mut own = toml::Table::deserialize(deserializer)?;
    let all = || own_keys.iter().chain(&SHARED);
    if let Some(unknown) = own.keys().find(|key| all().all(|known| known != key)) {
        let known: Vec<String> = all().map(|key| format!("`{key}`")).collect();
        let known = known.join(", ");
        return Err(D::Error::custom(format!("unknown field `{unknown}`, expected one of {known}")));
    }
    let shared = SHARED.into_iter().filter_map(|key| own.remove_entry(key)).collect::<toml::Table>();
    let fails = |error: toml::de::Error| D::Error::custom(error.message());
    Ok((own.try_into().map_err(fails)?, shared.try_into().map_err(fails)?))
}
