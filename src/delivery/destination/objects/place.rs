//! A service that one delivery writes to.

use super::super::web::{Client, Probe};
use super::super::{Error, Job};
use super::options::Options;
use super::service::Service;

/// A service, the options, and where an application's objects are.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The service.
    pub service: &'a dyn Service,
    /// How files become objects.
    pub options: &'a Options,
    /// What comes before each file's path in its key: empty, or with a slash at its end.
    pub prefix: &'a str,
    /// The key of a bundle.
    pub bundle_key: &'a str,
    /// What decides, beside a release, which objects are where.
    pub rules: [u8; 32],
    /// Looks whether readers see the release.
    pub client: &'a Client,
}

impl Place<'_> {
    /// Checks from outside that readers see the release; after entry points, before deletions.
    ///
    /// # Errors
    /// They do not, as far as the probe can tell.
    pub fn probe(&self, job: &Job<'_>) -> Result<(), Error> {
        let find = |probe: &Probe| probe.find(self.client, job, self.options.probe_seconds);
        self.options.probe.as_ref().map_or(Ok(()), find)
    }
}
