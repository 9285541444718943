//! One bit for each thing of a list that both sides know: wanted or not.

use serde::{Deserialize, Serialize};

/// A list of bits. A peer's list is well-formed only if [`Marks::fits`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    count: u32,
    #[serde(with = "serde_bytes")]
    bits: Vec<u8>,
}

impl Marks {
    /// Returns whether there are exactly `count` marks and no stray bits.
    pub fn fits(&self, count: usize) -> bool {
        let tail = self.count % 8;
        self.count as usize == count
            && self.bits.len() == count.div_ceil(8)
            && (tail == 0 || self.bits.last().is_none_or(|last| last >> tail == 0))
    }

    /// Returns the number of things, marked or not; 0 where the marks are not well-formed.
    pub fn count(&self) -> usize {
        if self.fits(self.count as usize) { self.count as usize } else { 0 }
    }

    /// Returns the bytes that the bits take.
    pub fn bytes(&self) -> usize {
        self.bits.len()
    }

    /// Returns the marks, in order.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.count as usize).map(|at| self.bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1))
    }

    /// Returns the marked places, in order.
    pub fn places(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(self.iter()).filter_map(|(at, mark)| mark.then_some(at))
    }

    /// Returns the number of marked things.
    pub fn marked(&self) -> usize {
        self.bits.iter().map(|byte| byte.count_ones() as usize).sum()
    }
}

impl FromIterator<bool> for Marks {
    fn from_iter<I: IntoIterator<Item = bool>>(marks: I) -> Self {
        let mut list = Self::default();
        for mark in marks {
            let at = list.count % 8;
            if at == 0 {
                list.bits.push(0);
            }
            if let Some(last) = list.bits.last_mut() {
                *last |= u8::from(mark) << at;
            }
            list.count += 1;
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_as_they_were_made() {
        let made: Vec<bool> = (0..21).map(|n| n % 3 == 0).collect();
        let marks: Marks = made.iter().copied().collect();
        assert!(marks.fits(21) && !marks.fits(20) && !marks.fits(22));
        assert_eq!(marks.iter().collect::<Vec<_>>(), made);
        assert_eq!(marks.marked(), 7);
        assert_eq!(marks.places().nth(1), Some(3));
    }

    #[test]
    fn stray_bits_are_noticed() {
        let marks = Marks { count: 3, bits: vec![0b1000] };
        assert!(!marks.fits(3));
    }
}
