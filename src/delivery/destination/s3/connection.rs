//! A connection to a service that speaks like S3: its address, credentials and deadlines, and what its refusals mean.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{BackoffConfig, Certificate, ClientOptions, HeaderMap, RetryConfig};
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, StatusCode};
use tokio::sync::Semaphore;

use super::super::Error;
use super::super::driver::Driver;
use super::super::web::{authorities, fault_of, retry_after, unanswered};
use super::answer::reason_of;
use super::{Keys, credentials};
use crate::net::link::use_our_cryptography;
use ground::escape;
use ground::faults::Fault;

/// The time that a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The time for which one request is tried again; the delivery is, after that.
const RETRY_TIME: Duration = Duration::from_secs(20);
/// The most bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;
/// The most letters of a refusal that are shown.
const REASON_MAX: usize = 400;

/// Codes of bad requests that were only slow, or were damaged on the way.
const PASSING: [&str; 3] = ["RequestTimeout", "IncompleteBody", "BadDigest"];

/// A client of a bucket.
pub(super) struct Connection {
    pub(super) store: AmazonS3,
    pub(super) name: String,
    pub(super) driver: Driver,
    pub(super) requests: Arc<AtomicU64>,
    /// One for each part of a large object that may be under way, all objects together.
    pub(super) turns: Arc<Semaphore>,
}

impl Connection {
    /// Finds the credentials; nothing is connected yet. At most `parallel` parts of large objects go at a time.
    ///
    /// # Errors
    /// The definition names something that cannot be read, or the parts do not fit one another.
    pub fn open(keys: &Keys, parallel: usize, driver: &Driver) -> Result<Self, Error> {
        use_our_cryptography();
        let requests = Arc::new(AtomicU64::new(0));
        let time = Duration::from_secs(keys.timeout);
        let mut options = ClientOptions::new().with_connect_timeout(CONNECT_TIME).with_timeout(time);
        if let Some(path) = &keys.ca_file {
            for authority in authorities(path, Certificate::from_pem_bundle)? {
                options = options.with_root_certificate(authority);
            }
        }
        let is_plain = keys.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let backoff = BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() };
        let retry = RetryConfig { backoff, max_retries: 3, retry_timeout: RETRY_TIME };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&keys.bucket)
            .with_client_options(options.with_allow_http(is_plain))
            .with_retry(retry)
            .with_http_connector(Watching { requests: Arc::clone(&requests) })
            .with_virtual_hosted_style_request(!keys.path_style.unwrap_or(keys.endpoint.is_some()));
        if let Some(endpoint) = &keys.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        let store = credentials::apply(builder, keys)?.build();
        let store = store.map_err(|error| failed(format!("bucket {}", keys.bucket), &error))?;
        let turns = Arc::new(Semaphore::new(parallel));
        Ok(Self { store, name: keys.bucket.clone(), driver: driver.clone(), requests, turns })
    }
}

/// Returns the error of a request named `what`.
pub(super) fn failed(what: String, error: &object_store::Error) -> Error {
    if let Some(refused) = cause::<Refused>(error) {
        let (fault, retry_after) = (refused.fault(), refused.retry_after);
        return Error::Service { what, reason: refused.to_string(), fault, retry_after };
    }
    let (fault, reason) = match (cause::<HttpError>(error).and_then(StdError::source), error) {
        (Some(unsent), _) => unanswered(unsent),
        (
            None,
            object_store::Error::NotFound { .. }
            | object_store::Error::InvalidPath { .. }
            | object_store::Error::NotSupported { .. }
            | object_store::Error::NotImplemented { .. },
        ) => (Fault::Input, reason_of(&error.to_string())),
        _ => (Fault::Retry, reason_of(&error.to_string())),
    };
    Error::Service { what, reason, fault, retry_after: None }
}

/// Returns the first cause of a type.
fn cause<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

/// An answer that says no for good, or when to ask again: `object_store` would hide the one, and not wait for the other.
#[derive(Debug, thiserror::Error)]
#[error("the service answered {status}{}", if .says.is_empty() { String::new() } else { format!(" ({says})") })]
struct Refused {
    status: StatusCode,
    /// The code and message of its page.
    says: String,
    retry_after: Option<Duration>,
}

