//! An HTTP server: one PUT for each file below an address (`WebDAV`: nginx, Apache), or one request with all of a release.

mod webdav;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use self::webdav::WebDav;
use super::bundle;
use super::driver::Driver;
use super::objects::{self, Options, Place, Service as _};
use super::secret::SecretFrom;
use super::web::{Client, ClientOptions};
use super::{Check, Delivered, Destination, Error, Job, KeptCopy, Mistake, PLACEHOLDER, Preview};
use format::manifest::EntryPath;
use ground::ids::{AppName, ReleaseId};

/// Seconds without a byte after which a request has failed, by default.
const TIMEOUT_SECONDS: u64 = 60;

/// The definition of an HTTP destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    keys: Keys,
    options: Options,
}

/// Its own keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Keys {
    /// Where the files go; `{app}` stands for the application. Ends with a slash, or one is added.
    url: String,
    /// A file or variable with a token, sent as `Authorization: Bearer`.
    token: Option<SecretFrom>,
    /// The user of `Authorization: Basic`.
    user: Option<String>,
    /// A file or variable with that user's password.
    password: Option<SecretFrom>,
    /// A PEM file with the certificate, and its chain, that the server asks for.
    client_cert: Option<PathBuf>,
    /// A PEM file with the certificate's key.
    client_key: Option<PathBuf>,
    /// A PEM file with certificates of authorities that sign the server's, besides the system's.
    ca_file: Option<PathBuf>,
    /// Whether to follow redirects.
    #[serde(default)]
    redirects: bool,
    /// Seconds without a byte after which a request has failed.
    #[serde(default = "timeout")]
    timeout: u64,
    /// How a written file is verified.
    #[serde(default)]
    verify: Verify,
    /// How a bundle is sent.
    #[serde(default)]
    method: SendBy,
}

fn timeout() -> u64 {
    TIMEOUT_SECONDS
}

/// How a bundle is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum SendBy {
    /// In place of what the address has.
    #[default]
    #[serde(rename = "PUT")]
    Put,
    /// To a server that makes something of it.
    #[serde(rename = "POST")]
    Post,
}

/// How a written file is verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verify {
    /// By its size, and its tag if the server says one.
    #[default]
    Size,
    /// By reading it back.
    Content,
}

/// The names of [`Keys`].
const KEYS: &[&str] = &[
    "url",
    "token",
    "user",
    "password",
    "client_cert",
    "client_key",
    "ca_file",
    "redirects",
    "timeout",
    "verify",
    "method",
];

impl<'de> Deserialize<'de> for Http {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (keys, options) = objects::deserialize(deserializer, KEYS)?;
        Ok(Self { keys, options })
    }
}

impl Http {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first key whose value is a mistake.
    pub fn check(&self) -> Result<(), (&'static str, Mistake)> {
        let keys = &self.keys;
        let url = bundle::name(&keys.url, "app", "release", "label");
        let parsed = reqwest::Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        // A password in an address would be shown wherever the address is.
        let is_plain = |url: &reqwest::Url| {
            url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        };
        if !parsed.as_ref().is_some_and(is_plain) {
            return Err(("url", Mistake::Url(keys.url.clone())));
        }
        if keys.user.is_some() != keys.password.is_some() {
            return Err(("user", Mistake::Keys("`user` and `password` belong together")));
        }
        if keys.token.is_some() && keys.user.is_some() {
            return Err(("token", Mistake::Keys("`token` and `user` exclude one another")));
        }
        if keys.client_cert.is_some() != keys.client_key.is_some() {
            return Err(("client_cert", Mistake::Keys("`client_cert` and `client_key` belong together")));
        }
        if self.options.bundle.is_none() && keys.method == SendBy::Post {
            return Err(("method", Mistake::Keys("`method` is of a `bundle`")));
        }
        if self.options.bundle.is_none()
            && ["{release}", "{label}"].iter().any(|word| keys.url.contains(word))
        {
            return Err(("url", Mistake::Keys("`{release}` and `{label}` are of the address of a `bundle`")));
        }
        if keys.timeout == 0 {
            return Err(("timeout", Mistake::Nothing));
        }
        self.options.check()
    }

    /// Creates the destination.
    pub fn open(&self) -> Arc<dyn Destination> {
        Arc::new(HttpDestination { definition: self.clone(), driver: Driver::default() })
    }

    /// Returns what decides, beside a release, which files are where.
    fn rules(&self) -> [u8; 32] {
        self.options.rules(self.keys.url.trim_end_matches('/'))
    }

