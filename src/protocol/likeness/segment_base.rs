//! The base's segments that new segments replace, which these are compressed against.

use format::manifest::{self, Gap, SegmentIndex};

/// 512 KiB: thin bytes of the base that one batch of segments is compressed against.
const PREFIX_BYTES_MAX: usize = 512 * 1024;

/// The gaps of an outline, looked up by the indexes of new segments.
#[derive(Debug, Clone, Default)]
pub struct SegmentsReplaced {
    gaps: Vec<Gap>,
}

impl SegmentsReplaced {
    /// Takes the gaps, which are in rising order.
    pub fn new(gaps: Vec<Gap>) -> Self {
        Self { gaps }
    }

    /// Returns the base's segments that the `new` segments, in rising order, replace.
    pub fn by(&self, new: &[SegmentIndex]) -> Vec<SegmentIndex> {
        let (Some(first), Some(last)) = (new.first(), new.last()) else { return Vec::new() };
        let (first, last) = (usize::from(*first), usize::from(*last));
        let begin = self.gaps.partition_point(|gap| gap.new.end <= first);
        let gaps = self.gaps[begin..].iter().take_while(|gap| gap.new.start <= last);
        gaps.flat_map(|gap| SegmentIndex::range(gap.base.clone())).take(PREFIX_BYTES_MAX / 64).collect()
    }
}

/// Returns the bytes that a batch of segments is compressed against: the thin forms of `segments`, up to a bound.
///
/// # Errors
/// An error of reading one of them; bytes that are no segment.
pub fn prefix_of<E>(
    segments: impl Iterator<Item = Result<Vec<u8>, E>>,
) -> Result<Result<Vec<u8>, manifest::Error>, E> {
    let mut prefix = Vec::new();
    for segment in segments {
        match manifest::shorten(&segment?) {
            Ok(thin) => prefix.extend_from_slice(&thin),
            Err(error) => return Ok(Err(error)),
        }
        if prefix.len() >= PREFIX_BYTES_MAX {
            break;
        }
    }
    Ok(Ok(prefix))
}
