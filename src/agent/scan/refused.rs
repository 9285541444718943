//! Symbolic links that lead outside a tree: all are counted, the first are named.

use std::fmt;

use crate::escape;
use crate::manifest::EntryPath;

/// Links that are named: a screen.
const NAMED_MAX: usize = 20;

/// Symbolic links that lead outside.
#[derive(Debug, Default)]
pub struct RefusedLinks {
    /// How many.
    pub count: u64,
    /// The first of them, and what each holds.
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
        write!(f, "{} symbolic {links} {lead} outside the tree:", self.count)?;
        for (place, (path, target)) in self.first.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma} `{path}` -> `{}`", escape::bytes(target))?;
        }
        match self.count - self.first.len() as u64 {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}
