//! Makes streams of any format.

use std::io;

use super::{Method, lzma, zstandard};
use crate::deflate;

/// Encodes one stream after another.
///
/// Memory: 900 KiB for deflate, kept from one stream to the next; for xz at most 142 MiB and for zstd at most 220 MiB,
/// while a stream is made.
#[derive(Default)]
pub struct Encoder {
    deflate: Option<deflate::Encoder>,
    other: Other,
}

/// The encoder of the current stream, if that is no deflate stream.
#[derive(Default)]
enum Other {
    #[default]
    None,
    Xz(lzma::Encoder),
    Zstd(Box<zstandard::Encoder>),
}

impl Encoder {
    /// Begins a stream made by `method`, which must have passed [`Method::check`].
    ///
    /// # Errors
    /// No memory.
    pub fn begin(&mut self, method: &Method) -> io::Result<()> {
        // Frees the last one before the next takes memory.
        self.other = Other::None;
        self.other = match method {
            Method::Deflate(method) => {
                match &mut self.deflate {
                    Some(encoder) => encoder.reset(method),
                    none => *none = Some(deflate::Encoder::new(method)),
                }
                Other::None
            }
            Method::Xz(xz) => Other::Xz(lzma::Encoder::new(xz)?),
            Method::Zstd(frame) => Other::Zstd(Box::new(zstandard::Encoder::new(frame)?)),
        };
        Ok(())
    }

    /// Encodes `plain`; appends the output.
    ///
    /// # Errors
    /// No memory; more plain bytes than the method states.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match (&mut self.other, &mut self.deflate) {
            (Other::Xz(encoder), _) => encoder.write(plain, out),
            (Other::Zstd(encoder), _) => encoder.write(plain, out),
            (Other::None, Some(encoder)) => {
                encoder.write(plain, out);
                Ok(())
            }
            (Other::None, None) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Ends the stream; appends the rest of it.
    ///
    /// # Errors
    /// No memory; fewer plain bytes than the method states.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match (std::mem::take(&mut self.other), &mut self.deflate) {
            (Other::Xz(mut encoder), _) => encoder.finish(out),
            (Other::Zstd(mut encoder), _) => encoder.finish(out),
            (Other::None, Some(encoder)) => {
                encoder.finish(out);
                Ok(())
            }
            (Other::None, None) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}
