//! Scratch space for what is nested in an archive while it is planned.

use std::io;

/// A function that takes the next bytes.
pub type Take<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Space for plain bytes that are read more than once.
pub trait Scratch {
    /// Holds the bytes.
    type Held: AsRef<[u8]>;

    /// Stores the `bytes` that `fill` writes; `None` if there is no space, or `fill` fails.
    fn hold(
        &mut self,
        bytes: u64,
        fill: &mut dyn FnMut(&mut Take<'_>) -> io::Result<()>,
    ) -> Option<Self::Held>;
}

/// Holds everything in memory.
#[derive(Debug, Default)]
pub struct Memory;

impl Scratch for Memory {
    type Held = Vec<u8>;

    fn hold(&mut self, bytes: u64, fill: &mut dyn FnMut(&mut Take<'_>) -> io::Result<()>) -> Option<Vec<u8>> {
        let mut held = Vec::with_capacity(usize::try_from(bytes).ok()?);
        fill(&mut |piece| {
            held.extend_from_slice(piece);
            Ok(())
        })
        .ok()?;
        Some(held)
    }
}
