//! The number of threads that a command works with.

/// Returns the number of workers for hashing, compressing and writing: one for each processor.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}
