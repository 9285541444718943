//! The pieces in which a program writes to its encoder, where the output depends on them.
//!
//! Writers of tar archives write a header, the content in pieces of their buffer's size, the padding.

/// 8 KiB: a step of Rust's `std::io::copy`. Go's 32 KiB are a multiple, which makes no difference there.
const COPY_BYTES: usize = 8 * 1024;
const HEADER_BYTES: usize = 512;
/// Bytes that zlib's window takes at once: all of it first, then half.
const WINDOW_BYTES: usize = 64 * 1024;

/// Cuts a stream into the program's pieces.
pub(super) struct Pieces {
    cutter: Cutter,
    /// The beginning of the current piece.
    held: Vec<u8>,
}

impl Pieces {
    /// Returns a cutter for the pieces of Rust's `tar` crate.
    pub(super) fn of_rust_tar() -> Self {
        Self::of(Cutter { parts_names: true, ..Cutter::TAR })
    }

    /// Returns a cutter for the pieces of Go's `archive/tar`.
    pub(super) fn of_go_tar() -> Self {
        Self::of(Cutter::TAR)
    }

    /// Returns a cutter for the pieces of Rust's `std::io::copy`.
    pub(super) fn of_copies() -> Self {
        Self::of(Cutter { next: Next::Rest, wanted: COPY_BYTES, ..Cutter::TAR })
    }

    /// Returns a cutter for the pieces that zlib takes of bytes given all at once.
    pub(super) fn of_windows() -> Self {
        let rest_bytes = WINDOW_BYTES / 2;
        Self::of(Cutter { next: Next::Rest, wanted: WINDOW_BYTES, rest_bytes, ..Cutter::TAR })
    }

    fn of(cutter: Cutter) -> Self {
        Self { cutter, held: Vec::new() }
    }

    /// Takes the next bytes and passes on each whole piece.
    pub(super) fn cut(&mut self, mut plain: &[u8], each: &mut impl FnMut(&[u8])) {
        while !plain.is_empty() {
            let wanted = self.cutter.wanted - self.held.len();
            let (now, rest) = plain.split_at(wanted.min(plain.len()));
            plain = rest;
            if now.len() < wanted {
                self.held.extend_from_slice(now);
            } else if self.held.is_empty() {
                self.cutter.advance(now);
                each(now);
            } else {
                self.held.extend_from_slice(now);
                self.cutter.advance(&self.held);
                each(&self.held);
                self.held.clear();
            }
        }
    }

    /// Passes on the last piece, which may be empty.
    pub(super) fn finish(&mut self, each: &mut impl FnMut(&[u8])) {
        each(&self.held);
        self.held.clear();
    }
}

/// Where the pieces end.
struct Cutter {
    next: Next,
    /// Bytes of the current piece.
    wanted: usize,
    /// Bytes of the pieces outside a tar archive.
    rest_bytes: usize,
    /// True if the final zero of a long name is a piece of its own.
    parts_names: bool,
}

enum Next {
    Header,
    /// Remaining bytes of content after the current piece, and of padding.
    Content(u64, usize),
    Padding,
    Rest,
}

impl Cutter {
    /// At the start of a tar archive.
    const TAR: Self =
        Self { next: Next::Header, wanted: HEADER_BYTES, rest_bytes: COPY_BYTES, parts_names: false };

    /// Goes on to the next piece, after `piece`.
    fn advance(&mut self, piece: &[u8]) {
        match self.next {
            Next::Header => match size(piece) {
                None => (self.next, self.wanted) = (Next::Rest, self.rest_bytes),
                Some(bytes) => {
                    let padding = (HEADER_BYTES - (bytes % HEADER_BYTES as u64) as usize) % HEADER_BYTES;
                    let parted = self.parts_names && piece[156] == b'L';
                    self.content(bytes, bytes.saturating_sub(u64::from(parted)), padding);
                }
            },
            Next::Content(left, padding) => self.content(left, left, padding),
            Next::Padding => (self.next, self.wanted) = (Next::Header, HEADER_BYTES),
            Next::Rest => self.wanted = self.rest_bytes,
        }
    }

    fn content(&mut self, left: u64, first: u64, padding: usize) {
        if left > 0 {
            let wanted = first.clamp(1, COPY_BYTES as u64);
            (self.next, self.wanted) = (Next::Content(left - wanted, padding), wanted as usize);
        } else if padding > 0 {
            (self.next, self.wanted) = (Next::Padding, padding);
        } else {
            (self.next, self.wanted) = (Next::Header, HEADER_BYTES);
        }
    }
}

/// Returns the size in a tar header, if the field can be one.
fn size(header: &[u8]) -> Option<u64> {
    let field = header.get(124..136)?;
    if header[0] == 0 || header.get(257..262)? != b"ustar" {
        return None;
    }
    let mut digits = field.iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    digits.try_fold(0u64, |value, digit| {
        (*digit < b'8' && value < 1 << 40).then(|| value * 8 + u64::from(digit - b'0'))
    })
}
