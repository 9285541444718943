//! How much freed memory the process keeps.

/// 2 MiB: larger than a frame and what is made of it.
const KEPT_BYTES: usize = 2 * 1024 * 1024;

/// Has the C library's allocator keep up to 4 MiB of freed memory for each of its arenas.
///
/// Frames are allocated and freed in turn. If each went back to the system, each would be mapped, cleared and unmapped: 0.5 s of
/// processors for 1 GiB that a proxy receives. glibc adapts to the largest mapped block that was freed (`mallopt(3)`,
/// `M_MMAP_THRESHOLD`): this frees one, which nobody has touched. Other allocators take no notice.
pub fn keep_freed() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES)));
}
