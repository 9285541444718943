//! Symbolic links that lead outside a tree: counts all, and names the first.

use std::fmt;

use format::manifest::EntryPath;
use ground::escape;

/// An error names this many links, which fit on a screen.
const NAMED_MAX: usize = 20;

/// Symbolic links that lead outside.
#[derive(Debug, Default)]
pub struct RefusedLinks {
    /// How many there are.
    pub count: u64,
    /// The first of them, each with its target.
    pub first: Vec<(EntryPath, Vec<u8>)>,
}

impl RefusedLinks {
    pub(super) fn add(&mut self, path: EntryPath, target: Vec<u8>) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push((path, target));
        }
    }
}

impl fmt::Display for RefusedLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (links, lead) = if self.count == 1 { ("link", "leads") } else { ("links", "lead") };
        let shown =
            |(path, target): &(EntryPath, Vec<u8>)| format!("`{path}` -> `{}`", escape::bytes(target));
        let first: Vec<String> = self.first.iter().map(shown).collect();
        write!(
            f,
            "{} symbolic {links} {lead} outside the tree: {}",
            self.count,
            escape::list(&first, self.count)
        )
    }
}
