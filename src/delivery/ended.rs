//! A delivery that has ended, as it is written down.

use serde::{Deserialize, Serialize};

use super::pending::Delivery;
use format::record::{DeliveryReport, DeliveryState};
use format::value;
use ground::escape;

/// First byte of the value (FORMAT 5.2).
const VERSION: u8 = 1;
/// 32 KiB, half of what a value may have: beyond it, what only people read is left out.
const BYTES_MAX: usize = 32 * 1024;
/// Bytes of a reason; more says no more.
const REASON_BYTES_MAX: usize = 4096;

/// A delivery that has ended, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The delivery.
    pub delivery: Delivery,
    /// Seconds since 1970 at which its last try began; 0 if none did.
    pub started: u64,
    /// Seconds since 1970 at which it ended.
    pub ended: u64,
    /// How it ended.
    pub state: DeliveryState,
}

impl Ended {
    /// Encodes the value. Leaves out a long report's outputs and notes, and the end of a long reason.
    pub fn encode(&self) -> Vec<u8> {
        let whole = value::encode(VERSION, self);
        if whole.len() <= BYTES_MAX {
            return whole;
        }
        let state = match self.state.clone() {
            DeliveryState::Delivered(report) => DeliveryState::Delivered(DeliveryReport {
                actions: Vec::new(),
                answer: None,
                notes: Vec::new(),
                ..report
            }),
            DeliveryState::Failed { mut reason, fault } => {
                reason.truncate(escape::boundary(&reason, REASON_BYTES_MAX));
                DeliveryState::Failed { reason, fault }
            }
            state => state,
        };
        value::encode(VERSION, &Self { state, ..self.clone() })
    }

    /// Decodes a value; none if the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        value::decode(VERSION..=VERSION, bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::VALUE_BYTES_MAX;
    use ground::faults::Fault;
    use ground::ids::ReleaseId;

    fn ended(state: DeliveryState) -> Ended {
        let (space, app) = ("shop".parse().expect("a name"), "web".parse().expect("a name"));
        let destination = "edge".parse().expect("a name");
        let delivery = Delivery::new(space, app, ReleaseId::of(b"a root"), destination);
        Ended { delivery, started: 10, ended: 20, state }
    }

    #[test]
    fn each_end_is_read_as_it_was_written() {
        for state in [
            DeliveryState::Delivered(DeliveryReport {
                files: 3,
                notes: vec!["a note".to_owned()],
                ..DeliveryReport::default()
            }),
            DeliveryState::Failed { reason: "full".to_owned(), fault: Fault::Full },
        ] {
            let ended = ended(state);
            assert_eq!(Ended::decode(&ended.encode()), Some(ended));
        }
    }

    #[test]
    fn an_end_with_endless_words_still_fits_the_ledger() {
        let long = "ä".repeat(1_000_000);
        for state in [
            DeliveryState::Delivered(DeliveryReport {
                files: 3,
                notes: vec![long.clone()],
                ..DeliveryReport::default()
            }),
            DeliveryState::Failed { reason: long, fault: Fault::Full },
        ] {
            let bytes = ended(state).encode();
            assert!(bytes.len() as u64 <= VALUE_BYTES_MAX && Ended::decode(&bytes).is_some());
        }
    }
}
