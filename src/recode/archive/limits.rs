//! Bounds of unpacking an archive.

/// 128 MiB: the most that a plan may require; packing it again takes 30 to 45 s.
pub(super) const HEAVY_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// 48 MiB: searched by default. At 3 to 5 MB/s it takes 10 to 15 s at the agent and again at the proxy, the most that
/// saving bytes may cost where the user set no limit.
const HEAVY_BYTES_DEFAULT: u64 = 48 * 1024 * 1024;

/// Bounds of one archive, everything nested in it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Plain bytes that all streams may inflate to.
    pub plain_bytes_max: u64,
    /// Plain bytes for each byte of the archive.
    pub ratio_max: u64,
    /// Levels of archives in archives; 1 unpacks only the outermost.
    pub depth_max: u8,
    /// Plain bytes of streams that are held to find archives in them.
    pub nested_bytes_max: u64,
    /// Plain bytes that all xz and zstd streams may decode to.
    pub heavy_bytes_max: u64,
    /// Pieces of a plan.
    pub pieces_max: usize,
}

impl Default for Limits {
    /// 16 GiB, 200 to 1, four levels, 1 GiB, 48 MiB, 200,000 pieces.
    fn default() -> Self {
        Self {
            plain_bytes_max: 16 << 30,
            ratio_max: 200,
            depth_max: 4,
            nested_bytes_max: 1 << 30,
            heavy_bytes_max: HEAVY_BYTES_DEFAULT,
            pieces_max: 200_000,
        }
    }
}
