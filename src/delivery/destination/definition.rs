//! The definition of a destination in a configuration, and the kind made from it: the only place that names all kinds.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::Destination;
pub use super::directory::{
    Content, Directory, KEEP_DEFAULT, Kept, OpenDirectory, SharedPath, Showing, Steps, check_shared,
};
use super::exec::Exec;
use super::far_proxy::FarProxy;
use super::http::Http;
use super::mistake::Mistake;
use super::s3::S3;
use crate::restore::OutsideLinks;

/// The definition of one destination.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Definition {
    /// A folder with releases and a `current` link.
    Dir(Directory),
    /// A command on the proxy's host.
    Exec(Exec),
    /// An HTTP server.
    Http(Http),
    /// A bucket.
    S3(S3),
    /// Another proxy.
    Proxy(FarProxy),
}

impl Definition {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first key whose value is a mistake.
    pub fn check(&self) -> Result<(), (&'static str, Mistake)> {
        match self {
            Self::Dir(directory) => directory.check(),
            Self::Exec(exec) => exec.check(),
            Self::Http(http) => http.check(),
            Self::S3(s3) => s3.check(),
            Self::Proxy(proxy) => proxy.check(),
        }
    }

    /// Creates the destination.
    pub fn open(&self) -> Arc<dyn Destination> {
        match self {
            Self::Dir(directory) => Arc::new(directory.clone()),
            Self::Exec(exec) => Arc::new(exec.clone()),
            Self::Http(http) => http.open(),
            Self::S3(s3) => s3.open(),
            Self::Proxy(proxy) => proxy.open(),
        }
    }
}

/// Creates a destination from a folder of this machine, with the defaults of `kind = "dir"`: `--to dir:PATH`.
pub fn local(path: impl Into<PathBuf>, outside_links: OutsideLinks) -> Arc<dyn Destination> {
    Arc::new(Directory { outside_links, ..Directory::new(path) })
}
