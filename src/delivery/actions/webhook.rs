//! Webhooks: messages to an HTTP server that follow an event, signed by <https://www.standardwebhooks.com>.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;

use super::definition::WebhookDefinition;
use super::event::Happened;
use super::signature::{Secret, signatures};
use crate::net::link::use_our_cryptography;
use ground::escape;

/// How often the flag that cancels is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The longest wait that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Sends the webhooks of one definition.
pub struct Sender {
    definition: WebhookDefinition,
    runtime: tokio::runtime::Runtime,
    client: Option<reqwest::Client>,
}

/// Why a message was not received.
#[derive(Debug)]
pub struct Unsent {
    /// The reason, without secrets.
    pub reason: String,
    /// The wait that the receiver asked for.
    pub retry_after: Option<Duration>,
    /// True if the receiver wants no more of it.
    pub is_final: bool,
}

impl Unsent {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry_after: None, is_final: false }
    }
}

impl Sender {
    /// Creates a sender; nothing is connected yet.
    ///
    /// # Errors
    /// The system gives no event queue.
    pub fn new(definition: WebhookDefinition) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { definition, runtime, client: None })
    }

    /// Sends a message at `now`, seconds since 1970. Returns the status of the answer; none if it was cancelled.
    ///
    /// # Errors
    /// It was not received, or the answer is no success. A redirect is none: the message and its signature are for the
    /// receiver that the admin named.
    pub fn send(
        &mut self,
        happened: &Happened,
        now: u64,
        cancelled: &AtomicBool,
    ) -> Option<Result<String, Unsent>> {
        let request = match self.request(happened, now) {
            Ok(request) => request,
            Err(unsent) => return Some(Err(unsent)),
        };
        let time = Duration::from_secs(self.definition.timeout);
        let answer = self.runtime.block_on(async {
            let send = tokio::time::timeout(time, request.send());
            tokio::pin!(send);
            loop {
                tokio::select! {
                    answer = &mut send => return Some(answer),
                    () = tokio::time::sleep(LOOK) => {
                        if cancelled.load(Ordering::Relaxed) {
                            return None;
                        }
                    }
                }
            }
        })?;
        Some(match answer {
            Ok(Ok(response)) => received(&response),
            Ok(Err(error)) => Err(Unsent::because(chain(&error.without_url()))),
            Err(_) => Err(Unsent::because(format!("no answer within {} s", time.as_secs()))),
        })
    }

    fn request(&mut self, happened: &Happened, now: u64) -> Result<reqwest::RequestBuilder, Unsent> {
        let WebhookDefinition { url, secret_files, secret_env, .. } = &self.definition;
        let files = secret_files.iter().map(|path| Secret::read(path));
        let variables = secret_env.iter().map(|name| Secret::from_variable(name));
        let secrets: Result<Vec<Secret>, _> = files.chain(variables).collect();
        let secrets = secrets.map_err(|error| Unsent::because(error.to_string()))?;
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(client()?),
        };
        let (id, body) = (happened.message_id(), happened.body());
        let signature = signatures(&secrets, &id, now, &body);
        let request = client.post(url).header(CONTENT_TYPE, "application/json");
        let request = request.header("webhook-id", id).header("webhook-timestamp", now.to_string());
        Ok(request.header("webhook-signature", signature).body(body))
    }
}

fn client() -> Result<reqwest::Client, Unsent> {
    use_our_cryptography();
    let builder = reqwest::Client::builder().user_agent(concat!("whit/", env!("CARGO_PKG_VERSION")));
    let client = builder.redirect(Policy::none()).no_proxy().pool_max_idle_per_host(0).build();
    client.map_err(|error| Unsent::because(chain(&error.without_url())))
}

fn received(response: &reqwest::Response) -> Result<String, Unsent> {
    let status = response.status();
    if status.is_success() {
        return Ok(status.to_string());
    }
    let reason = if status.is_redirection() {
        format!(
            "the receiver answered {status}; redirects are not followed: give the address that it leads to"
        )
    } else {
        format!("the receiver answered {status}")
    };
    let after =
        response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
    let retry_after = after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    Err(Unsent { reason, retry_after, is_final: status == StatusCode::GONE })
}

/// An error's text and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    escape::text(&text)
}
