//! A bucket of S3, or of a service that speaks like it: an object for each file below a prefix.

mod answer;
mod bucket;
mod credentials;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Deserializer};

use self::bucket::Bucket;
use super::bundle::{self, Bundle};
use super::driver::Driver;
use super::objects::{self, Options, Place, Service as _};
use super::secret::SecretFrom;
use super::web::{PATIENCE_SECONDS, Probe};
use super::{Check, Delivered, Destination, Error, Job, KeptCopy, Mistake, PLACEHOLDER, Preview};
use format::manifest::EntryPath;
use ground::ids::{AppName, ReleaseId};

/// The definition of an S3 destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    keys: Keys,
    options: Options,
}

/// Its own keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Keys {
    /// The bucket.
    bucket: String,
    /// What keys begin with; `{app}` stands for the application. A slash follows, unless it is empty.
    #[serde(default)]
    prefix: String,
    /// The address of the service; without it Amazon's in the region.
    endpoint: Option<String>,
    /// The region; without it that of the environment, of the profile, or us-east-1.
    region: Option<String>,
    /// Whether the bucket is in the path of addresses instead of their host; by default where there is an endpoint.
    path_style: Option<bool>,
    /// A file or variable with the access key's id; without it as AWS's tools find credentials.
    access_key: Option<SecretFrom>,
    /// A file or variable with the secret access key.
    secret_key: Option<SecretFrom>,
    /// The profile in AWS's files of credentials.
    profile: Option<String>,
    /// An address that must answer with the release's id.
    probe: Option<Probe>,
    /// How long it may take until it does.
    #[serde(default = "probe_seconds")]
    probe_seconds: u64,
    /// All of a release as one object, in this format.
    bundle: Option<Bundle>,
    /// The bundle's name below the prefix.
    #[serde(default = "name")]
    name: String,
}

fn probe_seconds() -> u64 {
    PATIENCE_SECONDS
}

fn name() -> String {
    "{app}-{release}.{format}".to_owned()
}

/// All keys, with those of [`Options`].
const KEYS: &[&str] = &[
    "bucket",
    "prefix",
    "endpoint",
    "region",
    "path_style",
    "access_key",
    "secret_key",
    "profile",
    "probe",
    "probe_seconds",
    "bundle",
    "name",
    "last",
    "keep",
    "keep_hours",
    "max_delete",
    "metadata",
    "links",
    "parallel",
    "stamp",
];

impl<'de> Deserialize<'de> for S3 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (keys, options) = objects::deserialize(deserializer, KEYS)?;
        Ok(Self { keys, options })
    }
}

impl S3 {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first key whose value is a mistake.
    pub fn check(&self) -> Result<(), (&'static str, Mistake)> {
        let Keys { bucket, endpoint, access_key, secret_key, profile, prefix, .. } = &self.keys;
        if bucket.is_empty() || bucket.contains(['/', '{', ' ']) {
            return Err((
                "bucket",
                Mistake::Keys("a bucket's name has no slash, brace or space, and is not empty"),
            ));
        }
        let is_url = |url: &String| {
            reqwest::Url::parse(url).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.username().is_empty()
                    && url.password().is_none()
            })
        };
        if let Some(url) = endpoint.as_ref().filter(|url| !is_url(url)) {
            return Err(("endpoint", Mistake::Url(url.clone())));
        }
        if access_key.is_some() != secret_key.is_some() {
            return Err(("access_key", Mistake::Keys("`access_key` and `secret_key` belong together")));
        }
        if access_key.is_some() && profile.is_some() {
            return Err(("profile", Mistake::Keys("`profile` and `access_key` exclude one another")));
        }
        let bad = |part: &str| part.is_empty() || part == "." || part == "..";
        if !prefix.is_empty() && prefix.trim_matches('/').split('/').any(bad) {
            return Err(("prefix", Mistake::Keys("a prefix has no empty parts, and none that is . or ..")));
        }
        self.options.check()
    }

    /// Creates the destination.
    pub fn open(&self) -> Arc<dyn Destination> {
        Arc::new(S3Destination { definition: self.clone(), driver: Driver::default() })
    }

    /// Returns what decides, beside a release, which objects are where.
    fn rules(&self) -> [u8; 32] {
        let Keys { bucket, endpoint, prefix, .. } = &self.keys;
        let endpoint = endpoint.as_deref().unwrap_or_default().trim_end_matches('/');
        self.options.rules(&format!("{endpoint} {bucket} {}", prefix.trim_matches('/')))
    }

    /// Returns what an application's keys begin with.
    fn prefix(&self, app: Option<&AppName>) -> String {
        let prefix = self.keys.prefix.trim_matches('/');
        let prefix = app.map_or_else(|| prefix.to_owned(), |app| prefix.replace(PLACEHOLDER, app.as_str()));
        if prefix.is_empty() { prefix } else { format!("{prefix}/") }
    }
}

