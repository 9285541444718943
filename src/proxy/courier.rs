//! Makes deliveries out of the spaces' stores.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::spaces::Spaces;
use crate::deliveries::{Courier, Delivery};
use crate::destination::Directory;
use crate::faults::{Fault, Faulty};
use crate::ids::{AppName, ReleaseId};
use crate::monitor::Silent;
use crate::record::DeliveryReport;
use crate::wire::Refusal;

/// Reads releases from the spaces.
#[derive(Debug)]
pub struct StoreCourier {
    spaces: Arc<Spaces>,
}

impl StoreCourier {
    /// A courier for all spaces.
    pub fn new(spaces: Arc<Spaces>) -> Self {
        Self { spaces }
    }
}

impl Courier for StoreCourier {
    fn deliver(
        &self,
        delivery: &Delivery,
        destination: &Directory,
        cancelled: &AtomicBool,
    ) -> Result<DeliveryReport, (Fault, String)> {
        let told = |error: &dyn Faulty| (error.fault(), Refusal::of(error).text);
        let store = self.spaces.open(&delivery.space).map_err(|error| told(&error))?;
        let root = store.root(&delivery.release).map_err(|error| told(&error))?;
        let previous = |release: &ReleaseId| store.root(release).ok();
        let place = for_app(destination, &delivery.app);
        let delivered =
            place.deliver(&delivery.release, &root, store.as_ref(), &previous, &Silent, Some(cancelled));
        match delivered {
            Ok(done) => {
                if let Err(error) = store.copies().note(&delivery.app, &place.path) {
                    tracing::warn!(%error, "where a copy was delivered is not remembered");
                }
                Ok(DeliveryReport {
                    place: done.path.display().to_string(),
                    files: done.files,
                    bytes: done.bytes,
                    reused_bytes: done.reused_bytes,
                    already: done.already,
                })
            }
            Err(error) => Err(told(&error)),
        }
    }
}

/// The destination with `{app}` in its path replaced by the application's name.
pub fn for_app(destination: &Directory, app: &AppName) -> Directory {
    let path = destination.path.to_string_lossy();
    let path = if path.contains("{app}") {
        path.replace("{app}", app.as_str()).into()
    } else {
        destination.path.clone()
    };
    Directory { path, ..destination.clone() }
}
