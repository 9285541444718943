//! The interface of encoders that share no search with zlib's.

use super::method::Method;

/// An encoder for the streams of other makers, like [`super::Encoder`] for zlib's.
pub(super) trait OtherEncoder {
    /// Drops the stream and begins another, of one of this encoder's makers.
    fn reset(&mut self, method: &Method);
    /// Takes the next plain bytes; appends the part of the stream that is certain by now to `out`.
    fn write(&mut self, plain: &[u8], out: &mut Vec<u8>);
    /// Appends the rest of the stream to `out`.
    fn finish(&mut self, out: &mut Vec<u8>);
}
