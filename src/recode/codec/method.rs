//! How a stream was made, whatever its format.

use std::fmt;

use super::format::Format;
use super::frame::Frame;
use super::xz::Xz;
use crate::deflate;

/// The first byte of a method in a plan (FORMAT 2.5); deflate's is 1, with five more.
const XZ: u8 = 2;
const ZSTD: u8 = 3;

/// The method that encodes the plain bytes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// A deflate stream.
    Deflate(deflate::Method),
    /// An xz stream, from its header to its footer.
    Xz(Xz),
    /// A zstd frame.
    Zstd(Frame),
}

/// The reasons to refuse a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The method of a deflate stream.
    #[error(transparent)]
    Deflate(#[from] deflate::Error),
    /// Made by a newer whit.
    #[error("stream method {0} is unknown to this version")]
    Version(u8),
    /// Settings that the library would refuse, or that take more memory than is given.
    #[error("the settings of a stream are out of bounds: {0}")]
    Bounds(Method),
    /// Cut short.
    #[error("the method of a stream is cut short")]
    Length,
}

impl From<deflate::Method> for Method {
    fn from(method: deflate::Method) -> Self {
        Self::Deflate(method)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deflate(method) => method.fmt(f),
            Self::Xz(xz) => xz.fmt(f),
            Self::Zstd(frame) => frame.fmt(f),
        }
    }
}

impl Method {
    /// Returns the format of its streams.
    pub fn format(&self) -> Format {
        match self {
            Self::Deflate(_) => Format::Deflate,
            Self::Xz(_) => Format::Xz,
            Self::Zstd(_) => Format::Zstd,
        }
    }

    /// Appends its bytes in a plan (FORMAT 2.5).
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Deflate(method) => out.extend(method.encode()),
            Self::Xz(xz) => {
                out.push(XZ);
                out.extend(xz.encode());
            }
            Self::Zstd(frame) => {
                out.push(ZSTD);
                out.extend(frame.encode());
            }
        }
    }

    /// Decodes the bytes of [`Method::encode`] from the front of `bytes`, and checks the method.
    ///
    /// # Errors
    /// As [`Method::check`]; an unknown number counts as an unknown version.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Error> {
        let method = match bytes.first() {
            Some(&XZ) => Self::Xz(Xz::decode(after_number(bytes)?).map_err(Error::Version)?),
            Some(&ZSTD) => Self::Zstd(Frame::decode(after_number(bytes)?).map_err(Error::Version)?),
            _ => Self::Deflate(deflate::Method::decode(take(bytes)?)?),
        };
        method.check()
    }

    /// Checks a method that came from outside.
    ///
    /// # Errors
    /// An unknown version, or settings out of bounds.
    pub fn check(self) -> Result<Self, Error> {
        let fits = match self {
            Self::Deflate(method) => return Ok(Self::Deflate(method.check()?)),
            Self::Xz(xz) => xz.is_bounded(),
            Self::Zstd(frame) => frame.is_bounded(),
        };
        if fits { Ok(self) } else { Err(Error::Bounds(self)) }
    }
}

fn after_number<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Error> {
    take::<1>(bytes)?;
    take(bytes)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Error> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(Error::Length)?;
    *bytes = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::super::xz::Check;
    use super::*;

    fn some() -> [Method; 3] {
        let frame = Frame { level: 19, checked: true, jobs: true, plain_bytes: Some(70_000) };
        [deflate::Method::STOCK.into(), Method::Xz(Xz::threaded(6, Check::Crc64)), Method::Zstd(frame)]
    }

    #[test]
    fn methods_come_back_whatever_follows_them() {
        for method in some() {
            let mut bytes = Vec::new();
            method.encode(&mut bytes);
            for length in 0..bytes.len() {
                assert_eq!(Method::decode(&mut &bytes[..length]), Err(Error::Length));
            }
            bytes.push(9);
            let rest = &mut &bytes[..];
            assert_eq!((Method::decode(rest), *rest), (Ok(method), &[9][..]));
        }
    }

    #[test]
    fn methods_out_of_bounds_are_refused() {
        assert_eq!(Method::decode(&mut &[4; 6][..]), Err(Error::Deflate(deflate::Error::Version(4))));
        for method in some() {
            let mut bytes = Vec::new();
            method.encode(&mut bytes);
            for at in 1..bytes.len() {
                for value in 0..=255 {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    if let Ok(method) = Method::decode(&mut &changed[..]) {
                        let mut again = Vec::new();
                        method.encode(&mut again);
                        assert_eq!(again, changed);
                    }
                }
            }
        }
    }
}
