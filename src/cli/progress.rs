//! Progress on a terminal, and notes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::monitor::{Monitor, Phase};

/// Redraws a second: smooth to the eye, nothing to the processor.
const REDRAWS: u8 = 8;

/// One line that shows the phase under way.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    phase: Mutex<Option<Phase>>,
}

impl Bar {
    /// Shows nothing until a phase begins.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(REDRAWS));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, phase: Mutex::new(None) }
    }
}

fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Scan => "reading",
        Phase::Negotiate => "comparing",
        Phase::Transfer => "sending",
        Phase::Rebuild => "writing",
    }
}

impl Monitor for Bar {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        let mut current = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != Some(phase) {
            *current = Some(phase);
            self.bar.reset();
        }
        let template = if total.is_some() {
            "{msg:>9} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}"
        } else {
            "{msg:>9} {spinner} {decimal_bytes} {decimal_bytes_per_sec}"
        };
        self.bar.set_style(ProgressStyle::with_template(template).expect("the template is right"));
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(words(phase));
    }

    fn advance(&self, phase: Phase, bytes: u64) {
        let current = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if current == Some(phase) {
            self.bar.inc(bytes);
        }
    }

    fn note(&self, text: &str) {
        self.bar.println(text);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Prints notes alone, for logs.
#[derive(Debug, Clone, Copy)]
pub struct Notes;

impl Monitor for Notes {
    fn note(&self, text: &str) {
        eprintln!("{text}");
    }
}
