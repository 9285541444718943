//! Takes what depends on places out of executables, so that unchanged functions are unchanged bytes.
//!
//! A relinked program differs almost everywhere from the one before, because every call and every
//! reference shifts. [`normalise`] trades displacements for absolute targets, which it keeps apart, and
//! orders the rest by functions: what did not change is then the same bytes. [`Normalised::restore`] undoes
//! it, bit for bit. It is no storage format: each side makes it anew from the files it has.
//!
//! - A sender *with* the older file sends [`Kept`].
//! - A sender *without* it sends an [`Offer`] of all [`Records`], gets an [`Answer`] that the receiver's [`Index`] makes,
//!   and sends a [`Payload`]; the receiver calls [`rebuild`].
//!
//! Promises that whatever comes out was made from exactly what went in, or is an error; that hostile bytes
//! cost memory and time in proportion to them or to the bound that the caller names; and no panic. Does not
//! promise that a rebuilt file is the right one: its hash decides.

mod numbers;
mod x86;
mod elf;
mod frames;
mod exchange;
mod go;
mod arm;
mod code;
mod lsda;
mod relocations;
mod plan;
mod tables;
mod unwind;
mod layout;
mod stream;
mod odds;
mod choices;
mod vocabulary;
mod normalised;
mod moves;
mod targets;
mod records;
mod offer;
mod answer;
mod assembly;
mod frame;
mod payload;
mod kept;
#[cfg(feature = "testing")]
pub mod linked;

pub use answer::{Agreed, Answer, Index};
pub use elf::MAGIC;
pub use exchange::Targets;
pub use kept::Kept;
pub use layout::Layout;
pub use normalised::{Error, FILE_BYTES_MAX, Normalised, Skeleton, normalise, normalise_basis};
pub use offer::{NAMES_MAX, Name, Offer};
pub use payload::{Payload, rebuild};
pub use records::Records;
pub use x86::{Instruction, Operand, decode};
