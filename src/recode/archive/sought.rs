//! A packed stream that a planner looks for: its name, and what somebody knows of it.

use super::known::{KnownStream, KnownStreams, StreamName};
use crate::codec::{self, Format, Method, Stream};
use crate::deflate::{self, Hint, Known};

/// A stream that is to be found. By default it has no name, and nothing is known of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sought {
    name: Option<StreamName>,
    /// The bytes that were named.
    packed: u64,
    known: Option<KnownStream>,
}

/// A stream that was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub stream: Stream,
    /// None where streams are not named, or where the stream is not all of the bytes that were.
    pub name: Option<StreamName>,
    /// True if its plain bytes are known not to begin an archive.
    pub is_leaf: bool,
}

impl Sought {
    /// Names the bytes that are most likely the stream, and asks what is known of it; does nothing where nobody is to be asked.
    pub fn of(packed: &[u8], known: Option<&dyn KnownStreams>) -> Self {
        let Some(known) = known else { return Self::default() };
        let name = StreamName::of(packed);
        Self { name: Some(name), packed: packed.len() as u64, known: known.find(&name) }
    }

    /// Finds the deflate stream at the start of `bytes`, as [`deflate::Guesser::stream`].
    pub fn deflated(
        &self,
        guesser: &mut deflate::Guesser,
        bytes: &[u8],
        plain_max: u64,
        hint: Hint,
    ) -> Option<Found> {
        let known = self.known.and_then(|KnownStream { method, plain, .. }| match method {
            Method::Deflate(method) => Some(Known { packed: self.packed, plain, method }),
            _ => None,
        });
        guesser.stream(bytes, plain_max, hint, known).map(|stream| self.found(stream.into()))
    }

    /// Finds the stream of `format` at the start of `bytes`, as [`codec::Guesser::stream`].
    pub fn heavy(
        &self,
        guesser: &mut codec::Guesser,
        format: Format,
        bytes: &[u8],
        plain_max: u64,
    ) -> Option<Found> {
        let known = self.known.filter(|known| known.method.format() == format);
        let known =
            known.map(|KnownStream { method, plain, .. }| Known { packed: self.packed, plain, method });
        guesser.stream(format, bytes, plain_max, known).map(|stream| self.found(stream))
    }

    fn found(&self, stream: Stream) -> Found {
        let name = self.name.filter(|_| stream.packed == self.packed);
        let is_leaf = name.is_some() && self.known.is_some_and(|known| known.is_leaf);
        Found { stream, name, is_leaf }
    }
}
