//! What waits for the proxy's stop, and what those are told who would hold it up.

use tokio::sync::watch;

use ground::faults::Fault;
use protocol::wire::Refusal;

/// Waits for the proxy's stop.
#[derive(Debug)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Waits until `stops` holds true.
    pub fn of(stops: &watch::Sender<bool>) -> Self {
        Self(stops.subscribe())
    }

    /// Returns once the proxy stops. May be cancelled.
    pub async fn begun(&mut self) {
        drop(self.0.wait_for(|stops| *stops).await);
    }
}

/// Returns the refusal for who waits for something that the proxy goes on with after its next start.
pub fn stopping() -> Refusal {
    Refusal { fault: Fault::Retry, text: "the proxy is stopping".to_owned(), hint: None }
}
