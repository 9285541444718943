//! The audit log: one line of JSON for each push, delivery and requested change, with its user and time.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;

use crate::delivery::{Delivery, Ended};
use disk::clock::now;
use disk::files::{self, OnPath};
use format::record::DeliveryState;
use ground::ids::{ActionName, AppName, DeliveryId, DestinationName, Label, ReleaseId, SpaceName, UserName};
use ground::poison::Unpoisoned as _;
use protocol::token::{Grant, Hop, TokenId};

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct Entry<'a> {
    /// Seconds since 1970.
    pub time: u64,
    /// `push`, `deliver`, `promote`, `rollback`, `remove`, `pin`, `unpin`, `label`, `unlabel`, `cache`, `prime`, `retry`, `cancel`,
    /// `drop`, `forget` or `unassign`.
    pub action: &'static str,
    /// The user on whose behalf it was done.
    pub user: &'a UserName,
    /// The space.
    pub space: &'a SpaceName,
    /// The application.
    pub app: &'a AppName,
    /// The release.
    pub release: ReleaseId,
    /// The destinations, if any.
    pub destinations: &'a [DestinationName],
    /// The user's token.
    pub token: TokenId,
    /// The proxies that a pushed release came through and on whose behalf, the first one first.
    #[serde(skip_serializing_if = "<[Hop]>::is_empty")]
    pub behalf: &'a [Hop],
    /// The labels that were given or taken away.
    #[serde(skip_serializing_if = "<[Label]>::is_empty")]
    pub labels: &'a [Label],
    /// The user's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// Returns a line about a release, on behalf of a token's user, without destinations.
    pub fn of(grant: &'a Grant, action: &'static str, app: &'a AppName, release: ReleaseId) -> Self {
        let Grant { user, space, id, .. } = grant;
        let (time, token, destinations, behalf, labels) = (now(), *id, &[][..], &[][..], &[][..]);
        Self { time, action, user, space, app, release, destinations, token, behalf, labels, because: None }
    }
}

/// The line of a delivery that has ended.
#[derive(Debug, Clone, Serialize)]
struct End<'a> {
    /// Seconds since 1970.
    time: u64,
    /// `delivered`, `failed`, `skipped` or `cancelled`.
    action: &'static str,
    /// The user who asked for it, if that is known.
    user: Option<&'a UserName>,
    /// That user's token, if it is known.
    token: Option<TokenId>,
    /// The proxies that the release came through and on whose behalf, the first one first.
    behalf: &'a [Hop],
    space: &'a SpaceName,
    app: &'a AppName,
    release: ReleaseId,
    /// The destination, alone.
    destinations: [&'a DestinationName; 1],
    delivery: DeliveryId,
    /// The actions that were to follow.
    then: &'a [ActionName],
    /// Seconds since 1970 at which it was asked for.
    asked: u64,
    /// Failed tries.
    tries: u32,
    /// The report, or why there is none.
    result: &'a DeliveryState,
}

/// The log, open for appending.
#[derive(Debug)]
pub struct Audit(Mutex<File>);

impl Audit {
    /// Opens or creates the log.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: &Path) -> files::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).on("open", path)?;
        Ok(Self(Mutex::new(file)))
    }

    /// Appends a line. A failed write is logged and undoes nothing.
    pub fn write(&self, entry: &Entry<'_>) {
        self.append(entry);
    }

    /// Appends the line of a delivery that has ended.
    pub fn write_end(&self, id: DeliveryId, ended: &Ended) {
        let Ended { delivery, ended: time, state, .. } = ended;
        let Delivery { space, app, release, destination, user, asked, token, tries, then, behalf, .. } =
            delivery;
        self.append(&End {
            time: *time,
            action: match state {
                DeliveryState::Delivered(_) => "delivered",
                DeliveryState::Skipped { .. } => "skipped",
                DeliveryState::Cancelled { .. } => "cancelled",
                _ => "failed",
            },
            user: user.as_ref(),
            token: *token,
            behalf,
            space,
            app,
            release: *release,
            destinations: [destination],
            delivery: id,
            then,
            asked: *asked,
            tries: *tries,
            result: state,
        });
    }

    fn append(&self, entry: &impl Serialize) {
        let mut line = serde_json::to_vec(entry).expect("an entry is plain words and numbers");
        line.push(b'\n');
        if let Err(error) = self.0.lock().unpoisoned().write_all(&line) {
            tracing::error!(%error, "the audit log could not be written");
        }
    }
}
