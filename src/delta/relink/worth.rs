//! Decides when an executable is worth sending by its functions.

use ground::limits::EXECUTABLE_PAYLOAD_MAX;

/// One in 8: a file that lacks less was hardly relinked, and its chunks alone are cheap.
const MISSING_SHARE: usize = 8;

/// Returns whether so much of a file is missing that it was linked anew; both are bytes or both chunks.
pub fn is_linked_anew(missing: usize, all: usize) -> bool {
    missing * MISSING_SHARE >= all
}

/// Returns whether a payload is within bounds and an eighth shorter than what crosses otherwise: files that share a
/// batch save nearly as much.
///
/// `is_more_than` returns whether the missing chunks take more than some bytes otherwise; it is not called for a payload
/// out of bounds.
pub fn pays(payload_bytes: usize, is_more_than: impl FnOnce(usize) -> bool) -> bool {
    payload_bytes <= EXECUTABLE_PAYLOAD_MAX && is_more_than(payload_bytes * 8 / 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_pays_where_eight_of_it_are_less_than_seven_of_the_other() {
        for payload in [0, 1, 6, 7, 8, 69, 70, 71, 1_000_003] {
            for otherwise in payload..payload + payload / 4 + 3 {
                assert_eq!(pays(payload, |bytes| otherwise > bytes), payload * 8 < otherwise * 7);
            }
        }
        assert!(!pays(EXECUTABLE_PAYLOAD_MAX + 1, |_| true));
    }
}
