//! Room for archives in archives while they are planned.

use std::io::{self, BufWriter, Write};

use super::archives::{Archives, Reserved};
use super::section::BUFFER_BYTES;
use disk::mmap::Mapping;
use recode::archive::{self, Scratch, Take};

/// 16 MiB: a larger nested archive is mapped from a temporary file.
const NESTED_MEMORY_MAX: u64 = 16 * 1024 * 1024;

/// Holds nested archives: in memory while small, else in a mapped temporary file.
pub(super) struct Nested<'a>(pub &'a Archives);

/// A nested archive.
pub(super) enum Held<'a> {
    Memory(Vec<u8>),
    Mapped(Mapping, usize, #[expect(dead_code, reason = "it is given back with the file")] Reserved<'a>),
}

impl AsRef<[u8]> for Held<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            // What the disk does not give is no archive.
            Self::Mapped(map, length, _) => map.range(0, *length).unwrap_or_default(),
        }
    }
}

impl<'a> Scratch for Nested<'a> {
    type Held = Held<'a>;

    fn hold(
        &mut self,
        bytes: u64,
        fill: &mut dyn FnMut(&mut Take<'_>) -> io::Result<()>,
    ) -> Option<Held<'a>> {
        if bytes <= NESTED_MEMORY_MAX {
            return archive::Memory.hold(bytes, fill).map(Held::Memory);
        }
        let room = self.0.reserve(bytes)?;
        let file = self.0.create().ok()?;
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, &file);
        fill(&mut |piece| writer.write_all(piece)).and_then(|()| writer.flush()).ok()?;
        drop(writer);
        let map = Mapping::of_own(&file, self.0.folder()).ok()?;
        Some(Held::Mapped(map, usize::try_from(bytes).ok()?, room))
    }
}
