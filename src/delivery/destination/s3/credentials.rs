//! Credentials as AWS's tools find them: given ones, the environment, the files of profiles, then what the machine offers (web
//! identity, container, instance).

use std::collections::HashMap;
use std::path::PathBuf;

use object_store::aws::AmazonS3Builder;

use super::super::Error;
use super::Keys;
use disk::files;

/// The longest file of profiles.
const PROFILES_BYTES_MAX: u64 = 1024 * 1024;

/// Gives a builder credentials and region.
///
/// # Errors
/// Something that the definition names cannot be read.
pub(super) fn apply(builder: AmazonS3Builder, keys: &Keys) -> Result<AmazonS3Builder, Error> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let profile = keys.profile.clone().or_else(|| variable("AWS_PROFILE"));
    let config = section(files_of("AWS_CONFIG_FILE", ".aws/config"), profile.as_deref(), true)?;
    let region =
        keys.region.clone().or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
    let region = region.or_else(|| config.get("region").cloned());
    let builder = builder.with_region(region.unwrap_or_else(|| "us-east-1".to_owned()));
    if let Some((id, secret)) = keys.access_key.as_ref().zip(keys.secret_key.as_ref()) {
        return Ok(builder
            .with_access_key_id(id.read()?.reveal())
            .with_secret_access_key(secret.read()?.reveal()));
    }
    let is_in_environment = variable("AWS_ACCESS_KEY_ID").is_some() && keys.profile.is_none();
    if is_in_environment {
        return Ok(builder);
    }
    let mut found =
        section(files_of("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), profile.as_deref(), false)?;
    if !found.contains_key("aws_access_key_id") {
        found.extend(config);
    }
    match (found.get("aws_access_key_id"), found.get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => {
            let builder = builder.with_access_key_id(id).with_secret_access_key(secret);
            Ok(match found.get("aws_session_token") {
                Some(token) => builder.with_token(token),
                None => builder,
            })
        }
        _ => match &keys.profile {
            None => Ok(builder),
            Some(profile) => Err(Error::Secret {
                name: format!("profile `{profile}`"),
                reason: "is not in AWS's files of credentials, or has no keys there".to_owned(),
            }),
        },
    }
}

/// The file that a variable names, or the usual one.
fn files_of(variable: &str, below_home: &str) -> Option<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from);
    given.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(below_home)))
}

/// Reads one section of an INI file: `[NAME]`, or `[profile NAME]` where the file is one of settings.
fn section(
    path: Option<PathBuf>,
    profile: Option<&str>,
    of_settings: bool,
) -> Result<HashMap<String, String>, Error> {
    let Some(bytes) = path.map(|path| files::read_if_there(&path, PROFILES_BYTES_MAX)).transpose()?.flatten()
    else {
        return Ok(HashMap::new());
    };
    let profile = profile.unwrap_or("default");
    let text = String::from_utf8_lossy(&bytes);
    Ok(values(&text, |name| {
        name == profile
            || (of_settings && name.strip_prefix("profile").is_some_and(|name| name.trim() == profile))
    }))
}

/// Returns the values of the sections whose names fit.
fn values(text: &str, fits: impl Fn(&str) -> bool) -> HashMap<String, String> {
    let (mut found, mut inside) = (HashMap::new(), false);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            inside = fits(name.trim());
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
            found.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let text = "[default]\naws_access_key_id = a\n# region = x\n[profile other]\naws_access_key_id=b\nregion = eu\n";
        assert_eq!(
            values(text, |name| name == "default"),
            HashMap::from([("aws_access_key_id".to_owned(), "a".to_owned())])
        );
        assert_eq!(values(text, |name| name == "profile other")["region"], "eu");
        assert!(values("no section = 1", |_| true).is_empty());
    }
}