/// A bucket that releases are written to.
#[derive(Debug)]
struct S3Destination {
    definition: S3,
    driver: Driver,
}

impl S3Destination {
    /// Returns the key of a job's bundle.
    fn key_of(&self, job: &Job<'_>, bundle: Bundle) -> String {
        let label = job.labels.first().map_or_else(|| job.release().short(), ToString::to_string);
        let name =
            bundle::name(&self.definition.keys.name, job.app.as_str(), &job.release().to_string(), &label);
        format!("{}{}", self.definition.prefix(Some(job.app)), name.replace("{format}", &bundle.to_string()))
    }

    fn with_place<T>(
        &self,
        job: &Job<'_>,
        work: impl FnOnce(&Place<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let S3 { keys, options } = &self.definition;
        let bucket = Bucket::open(keys, &self.driver, job.cancelled)?;
        let prefix = self.definition.prefix(Some(job.app));
        let probe = || {
            keys.probe
                .as_ref()
                .map_or(Ok(()), |probe| probe.find_plainly(&self.driver, job, keys.probe_seconds))
        };
        work(&Place {
            service: &bucket,
            options,
            prefix: &prefix,
            rules: self.definition.rules(),
            probe: &probe,
        })
    }
}

impl Destination for S3Destination {
    fn deliver(&self, job: &Job<'_>) -> Result<Delivered, Error> {
        self.with_place(job, |place| match self.definition.keys.bundle {
            None => objects::deliver(place, job),
            Some(bundle) => objects::deliver_bundle(place, job, bundle, &self.key_of(job, bundle)),
        })
    }

    fn plan(&self, job: &Job<'_>) -> Result<Preview, Error> {
        self.with_place(job, |place| match self.definition.keys.bundle {
            None => objects::plan(place, job),
            Some(bundle) => Ok(objects::plan_bundle(place, job, &self.key_of(job, bundle))),
        })
    }

    fn check(&self, cancelled: &AtomicBool) -> Vec<Check> {
        let bucket = Bucket::open(&self.definition.keys, &self.driver, cancelled);
        let mut checks = vec![Check::of("find the credentials", bucket.as_ref().map(|_| ()))];
        if let Ok(bucket) = bucket {
            let app = "whit-check".parse().expect("a name");
            checks.extend(objects::check(
                &bucket,
                &self.definition.options,
                &self.definition.prefix(Some(&app)),
                cancelled,
            ));
        }
        checks
    }

    fn kind(&self) -> &'static str {
        "s3"
    }

    fn rules(&self) -> [u8; 32] {
        self.definition.rules()
    }

    fn read_back(&self, app: &AppName, _release: &ReleaseId) -> Vec<Box<dyn KeptCopy>> {
        if self.definition.keys.bundle.is_some() {
            return Vec::new();
        }
        let definition = self.definition.clone();
        vec![Box::new(S3Copy { prefix: definition.prefix(Some(app)), definition, driver: Driver::default() })]
    }

    fn describe(&self, app: Option<&AppName>) -> String {
        format!("s3://{}/{}", self.definition.keys.bucket, self.definition.prefix(app))
    }
}

/// What a bucket has of an application.
struct S3Copy {
    definition: S3,
    driver: Driver,
    prefix: String,
}

impl KeptCopy for S3Copy {
    fn read(&self, path: &EntryPath, offset: u64, bytes: u32) -> Option<Vec<u8>> {
        let never = AtomicBool::new(false);
        let bucket = Bucket::open(&self.definition.keys, &self.driver, &never).ok()?;
        let path = std::str::from_utf8(path.as_bytes()).ok()?;
        bucket.read(&format!("{}{path}", self.prefix), offset, bytes)
    }
}
