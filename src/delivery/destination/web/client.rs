//! An HTTP client with a definition's credentials, deadlines and faults.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::tls::{Certificate, Identity};
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::time::timeout;

use super::super::Error;
use super::super::driver::Driver;
use super::super::secret::{Secret, SecretFrom};
use super::certificates::advice;
use crate::net::link::use_our_cryptography;
use disk::files;
use ground::escape;
use ground::faults::Fault;

/// The time without a byte after which a request has failed, by default.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// The time that a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The longest wait that a service may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// The most redirects in a row, where they are allowed.
const REDIRECTS_MAX: usize = 5;
/// The longest certificate file.
const PEM_BYTES_MAX: u64 = 1024 * 1024;
/// The most bytes of an answer that are read for people.
const ANSWER_BYTES_MAX: usize = 512;

/// What stands for a secret.
const HIDDEN: &str = "…";

/// What a client shows of itself, and what it accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// Sent as `Authorization: Bearer`.
    pub token: Option<SecretFrom>,
    /// The user and password of `Authorization: Basic`.
    pub user: Option<(String, SecretFrom)>,
    /// PEM files with a certificate and its chain, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A PEM file with authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether redirects are followed.
    pub redirects: bool,
    /// The time without a byte after which a request has failed; a minute without it.
    pub timeout: Option<Duration>,
}

/// A client of one service.
pub struct Client {
    http: reqwest::Client,
    driver: Driver,
    authorization: Option<Authorization>,
    requests: AtomicU64,
    /// The time without a byte after which a request has failed.
    pub timeout: Duration,
}

enum Authorization {
    Bearer(Secret),
    Basic { user: String, password: Secret },
}

impl Client {
    /// Reads credentials and certificates.
    ///
    /// # Errors
    /// [`Error::Secret`], or a file that cannot be read.
    pub fn open(options: &ClientOptions, driver: &Driver) -> Result<Self, Error> {
        let authorization = match (&options.token, &options.user) {
            (Some(token), _) => Some(Authorization::Bearer(token.read()?)),
            (None, Some((user, password))) => {
                Some(Authorization::Basic { user: user.clone(), password: password.read()? })
            }
            (None, None) => None,
        };
        let timeout = options.timeout.unwrap_or(ANSWER_TIME);
        let redirects = if options.redirects { Policy::limited(REDIRECTS_MAX) } else { Policy::none() };
        use_our_cryptography();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("whit/", env!("CARGO_PKG_VERSION")))
            .redirect(redirects)
            .connect_timeout(CONNECT_TIME);
        if let Some(path) = &options.ca_file {
            let found = authorities(path, Certificate::from_pem_bundle)?;
            builder = builder.tls_certs_merge(found);
        }
        if let Some((cert, key)) = &options.certificate {
            let mut pem = files::read_bounded(key, PEM_BYTES_MAX)?;
            pem.push(b'\n');
            pem.extend(files::read_bounded(cert, PEM_BYTES_MAX)?);
            let identity = Identity::from_pem(&pem);
            builder =
                builder.identity(identity.map_err(|_| bad_pem(cert, "and its key are no pair in PEM"))?);
        }
        let http = builder.build().map_err(|error| Error::Service {
            what: "the HTTP client".to_owned(),
            reason: unanswered(&error.without_url()).1,
            fault: Fault::Input,
            retry_after: None,
        })?;
        Ok(Self { http, driver: driver.clone(), authorization, requests: AtomicU64::new(0), timeout })
    }

    /// Returns the number of requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Begins a request, with credentials.
    pub fn request(&self, method: reqwest::Method, url: &str) -> RequestBuilder {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let request = self.http.request(method, url);
        match &self.authorization {
            None => request,
            Some(Authorization::Bearer(token)) => request.bearer_auth(token.reveal()),
            Some(Authorization::Basic { user, password }) => {
                request.basic_auth(user, Some(password.reveal()))
            }
        }
    }

    /// Begins a request without credentials.
    pub fn anonymous(&self, url: &str) -> RequestBuilder {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.http.get(url)
    }

    /// The runtime of its requests.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Sends a request and waits for the head of its answer, whatever its status.
    ///
    /// # Errors
    /// There is no answer; `what` names the request in the error.
    pub fn answer(
        &self,
        what: &str,
        request: RequestBuilder,
        cancelled: &AtomicBool,
    ) -> Result<Response, Error> {
        self.driver.run(cancelled, async { received(what, timeout(self.timeout, request.send()).await) })
    }

    /// As [`Client::answer`]; a status that is no success is an error.
    ///
    /// # Errors
    /// There is no answer, or it says no.
    pub fn send(
        &self,
        what: &str,
        request: RequestBuilder,
        cancelled: &AtomicBool,
    ) -> Result<Response, Error> {
        let response = self.answer(what, request, cancelled)?;
        self.success(what, response, cancelled)
    }

    /// Returns a response that says yes.
    ///
    /// # Errors
    /// It says no.
    pub fn success(&self, what: &str, response: Response, cancelled: &AtomicBool) -> Result<Response, Error> {
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        // What the answer says of itself is no reason to wait for long.
        let answer = self.driver.run(cancelled, async {
            Ok(timeout(self.timeout, beginning(response)).await.unwrap_or_default())
        })?;
        Err(refused(what, status, &headers, &self.without_secrets(answer)))
    }

    /// Hides the credentials in an answer that repeats the request.
    fn without_secrets(&self, text: String) -> String {
        match &self.authorization {
            None => text,
            Some(Authorization::Bearer(token)) => text.replace(token.reveal(), HIDDEN),
            Some(Authorization::Basic { user, password }) => {
                let both = BASE64.encode(format!("{user}:{}", password.reveal()));
                text.replace(password.reveal(), HIDDEN).replace(&both, HIDDEN)
            }
        }
    }
}

