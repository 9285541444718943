//! Webhooks: messages to an HTTP server that follow an event, signed by <https://www.standardwebhooks.com>.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, Response, StatusCode};

use super::definition::WebhookDefinition;
use super::event::Happened;
use super::signature::{Secret, signatures};
use crate::delivery::destination::{Client, ClientOptions, Driver, Error, retry_after};

/// Sends the webhooks of one definition.
pub struct Sender {
    definition: WebhookDefinition,
    driver: Driver,
    client: Option<Client>,
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
    pub fn new(definition: WebhookDefinition) -> Self {
        Self { definition, driver: Driver::default(), client: None }
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
        let (client, request) = match self.request(happened, now) {
            Ok(made) => made,
            Err(unsent) => return Some(Err(unsent)),
        };
        match client.answer("the receiver", request, cancelled) {
            Ok(response) => Some(received(&response)),
            Err(Error::Cancelled) => None,
            Err(error) => Some(Err(Unsent::because(error.to_string()))),
        }
    }

    fn request(&mut self, happened: &Happened, now: u64) -> Result<(&Client, RequestBuilder), Unsent> {
        let WebhookDefinition { url, secret_files, secret_env, .. } = &self.definition;
        let files = secret_files.iter().map(|path| Secret::read(path));
        let variables = secret_env.iter().map(|name| Secret::from_variable(name));
        let secrets: Result<Vec<Secret>, _> = files.chain(variables).collect();
        let secrets = secrets.map_err(|error| Unsent::because(error.to_string()))?;
        if self.client.is_none() {
            self.client = Some(self.definition.client(&self.driver)?);
        }
        let client = self.client.as_ref().expect("it was just made");
        let (id, body) = (happened.message_id(), happened.body());
        let signature = signatures(&secrets, &id, now, &body);
        let request = client.request(Method::POST, url).header(CONTENT_TYPE, "application/json");
        let request = request.header("webhook-id", id).header("webhook-timestamp", now.to_string());
        Ok((client, request.header("webhook-signature", signature).body(body)))
    }
}

impl WebhookDefinition {
    fn client(&self, driver: &Driver) -> Result<Client, Unsent> {
        let options = ClientOptions {
            ca_file: self.ca_file.clone(),
            timeout: Some(Duration::from_secs(self.timeout)),
            ..ClientOptions::default()
        };
        Client::open(&options, driver).map_err(|error| Unsent::because(error.to_string()))
    }
}

fn received(response: &Response) -> Result<String, Unsent> {
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
    Err(Unsent { reason, retry_after: retry_after(response.headers()), is_final: status == StatusCode::GONE })
}
