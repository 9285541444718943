//! The keys that destinations of objects share.

use std::time::Duration;

use globset::{Glob, GlobBuilder, GlobMatcher};
use serde::{Deserialize, Deserializer};

use super::super::Mistake;
use super::super::bundle::Bundle;
use super::super::web::{PATIENCE_SECONDS, Probe};
use super::service::Metadata;

/// Requests at a time, by default.
const PARALLEL_DEFAULT: usize = 8;
/// The most requests at a time: each holds up to a part of 8 MiB.
const PARALLEL_MAX: usize = 64;

/// How the files of a release become objects.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Entry points: they change after all other files.
    pub last: Vec<FilePattern>,
    /// Files that only older releases have stay for this number of releases, the current one included.
    pub keep: usize,
    /// They stay as well for this number of hours after their release was replaced.
    pub keep_hours: u64,
    /// The most files of the current release that a delivery may remove: a number, or a percentage of them.
    pub max_delete: Option<MaxDelete>,
    /// Metadata of files; where several rules fit, later ones win.
    pub metadata: Vec<MetadataRule>,
    /// How symbolic links become objects.
    pub links: LinkForm,
    /// Requests at a time.
    pub parallel: usize,
    /// A file that is written last, and holds the id of the release.
    pub stamp: Option<String>,
    /// An address that must answer with the release's id.
    pub probe: Option<Probe>,
    /// Seconds that it may take until it does.
    pub probe_seconds: u64,
    /// All of a release as one object, in this format.
    pub bundle: Option<Bundle>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            last: Vec::new(),
            keep: 1,
            keep_hours: 0,
            max_delete: None,
            metadata: Vec::new(),
            links: LinkForm::Follow,
            parallel: PARALLEL_DEFAULT,
            stamp: None,
            probe: None,
            probe_seconds: PATIENCE_SECONDS,
            bundle: None,
        }
    }
}

/// How symbolic links become objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkForm {
    /// As copies of the files that they lead to; one that leads to no file of the release fails the delivery.
    Follow,
    /// Not at all; the report says how many.
    Skip,
}

