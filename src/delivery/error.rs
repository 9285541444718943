//! Why a delivery could not be queued or steered.

use crate::ledger;
use disk::files;
use ground::faults::{Fault, faulty};
use ground::ids::{DeliveryId, DestinationName};
use ground::limits::DELIVERIES_PER_USER_MAX;

/// Why a delivery could not be queued or steered. The failure of a delivery is a state of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// A worker's thread.
    #[error(transparent)]
    Thread(#[from] files::Error),
    /// The admin has not defined it.
    #[error("there is no destination `{0}`")]
    Unknown(DestinationName),
    /// One user's limit.
    #[error(
        "destination `{destination}`: {waiting} deliveries of this user are waiting already, at most {DELIVERIES_PER_USER_MAX} may"
    )]
    TooMany {
        /// The destination.
        destination: DestinationName,
        /// The number of deliveries that wait.
        waiting: usize,
    },
    /// No delivery that is remembered has this id.
    #[error("there is no delivery {0}")]
    NoDelivery(DeliveryId),
    /// Nothing can be done about it any more.
    #[error("delivery {0} has ended")]
    HasEnded(DeliveryId),
    /// It is under way.
    #[error("delivery {0} is under way")]
    Runs(DeliveryId),
    /// Its destination was taken out of the configuration.
    #[error("destination `{destination}` of delivery {id} is not configured any more")]
    Stranded {
        /// The delivery.
        id: DeliveryId,
        /// Its destination.
        destination: DestinationName,
    },
    /// A destination is there, so that it need not be dropped.
    #[error("destination `{0}` is configured")]
    InUse(DestinationName),
    /// Its destination is there, so that it need not be dropped.
    #[error("destination `{destination}` of delivery {id} is configured")]
    Configured {
        /// The delivery.
        id: DeliveryId,
        /// Its destination.
        destination: DestinationName,
    },
}

faulty! {
    Error passes on Ledger, Thread;
    Self::Unknown(_) => Fault::Missing,
        "`whit destinations` lists those of the proxy's configuration file, which also has its groups; a proxy inside the command delivers to dir:PATH";
    Self::TooMany { .. } => Fault::Retry;
    Self::NoDelivery(_) => Fault::Missing, "`whit deliveries` lists those that wait and those that ended last";
    Self::HasEnded(_) => Fault::Input, "`whit deliver APP@RELEASE --to DEST` delivers a release again";
    Self::Runs(_) => Fault::Input, "`whit deliveries --watch` shows how far it is, `whit deliveries cancel` ends it";
    Self::Stranded { id, .. } => Fault::Missing,
        format!("define the destination again, or end the delivery: `whit deliveries drop {id}`");
    Self::InUse(_) => Fault::Input, "take it out of the proxy's configuration file first, and start the proxy again";
    Self::Configured { id, .. } => Fault::Input, format!("`whit deliveries cancel {id}` ends it");
}
