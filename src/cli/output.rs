//! What commands print: lines for people, JSON for programs, errors with one hint.

use std::io::{IsTerminal, Write};

use serde::Serialize;
use serde_json::json;

use super::Error;
use crate::faults::Faulty;

/// Where and how to report.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    /// By the command line's choice.
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether nothing but the report is wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether somebody watches.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && !self.json && std::io::stderr().is_terminal()
    }

    /// Reports a value: as one line of JSON, or in the words of `text`.
    pub fn report(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            let line = serde_json::to_string(value).expect("reports are plain words and numbers");
            self.line(&line);
        } else {
            self.line(text().trim_end());
        }
    }

    /// Prints a line; a reader that has gone is no error.
    #[expect(clippy::unused_self, reason = "printing belongs to the output, whatever it was told")]
    pub fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        drop(writeln!(out, "{text}").and_then(|()| out.flush()));
    }

    /// Tells people something beside the report.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Prints an error: the chain, one hint, and for programs the fault.
    pub fn error(&self, error: &Error) {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            let told = next.to_string();
            if !text.contains(&told) {
                text = format!("{text}: {told}");
            }
            cause = next.source();
        }
        if self.json {
            let error = json!({ "error": { "fault": error.fault(), "text": text, "hint": error.hint() } });
            self.line(&error.to_string());
        }
        eprintln!("error: {text}");
        if let Some(hint) = error.hint() {
            eprintln!("hint: {hint}");
        }
    }
}

/// A number of bytes for people: `1.25 MB`; decimal units, as links are sold.
pub fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}

/// A count for people: `6,384`.
pub fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// A time for people, from seconds since 1970.
pub fn time(seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// `whole / part`, one decimal, for people.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people needs no more than 52 bits")]
pub fn ratio(whole: u64, part: u64) -> String {
    if part == 0 { "-".to_owned() } else { format!("{:.1} x", whole as f64 / part as f64) }
}

/// Lines of columns, each as wide as its widest cell; numbers to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let is_number = |cell: &str| cell.starts_with(|first: char| first.is_ascii_digit()) && cell.len() < 14;
    let line = |cells: &[String]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let padded =
                if is_number(cell) { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            line.push_str(&padded);
        }
        line.trim_end().to_owned()
    };
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let lines = std::iter::once(line(&head)).chain(rows.iter().map(|row| line(row)));
    lines.collect::<Vec<_>>().join("\n")
}
