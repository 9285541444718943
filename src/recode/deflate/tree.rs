//! Builds length-limited Huffman codes the way zlib does.
//!
//! Source of the algorithm: `build_tree` and `gen_bitlen` of zlib's trees.c. Any tie broken another way
//! would give codes as short, and other bits; the heap's order is therefore part of the promise.

use super::codes::{LITERALS, number};

/// Nodes of the largest tree.
const NODES: usize = 2 * LITERALS + 1;

/// Bits that the symbols of a block take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// With the codes made for the block.
    pub(super) own: i64,
    /// With the fixed codes.
    pub(super) fixed: i64,
}

/// The properties of an alphabet.
pub(super) struct Alphabet {
    /// The extra bits of the symbols from `extra_from` on.
    pub(super) extra: &'static [u8],
    pub(super) extra_from: usize,
    /// Lengths of the fixed codes, if there are any.
    pub(super) fixed: &'static [u8],
    pub(super) bits_max: usize,
}

/// A code for `N` symbols.
pub(super) struct Code<const N: usize> {
    pub(super) bits: [u8; N],
    pub(super) codes: [u16; N],
    /// The largest symbol that has a code.
    pub(super) last: usize,
}

/// The heap and the nodes while a tree is built.
pub(super) struct Builder {
    count: [u16; NODES],
    parent: [u16; NODES],
    depth: [u8; NODES],
    bits: [u8; NODES],
    /// The heap from 1 to `length`, and nodes by falling frequency from `sorted` on.
    heap: [u16; NODES],
    length: usize,
    sorted: usize,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            count: [0; NODES],
            parent: [0; NODES],
            depth: [0; NODES],
            bits: [0; NODES],
            heap: [0; NODES],
            length: 0,
            sorted: NODES,
        }
    }

    /// Makes the code for symbols that occur `counts` times, and adds what it costs to `cost`.
    pub(super) fn build<const N: usize>(
        &mut self,
        counts: &[u16; N],
        alphabet: &Alphabet,
        code: &mut Code<N>,
        cost: &mut Cost,
    ) {
        (self.length, self.sorted) = (0, NODES);
        let mut last = None;
        for (symbol, count) in counts.iter().enumerate() {
            self.count[symbol] = *count;
            self.bits[symbol] = 0;
            if *count != 0 {
                self.push_leaf(symbol);
                last = Some(symbol);
            }
        }
        // At least two codes, so that each has a bit.
        while self.length < 2 {
            let symbol = match last {
                Some(largest) if largest >= 2 => 0,
                _ => {
                    let next = last.map_or(0, |largest| largest + 1);
                    *last.insert(next)
                }
            };
            self.count[symbol] = 1;
            self.push_leaf(symbol);
            cost.own -= 1;
            cost.fixed -= alphabet.fixed.get(symbol).map_or(0, |bits| i64::from(*bits));
        }
        let last = last.expect("two symbols were pushed");
        for at in (1..=self.length / 2).rev() {
            self.sink(at);
        }
        self.join(N);
        self.measure(last, alphabet, cost);
        code.last = last;
        code.bits.copy_from_slice(&self.bits[..N]);
        number(&code.bits[..=last], &mut code.codes[..=last]);
    }

    fn push_leaf(&mut self, symbol: usize) {
        self.length += 1;
        self.heap[self.length] = symbol as u16;
        self.depth[symbol] = 0;
    }

    fn smaller(&self, one: u16, other: u16) -> bool {
        let (one, other) = (usize::from(one), usize::from(other));
        self.count[one] < self.count[other]
            || (self.count[one] == self.count[other] && self.depth[one] <= self.depth[other])
    }

    fn sink(&mut self, mut at: usize) {
        let node = self.heap[at];
        let mut son = at << 1;
        while son <= self.length {
            if son < self.length && self.smaller(self.heap[son + 1], self.heap[son]) {
                son += 1;
            }
            if self.smaller(node, self.heap[son]) {
                break;
            }
            self.heap[at] = self.heap[son];
            at = son;
            son <<= 1;
        }
        self.heap[at] = node;
    }

    /// Joins the two rarest nodes until one is left.
    fn join(&mut self, mut node: usize) {
        loop {
            let one = self.heap[1];
            self.heap[1] = self.heap[self.length];
            self.length -= 1;
            self.sink(1);
            let other = self.heap[1];
            self.sorted -= 2;
            self.heap[self.sorted + 1] = one;
            self.heap[self.sorted] = other;
            let (one, other) = (usize::from(one), usize::from(other));
            self.count[node] = self.count[one].wrapping_add(self.count[other]);
            self.depth[node] = self.depth[one].max(self.depth[other]) + 1;
            self.parent[one] = node as u16;
            self.parent[other] = node as u16;
            self.heap[1] = node as u16;
            node += 1;
            self.sink(1);
            if self.length < 2 {
                break;
            }
        }
        self.sorted -= 1;
        self.heap[self.sorted] = self.heap[1];
    }

    /// Gives each symbol its length, none above the limit.
    fn measure(&mut self, last: usize, alphabet: &Alphabet, cost: &mut Cost) {
        let mut with_bits = [0u16; 16];
        let mut overflow = 0i32;
        self.bits[usize::from(self.heap[self.sorted])] = 0;
        for at in self.sorted + 1..NODES {
            let node = usize::from(self.heap[at]);
            let mut bits = usize::from(self.bits[usize::from(self.parent[node])]) + 1;
            if bits > alphabet.bits_max {
                bits = alphabet.bits_max;
                overflow += 1;
            }
            self.bits[node] = bits as u8;
            if node > last {
                continue;
            }
            with_bits[bits] += 1;
            let extra = node.checked_sub(alphabet.extra_from).map_or(0, |at| i64::from(alphabet.extra[at]));
            let count = i64::from(self.count[node]);
            cost.own += count * (bits as i64 + extra);
            if let Some(fixed) = alphabet.fixed.get(node) {
                cost.fixed += count * (i64::from(*fixed) + extra);
            }
        }
        if overflow == 0 {
            return;
        }
        while overflow > 0 {
            let mut bits = alphabet.bits_max - 1;
            while with_bits[bits] == 0 {
                bits -= 1;
            }
            with_bits[bits] -= 1;
            with_bits[bits + 1] += 2;
            with_bits[alphabet.bits_max] -= 1;
            overflow -= 2;
        }
        let mut at = NODES;
        for bits in (1..=alphabet.bits_max).rev() {
            let mut left = with_bits[bits];
            while left != 0 {
                at -= 1;
                let node = usize::from(self.heap[at]);
                if node > last {
                    continue;
                }
                cost.own += (bits as i64 - i64::from(self.bits[node])) * i64::from(self.count[node]);
                self.bits[node] = bits as u8;
                left -= 1;
            }
        }
    }
}

impl<const N: usize> Code<N> {
    pub(super) fn new() -> Self {
        Self { bits: [0; N], codes: [0; N], last: 0 }
    }
}
