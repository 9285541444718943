//! Sketches of chunks, for a peer that may have similar ones.

use serde::{Deserialize, Serialize};

use super::Marks;
use delta::similar::{SKETCH_BYTES, Sketch};
use ground::limits::PUSH_CHUNKS_IN_FLIGHT;

/// Sketches of some of the chunks that one `Missing` marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sketches {
    /// Which, of all that it marked, in order.
    marks: Marks,
    /// Their sketches, [`SKETCH_BYTES`] each, in order.
    #[serde(with = "serde_bytes")]
    sketches: Vec<u8>,
}

impl Sketches {
    /// Takes the sketches of the chunks that have one.
    pub fn new(sketches: &[Option<Sketch>]) -> Self {
        let marks = sketches.iter().map(Option::is_some).collect();
        Self { marks, sketches: sketches.iter().flatten().flat_map(Sketch::to_bytes).collect() }
    }

    /// Returns the bytes that it takes on the link.
    pub fn bytes(&self) -> usize {
        self.sketches.len()
    }

    /// Each sketched chunk's place among the missing ones, and its sketch; none where there are more than `max`, not as
    /// many as marks, or more marks than a push may have chunks under way.
    pub fn open(&self, max: usize) -> Option<Vec<(u32, Sketch)>> {
        // Marks that are not well-formed count as none, and are not gone through.
        if self.marks.count() == 0 {
            return self.sketches.is_empty().then(Vec::new);
        }
        let count = self.marks.marked();
        if self.marks.count() > PUSH_CHUNKS_IN_FLIGHT
            || count > max
            || self.sketches.len() != count * SKETCH_BYTES
        {
            return None;
        }
        let (sketches, _) = self.sketches.as_chunks();
        Some(self.marks.places().zip(sketches.iter().map(|bytes| Sketch::from_bytes(*bytes))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sketches_come_back_at_their_places_and_lies_are_refused() {
        let sketch = |n: u8| Sketch::from_bytes([n; SKETCH_BYTES]);
        let sketches = Sketches::new(&[None, Some(sketch(1)), None, Some(sketch(2))]);
        assert_eq!(sketches.open(2), Some(vec![(1, sketch(1)), (3, sketch(2))]));
        assert_eq!(sketches.open(1), None);
        let cut = Sketches { sketches: sketches.sketches[1..].to_vec(), ..sketches };
        assert_eq!(cut.open(9), None);
        let endless: Marks =
            rmp_serde::from_slice(&[0x92, 0xce, 255, 255, 255, 255, 0xc4, 0]).expect("marks");
        assert_eq!(Sketches { marks: endless, sketches: Vec::new() }.open(9), Some(Vec::new()), "in no time");
    }
}