/// Metadata of files that match one of the patterns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataRule {
    /// Which files.
    pub files: Vec<FilePattern>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Type`, in place of what the file's name says.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
}

/// A pattern of files: without a slash of their names (`*.html`), with one of whole paths (`assets/**`).
#[derive(Debug, Clone)]
pub struct FilePattern {
    matcher: GlobMatcher,
    of_name: bool,
}

impl FilePattern {
    fn new(text: &str) -> Result<Self, globset::Error> {
        let of_name = !text.contains('/');
        let glob: Glob = GlobBuilder::new(text.trim_start_matches('/')).literal_separator(true).build()?;
        Ok(Self { matcher: glob.compile_matcher(), of_name })
    }

    /// Returns whether the file at `path` matches.
    pub fn matches(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.matcher.is_match(if self.of_name { name } else { path })
    }

    fn as_str(&self) -> &str {
        self.matcher.glob().glob()
    }
}

impl PartialEq for FilePattern {
    fn eq(&self, other: &Self) -> bool {
        (self.as_str(), self.of_name) == (other.as_str(), other.of_name)
    }
}

impl Eq for FilePattern {}

impl<'de> Deserialize<'de> for FilePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text)
            .map_err(|error| serde::de::Error::custom(format!("`{text}` is not a pattern: {error}")))
    }
}

/// The most files that a delivery may remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxDelete {
    /// A number of files.
    Files(u64),
    /// A number of each hundred files.
    Percent(u64),
}

impl MaxDelete {
    /// Returns whether `deleted` of `files` are too many.
    pub fn is_exceeded(self, deleted: u64, files: u64) -> bool {
        match self {
            Self::Files(most) => deleted > most,
            Self::Percent(most) => u128::from(deleted) * 100 > u128::from(most) * u128::from(files),
        }
    }
}

impl std::fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files(most) => write!(f, "{most}"),
            Self::Percent(most) => write!(f, "{most}%"),
        }
    }
}

impl<'de> Deserialize<'de> for MaxDelete {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let refuse = |text: &str| {
            serde::de::Error::custom(format!(
                "`{text}` is neither a number of files nor a percentage like \"20%\""
            ))
        };
        match Written::deserialize(deserializer)? {
            Written::Number(files) => Ok(Self::Files(files)),
            Written::Text(text) => {
                let percent = text.strip_suffix('%').and_then(|digits| digits.trim().parse().ok());
                percent.filter(|percent| *percent <= 100).map(Self::Percent).ok_or_else(|| refuse(&text))
            }
        }
    }
}

impl Options {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first key whose value is a mistake.
    pub fn check(&self) -> Result<(), (&'static str, Mistake)> {
        if self.keep == 0 {
            return Err(("keep", Mistake::Nothing));
        }
        if self.parallel == 0 || self.parallel > PARALLEL_MAX {
            return Err(("parallel", Mistake::Range { least: 1, most: PARALLEL_MAX }));
        }
        let texts = self
            .metadata
            .iter()
            .flat_map(|rule| [&rule.cache_control, &rule.content_type, &rule.content_encoding]);
        let is_header = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        match texts.flatten().find(|text| !is_header(text)) {
            Some(text) => Err(("metadata", Mistake::Header(text.clone()))),
            None => Ok(()),
        }
    }

    /// Returns how long files of a replaced release stay.
    pub fn keep_time(&self) -> Duration {
        Duration::from_secs(self.keep_hours.saturating_mul(3600))
    }

    /// Returns whether a file is an entry point.
    pub fn is_last(&self, path: &str) -> bool {
        self.last.iter().any(|pattern| pattern.matches(path)) || self.stamp.as_deref() == Some(path)
    }

    /// Returns the metadata of a file.
    pub fn metadata_of(&self, path: &str) -> Metadata {
        let guessed = mime_guess::from_path(path).first_or_octet_stream();
        let mut content_type = guessed.essence_str().to_owned();
        if guessed.type_() == "text" {
            content_type.push_str("; charset=utf-8");
        }
        let mut metadata = Metadata { content_type, ..Metadata::default() };
        for rule in self.metadata.iter().filter(|rule| rule.files.iter().any(|files| files.matches(path))) {
            if let Some(content_type) = &rule.content_type {
                (metadata.content_type, metadata.is_type_ruled) = (content_type.clone(), true);
            }
            metadata.cache_control = rule.cache_control.clone().or(metadata.cache_control);
            metadata.content_encoding = rule.content_encoding.clone().or(metadata.content_encoding);
        }
        metadata
    }

    /// Returns what decides, beside a release, which objects are where: 16 bytes of a hash of the place, then as many of one of
    /// the metadata, the forms of links, and the order in which a delivery's steps are counted.
    pub fn rules(&self, place: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        text(if self.links == LinkForm::Skip { "skip" } else { "copy" });
        for pattern in &self.last {
            text(if pattern.of_name { "last name" } else { "last path" });
            text(pattern.as_str());
        }
        for rule in &self.metadata {
            for pattern in &rule.files {
                text(if pattern.of_name { "name" } else { "path" });
                text(pattern.as_str());
            }
            for value in [&rule.cache_control, &rule.content_type, &rule.content_encoding] {
                text(value.as_deref().unwrap_or("\0"));
            }
        }
        let mut rules = *hasher.finalize().as_bytes();
        rules[..PLACE_BYTES].copy_from_slice(&blake3::hash(place.as_bytes()).as_bytes()[..PLACE_BYTES]);
        rules
    }
}

/// Bytes of [`Options::rules`] that tell places apart.
const PLACE_BYTES: usize = 16;

/// Returns whether two deliveries with these rules were to the same place.
pub fn is_same_place(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one[..PLACE_BYTES] == other[..PLACE_BYTES]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        toml::from_str(text).expect("options")
    }

    #[test]
    fn a_pattern_without_a_slash_is_of_names_and_one_with_a_slash_of_paths() {
        let options = options("last = ['*.html', '/sw.js', 'app/*.json', 'assets/**']");
        for path in ["index.html", "a/b/index.html", "sw.js", "app/a.json", "assets/a/b.png"] {
            assert!(options.is_last(path), "{path}");
        }
        for path in ["a.htm", "a/sw.js", "app/a/b.json", "x/assets/a"] {
            assert!(!options.is_last(path), "{path}");
        }
    }

    #[test]
    fn later_rules_win_and_each_change_of_a_rule_is_another_hash() {
        let text = "[[metadata]]\nfiles = ['*']\ncache_control = 'max-age=60'\n[[metadata]]\nfiles = ['*.html']\ncache_control = 'no-cache'\n";
        let both = options(text);
        assert_eq!(both.metadata_of("a.js").cache_control.as_deref(), Some("max-age=60"));
        let html = both.metadata_of("a/b.html");
        assert_eq!(html.cache_control.as_deref(), Some("no-cache"));
        assert_eq!((html.content_type.as_str(), html.is_type_ruled), ("text/html; charset=utf-8", false));
        assert_eq!(both.metadata_of("no-extension").content_type, "application/octet-stream");
        let rules = both.rules("here");
        let mut others = vec![both.rules("there")];
        for other in
            [text.replace("60", "61"), format!("last = ['a']\n{text}"), format!("links = 'skip'\n{text}")]
        {
            others.push(options(&other).rules("here"));
        }
        assert!(others.iter().all(|other| *other != rules));
        let places: Vec<bool> = others.iter().map(|other| is_same_place(other, &rules)).collect();
        assert_eq!(places, [false, true, true, true]);
    }

    #[test]
    fn the_most_deletions_are_a_number_or_a_percentage() {
        let most = |text: &str| options(text).max_delete.expect("given");
        assert!(
            !most("max_delete = '20%'").is_exceeded(2, 10) && most("max_delete = '20%'").is_exceeded(3, 10)
        );
        assert!(!most("max_delete = 5").is_exceeded(5, 10) && most("max_delete = 5").is_exceeded(6, 10));
        for bad in
            ["max_delete = 'x'", "max_delete = '120%'", "max_delete = -1", "last = ['a[']", "keep = 'x'"]
        {
            assert!(toml::from_str::<Options>(bad).is_err(), "{bad}");
        }
        assert!(options("keep = 0").check().is_err() && options("parallel = 65").check().is_err());
        assert!(Options::default().check().is_ok());
    }
}
