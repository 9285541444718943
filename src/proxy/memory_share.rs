//! The share that one push or pull has of all memory for pushes and pulls; users share it, so that no agent takes
//! everything.

use std::sync::Arc;

use super::Owner;
use ground::faults::Fault;
use ground::limits::REQUEST_HELD_FREE;
use ground::shares::{Share, Shares};
use protocol::wire::Refusal;

/// 1 MiB: the unit in which memory is taken.
const UNIT: usize = 1024 * 1024;

/// The units of one push or pull.
#[derive(Debug)]
pub(super) struct MemoryShare {
    of: Arc<Shares<Owner>>,
    owner: Owner,
    units: Vec<Share<Owner>>,
}

impl MemoryShare {
    /// Begins with nothing.
    pub fn new(of: &Arc<Shares<Owner>>, owner: Owner) -> Self {
        Self { of: Arc::clone(of), owner, units: Vec::new() }
    }

    /// Sets the bytes that it uses now.
    ///
    /// # Errors
    /// This is more than others leave, or than there is.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Refusal> {
        let units = bytes.saturating_sub(REQUEST_HELD_FREE).div_ceil(UNIT);
        self.units.truncate(units);
        while self.units.len() < units {
            let share = self.of.take(&self.owner, UNIT as u64).ok_or_else(|| Refusal {
                fault: Fault::Retry,
                text: format!("requests of user `{}` have reached the user's share of memory", self.owner.1),
                hint: Some("run fewer at a time".to_owned()),
            })?;
            self.units.push(share);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_free_part_is_shared_and_given_back() {
        let shares = Shares::new(8 * UNIT as u64);
        let owner: Owner = ("shop".parse().expect("a name"), "eve".parse().expect("a name"));
        let mut one = MemoryShare::new(&shares, owner.clone());
        one.resize(REQUEST_HELD_FREE).expect("that is free");
        assert_eq!(shares.held_by(&owner), 0);
        one.resize(REQUEST_HELD_FREE + 3 * UNIT + 1).expect("half is left for others");
        let mut two = MemoryShare::new(&shares, owner.clone());
        assert!(two.resize(REQUEST_HELD_FREE + 1).is_err_and(|refusal| refusal.fault == Fault::Retry));
        let bob = ("shop".parse().expect("a name"), "bob".parse().expect("a name"));
        MemoryShare::new(&shares, bob).resize(REQUEST_HELD_FREE + UNIT).expect("he finds some");
        one.resize(UNIT).expect("less");
        two.resize(REQUEST_HELD_FREE + 2 * UNIT).expect("it was given back");
        drop((one, two));
        assert_eq!(shares.held_by(&owner), 0);
    }
}
