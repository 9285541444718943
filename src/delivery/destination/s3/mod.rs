//! A bucket of S3, or of a service that speaks like it: an object for each file below a prefix.

mod answer;
mod bucket;
mod connection;
mod credentials;
mod parts;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Deserializer};

use self::bucket::Bucket;
use self::connection::Connection;
use super::bundle::{self, Bundle};
use super::driver::Driver;
use super::objects::{self, Options, Place, Service as _};
use super::secret::SecretFrom;
use super::web::{Client, ClientOptions};
use super::{Check, Delivered, Destination, Error, Job, KeptCopy, Mistake, PLACEHOLDER, Preview};
use format::manifest::EntryPath;
use ground::ids::{AppName, ReleaseId};

/// Seconds that one request may take, by default: a part over a link of 0.6 Mbit/s.
const TIMEOUT_SECONDS: u64 = 120;

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
    /// A bundle's name below the prefix.
    #[serde(default = "name")]
    name: String,
    /// A PEM file with certificates of authorities that sign the service's, besides the system's.
    ca_file: Option<PathBuf>,
    /// Seconds that one request may take.
    #[serde(default = "timeout")]
    timeout: u64,
}

fn timeout() -> u64 {
    TIMEOUT_SECONDS
}

fn name() -> String {
    "{app}-{release}.{format}".to_owned()
}

/// The names of [`Keys`].
const KEYS: &[&str] = &[
    "bucket",
    "prefix",
    "endpoint",
    "region",
    "path_style",
    "access_key",
    "secret_key",
    "profile",
    "name",
    "ca_file",
    "timeout",
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
        if self.keys.timeout == 0 {
            return Err(("timeout", Mistake::Nothing));
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

    fn connect(&self) -> Result<Connection, Error> {
        let S3 { keys, options } = &self.definition;
        Connection::open(keys, options.parallel, &self.driver)
    }

    fn with_place<T>(
        &self,
        job: &Job<'_>,
        work: impl FnOnce(&Place<'_>, &Job<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let S3 { keys, options } = &self.definition;
        let connection = self.connect()?;
        let bucket = Bucket::new(&connection, job.cancelled);
        let client = ClientOptions { ca_file: keys.ca_file.clone(), ..ClientOptions::default() };
        let client = Client::open(&client, &self.driver)?;
        let prefix = self.definition.prefix(Some(job.app));
        let key = options.bundle.map(|bundle| self.key_of(job, bundle)).unwrap_or_default();
        let rules = self.definition.rules();
        work(
            &Place { service: &bucket, options, prefix: &prefix, bundle_key: &key, rules, client: &client },
            job,
        )
    }
}

impl Destination for S3Destination {
    fn deliver(&self, job: &Job<'_>) -> Result<Delivered, Error> {
        self.with_place(job, objects::deliver)
    }

    fn plan(&self, job: &Job<'_>) -> Result<Preview, Error> {
        self.with_place(job, objects::plan)
    }

    fn check(&self, cancelled: &AtomicBool) -> Vec<Check> {
        let connection = self.connect();
        let mut checks = vec![Check::of("find the credentials", connection.as_ref().map(|_| ()))];
        if let Ok(connection) = connection {
            let app = "whit-check".parse().expect("a name");
            checks.extend(objects::check(
                &Bucket::new(&connection, cancelled),
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
        let connection = self.connect().ok().filter(|_| self.definition.options.bundle.is_none());
        let prefix = self.definition.prefix(Some(app));
        let copy = connection.map(|connection| S3Copy { connection, prefix });
        copy.into_iter().map(|copy| Box::new(copy) as Box<dyn KeptCopy>).collect()
    }

    /// All objects of the application, read in parallel.
    fn held(
        &self,
        app: &AppName,
        space: (&Path, u64),
        cancelled: &AtomicBool,
    ) -> Result<Option<PathBuf>, Error> {
        if self.definition.options.bundle.is_some() {
            return Ok(None);
        }
        let (connection, prefix) = (self.connect()?, self.definition.prefix(Some(app)));
        let bucket = Bucket::new(&connection, cancelled);
        let is_copied = objects::copy(&bucket, &self.definition.options, &prefix, space, cancelled)?;
        Ok(is_copied.then(|| space.0.to_owned()))
    }

    fn describe(&self, app: Option<&AppName>) -> String {
        format!("s3://{}/{}", self.definition.keys.bucket, self.definition.prefix(app))
    }
}

/// What a bucket has of an application.
struct S3Copy {
    connection: Connection,
    prefix: String,
}

impl KeptCopy for S3Copy {
    fn read(&self, path: &EntryPath, offset: u64, bytes: u32) -> Option<Vec<u8>> {
        let never = AtomicBool::new(false);
        let path = std::str::from_utf8(path.as_bytes()).ok()?;
        Bucket::new(&self.connection, &never).read(&format!("{}{path}", self.prefix), offset, bytes).ok()
    }
}
