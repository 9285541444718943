//! What pushes have measured of their links, for agents that remember nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::Owner;
use crate::net::link_estimate::{Link, LinkEstimate};
use ground::poison::Unpoisoned as _;
use protocol::wire::LinkSeen;

/// Users whose links are remembered: 300 KB. Beyond, all are forgotten, which costs bytes only.
const USERS_MAX: usize = 4096;

/// The link that each user's last push has measured. It tells a user nothing of others, and ends with the process.
#[derive(Debug, Default)]
pub struct Links(Mutex<HashMap<Owner, LinkSeen>>);

impl Links {
    /// Notes what a push has measured.
    pub fn note(&self, user: Owner, seen: LinkSeen) {
        let mut links = self.0.lock().unpoisoned();
        if links.len() >= USERS_MAX && !links.contains_key(&user) {
            links.clear();
        }
        links.insert(user, seen);
    }

    /// Returns what is known of a link now: what the user's last push has measured of the same way, else what the connection says.
    pub fn estimate(&self, user: &Owner, link: &Link) -> LinkEstimate {
        let now = link.now();
        let seen = self.last(user).map(LinkEstimate::from);
        let seen = seen.filter(|seen| seen.is_of(Duration::from_secs_f64(now.round_trip)));
        seen.unwrap_or(now)
    }

    /// Returns what the user's last push has measured.
    pub fn last(&self, user: &Owner) -> Option<LinkSeen> {
        self.0.lock().unpoisoned().get(user).copied()
    }
}
