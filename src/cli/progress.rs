//! Progress: a bar on a terminal, a line every few seconds elsewhere, and notes.

use std::borrow::Cow;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::output::{self, Output, to_stderr};
use crate::agent::Session;
use ground::escape;
use ground::monitor::{Monitor, Phase, Silent};
use ground::poison::Unpoisoned as _;

/// Redraws a second: smooth, and cheap.
const REDRAWS: u8 = 8;
/// The time between two lines without a terminal: below the ten seconds after which people, and CI systems, suspect a hang.
const LINE_EVERY: Duration = Duration::from_secs(9);

/// Returns the progress that `output` wants; `transfer` is the word for transfers: `sending` or `fetching`.
pub fn monitor(output: &Output, transfer: &'static str) -> Arc<dyn Monitor> {
    if output.is_quiet() {
        Arc::new(Silent)
    } else if output.shows_progress() {
        Arc::new(Bar::new(transfer))
    } else {
        Arc::new(Lines::start(transfer, LINE_EVERY, to_stderr))
    }
}

/// Shows that the command waits for something, until it is dropped.
pub fn waiting(output: &Output, what: impl Into<Cow<'static, str>>) -> Arc<dyn Monitor> {
    let what = what.into();
    if output.is_quiet() {
        Arc::new(Silent)
    } else if output.shows_progress() {
        let bar = Bar::new("");
        bar.show(what, None);
        Arc::new(bar)
    } else {
        let lines = Lines::start("", LINE_EVERY, to_stderr);
        lines.shared.work().begin(what, None);
        Arc::new(lines)
    }
}

/// The time between two looks at what has crossed the link.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Does `work`, and meanwhile reports to `monitor` the bytes that have crossed the session's link.
pub async fn watched<T>(session: &Session, monitor: &dyn Monitor, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(LOOK_EVERY) => {
                let counters = session.counters();
                monitor.crossed(counters.sent_bytes + counters.received_bytes);
            }
        }
    }
}

fn words(phase: Phase, transfer: &'static str) -> &'static str {
    match phase {
        Phase::Scan => "reading",
        Phase::Negotiate => "comparing",
        Phase::Transfer => transfer,
        Phase::Rebuild => "writing",
        Phase::Deliver => "delivering",
    }
}

/// One line that shows the phase under way.
#[derive(Debug)]
struct Bar {
    line: ProgressBar,
    transfer: &'static str,
    phase: Mutex<Option<Phase>>,
    /// Bytes that had crossed the link at the last look, and their rate in bytes a second.
    crossed: Mutex<Option<(Instant, u64)>>,
    speed: Arc<AtomicU64>,
}

impl Bar {
    /// Shows nothing until a phase begins.
    fn new(transfer: &'static str) -> Self {
        let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(REDRAWS));
        line.set_style(ProgressStyle::with_template("").expect("the template is right"));
        Self { line, transfer, phase: Mutex::new(None), crossed: Mutex::new(None), speed: Arc::default() }
    }

    fn show(&self, what: impl Into<Cow<'static, str>>, total: Option<u64>) {
        match total {
            Some(total) => self.line.set_length(total),
            None => self.line.unset_length(),
        }
        let template = match total {
            Some(_) => "{msg:>9} {bar:30} {decimal_bytes}/{decimal_total_bytes} {speed} {elapsed}",
            None => "{msg:>9} {spinner} {done} {speed} {elapsed}",
        };
        let speed = Arc::clone(&self.speed);
        let style = ProgressStyle::with_template(template).expect("the template is right");
        // Leave out numbers that are still zero.
        let style = style.with_key("done", |state: &ProgressState, out: &mut dyn fmt::Write| {
            if state.pos() > 0 {
                let _ = out.write_str(&output::bytes(state.pos()));
            }
        });
        let style = style.with_key("speed", move |_: &ProgressState, out: &mut dyn fmt::Write| {
            let speed = speed.load(Ordering::Relaxed);
            if speed > 0 {
                let _ = write!(out, "{}/s", output::bytes(speed));
            }
        });
        self.line.set_style(style);
        self.line.set_message(what);
        self.line.enable_steady_tick(Duration::from_millis(200));
    }
}

impl Monitor for Bar {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        let mut current = self.phase.lock().unpoisoned();
        if *current != Some(phase) {
            *current = Some(phase);
            self.line.reset();
        }
        self.show(words(phase, self.transfer), total);
    }

    fn advance(&self, phase: Phase, bytes: u64) {
        let current = *self.phase.lock().unpoisoned();
        if current == Some(phase) {
            self.line.inc(bytes);
        }
    }

    fn crossed(&self, bytes: u64) {
        let now = Instant::now();
        let before = self.crossed.lock().unpoisoned().replace((now, bytes));
        if let Some((then, before)) = before {
            let speed = rate(bytes.saturating_sub(before), now.saturating_duration_since(then));
            self.speed.store(speed, Ordering::Relaxed);
        }
    }

    fn note(&self, text: &str) {
        self.line.println(escape::text(text));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}

/// Prints a line every few seconds, for logs; nothing if the work is short.
#[derive(Debug)]
struct Lines {
    shared: Arc<Shared>,
    transfer: &'static str,
    thread: Option<JoinHandle<()>>,
    say: fn(&str),
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    /// The work has ended.
    ended: Condvar,
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unpoisoned()
    }
}

impl Lines {
    /// Calls `say` with a line each time `every` has passed.
    fn start(transfer: &'static str, every: Duration, say: fn(&str)) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        // Without a thread the work continues without a display.
        let thread = thread::Builder::new().spawn(move || report(&of_thread, every, say)).ok();
        Self { shared, transfer, thread, say }
    }
}

