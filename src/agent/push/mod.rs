//! Pushes a directory or file: scans it, negotiates, feeds what is missing, waits for deliveries.

pub(super) mod encode;
pub(super) mod receipt;

mod attempt;
mod base;
mod driver;
mod inbox;
mod options;
mod possession;
mod rate_limit;
mod record_queries;
mod sketches;
mod source;
mod watchdog;

pub use encode::explain::{Explained, Reason};
pub use options::PushOptions;
pub use receipt::Receipt;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use self::attempt::{Trust, attempt};
use self::source::Source;
use super::backoff::Backoff;
use super::{Error, Result, Session};
use ground::faults::{Fault, Faulty};
use ground::monitor::Monitor;

/// An input that is read within this, or two round trips, is told when all of it is known.
const READING_SHORT: Duration = Duration::from_millis(20);

/// Pushes; goes on by itself where the link is lost, and reads everything once more where a file changed.
///
/// What was acknowledged never crosses again, neither in this push nor in the next one after a failure.
///
/// # Errors
/// Any of [`Error`]; one that passes, only after [`PushOptions::patience`].
pub async fn push(session: &Session, options: &PushOptions, monitor: &Arc<dyn Monitor>) -> Result<Receipt> {
    protocol::check_labels(&options.labels)?;
    let begin = Instant::now();
    let mut trust = Trust { memory: !options.checksum, short: true, eager: true, archives: !options.raw };
    let mut input: Option<Source> = None;
    let mut lost: Option<Backoff> = None;
    loop {
        let stored = AtomicBool::new(false);
        let attempted = async {
            let reading = Instant::now();
            let next = match input.take() {
                // What was told as it was read is told all at once the next time.
                Some(earlier) => earlier.whole().await?,
                None => read_input(session, options, monitor, trust).await?,
            };
            if let Some(patience) = &mut lost {
                patience.excuse(reading.elapsed());
            }
            attempt(session, options, monitor, begin, trust, input.insert(next), &stored).await
        };
        let error = match attempted.await {
            Ok(receipt) => {
                for dropped in &receipt.dropped {
                    monitor.note(&dropped.text());
                }
                return Ok(receipt);
            }
            Err(error) => error,
        };
        match &error {
            // Something changed, or what is remembered of it is wrong: then all is read, once.
            Error::Scan(scan) if scan.is_passing() && trust.memory => {
                monitor.note(&format!("{error}; reading everything once more"));
                (trust.memory, input) = (false, None);
                continue;
            }
            // What changes all the time will not stand still for another try.
            Error::Scan(_) | Error::Threads(_) => return Err(error),
            Error::Push(protocol::Error::Mismatch) if trust.short => trust.short = false,
            Error::Push(protocol::Error::Unproven(_)) if trust.archives => {
                monitor.note(&format!("{error}; archives are pushed as they are"));
                (trust.archives, trust.eager, input) = (false, false, None);
                continue;
            }
            _ if error.fault() == Fault::Retry && !options.patience.is_zero() => {
                // Only stored content is progress: a push that fails at the same point each time would never end.
                if stored.into_inner() {
                    lost = None;
                }
                let patience = lost.get_or_insert_with(|| Backoff::new(options.patience));
                reconnect(session, monitor, error, patience).await?;
            }
            _ => return Err(error),
        }
        // The proxy says what has crossed already.
        trust.eager = false;
    }
}

/// Waits and connects again, a little later each time.
async fn reconnect(
    session: &Session,
    monitor: &Arc<dyn Monitor>,
    mut error: Error,
    patience: &mut Backoff,
) -> Result<()> {
    loop {
        let Some(wait) = patience.wait() else { return Err(error) };
        monitor.note(&format!("{error}; trying again in {:.1} s", wait.as_secs_f64()));
        tokio::time::sleep(wait).await;
        match session.reopen(patience.connect_time()).await {
            Ok(()) => return Ok(()),
            Err(again) if again.fault() == Fault::Retry => error = again,
            Err(other) => return Err(other),
        }
    }
}

async fn read_input(
    session: &Session,
    options: &PushOptions,
    monitor: &Arc<dyn Monitor>,
    trust: Trust,
) -> Result<Source> {
    let key = session.memory_key(&options.app);
    // To tell all at once spares a round trip, where that comes soon.
    let patience = (session.counters().rtt * 2).max(READING_SHORT);
    Source::begin(options, monitor, &key, (trust.memory, trust.archives), patience).await
}
