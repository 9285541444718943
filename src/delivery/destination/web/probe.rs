//! A look from outside: does what readers see say that it is the release?

use std::time::{Duration, Instant};

use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap, PRAGMA};
use serde::Deserialize;

use super::super::{Error, Job, PLACEHOLDER};
use super::client::{Client, received};

/// How long what serves the release may take to show it, by default.
pub const PATIENCE_SECONDS: u64 = 30;
/// The wait between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most bytes of an answer that are searched.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// An address whose answer, in a header or its body, holds the release's id, or its first twelve digits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Probe(String);

impl Probe {
    /// Looks until the release is found, for at most so many seconds. Answers of caches do not count.
    ///
    /// # Errors
    /// [`Error::Probe`]; cancelled.
    pub fn find(&self, client: &Client, job: &Job<'_>, seconds: u64) -> Result<(), Error> {
        let url = self.0.replace(PLACEHOLDER, job.app.as_str());
        let shown = url.split(['?', '#']).next().unwrap_or_default().to_owned();
        let begun = Instant::now();
        let mut looks: u32 = 0;
        loop {
            looks += 1;
            // Another address each time: no cache has it.
            let mark = if url.contains('?') { '&' } else { '?' };
            let fresh = format!("{url}{mark}whit-probe={}-{looks}", job.id);
            let reason = match look(client, job, &fresh, &shown) {
                Ok(None) => return Ok(()),
                Ok(Some(reason)) | Err(Error::Service { reason, .. }) => reason,
                Err(error) => return Err(error),
            };
            if begun.elapsed() >= Duration::from_secs(seconds) {
                return Err(Error::Probe { url: shown, reason });
            }
            client.driver().run(job.cancelled, async {
                tokio::time::sleep(LOOK_EVERY).await;
                Ok(())
            })?;
        }
    }
}

/// Returns why the answer is not the release's; none if it is.
fn look(client: &Client, job: &Job<'_>, url: &str, shown: &str) -> Result<Option<String>, Error> {
    let request = client.anonymous(url).header(CACHE_CONTROL, "no-cache").header(PRAGMA, "no-cache");
    let what = format!("GET {shown}");
    let mut response = client.send(&what, request, job.cancelled)?;
    if is_cached(response.headers()) {
        return Ok(Some("a cache answered".to_owned()));
    }
    let release = job.release();
    let ids = [release.to_string(), release.short()];
    let in_header = response
        .headers()
        .values()
        .any(|value| value.to_str().is_ok_and(|value| ids.iter().any(|id| value.contains(id))));
    if in_header {
        return Ok(None);
    }
    let mut body = Vec::new();
    client.driver().run(job.cancelled, async {
        while body.len() < ANSWER_BYTES_MAX {
            match received(&what, tokio::time::timeout(client.timeout, response.chunk()).await)? {
                Some(piece) => body.extend_from_slice(&piece),
                None => break,
            }
        }
        Ok(())
    })?;
    let text = String::from_utf8_lossy(&body);
    let found = ids.iter().any(|id| text.contains(id));
    Ok((!found).then(|| format!("the answer does not hold {}", release.short())))
}

/// Returns whether a cache says that the answer is its own.
fn is_cached(headers: &HeaderMap) -> bool {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value(AGE.as_str()).trim().parse().is_ok_and(|age: u64| age > 0)
        || value("x-cache").to_ascii_uppercase().starts_with("HIT")
        || value("cf-cache-status").eq_ignore_ascii_case("HIT")
}
