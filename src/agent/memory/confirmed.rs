//! A push that a proxy has confirmed.

use std::path::Path;

use format::manifest::{NodeRef, Root};

/// A push that a proxy has confirmed.
#[derive(Debug, Clone, Copy)]
pub struct Confirmed<'a> {
    /// Its number at the proxy.
    pub sequence: u64,
    /// The release's root.
    pub root: &'a Root,
    /// The release's segments, in order.
    pub segments: &'a [NodeRef],
    /// The path that was scanned.
    pub source: &'a Path,
    /// When the scan began, in nanoseconds since 1970.
    pub began: i64,
}
