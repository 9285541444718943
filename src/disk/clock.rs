//! The system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time in seconds since 1970; 0 before.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
