//! The options of a pull.

use crate::agent::Session;
use crate::agent::pace::{Effort, Pace};
use crate::net::link_estimate::Link;
use crate::restore::OutsideLinks;

/// How a pull treats what is there.
#[derive(Debug, Clone, Copy)]
pub struct PullOptions {
    /// Remove what no pull has put into the directory, instead of refusing.
    pub delete: bool,
    /// Workers for hashing.
    pub threads: usize,
    /// How to treat links that lead outside the release.
    pub outside_links: OutsideLinks,
    /// The link's speed in bytes a second; none where it is not known.
    pub link_rate: Option<f64>,
}

impl PullOptions {
    /// Returns the pace of a pull over a link whose rate is known.
    pub(super) fn pace(self, session: &Session) -> Option<Pace> {
        let link = Link::told(self.link_rate?, session.first_trip());
        Some(Pace::new(Effort::Auto, link, self.threads))
    }
}

impl Default for PullOptions {
    /// Refuses what would be removed and links that lead outside; one worker.
    fn default() -> Self {
        Self { delete: false, threads: 1, outside_links: OutsideLinks::default(), link_rate: None }
    }
}
