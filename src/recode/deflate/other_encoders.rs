//! The encoders that share no search with zlib's, by the maker of a stream.

use super::go::GoEncoder;
use super::method::{Maker, Method};
use super::miniz::MinizEncoder;
use super::other_encoder::OtherEncoder;
use super::rust::RustEncoder;

/// One encoder of each kind, made when a stream needs it and then kept.
#[derive(Default)]
pub(super) struct OtherEncoders {
    go: Option<Box<GoEncoder>>,
    miniz: Option<Box<MinizEncoder>>,
    rust: Option<Box<RustEncoder>>,
}

impl OtherEncoders {
    /// Returns the encoder for `method`; none if zlib's fits.
    pub(super) fn of(&mut self, maker: Maker) -> Option<&mut dyn OtherEncoder> {
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

    /// Begins a stream; returns whether it is of one of these encoders.
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
        self.of(method.maker).map(|encoder| encoder.reset(method)).is_some()
    }
}
