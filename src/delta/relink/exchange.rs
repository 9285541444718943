//! Trades displacements for absolute targets, in either direction, so that one walk serves both.

use super::numbers::{displaced, displacement};

/// Replaces a displacement that was taken out of the code: 2 GiB back, outside every function.
pub const MARKER: u32 = 0x8000_0000;

/// The absolute targets of the displacements that were taken out, in the order of the walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// The targets of branches that leave their function.
    pub branches: Vec<u64>,
    /// The targets of operands relative to the next instruction.
    pub data: Vec<u64>,
    /// The targets of the type tables of LSDAs.
    pub types: Vec<u64>,
    /// The targets of RELATIVE relocations.
    pub relocations: Vec<u64>,
}

impl Targets {
    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.branches.len() + self.data.len() + self.types.len() + self.relocations.len()
    }
}

/// One of the kinds of [`Targets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// See [`Targets::branches`].
    Branch,
    /// See [`Targets::data`].
    Data,
    /// See [`Targets::types`].
    Type,
    /// See [`Targets::relocations`].
    Relocation,
}

/// The direction of a trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Targets are taken out of the file.
    Out,
    /// Targets are put back.
    Back,
    /// Targets are counted; the file stays.
    Count,
}

/// Receives the targets that a walk finds. `None` ends the walk: no target is left.
pub trait Exchange {
    /// Trades a whole value; returns the value to be stored.
    fn whole(&mut self, kind: Kind, stored: u64) -> Option<u64>;

    /// Returns the direction.
    fn direction(&self) -> Direction;

    /// Notes that the function with this number begins.
    fn begin(&mut self, function: usize);

    /// Trades a displacement from `base`; returns the target and the displacement to be stored.
    fn displacement(&mut self, kind: Kind, base: u64, stored: u32) -> Option<(u64, u32)> {
        match self.direction() {
            Direction::Out => {
                let target = displaced(base, stored);
                self.whole(kind, target)?;
                Some((target, MARKER))
            }
            Direction::Back => {
                let target = self.whole(kind, 0)?;
                Some((target, displacement(base, target)))
            }
            Direction::Count => {
                self.whole(kind, 0)?;
                Some((0, stored))
            }
        }
    }
}

/// Takes targets out of a file.
#[derive(Debug, Default)]
pub struct Taking {
    /// The targets so far.
    pub targets: Targets,
    /// For each function: how many branches and data targets there were before it.
    pub before: Vec<(u32, u32)>,
}

impl Exchange for Taking {
    fn whole(&mut self, kind: Kind, stored: u64) -> Option<u64> {
        match kind {
            Kind::Branch => &mut self.targets.branches,
            Kind::Data => &mut self.targets.data,
            Kind::Type => &mut self.targets.types,
            Kind::Relocation => &mut self.targets.relocations,
        }
        .push(stored);
        Some(0)
    }

    fn direction(&self) -> Direction {
        Direction::Out
    }

    fn begin(&mut self, _function: usize) {
        let count = |list: &Vec<u64>| u32::try_from(list.len()).expect("fewer targets than bytes in a file");
        self.before.push((count(&self.targets.branches), count(&self.targets.data)));
    }
}

/// Counts the targets that are missing from a file; changes nothing.
#[derive(Debug, Default)]
pub struct Counting {
    /// For each function: how many branches and data targets there are before it.
    pub before: Vec<(u32, u32)>,
    count: (u32, u32),
}

impl Exchange for Counting {
    fn whole(&mut self, kind: Kind, stored: u64) -> Option<u64> {
        match kind {
            Kind::Branch => self.count.0 = self.count.0.checked_add(1)?,
            Kind::Data => self.count.1 = self.count.1.checked_add(1)?,
            Kind::Type | Kind::Relocation => {}
        }
        Some(stored)
    }

    fn direction(&self) -> Direction {
        Direction::Count
    }

    fn begin(&mut self, _function: usize) {
        self.before.push(self.count);
    }
}

/// Puts targets back into a file.
#[derive(Debug)]
pub struct Putting<'a> {
    branches: std::slice::Iter<'a, u64>,
    data: std::slice::Iter<'a, u64>,
    types: std::slice::Iter<'a, u64>,
    relocations: std::slice::Iter<'a, u64>,
}

impl<'a> Putting<'a> {
    /// Starts with all of `targets`.
    pub fn new(targets: &'a Targets) -> Self {
        Self {
            branches: targets.branches.iter(),
            data: targets.data.iter(),
            types: targets.types.iter(),
            relocations: targets.relocations.iter(),
        }
    }

    /// Returns whether all of them were put somewhere.
    pub fn is_done(&self) -> bool {
        self.branches.len() + self.data.len() + self.types.len() + self.relocations.len() == 0
    }
}

impl Exchange for Putting<'_> {
    fn whole(&mut self, kind: Kind, _stored: u64) -> Option<u64> {
        match kind {
            Kind::Branch => &mut self.branches,
            Kind::Data => &mut self.data,
            Kind::Type => &mut self.types,
            Kind::Relocation => &mut self.relocations,
        }
        .next()
        .copied()
    }

    fn direction(&self) -> Direction {
        Direction::Back
    }

    fn begin(&mut self, _function: usize) {}
}
