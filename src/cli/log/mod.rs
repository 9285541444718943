//! The proxy's log on standard error: a line for each event, with the peer that it is about.
//!
//! Escapes control characters in text from outside, and sums up lines that repeat, so that no peer can fill a journal or
//! paint on a terminal.

mod tally;

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use self::tally::Tally;
use ground::escape;
use ground::poison::Unpoisoned as _;

/// The time between two looks for sums that are due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The promise of every write to a string.
const A_STRING: &str = "a string takes every write";

/// A kind of line: its place in the source, its level and its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    place: Identifier,
    level: Level,
    text: String,
}

/// The log of a process.
#[derive(Debug, Clone)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tally: Mutex<Tally<Kind>>,
}

impl Log {
    /// Starts the log; a second one in one process, as in tests, leaves the first as it is.
    pub fn start(level: Level) -> Self {
        let inner = Inner { tally: Mutex::new(Tally::new(Instant::now())) };
        let log = Self(Arc::new(inner));
        let filter = LevelFilter::from_level(level);
        drop(tracing_subscriber::registry().with(filter).with(log.clone()).try_init());
        log
    }

    /// Writes the sums of lines that were held back, every few seconds, for ever.
    pub async fn sum_up(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.write_sums(false);
        }
    }

    /// Writes the remaining sums.
    pub fn end(&self) {
        self.write_sums(true);
    }

    fn write_sums(&self, end: bool) {
        let due = self.tally().due(Instant::now(), end);
        for summary in due {
            let Kind { level, text, .. } = summary.kind;
            let mut line = beginning(level);
            let (lines, seconds) = (summary.lines, summary.span.as_secs().max(1));
            write!(line, "{text}: {lines} more in {seconds} s").expect(A_STRING);
            if let Some(peer) = summary.peer {
                write!(line, " peer={peer}").expect(A_STRING);
            }
            print(line);
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally<Kind>> {
        self.0.tally.lock().unpoisoned()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.take_missing(of_span);
            }
        }
        self.write_sums(false);
        // Two refusals with different faults are different things.
        let text = match fields.fault.as_deref() {
            Some(fault) => format!("{} fault={fault}", fields.message),
            None => fields.message.clone(),
        };
        let kind = Kind { place: metadata.callsite(), level: *metadata.level(), text };
        // The port does not identify a peer.
        let host = fields.peer.as_deref().map(|peer| peer.rsplit_once(':').map_or(peer, |(host, _)| host));
        if self.tally().admits(&kind, host) {
            let mut line = beginning(*metadata.level());
            line.push_str(&kind.text);
            line.push_str(&fields.others);
            if let Some(peer) = fields.peer {
                write!(line, " peer={peer}").expect(A_STRING);
            }
            print(line);
        }
    }
}

/// The time and the level.
fn beginning(level: Level) -> String {
    let mut line = String::new();
    SystemTime.format_time(&mut Writer::new(&mut line)).expect(A_STRING);
    write!(line, " {level:>5} ").expect(A_STRING);
    line
}

fn print(mut line: String) {
    line.push('\n');
    // A log that cannot be written is no reason to stop.
    drop(std::io::stderr().lock().write_all(line.as_bytes()));
}

/// The fields of an event or a span, escaped.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    fault: Option<String>,
    peer: Option<String>,
    /// The other fields, each with a blank and its name before it.
    others: String,
}

impl Fields {
    /// Adds the fields of the span around it.
    fn take_missing(&mut self, of_span: &Self) {
        if self.peer.is_none() {
            self.peer.clone_from(&of_span.peer);
        }
        self.others.push_str(&of_span.others);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = escape::text(value),
            name => write!(self.others, " {name}=\"{}\"", escape::text(value)).expect(A_STRING),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = escape::text(&format!("{value:?}"));
        match field.name() {
            "message" => self.message = text,
            "fault" => self.fault = Some(text),
            "peer" => self.peer = Some(text),
            name => write!(self.others, " {name}={text}").expect(A_STRING),
        }
    }
}
