//! What looking inside an archive may cost.

/// Bounds of one archive, everything nested in it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Plain bytes that all streams may inflate to.
    pub plain_bytes_max: u64,
    /// Plain bytes for each byte of the archive.
    pub ratio_max: u64,
    /// Archives in archives; 1 looks only at the outermost.
    pub depth_max: u8,
    /// Plain bytes of streams that are held to look for archives in them.
    pub nested_bytes_max: u64,
    /// Pieces of a plan.
    pub pieces_max: usize,
}

impl Default for Limits {
    /// 16 GiB, 200 to 1, four levels, 1 GiB, 200,000 pieces.
    fn default() -> Self {
        Self {
            plain_bytes_max: 16 << 30,
            ratio_max: 200,
            depth_max: 4,
            nested_bytes_max: 1 << 30,
            pieces_max: 200_000,
        }
    }
}
