//! Encoders that share no search with zlib's, behind one interface.

use super::go::GoEncoder;
use super::method::{Maker, Method};
use super::miniz::MinizEncoder;
use super::rust::RustEncoder;

/// What [`super::Encoder`] is for the methods of other makers.
pub(super) trait Foreign {
    /// Forgets the stream and begins another, of one of this encoder's makers.
    fn reset(&mut self, method: &Method);
    /// Takes the next plain bytes; appends to `out` what is certain of the stream by now.
    fn write(&mut self, plain: &[u8], out: &mut Vec<u8>);
    /// Appends the rest of the stream to `out`.
    fn finish(&mut self, out: &mut Vec<u8>);
}

/// One of each kind, made when a stream needs it and kept from then on.
#[derive(Default)]
pub(super) struct Foreigners {
    go: Option<Box<GoEncoder>>,
    miniz: Option<Box<MinizEncoder>>,
    rust: Option<Box<RustEncoder>>,
}

impl Foreigners {
    /// The encoder for `method`; none if zlib's serves.
    pub(super) fn of(&mut self, maker: Maker) -> Option<&mut dyn Foreign> {
        match maker {
            Maker::Zlib
            | Maker::Gzip
            | Maker::EarlyChromium
            | Maker::CastagnoliChromium
            | Maker::Chromium
            | Maker::Zip
            | Maker::Pigz => None,
            Maker::Rust | Maker::RustZip | Maker::WholeRustZip => {
                self.rust.as_deref_mut().map(|rust| rust as _)
            }
            Maker::Go | Maker::GoTar => self.go.as_deref_mut().map(|go| go as _),
            Maker::Miniz => self.miniz.as_deref_mut().map(|miniz| miniz as _),
        }
    }

    /// Begins a stream; whether it is one of theirs.
    pub(super) fn reset(&mut self, method: &Method) -> bool {
        match method.maker {
            Maker::Go | Maker::GoTar => {
                self.go.get_or_insert_with(|| Box::new(GoEncoder::new(method)));
            }
            Maker::Miniz => {
                self.miniz.get_or_insert_with(|| Box::new(MinizEncoder::new()));
            }
            Maker::Rust | Maker::RustZip | Maker::WholeRustZip => {
                self.rust.get_or_insert_with(|| Box::new(RustEncoder::new(method)));
            }
            _ => {}
        }
        self.of(method.maker).map(|foreign| foreign.reset(method)).is_some()
    }
}