fn report(shared: &Shared, every: Duration, say: fn(&str)) {
    let mut work = shared.work();
    let mut next = Instant::now() + every;
    while !work.ended {
        let now = Instant::now();
        if now >= next {
            next = now + every;
            if let Some(line) = work.line(now) {
                say(&line);
            }
        }
        let waited = shared.ended.wait_timeout(work, next.saturating_duration_since(now));
        work = waited.unpoisoned().0;
    }
}

impl Monitor for Lines {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        let mut work = self.shared.work();
        if work.phase == Some(phase) {
            work.total = total;
        } else {
            work.begin(words(phase, self.transfer).into(), total);
            work.phase = Some(phase);
        }
    }

    fn advance(&self, phase: Phase, bytes: u64) {
        let mut work = self.shared.work();
        if work.phase == Some(phase) {
            work.done += bytes;
        }
    }

    fn crossed(&self, bytes: u64) {
        self.shared.work().crossed = bytes;
    }

    fn note(&self, text: &str) {
        (self.say)(&escape::text(text));
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.shared.work().ended = true;
        self.shared.ended.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The work under way, and how far it is.
#[derive(Debug, Default)]
struct Work {
    what: Cow<'static, str>,
    phase: Option<Phase>,
    total: Option<u64>,
    done: u64,
    began: Option<Instant>,
    /// Bytes that have crossed the link since the command began.
    crossed: u64,
    /// The time of the last line, and what was done and had crossed by then.
    reported: Option<(Instant, u64, u64)>,
    ended: bool,
}

impl Work {
    fn begin(&mut self, what: Cow<'static, str>, total: Option<u64>) {
        let began = Some(Instant::now());
        // Bytes that crossed earlier belong to another phase.
        let reported = began.map(|now| (now, 0, self.crossed));
        *self = Self {
            what,
            total,
            began,
            reported,
            crossed: self.crossed,
            ended: self.ended,
            ..Self::default()
        };
    }

    /// Returns the next line; none before any work has begun.
    fn line(&mut self, now: Instant) -> Option<String> {
        let began = self.began?;
        let (since, done, crossed) =
            self.reported.replace((now, self.done, self.crossed)).unwrap_or((began, 0, self.crossed));
        let since = now.saturating_duration_since(since);
        let passed = now.saturating_duration_since(began);
        let mut line = self.what.to_string();
        let mut say = |text: &str| line.push_str(text);
        let is_done = self.total.is_some_and(|total| total > 0 && self.done >= total);
        match self.total.filter(|total| *total > 0) {
            Some(total) => say(&format!(" {} of {}", output::bytes(self.done), output::bytes(total))),
            None if self.done > 0 => say(&format!(" {}", output::bytes(self.done))),
            None => {}
        }
        if is_done {
            say(", waiting for the rest to end");
        } else if self.done > done {
            say(&format!(", {}/s", output::bytes(rate(self.done - done, since))));
        }
        if self.crossed > crossed {
            say(&format!(", {}/s over the link", output::bytes(rate(self.crossed - crossed, since))));
        }
        if let (Some(total), false) = (self.total, is_done)
            && let Some(left) = total.saturating_sub(self.done).checked_div(rate(self.done, passed))
        {
            say(&format!(", about {} left", humantime::format_duration(Duration::from_secs(left))));
        }
        say(&format!(" ({} so far)", humantime::format_duration(Duration::from_secs(passed.as_secs()))));
        Some(line)
    }
}

/// Whole bytes a second.
fn rate(bytes: u64, time: Duration) -> u64 {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / milliseconds
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    static SAID: Mutex<Option<Sender<String>>> = Mutex::new(None);

    fn say(text: &str) {
        if let Some(said) = &*SAID.lock().expect("nothing panics with it") {
            drop(said.send(text.to_owned()));
        }
    }

    #[test]
    fn work_that_takes_long_says_so_and_again_until_it_ends() {
        let (sender, said) = channel();
        *SAID.lock().expect("nothing panics with it") = Some(sender);
        let lines = Lines::start("sending", Duration::from_millis(5), say);
        lines.begin(Phase::Negotiate, None);
        let heard = |begins: &str| {
            let patience = Duration::from_secs(60);
            while !said.recv_timeout(patience).expect("it says something").starts_with(begins) {}
        };
        heard("comparing (");
        heard("comparing (");
        lines.begin(Phase::Transfer, Some(2_000_000));
        lines.advance(Phase::Transfer, 1_000_000);
        heard("sending 1.00 MB of 2.00 MB, ");
        lines.note("a note");
        heard("a note");
        drop(lines);
        *SAID.lock().expect("nothing panics with it") = None;
        while said.recv().is_ok() {}
    }

    #[test]
    fn a_line_says_what_how_much_how_fast_and_how_long() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut work = Work { what: "fetching".into(), began: Some(began), ..Work::default() };
        assert_eq!(work.line(at(9)).as_deref(), Some("fetching (9s so far)"));
        (work.total, work.done, work.crossed) = (Some(100_000_000), 20_000_000, 5_000_000);
        assert_eq!(
            work.line(at(19)).as_deref(),
            Some(
                "fetching 20.00 MB of 100.00 MB, 2.00 MB/s, 500.00 kB/s over the link, about 1m 16s left (19s so far)"
            )
        );
        // No speed is shown if nothing more was done.
        work.crossed = 5_900_000;
        assert_eq!(
            work.line(at(28)).as_deref(),
            Some("fetching 20.00 MB of 100.00 MB, 100.00 kB/s over the link, about 1m 52s left (28s so far)")
        );
        work.done = 100_000_000;
        assert_eq!(
            work.line(at(37)).as_deref(),
            Some("fetching 100.00 MB of 100.00 MB, waiting for the rest to end (37s so far)")
        );
        assert_eq!(Work::default().line(at(9)), None);
    }
}
