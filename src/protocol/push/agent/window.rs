//! Bounds of what an agent has under way.

use ground::limits::{PUSH_STEPS_OPEN, SEGMENT_BATCH_BYTES};

/// Bounds what an agent has under way at a time.
///
/// Any window will do; with a smaller one, a push waits for answers more often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Steps: from 1 to [`PUSH_STEPS_OPEN`], which the proxy's credit is for.
    pub steps: usize,
    /// Plain bytes of the segments of one step.
    pub step_bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { steps: PUSH_STEPS_OPEN, step_bytes: SEGMENT_BATCH_BYTES }
    }
}
