//! The location of a chunk, and its 16 bytes in an index.

/// The location of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The pack's number in this index.
    pub pack: u32,
    /// The offset of the chunk's frame in the pack.
    pub frame_offset: u32,
    /// The offset of the chunk in the frame's plain bytes.
    pub plain_offset: u32,
    /// The length of the chunk in bytes.
    pub bytes: u32,
}

impl Place {
    /// The 16 bytes of an entry.
    pub(super) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let fields = [self.pack, self.frame_offset, self.plain_offset, self.bytes];
        bytes
            .chunks_exact_mut(4)
            .zip(fields)
            .for_each(|(out, field)| out.copy_from_slice(&field.to_le_bytes()));
        bytes
    }

    /// Reads 16 bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, []) = bytes.as_chunks::<4>() else { return None };
        let [pack, frame_offset, plain_offset, bytes] = fields else { return None };
        let number = |field: &[u8; 4]| u32::from_le_bytes(*field);
        Some(Self {
            pack: number(pack),
            frame_offset: number(frame_offset),
            plain_offset: number(plain_offset),
            bytes: number(bytes),
        })
    }
}
