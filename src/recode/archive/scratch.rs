//! Where what is nested in an archive is held while it is looked at.

use std::io;

/// Takes the next bytes.
pub type Take<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Scratch for plain bytes that are read more than once.
pub trait Scratch {
    /// What holds them.
    type Held: AsRef<[u8]>;

    /// Holds the `bytes` that `fill` gives; none where there is no room, or `fill` fails.
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
