//! The errors of a link, and the mapping of QUIC's errors to them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{ConnectionError, ReadError, TransportErrorCode, WriteError};

use ground::faults::{Fault, faulty};
use ground::limits::MESSAGE_BYTES_MAX;
use protocol::address::Fingerprint;

/// The most bytes of a peer's explanation that are stored.
const REASON_BYTES_MAX: usize = 512;
/// RFC 8446, section 6: alerts of a peer that shares no version, cipher, key type or protocol.
const ALERTS_OF_OTHERS: [u8; 6] = [40, 43, 70, 109, 110, 120];

/// The errors of a link.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener's address cannot be used.
    #[error("could not listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The host's name has no address.
    #[error("could not find the address of `{host}`: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// No connection could be established.
    #[error("could not reach the proxy at {address}: {reason}")]
    Unreachable {
        /// The address tried first.
        address: SocketAddr,
        /// The change.
        reason: String,
    },
    /// The proxy has another key than the one pinned.
    #[error("the proxy has another key: expected fingerprint {expected}, found {found}")]
    WrongFingerprint {
        /// The pinned one.
        expected: Fingerprint,
        /// The one that the proxy showed.
        found: Fingerprint,
    },
    /// The peer does not speak this version of whit.
    #[error("the peer at {0} does not speak this version of whit")]
    NoCommonVersion(SocketAddr),
    /// The proxy serves as many connections as it may, or is stopping.
    #[error("the proxy at {0} takes no more connections for now")]
    Refused(SocketAddr),
    /// The peer ended the stream or the connection and said why.
    #[error("the peer ended the request{}{reason}", if .reason.is_empty() { "" } else { ": " })]
    Closed {
        /// The peer's hint.
        fault: Fault,
        /// The peer's explanation; may be empty.
        reason: String,
    },
    /// This side ended it.
    #[error("the connection was closed on this side")]
    Ended,
    /// The connection broke.
    #[error("the connection was lost: {reason}")]
    Lost {
        /// The change.
        reason: String,
    },
    /// The peer neither sends nor reads.
    #[error("the peer was silent for {seconds} s inside a message")]
    Silent {
        /// The deadline.
        seconds: u64,
    },
    /// A message beyond the limit, ours or the peer's.
    #[error("a message has {bytes} B, expected at most {MESSAGE_BYTES_MAX} B")]
    TooLarge {
        /// The bytes that it takes.
        bytes: usize,
    },
    /// The stream ended inside a message.
    #[error("a message ended after {found} B, expected {expected} B")]
    Cut {
        /// The announced length.
        expected: usize,
        /// The received length.
        found: usize,
    },
    /// Bytes that are not the expected message.
    #[error("a message of {bytes} B is malformed or of an unexpected kind")]
    Malformed {
        /// Its length.
        bytes: usize,
    },
}

/// The result of an operation on a link.
pub type Result<T, E = Error> = std::result::Result<T, E>;

faulty! {
    Error;
    Self::Closed { fault, .. } => *fault;
    Self::Bind { source, .. } => Fault::of_io(source),
        "choose another address, or see which process uses this one";
    Self::Resolve { source, .. } =>
        if source.kind() == io::ErrorKind::TimedOut { Fault::Retry } else { Fault::Missing },
        "check the host in the proxy's address and the name service";
    Self::Unreachable { .. } => Fault::Retry,
        "check that `whit serve` runs there and that UDP to its port passes the firewalls between";
    Self::WrongFingerprint { .. } => Fault::Denied,
        "compare with what `whit serve` prints; if the proxy was installed again, run `whit login` \
         again; otherwise someone may be in between";
    Self::NoCommonVersion(_) => Fault::Version, "check the port, and update the older of agent and proxy";
    Self::TooLarge { .. } | Self::Malformed { .. } | Self::Cut { .. } => Fault::Corrupt;
    Self::Ended => Fault::Interrupted;
    Self::Refused(_) | Self::Lost { .. } | Self::Silent { .. } => Fault::Retry;
}

impl Error {
    /// Sorts the end of an established connection.
    pub(super) fn of_connection(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let fault = Fault::from_code(close.error_code.into_inner());
                let reason = &close.reason[..close.reason.len().min(REASON_BYTES_MAX)];
                Self::Closed { fault, reason: plain(reason) }
            }
            ConnectionError::LocallyClosed => Self::Ended,
            error => Self::Lost { reason: error.to_string() },
        }
    }

    /// Sorts why a connection to `address` did not come about.
    pub(super) fn of_handshake(error: &ConnectionError, address: SocketAddr) -> Self {
        let code = match error {
            ConnectionError::VersionMismatch => return Self::NoCommonVersion(address),
            ConnectionError::ConnectionClosed(close) => Some(close.error_code),
            ConnectionError::TransportError(error) => Some(error.code),
            ConnectionError::ApplicationClosed(_) => return Self::of_connection(error),
            _ => None,
        };
        match code {
            // The second is a stopping proxy: it may not give a reason before its key is proven.
            Some(TransportErrorCode::CONNECTION_REFUSED | TransportErrorCode::APPLICATION_ERROR) => {
                Self::Refused(address)
            }
            Some(code) if ALERTS_OF_OTHERS.map(TransportErrorCode::crypto).contains(&code) => {
                Self::NoCommonVersion(address)
            }
            _ => Self::Unreachable { address, reason: error.to_string() },
        }
    }

    pub(super) fn of_read(error: &ReadError) -> Self {
        match error {
            ReadError::Reset(code) => {
                Self::Closed { fault: Fault::from_code(code.into_inner()), reason: String::new() }
            }
            ReadError::ConnectionLost(error) => Self::of_connection(error),
            _ => Self::Ended,
        }
    }

    pub(super) fn of_write(error: &WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => {
                Self::Closed { fault: Fault::from_code(code.into_inner()), reason: String::new() }
            }
            WriteError::ConnectionLost(error) => Self::of_connection(error),
            _ => Self::Ended,
        }
    }

    pub(super) fn silent(deadline: Duration) -> Self {
        Self::Silent { seconds: deadline.as_secs() }
    }
}

/// A peer's words, safe to print on a terminal.
fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
