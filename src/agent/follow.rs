//! Follows an answer that goes on: beyond its end, a link that is lost, and a proxy that starts again.

use std::time::Duration;

use super::backoff::Backoff;
use super::session::Session;
use super::{Error, Result};
use ground::faults::{Fault, Faulty as _};
use ground::limits::TARGET_SILENCE_MAX;
use protocol::wire::{Answer, Operation};

impl Session {
    /// Asks a question as [`Session::ask_while`] does, until `take` returns false: again when its answer ends, as it does after a day,
    /// or the proxy cannot be heard any more. `take` gets everything again then.
    ///
    /// Connects again for at most `patience` without an answer, 250 ms after a loss, then later each time, up to every 16 s. `lost`
    /// gets a text at each loss.
    ///
    /// # Errors
    /// The proxy refused in a way that may not pass, or did not answer within `patience`.
    pub async fn follow(
        &self,
        operation: &Operation,
        patience: Duration,
        mut lost: impl FnMut(&str),
        mut take: impl FnMut(Answer) -> bool,
    ) -> Result<()> {
        let mut backoff: Option<Backoff> = None;
        loop {
            let (mut is_heard, mut is_wanted) = (false, true);
            let asking = self.ask_while(operation, |answer| {
                (is_heard, is_wanted) = (true, take(answer));
                is_wanted
            });
            let ended = tokio::select! {
                ended = asking => ended,
                error = self.unheard(TARGET_SILENCE_MAX) => Err(error),
            };
            if !is_wanted {
                return Ok(());
            }
            let error = match ended {
                Err(Error::Endless { .. }) => continue,
                Err(error) if error.fault() != Fault::Retry => return Err(error),
                Err(error) => error,
                Ok(()) => Error::Ended,
            };
            if is_heard {
                backoff = None;
            }
            let backoff = backoff.get_or_insert_with(|| {
                lost(&format!("{error}; following again once the proxy is there"));
                Backoff::new(patience)
            });
            // A proxy that is stopping waits until its agents have gone.
            self.leave().await;
            self.reopen_patiently(error, backoff, |_, _| {}).await?;
        }
    }

    /// Connects again after `error`, a little later each time that fails. `waits` gets why, and how long it waits.
    ///
    /// # Errors
    /// The last one, if no time is left for another try; one that may not pass.
    pub(super) async fn reopen_patiently(
        &self,
        mut error: Error,
        backoff: &mut Backoff,
        waits: impl Fn(&Error, Duration),
    ) -> Result<()> {
        loop {
            let Some(wait) = backoff.wait() else { return Err(error) };
            waits(&error, wait);
            tokio::time::sleep(wait).await;
            match self.reopen(backoff.connect_time()).await {
                Ok(()) => return Ok(()),
                Err(again) if again.fault() == Fault::Retry => error = again,
                Err(other) => return Err(other),
            }
        }
    }
}
