//! The ledger: everything that must be agreed on, as small named values in tables.
//!
//! Packs are large, immutable and named at random: nobody has to agree on them. Records and their numbers, pins,
//! deliveries, tokens, revocations and leases need agreement, and nothing else does. They are here, behind one trait, so
//! that a kind of ledger is one file: [`FileLedger`] keeps them as small files in the data folder.
//!
//! The contract of every kind; tests/it/ledgers holds each to it:
//!
//! - **Values** are opaque: up to [`VALUE_BYTES_MAX`] bytes that carry a version, and where it matters a checksum, of
//!   their own. A value of an unknown version is left alone.
//! - **Changes** come as one transaction ([`Ledger::apply`]). Where one of its expectations fails, nothing is changed.
//!   Where the process or the machine dies within, or a disk refuses one of the changes, the first of them may have been
//!   applied, in the order given: so what is named comes before what names it.
//! - **Numbers**: whoever needs the next number creates its key, and the one after where that exists. One of several who
//!   try at a time succeeds. A retired key exists: no number is given twice.
//! - **Durability**: a change has reached stable storage when `apply` returns, but for a removal, which a loss of power may
//!   undo.
//! - **Threads**: all methods may be called from any thread, and block.

mod change;
mod error;
mod files;
mod key;
mod leases;

pub use change::{Change, Retired};
pub use error::Error;
pub use files::FileLedger;
pub use key::{Key, Table};
pub use leases::{InProcess, Lease, LeaseNumber, Leases};
#[cfg(feature = "testing")]
pub use leases::{LEASE_LIFE_MAX, LEASE_TIME};

use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

use ground::ids::{AppName, SpaceName};

/// The result of an operation of a ledger.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// 64 KiB: a record or a grant with all the names that it may have is far smaller.
pub const VALUE_BYTES_MAX: u64 = 64 * 1024;

/// Tables of small values that are changed in transactions. The module's page has the contract.
pub trait Ledger: Send + Sync + Debug {
    /// Returns the value of a key; `None` if it is missing or retired.
    ///
    /// # Errors
    /// The value is there and cannot be read.
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>>;

    /// Returns whether [`Ledger::read`] would find a value.
    ///
    /// # Errors
    /// It cannot be known; that is no "no".
    fn has(&self, key: &Key) -> Result<bool>;

    /// Returns the keys of a table in ascending order, retired ones with the reason. Reads no value.
    ///
    /// # Errors
    /// The table cannot be listed.
    fn scan(&self, table: &Table) -> Result<Vec<(Key, Option<Retired>)>>;

    /// Returns the keys of a table that have a value, in ascending order. Reads no value.
    ///
    /// # Errors
    /// The table cannot be listed.
    fn list(&self, table: &Table) -> Result<Vec<Key>> {
        let keys = self.scan(table)?;
        Ok(keys.into_iter().filter(|(_, retired)| retired.is_none()).map(|(key, _)| key).collect())
    }

    /// Returns the applications of a space that have or had a record, cached content or targets, in no order.
    ///
    /// # Errors
    /// They cannot be listed.
    fn apps(&self, space: &SpaceName) -> Result<Vec<AppName>>;

    /// Applies changes as one transaction. Each is of another key.
    ///
    /// # Errors
    /// [`Error::Exists`] names the key whose expectation failed, [`Error::TooLarge`] the one whose value is: nothing was
    /// changed. After any other error, the first of the changes may have been applied.
    fn apply(&self, changes: &[Change]) -> Result<()>;

    /// Notes that what a key names was used now. A hint, not a change: it need not be durable.
    ///
    /// # Errors
    /// It cannot be noted.
    fn touch(&self, key: &Key) -> Result<()>;

    /// Returns when a key was last touched or its value written; none where there is no value.
    ///
    /// # Errors
    /// It cannot be known.
    fn touched(&self, key: &Key) -> Result<Option<SystemTime>>;

    /// Says for people where the value of a key lies.
    fn describe(&self, key: &Key) -> String;

    /// Removes what processes that were killed left half written in a table. Call it before the table is first changed, and
    /// only for tables that no other process changes.
    ///
    /// # Errors
    /// The table cannot be listed, or something in it not be removed.
    fn recover(&self, table: &Table) -> Result<()>;

    /// Returns the leases of a space: the same ones for all who ask.
    fn leases(&self, space: &SpaceName) -> Arc<dyn Leases>;
}
