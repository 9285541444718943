//! The functions of a file, as both sides know them before its targets.

/// Where the functions are, and how many targets each has.
#[derive(Debug, Clone, Copy)]
pub struct Functions<'a> {
    /// The functions' addresses.
    pub addresses: &'a [u64],
    /// For each function: the number of branches and of data targets in the functions before it.
    pub before: &'a [(u32, u32)],
}