    /// Returns the address of an application's files, with a slash at its end.
    fn url(&self, app: Option<&AppName>) -> String {
        let url = self.keys.url.trim_end_matches('/');
        let url = app.map_or_else(|| url.to_owned(), |app| url.replace(PLACEHOLDER, app.as_str()));
        format!("{url}/")
    }
}

impl Keys {
    fn client(&self) -> ClientOptions {
        ClientOptions {
            token: self.token.clone(),
            user: self.user.clone().zip(self.password.clone()),
            certificate: self.client_cert.clone().zip(self.client_key.clone()),
            ca_file: self.ca_file.clone(),
            redirects: self.redirects,
            timeout: Some(Duration::from_secs(self.timeout)),
        }
    }
}

/// An HTTP server that releases are written to.
#[derive(Debug)]
struct HttpDestination {
    definition: Http,
    driver: Driver,
}

impl HttpDestination {
    /// Returns the address of a job's bundle.
    fn bundle_url(&self, job: &Job<'_>) -> String {
        let label = job.labels.first().map_or_else(|| job.release().short(), ToString::to_string);
        bundle::name(&self.definition.keys.url, job.app.as_str(), &job.release().to_string(), &label)
    }

    /// Makes the place of a job's files, and hands it to `work`.
    fn with_place<T>(
        &self,
        job: &Job<'_>,
        work: impl FnOnce(&Place<'_>, &Job<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Http { keys, options } = &self.definition;
        let client = Client::open(&keys.client(), &self.driver)?;
        let is_bundle = options.bundle.is_some();
        let base = if is_bundle { self.bundle_url(job) } else { self.definition.url(Some(job.app)) };
        let service = WebDav::new(&client, base, job.cancelled, keys.verify);
        let service = if keys.method == SendBy::Post { service.posting() } else { service };
        let rules = self.definition.rules();
        work(&Place { service: &service, options, prefix: "", bundle_key: "", rules, client: &client }, job)
    }
}

impl Destination for HttpDestination {
    fn deliver(&self, job: &Job<'_>) -> Result<Delivered, Error> {
        self.with_place(job, objects::deliver)
    }

    fn plan(&self, job: &Job<'_>) -> Result<Preview, Error> {
        self.with_place(job, objects::plan)
    }

    /// Writes, reads and removes a file of its own.
    fn check(&self, cancelled: &AtomicBool) -> Vec<Check> {
        let mut checks = Vec::new();
        let client = Client::open(&self.definition.keys.client(), &self.driver);
        checks.push(Check::of("read the credentials", client.as_ref().map(|_| ())));
        let Ok(client) = client else { return checks };
        let app = "whit-check".parse().expect("a name");
        let service =
            WebDav::new(&client, self.definition.url(Some(&app)), cancelled, self.definition.keys.verify);
        checks.extend(objects::check(&service, &self.definition.options, "", cancelled));
        checks
    }

    fn kind(&self) -> &'static str {
        "http"
    }

    fn rules(&self) -> [u8; 32] {
        self.definition.rules()
    }

    /// Files that were changed since are found by their hashes, by whoever reads.
    fn read_back(&self, app: &AppName, _release: &ReleaseId) -> Vec<Box<dyn KeptCopy>> {
        let Http { keys, options } = &self.definition;
        let client = Client::open(&keys.client(), &self.driver).ok().filter(|_| options.bundle.is_none());
        let copy = client.map(|client| HttpCopy { client, url: self.definition.url(Some(app)) });
        copy.into_iter().map(|copy| Box::new(copy) as Box<dyn KeptCopy>).collect()
    }

    fn describe(&self, app: Option<&AppName>) -> String {
        match (self.definition.options.bundle, app) {
            (None, app) => self.definition.url(app),
            (Some(_), None) => self.definition.keys.url.clone(),
            (Some(_), Some(app)) => self.definition.keys.url.replace(PLACEHOLDER, app.as_str()),
        }
    }
}

/// What a server shows of an application.
struct HttpCopy {
    client: Client,
    url: String,
}

impl KeptCopy for HttpCopy {
    fn read(&self, path: &EntryPath, offset: u64, bytes: u32) -> Option<Vec<u8>> {
        let never = AtomicBool::new(false);
        let service = WebDav::new(&self.client, self.url.clone(), &never, Verify::Size);
        service.read(std::str::from_utf8(path.as_bytes()).ok()?, offset, bytes).ok()
    }
}