/// Returns what can be done about a request that got no answer, and why it got none.
pub fn unanswered(error: &(dyn std::error::Error + 'static)) -> (Fault, String) {
    let reason = reason(error);
    advice(error)
        .map_or((Fault::Retry, reason.clone()), |(fault, advice)| (fault, format!("{reason}: {advice}")))
}

/// Returns the answer that came, or why there is none.
pub fn received<T>(
    what: &str,
    result: Result<Result<T, reqwest::Error>, tokio::time::error::Elapsed>,
) -> Result<T, Error> {
    let failed = |(fault, reason)| Error::Service { what: what.to_owned(), reason, fault, retry_after: None };
    match result {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(unanswered(&error.without_url()))),
        Err(_) => Err(failed((Fault::Retry, "no answer in time".to_owned()))),
    }
}

/// The beginning of an answer, for people.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            _ => break,
        }
    }
    bytes.truncate(ANSWER_BYTES_MAX);
    let text = String::from_utf8_lossy(&bytes);
    // A page is no sentence, but its title may be.
    let text = if text.contains('<') { title(&text) } else { text.trim() };
    escape::text(text)
}

/// Returns the title of a page; nothing without one.
fn title(page: &str) -> &str {
    let after = page.split_once("<title>").map_or("", |(_, after)| after);
    after.split('<').next().unwrap_or_default().trim()
}

/// Returns the error of an answer that says no.
fn refused(what: &str, status: StatusCode, headers: &HeaderMap, answer: &str) -> Error {
    let mut reason = format!("the server answered {status}");
    if status.is_redirection() {
        let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
        // A query may hold a signature.
        let to = to.split(['?', '#']).next().unwrap_or_default();
        reason = format!("{reason}, which leads to `{}`; `redirects` does not allow that", escape::text(to));
    } else if !answer.is_empty() && answer != status.to_string() {
        reason = format!("{reason}: {answer}");
    }
    let fault = fault_of(status);
    Error::Service { what: what.to_owned(), reason, fault, retry_after: retry_after(headers) }
}

/// Returns what can be done about an answer that says no.
pub fn fault_of(status: StatusCode) -> Fault {
    match status.as_u16() {
        401 | 403 | 407 => Fault::Denied,
        507 => Fault::Full,
        408 | 423 | 425 | 429 | 500..=599 => Fault::Retry,
        _ => Fault::Input,
    }
}

/// Reads `Retry-After`, seconds or a date (RFC 9110, section 10.2.3).
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Reads the certificates of a `ca_file`.
///
/// # Errors
/// It cannot be read, or has none.
pub fn authorities<C, E>(
    path: &Path,
    read: impl FnOnce(&[u8]) -> Result<Vec<C>, E>,
) -> Result<Vec<C>, Error> {
    let pem = files::read_bounded(path, PEM_BYTES_MAX)?;
    let found = read(&pem).ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| bad_pem(path, "holds no certificate in PEM"))
}

/// An error's text and its causes.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    escape::text(&text)
}

fn bad_pem(path: &Path, reason: &str) -> Error {
    Error::Secret { name: path.display().to_string(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::faults::Faulty as _;

    #[test]
    fn a_status_says_whether_to_try_again() {
        let refused = |status: u16, headers: &HeaderMap| {
            refused("PUT /a", StatusCode::from_u16(status).expect("a status"), headers, "")
        };
        let none = HeaderMap::new();
        for (status, fault) in [
            (401, Fault::Denied),
            (403, Fault::Denied),
            (404, Fault::Input),
            (429, Fault::Retry),
            (500, Fault::Retry),
            (507, Fault::Full),
        ] {
            assert_eq!(refused(status, &none).fault(), fault, "{status}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().expect("a value"));
        assert_eq!(refused(503, &headers).retry_after(), Some(Duration::from_secs(7)));
        headers.insert(RETRY_AFTER, "99999999".parse().expect("a value"));
        assert_eq!(refused(503, &headers).retry_after(), Some(RETRY_AFTER_MAX));
        headers.insert(RETRY_AFTER, "Fri, 31 Dec 1999 23:59:59 GMT".parse().expect("a value"));
        assert_eq!(refused(503, &headers).retry_after(), Some(Duration::ZERO));
        headers.insert(LOCATION, "https://elsewhere/a?signature=secret".parse().expect("a value"));
        let text = refused(302, &headers).to_string();
        assert!(text.contains("https://elsewhere/a`") && !text.contains("secret"), "{text}");
    }
}
