//! Takes address-dependent values out of executables, so that unchanged functions are unchanged bytes.
//!
//! A relinked program differs almost everywhere from the one before, because every call and every
//! reference shifts. [`normalise`] replaces displacements by a marker, lists their absolute targets apart, and
//! orders the rest by functions: what did not change is then the same bytes. [`Normalised::restore`] undoes
//! it, bit for bit. It is no storage format: each side makes it from the files that it has. docs/EXECUTABLES.md has the
//! bytes.
//!
//! - A sender *with* the older file sends [`Encoded`].
//! - A sender *without* it sends the [`RecordNames`] of its [`Records`], gets an [`Answer`] from the receiver's
//!   [`RecordIndex`], and sends a [`Payload`]; the receiver calls [`rebuild`].
//!
//! Promises that what is rebuilt was made from exactly what was given, or is an error; that hostile bytes
//! cost memory and time in proportion to them or to the caller's bound; and no panic. Does not
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
mod functions;
mod normalised;
mod moves;
mod targets;
mod records;
mod record_names;
mod answer;
mod assembly;
mod frame;
mod payload;
mod encoded;
mod worth;
#[cfg(feature = "testing")]
pub mod linked;

pub use answer::{Agreed, Answer, RecordIndex};
pub use elf::MAGIC;
pub use encoded::Encoded;
pub use exchange::Targets;
pub use layout::Layout;
pub use normalised::{Error, FILE_BYTES_MAX, Normalised, Skeleton, normalise, normalise_unproven};
pub use payload::{Payload, rebuild};
pub use record_names::{NAMES_MAX, Name, RecordNames};
pub use records::Records;
pub use worth::{is_linked_anew, pays};
pub use x86::{Instruction, Operand, decode};
