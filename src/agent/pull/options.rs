//! The options of a pull.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::agent::pace::{Effort, Pace};
use crate::agent::{Result, Session};
use crate::net::link_estimate::Link;
use crate::restore::OutsideLinks;
use ground::ids::ReleaseId;

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
    /// Copies that are kept, the shown one included; by default as many as at the pull before, and at the first the layout's own number:
    /// 1 in a plain directory, which keeps 2 at most, and 3 in one of releases.
    pub keep: Option<usize>,
}

/// How a pulled directory holds its release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// The directory holds the release and nothing else, and is exchanged with the next one.
    Plain,
    /// The directory holds complete copies in `releases`, and the link `current` to one of them.
    Releases,
}

/// Is called with the release after all of it is fetched, verified and written, and before readers see it: then its error
/// ends the pull, and they do not.
pub type BeforeSwitch = Box<dyn FnOnce(&ReleaseId) -> Result<()> + Send>;

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Releases => "releases",
        })
    }
}

impl PullOptions {
    /// Returns the pace of a pull over a link whose rate is known.
    pub fn pace(self, session: &Session) -> Option<Pace> {
        let link = Link::told(self.link_rate?, session.first_trip());
        Some(Pace::new(Effort::Auto, link, self.threads))
    }
}

impl Default for PullOptions {
    /// Refuses what would be removed and links that lead outside; one worker.
    fn default() -> Self {
        Self {
            delete: false,
            threads: 1,
            outside_links: OutsideLinks::default(),
            link_rate: None,
            keep: None,
        }
    }
}