impl Refused {
    /// Returns whether the answer to a request is one.
    fn is(method: &Method, status: StatusCode, headers: &HeaderMap) -> bool {
        match status {
            // What is not there is no failure, except where it is to be written to.
            StatusCode::NOT_FOUND => *method == Method::PUT || *method == Method::POST,
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED | StatusCode::REQUEST_TIMEOUT => false,
            StatusCode::TOO_MANY_REQUESTS => retry_after(headers).is_some(),
            StatusCode::INSUFFICIENT_STORAGE => true,
            status if status.is_server_error() => retry_after(headers).is_some(),
            status => status.is_client_error(),
        }
    }

    fn fault(&self) -> Fault {
        let code = self.says.split(':').next().unwrap_or_default();
        if PASSING.contains(&code) { Fault::Retry } else { fault_of(self.status) }
    }

    async fn read(response: HttpResponse) -> Self {
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let (mut page, mut pieces) = (Vec::new(), response.into_body().bytes_stream());
        while page.len() < REFUSAL_BYTES_MAX
            && let Some(Ok(piece)) = pieces.next().await
        {
            page.extend_from_slice(&piece);
        }
        let page = String::from_utf8_lossy(&page);
        let parts = ["Code", "Message"].map(|name| element(&page, name));
        let parts: Vec<&str> = parts.into_iter().flatten().collect();
        let says = escape::text(&parts.join(": ")).chars().take(REASON_MAX).collect();
        Self { status, says, retry_after }
    }
}

/// Returns the text of an XML element that holds only text.
fn element<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = page.split_once(&format!("<{name}>"))?;
    Some(after.split_once('<')?.0.trim())
}

/// Makes clients that count their requests, repeated ones too, and know refusals.
#[derive(Debug)]
struct Watching {
    requests: Arc<AtomicU64>,
}

impl HttpConnector for Watching {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner, requests: Arc::clone(&self.requests) }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    requests: Arc<AtomicU64>,
}

impl HttpService for Watched {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.requests.fetch_add(1, Ordering::Relaxed);
        // Those for credentials have rules of their own.
        let is_signed = request.headers().contains_key(AUTHORIZATION);
        let method = request.method().clone();
        Box::pin(async move {
            let response = self.inner.execute(request).await?;
            if is_signed && Refused::is(&method, response.status(), response.headers()) {
                return Err(HttpError::new(HttpErrorKind::Unknown, Refused::read(response).await));
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::RETRY_AFTER;

    #[test]
    fn a_refusal_is_final_or_says_when_to_ask_again() {
        let (none, mut later) = (HeaderMap::new(), HeaderMap::new());
        later.insert(RETRY_AFTER, "7".parse().expect("a value"));
        let is = |method, status: u16, headers| {
            Refused::is(&method, StatusCode::from_u16(status).expect("a status"), headers)
        };
        for status in [400, 401, 403, 405, 507] {
            assert!(is(Method::PUT, status, &none), "{status}");
        }
        for status in [200, 304, 409, 412, 408, 429, 500, 503] {
            assert!(!is(Method::PUT, status, &none), "{status}");
        }
        assert!(is(Method::PUT, 404, &none) && !is(Method::GET, 404, &none));
        assert!(is(Method::GET, 429, &later) && is(Method::PUT, 503, &later));
    }

    #[test]
    fn a_request_that_was_too_slow_is_worth_another_try() {
        let refused = |says: &str| Refused {
            status: StatusCode::BAD_REQUEST,
            says: says.to_owned(),
            retry_after: None,
        };
        assert_eq!(refused("RequestTimeout: Your socket was idle").fault(), Fault::Retry);
        assert_eq!(refused("InvalidRequest: no").fault(), Fault::Input);
    }

    #[test]
    fn the_code_and_message_of_a_page_are_found() {
        let page = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message> No. </Message></Error>";
        assert_eq!((element(page, "Code"), element(page, "Message")), (Some("AccessDenied"), Some("No.")));
        assert_eq!((element(page, "Key"), element("<Code>cut", "Code")), (None, None));
    }
}
