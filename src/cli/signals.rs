//! Signals that end a command in an orderly way: SIGINT, as Ctrl-C sends, and SIGTERM, as CI systems do.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::Error;
use ground::faults::Fault;

/// Receives a signal from now on, instead of the system's default action.
pub fn listen_for(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|source| Error::Message {
        fault: Fault::of_io(&source),
        text: format!("could not listen for signals: {source}"),
        hint: None,
    })
}

/// Waits for SIGINT or SIGTERM; from the first call on neither ends the program by itself.
///
/// Where the system takes no handler, it does.
pub async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (listen_for(SignalKind::interrupt()), listen_for(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
