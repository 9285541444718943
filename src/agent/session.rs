//! A connection to one proxy on behalf of one user.

use super::memory::Key;
use super::{Error, Result};
use crate::address::{Fingerprint, ProxyUrl};
use crate::ids::AppName;
use crate::link::{self, Connection, Counters, Receiver, Sender};
use crate::wire::{Answer, Operation, Request};

/// Where the proxy is and what the user may do there.
#[derive(Debug, Clone)]
pub struct Access {
    /// The proxy's address and key.
    pub url: ProxyUrl,
    /// The signed token.
    pub token: String,
}

/// An open connection; each request is a stream of its own.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    token: String,
    proxy: Fingerprint,
}

impl Session {
    /// Connects and checks the proxy's key.
    ///
    /// # Errors
    /// The proxy cannot be reached, has another key, or speaks another protocol.
    pub async fn open(access: &Access, options: &link::Options) -> Result<Self> {
        let connection = link::connect(&access.url, options).await?;
        Ok(Self { connection, token: access.token.clone(), proxy: access.url.fingerprint() })
    }

    /// What this session's pushes of `app` are remembered by.
    pub fn memory_key(&self, app: &AppName) -> Key {
        Key::new(&self.proxy, &self.token, app)
    }

    /// Begins a request.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn request(&self, operation: &Operation) -> Result<(Sender, Receiver)> {
        let (mut sender, receiver) = self.connection.open().await?;
        sender.send(&Request::new(&self.token, operation)).await?;
        Ok((sender, receiver))
    }

    /// Asks a question and hands each part of the answer to `take`.
    ///
    /// # Errors
    /// The connection is lost, or the proxy refused.
    pub async fn ask(&self, operation: &Operation, mut take: impl FnMut(Answer)) -> Result<()> {
        let (sender, mut receiver) = self.request(operation).await?;
        sender.finish()?;
        while let Some(answer) = receiver.receive::<Answer>().await? {
            match answer {
                Answer::Refused(refusal) => return Err(Error::Refused(refusal)),
                answer => take(answer),
            }
        }
        Ok(())
    }

    /// What crossed the link so far, handshake included.
    pub fn counters(&self) -> Counters {
        self.connection.counters()
    }

    /// Says goodbye.
    pub async fn finish(self) {
        self.connection.finish().await;
    }
}
