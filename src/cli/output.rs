//! The output of commands: lines for people, JSON for programs, errors with one hint.
//!
//! Everything goes through [`Output`]. A report that cannot be written is an error; a closed standard error is not.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::{Value, json};

use super::error::Error;
use ground::escape;
use ground::faults::{Fault, Faulty};

/// The output of one command. Clones share it.
#[derive(Debug, Clone)]
pub struct Output {
    json: bool,
    quiet: bool,
    /// True once the one document of `--json` was printed.
    reported: Arc<AtomicBool>,
}

impl Output {
    /// Creates the output that the command line asks for.
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, reported: Arc::default() }
    }

    /// Returns whether to print only the report.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Returns whether the report is JSON, for a program.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Returns whether to show progress: standard error is a terminal, and neither `--quiet` nor `--json` is given.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && !self.json && io::stderr().is_terminal()
    }

    /// Reports a value: as one line of JSON, or as `text`.
    ///
    /// # Errors
    /// Standard output does not take it.
    pub fn report(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Error> {
        self.report_with(value, Ok(()), text)
    }

    /// Reports a value together with how the command ended, in one document, and returns `ended`.
    ///
    /// An error becomes a field of the value, which is an object.
    ///
    /// # Errors
    /// JSON cannot hold the value, or standard output does not take it; else the error in `ended`.
    pub fn report_with(
        &self,
        value: &impl Serialize,
        ended: Result<(), Error>,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        if self.json {
            let mut value = serde_json::to_value(value).map_err(Error::Report)?;
            if let (Some(fields), Err(error)) = (value.as_object_mut(), &ended) {
                fields.insert("error".to_owned(), error_fields(error));
            }
            self.document(&value)?;
        } else {
            self.line(&escape::lines(text().trim_end()))?;
        }
        ended
    }

    fn document(&self, value: &Value) -> Result<(), Error> {
        self.reported.store(true, Ordering::Relaxed);
        self.line(&escape::json(&value.to_string()))
    }

    /// Prints a line.
    ///
    /// # Errors
    /// Standard output does not take it.
    #[expect(clippy::unused_self, reason = "printing belongs to the output, whatever its settings")]
    pub fn line(&self, text: &str) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Error::Output)
    }

    /// Prints a note for people, beside the report.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            to_stderr(&escape::lines(text));
        }
    }

    /// Prints an error: the chain, one hint, and for programs the fault, unless a report has it already.
    pub fn error(&self, error: &Error) {
        // The reader closed the pipe: say nothing more.
        if error.is_reader_gone() {
            return;
        }
        if self.json && !self.reported.load(Ordering::Relaxed) {
            // If this fails too, standard error still has the text.
            drop(self.document(&json!({ "error": error_fields(error) })));
        }
        // An error of a configuration has several lines of its own.
        let escape = if matches!(error, Error::Config(_)) { escape::lines } else { escape::text };
        to_stderr(&format!("error: {}", escape(&chain(error))));
        if let Some(hint) = error.advice() {
            to_stderr(&format!("hint: {}", escape::text(&hint)));
        }
    }
}

/// Returns the error and its causes, each once.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(next) = source {
        let cause = next.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = next.source();
    }
    text
}

fn error_fields(error: &Error) -> Value {
    let mut fields = json!({
        "fault": error.fault(), "text": chain(error), "hint": error.advice(), "exit_code": error.exit_code(),
    });
    if let Some(outcome) = error.outcome() {
        fields["outcome"] = json!(outcome.name());
    }
    fields
}

/// Prints a line on standard error, if that is still open.
pub fn to_stderr(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Answers a command line that asks for help or the version, or that clap refuses. Returns the exit code.
pub fn of_command_line(error: &clap::Error, json: bool) -> u8 {
    use clap::error::ErrorKind;
    let output = Output::new(json, false);
    if error.use_stderr() {
        let code = Fault::Input.exit_code();
        if json {
            let (text, hint) = in_one_line(&error.to_string());
            let error = json!({ "fault": Fault::Input, "text": text, "hint": hint, "exit_code": code });
            if let Err(error) = output.document(&json!({ "error": error })) {
                output.error(&error);
                return error.exit_code();
            }
        }
        // If standard error is closed, nobody reads it.
        drop(error.print());
        return code;
    }
    let printed = match error.kind() {
        _ if !json => error.print().map_err(Error::Output),
        ErrorKind::DisplayVersion => output.document(&json!({ "version": env!("CARGO_PKG_VERSION") })),
        _ => output.document(&json!({ "help": error.to_string() })),
    };
    let Err(error) = printed else { return 0 };
    output.error(&error);
    error.exit_code()
}

/// Splits clap's message into its error and its hint.
fn in_one_line(message: &str) -> (String, String) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (wrong, rest) = message.split_once("\n\n").unwrap_or((message, ""));
    let hints = rest.split("\n\n").map(words).filter(|hint| !hint.is_empty());
    let hint = hints.collect::<Vec<_>>().join("; ");
    (
        words(wrong.trim_start_matches("error:")),
        if hint.is_empty() { "try `--help`".to_owned() } else { hint },
    )
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

/// Lines of columns, each as wide as its widest cell; numbers to the right. A row stays one line, whatever is in it.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| escape::text(cell)).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in &rows {
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
