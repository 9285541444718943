//! The options of a proxy, with their defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::maintenance::MaintenanceOptions;
use crate::delivery::Policies;
use crate::delivery::actions;
use crate::delivery::destination::Destinations;
use crate::delivery::rollout::Groups;
use crate::ledger::Ledger;
use crate::net::link;
use crate::store;
use ground::limits::{
    CONNECTIONS_MAX, DRAIN_TIME_MAX, REQUESTS_HELD_TOTAL, REQUESTS_MAX, STRANGER_TIME_MAX, STRANGERS_MAX,
    TARGET_SILENCE_MAX,
};
use ground::rate::Rate;

/// The options of a proxy.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder.
    pub data: PathBuf,
    /// The address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The host in the address for agents, if it is not the address listened on.
    pub public_host: Option<String>,
    /// Stores records, deliveries, tokens and leases; `None` for files in the data folder.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// The destinations of releases.
    pub destinations: Destinations,
    /// What holds for destinations of whatever kind; those that are not named have the defaults.
    pub policies: Policies,
    /// Groups of targets and destinations.
    pub groups: Groups,
    /// What may follow deliveries.
    pub actions: actions::Definitions,
    /// The stores.
    pub store: store::Options,
    /// The link.
    pub link: link::Options,
    /// Retention, and how often maintenance runs.
    pub maintenance: MaintenanceOptions,
    /// The longest wait for the data folder's lock.
    pub lock_patience: Duration,
    /// The time that a stopping proxy allows for work under way.
    pub drain_patience: Duration,
    /// The time that a peer may take to show a valid token.
    pub stranger_patience: Duration,
    /// The silence after which a target that watches counts as gone.
    pub target_patience: Duration,
    /// Connections on which a valid token was shown; users share them.
    pub connections_max: u64,
    /// Requests that are served at a time, and half as many pulls of targets; users share them.
    pub requests_max: u64,
    /// Bytes of memory that all pushes and pulls together may use; users share them.
    pub held_max: u64,
    /// What all pulls together may send; none for as much as links take.
    pub download_rate_max: Option<Rate>,
}

impl Options {
    /// Returns the defaults, for a proxy in `data` that listens at `listen`.
    pub fn new(data: &Path, listen: SocketAddr) -> Self {
        Self {
            data: data.to_owned(),
            listen,
            public_host: None,
            ledger: None,
            destinations: Destinations::new(),
            policies: Policies::new(),
            groups: Groups::new(),
            actions: actions::Definitions::new(),
            store: store::Options::default(),
            link: link::Options::default(),
            maintenance: MaintenanceOptions::default(),
            lock_patience: Duration::ZERO,
            drain_patience: DRAIN_TIME_MAX,
            stranger_patience: STRANGER_TIME_MAX,
            target_patience: TARGET_SILENCE_MAX,
            connections_max: (CONNECTIONS_MAX - STRANGERS_MAX) as u64,
            requests_max: REQUESTS_MAX,
            held_max: REQUESTS_HELD_TOTAL,
            download_rate_max: None,
        }
    }
}
