//! The pieces in which a program writes an archive, where its encoder's output depends on them.
//!
//! Writers of tar archives write a header, the content in pieces of their buffer's size, the padding.

/// `std::io::copy` of Rust moves so much at once. Go's 32 KiB are a multiple, which makes no difference there.
const PIECE_BYTES: usize = 8 * 1024;
const HEADER_BYTES: usize = 512;

/// Cuts a stream into the program's pieces.
pub(super) struct Pieces {
    cutter: Cutter,
    /// The beginning of the present piece.
    held: Vec<u8>,
}

impl Pieces {
    /// Those of Rust's `tar` crate.
    pub(super) fn of_rust() -> Self {
        Self { cutter: Cutter::new(true), held: Vec::new() }
    }

    /// Those of Go's `archive/tar`.
    pub(super) fn of_go() -> Self {
        Self { cutter: Cutter::new(false), held: Vec::new() }
    }

    /// Takes the next bytes and hands on each piece that is whole.
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

    /// Hands on the last piece, which may be empty.
    pub(super) fn finish(&mut self, each: &mut impl FnMut(&[u8])) {
        each(&self.held);
        self.held.clear();
    }
}

/// Where the pieces end; what is no tar archive comes in pieces of 8 KiB.
struct Cutter {
    next: Next,
    /// Bytes of the present piece.
    wanted: usize,
    /// Whether the final zero of a long name is a piece of its own.
    parts_names: bool,
}

enum Next {
    Header,
    /// Bytes of content still to come after the present piece, and of padding.
    Content(u64, usize),
    Padding,
    Rest,
}

impl Cutter {
    fn new(parts_names: bool) -> Self {
        Self { next: Next::Header, wanted: HEADER_BYTES, parts_names }
    }

    /// Goes on to the next piece, after `piece`.
    fn advance(&mut self, piece: &[u8]) {
        match self.next {
            Next::Header => match size(piece) {
                None => (self.next, self.wanted) = (Next::Rest, PIECE_BYTES),
                Some(bytes) => {
                    let padding = (HEADER_BYTES - (bytes % HEADER_BYTES as u64) as usize) % HEADER_BYTES;
                    let parted = self.parts_names && piece[156] == b'L';
                    self.content(bytes, bytes.saturating_sub(u64::from(parted)), padding);
                }
            },
            Next::Content(left, padding) => self.content(left, left, padding),
            Next::Padding => *self = Self::new(self.parts_names),
            Next::Rest => {}
        }
    }

    fn content(&mut self, left: u64, first: u64, padding: usize) {
        if left > 0 {
            let wanted = first.clamp(1, PIECE_BYTES as u64);
            (self.next, self.wanted) = (Next::Content(left - wanted, padding), wanted as usize);
        } else if padding > 0 {
            (self.next, self.wanted) = (Next::Padding, padding);
        } else {
            *self = Self::new(self.parts_names);
        }
    }
}

/// The size in a tar header, if the field can be one.
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
