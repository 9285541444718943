//! Builds length-limited Huffman codes the way Go does.
//!
//! Source of the algorithm: `bitCounts`, `assignEncodingAndSize` and `generate` of Go's
//! `compress/flate/huffman_code.go` (The Go Authors, BSD licence), a lazy package-merge. Codes of the same
//! total length differ in how ties are broken, which is part of the promise.

use super::super::codes::{LITERALS, number};
use super::super::tree::Code;

/// RFC 1951 has codes of up to 15 bits; rows are counted from 1.
const ROWS: usize = 17;
/// The count of no node: no leaf or pair is left.
const NONE: u32 = u32::MAX;

/// One row of the merge: how far it has come in the list of leaves and of pairs from the row below.
#[derive(Clone, Copy, Default)]
struct Row {
    /// Count of the last node taken.
    last: u32,
    next_leaf: u32,
    /// Count of the next pair from the row below; known once that row owes nothing.
    next_pair: u32,
    /// Nodes still to be taken before the row above goes on.
    owed: u32,
}

/// Builds one code after another.
pub(super) struct Builder {
    /// The counts of the symbols that occur, with the symbols.
    leaves: Vec<(u32, u16)>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { leaves: Vec::with_capacity(LITERALS) }
    }

    /// Makes the code for symbols that occur `counts` times, at least one of them; no length above `bits_max`, which is
    /// at most 15.
    pub(super) fn build<const N: usize>(&mut self, counts: &[u32; N], bits_max: usize, code: &mut Code<N>) {
        self.leaves.clear();
        let occurring = counts.iter().enumerate().filter(|(_, count)| **count != 0);
        self.leaves.extend(occurring.map(|(symbol, count)| (*count, symbol as u16)));
        code.bits.fill(0);
        code.last = self.leaves.last().map_or(0, |(_, symbol)| usize::from(*symbol));
        if self.leaves.len() <= 2 {
            for (_, symbol) in &self.leaves {
                code.bits[usize::from(*symbol)] = 1;
            }
        } else {
            self.leaves.sort_unstable();
            let with_bits = self.lengths(bits_max);
            let mut leaves = self.leaves.iter().rev();
            for (length, symbols) in with_bits.iter().enumerate() {
                for (_, symbol) in leaves.by_ref().take(*symbols) {
                    code.bits[usize::from(*symbol)] = length as u8;
                }
            }
        }
        number(&code.bits, &mut code.codes);
    }

    /// Returns how many symbols have codes of each length; the rarer have the longer. At least three leaves, in rising order.
    fn lengths(&self, bits_max: usize) -> [usize; ROWS] {
        let leaf = |at: usize| self.leaves.get(at).map_or(NONE, |(count, _)| *count);
        let top = bits_max.min(self.leaves.len() - 1);
        let first = Row { last: leaf(1), next_leaf: leaf(2), next_pair: leaf(0) + leaf(1), owed: 0 };
        // Row 0 is never drawn from.
        let mut rows = [first; ROWS];
        (rows[0], rows[1].next_pair) = (Row::default(), NONE);
        rows[top].owed = 2 * self.leaves.len() as u32 - 4;
        // For the last node of each row: the leaves to the left of it and of its ancestors in the rows below.
        let mut taken = [[0usize; ROWS]; ROWS];
        for (at, row) in taken.iter_mut().enumerate() {
            row[at] = 2;
        }
        let mut at = top;
        loop {
            let row = &mut rows[at];
            if row.next_pair == NONE && row.next_leaf == NONE {
                // Nothing is left here: the row above gets no more pairs, and does not come back.
                row.owed = 0;
                at += 1;
                rows[at].next_pair = NONE;
                continue;
            }
            let before = row.last;
            row.owed -= 1;
            if row.next_leaf < row.next_pair {
                taken[at][at] += 1;
                row.last = row.next_leaf;
                row.next_leaf = leaf(taken[at][at]);
            } else {
                row.last = row.next_pair;
                let (below, above) = taken.split_at_mut(at);
                above[0][..at].copy_from_slice(&below[at - 1][..at]);
                rows[at - 1].owed = 2;
            }
            let row = rows[at];
            if row.owed == 0 {
                if at == top {
                    break;
                }
                at += 1;
                rows[at].next_pair = before + row.last;
            } else {
                while rows[at - 1].owed > 0 {
                    at -= 1;
                }
            }
        }
        let mut with_bits = [0; ROWS];
        for row in 1..=top {
            with_bits[top + 1 - row] = taken[top][row] - taken[top][row - 1];
        }
        with_bits
    }
}
