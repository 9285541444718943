//! Pushes a directory or file: scans it, negotiates, sends what is missing, waits for deliveries.

pub(super) mod encode;
pub(super) mod receipt;

mod attempt;
mod base;
mod content;
mod conversation;
mod earlier;
mod options;
mod record_queries;
mod source;
mod stored;
mod stream;
mod watchdog;

pub use encode::explain::{Explained, Reason};
pub use options::PushOptions;
pub use receipt::Receipt;
pub use stored::StoredRelease;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::attempt::{Assumptions, Names, Push, attempt};
use self::source::{FilesRead, Reading, Source};
use super::backoff::Backoff;
use super::hint::Hint;
use super::memory::{forget_streams, recall_link, recall_slowness};
use super::pace::{Effort, Pace};
use super::processor::Processor;
use super::{Error, Result, Session};
use crate::net::blocking;
use crate::net::link_estimate::{LOCAL_TRIP, Link};
use crate::store::ArchiveForm;
use ground::faults::{Fault, Faulty};
use ground::monitor::Monitor;

/// The least wait for the proxy's hint, once an archive needs it.
const HINT_PATIENCE: Duration = Duration::from_millis(500);
/// An input that is read within this time, or within two round trips, is announced when all of it is known.
const READING_SHORT: Duration = Duration::from_millis(20);

/// Pushes. Connects again where the link is lost, and reads everything once more where a file changed.
///
/// Content that the proxy acknowledged is not sent again, neither in this push nor in the next one after a failure.
///
/// # Errors
/// Any of [`Error`]; one that may pass is returned only after [`PushOptions::patience`].
pub async fn push(session: &Session, options: &PushOptions, monitor: &Arc<dyn Monitor>) -> Result<Receipt> {
    run(session, options, None, monitor).await
}

/// Pushes a release that is in a store, as [`push`]; what `options` says of files does not apply.
///
/// # Errors
/// As [`push`]; the store's.
pub async fn push_stored(
    session: &Session,
    options: &PushOptions,
    stored: &Arc<StoredRelease>,
    monitor: &Arc<dyn Monitor>,
) -> Result<Receipt> {
    run(session, options, Some(stored), monitor).await
}

async fn run(
    session: &Session,
    options: &PushOptions,
    stored: Option<&Arc<StoredRelease>>,
    monitor: &Arc<dyn Monitor>,
) -> Result<Receipt> {
    protocol::check_labels(&options.labels)?;
    let begun = Instant::now();
    let hint = Arc::new(Hint::default());
    let (pace, asks_at_once) = pace(session, options, &hint).await?;
    let mut is_hinted = false;
    let push = &Push { session, options, stored, pace: &pace, monitor, begun };
    let mut assumptions = Assumptions::of(options);
    let mut source: Option<Source> = None;
    let mut backoff: Option<Backoff> = None;
    loop {
        let stored = Arc::new(AtomicBool::new(false));
        let attempted = async {
            let reading = Instant::now();
            let next = match source.take() {
                // A manifest that was announced while it was read is announced as a whole the next time.
                Some(earlier) => earlier.whole().await?,
                None => read(push, assumptions.reading).await?,
            };
            if let Some(backoff) = &mut backoff {
                backoff.excuse(reading.elapsed());
            }
            source = Some(next);
            attempt(push, assumptions, &mut source, &stored).await
        };
        // While the input is read.
        let asking = async {
            if !is_hinted {
                if !asks_at_once {
                    hint.wanted().await;
                }
                session.ask_hint(&options.app, &hint).await;
                is_hinted = true;
            }
            std::future::pending().await
        };
        let attempted = tokio::select! {
            attempted = attempted => attempted,
            never = asking => never,
        };
        let error = match attempted {
            Ok(receipt) => {
                for dropped in &receipt.dropped {
                    monitor.note(&dropped.text());
                }
                return Ok(receipt);
            }
            Err(error) => error,
        };
        match &error {
            // A file changed, or the memory of it is wrong: all files are read, once.
            Error::Scan(scan) if scan.is_passing() && assumptions.reading.files == FilesRead::Changed => {
                monitor.note(&format!("{error}; reading all files again"));
                (assumptions.reading.files, source) = (FilesRead::All, None);
                continue;
            }
            // A file that changes all the time will not stand still for another attempt.
            Error::Scan(_) | Error::Threads(_) => return Err(error),
            Error::Push(protocol::Error::Mismatch) if assumptions.names == Names::Short => {
                assumptions.names = Names::Full;
            }
            Error::Push(protocol::Error::Unproven(_))
                if assumptions.reading.archives == ArchiveForm::Unpacked && push.stored.is_none() =>
            {
                monitor.note(&format!("{error}; archives are pushed as they are"));
                forget(session, options).await?;
                assumptions.reading.archives = ArchiveForm::Packed;
                (assumptions.is_first, source) = (false, None);
                continue;
            }
            _ if error.fault() == Fault::Retry && !options.patience.is_zero() => {
                // Only stored content is progress: a push that fails at the same point each time would never end.
                if stored.load(Ordering::Relaxed) {
                    backoff = None;
                }
                let backoff = backoff.get_or_insert_with(|| Backoff::new(options.patience));
                let note = |error: &Error, wait: Duration| {
                    monitor.note(&format!("{error}; trying again in {:.1} s", wait.as_secs_f64()));
                };
                session.reopen_patiently(error, backoff, note).await?;
            }
            _ => return Err(error),
        }
        assumptions.is_first = false;
    }
}

/// Returns the pace of a push: over the link as the user says it is, as it was remembered, or as the proxy will say in its hint; and
/// whether that is asked for at once.
async fn pace(session: &Session, options: &PushOptions, hint: &Arc<Hint>) -> Result<(Pace, bool)> {
    let trip = session.first_trip();
    let (state, url) = (options.state.clone(), session.url().clone());
    let recall = move || {
        let Some(state) = state else { return (None, None) };
        (recall_link(&state, &url), recall_slowness(&state))
    };
    let (remembered, slowness) = blocking::start(recall).await?;
    let mut asks = false;
    let link = if let Some(rate) = options.link_rate.or(options.upload_rate_max) {
        Link::told(rate, trip)
    } else {
        let remembered = remembered.filter(|remembered| remembered.is_of(trip));
        let is_distant = trip >= LOCAL_TRIP && !session.is_loopback();
        asks = remembered.is_none() && is_distant && options.effort == Effort::Auto && !options.raw;
        session.link(remembered, Arc::clone(hint))
    };
    let pace = Pace::new(options.effort, link, options.threads).on(Processor::new(slowness));
    Ok((pace.hinted(Arc::clone(hint), HINT_PATIENCE.max(trip * 3)), asks))
}

/// Forgets what is remembered of packed streams, which may be wrong.
async fn forget(session: &Session, options: &PushOptions) -> Result<()> {
    let Some(state) = options.state.clone() else { return Ok(()) };
    let key = session.memory_key(&options.app);
    Ok(blocking::start(move || forget_streams(&state, &key)).await?)
}

async fn read(push: &Push<'_>, reading: Reading) -> Result<Source> {
    if let Some(stored) = push.stored {
        let stored = Arc::clone(stored);
        return Ok(Source::Scanned(Box::new(super::blocking(move || stored.scanned()).await?)));
    }
    let key = push.session.memory_key(&push.options.app);
    // Announcing a whole manifest saves a round trip, which is worth a short wait.
    let patience = (push.session.counters().rtt * 2).max(READING_SHORT);
    Source::begin(push.options, push.pace, push.monitor, &key, reading, patience).await
}
