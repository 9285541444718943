//! One item of a manifest's stream and its bytes (FORMAT 2.2).

use rmp::decode::{self, Bytes, RmpRead};
use rmp::encode;

use super::{EntryPath, Error};
use crate::recipe::{ChunkRef, Container, Recipe};
use ground::ids::{ArtifactId, ChunkId, ContentId};
use ground::limits::{CHUNK_BYTES_MAX, FILE_BYTES_MAX, PATH_BYTES_MAX};

/// The permission bits that a manifest keeps; owner, times and the set-id bits are not kept (docs/decisions/0003).
pub const MODE_MASK: u16 = 0o777;

/// One item: an entry, or a part of the recipe of the file before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// 0: a directory.
    Directory {
        /// The path.
        path: EntryPath,
        /// Permission bits.
        mode: u16,
    },
    /// 1: a file; the parts of its recipe follow.
    File {
        /// The path.
        path: EntryPath,
        /// Permission bits.
        mode: u16,
        /// The complete file's bytes.
        size: u64,
        /// Its recipe.
        recipe: Recipe,
    },
    /// 2: a symbolic link.
    Symlink {
        /// The path.
        path: EntryPath,
        /// The link's target; checked by the reader.
        target: Vec<u8>,
    },
    /// 3: the next chunk of the file before it.
    Chunk(ChunkRef),
    /// 4: the file before it, whose chunks have all come, has further names.
    Linked,
    /// 5: a further name of an earlier file: a hard link.
    HardLink {
        /// The path.
        path: EntryPath,
        /// The first of the file's names.
        target: EntryPath,
    },
    /// 6: a symbolic link that may lead outside the release.
    OutsideLink {
        /// The path.
        path: EntryPath,
        /// The link's target; checked by the reader.
        target: Vec<u8>,
    },
}

const WRITES: &str = "a Vec takes every write";

impl Item {
    /// Returns the path of an entry; none for an item that belongs to the entry before it.
    pub fn path(&self) -> Option<&EntryPath> {
        match self {
            Self::Directory { path, .. }
            | Self::File { path, .. }
            | Self::Symlink { path, .. }
            | Self::HardLink { path, .. }
            | Self::OutsideLink { path, .. } => Some(path),
            Self::Chunk(_) | Self::Linked => None,
        }
    }

    /// Returns whether only segments of the second version may hold the item.
    pub(super) fn is_of_second_version(&self) -> bool {
        matches!(self, Self::Linked | Self::HardLink { .. } | Self::OutsideLink { .. })
    }

    /// Appends the item's bytes; equal items give equal bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let begin = |out: &mut Vec<u8>, length, number| {
            encode::write_array_len(out, length).expect(WRITES);
            encode::write_pfix(out, number).expect(WRITES);
        };
        match self {
            Self::Directory { path, mode } => {
                begin(out, 3, 0);
                encode::write_bin(out, path.as_bytes()).expect(WRITES);
                encode::write_uint(out, u64::from(*mode)).expect(WRITES);
            }
            Self::File { path, mode, size, recipe } => {
                let container = recipe.container();
                begin(
                    out,
                    5 + container.map_or(0, |container| 2 + u32::from(container.content.is_some())),
                    1,
                );
                encode::write_bin(out, path.as_bytes()).expect(WRITES);
                encode::write_uint(out, u64::from(*mode)).expect(WRITES);
                encode::write_uint(out, *size).expect(WRITES);
                encode::write_uint(out, u64::from(recipe.number())).expect(WRITES);
                if let Some(container) = container {
                    encode::write_uint(out, container.stream_bytes).expect(WRITES);
                    encode::write_bin(out, container.artifact.as_bytes()).expect(WRITES);
                    if let Some(content) = container.content {
                        encode::write_bin(out, content.as_bytes()).expect(WRITES);
                    }
                }
            }
            Self::Linked => begin(out, 1, 4),
            Self::HardLink { path, target } => {
                begin(out, 3, 5);
                encode::write_bin(out, path.as_bytes()).expect(WRITES);
                encode::write_bin(out, target.as_bytes()).expect(WRITES);
            }
            Self::Symlink { path, target } | Self::OutsideLink { path, target } => {
                begin(out, 3, if matches!(self, Self::Symlink { .. }) { 2 } else { 6 });
                encode::write_bin(out, path.as_bytes()).expect(WRITES);
                encode::write_bin(out, target).expect(WRITES);
            }
            Self::Chunk(chunk) => {
                begin(out, 3, 3);
                encode::write_bin(out, chunk.id.as_bytes()).expect(WRITES);
                encode::write_uint(out, u64::from(chunk.bytes)).expect(WRITES);
            }
        }
    }

    /// Reads the item at the start of `bytes` and how many bytes it takes.
    ///
    /// # Errors
    /// Bytes that [`Item::encode`] does not write; a target that leaves the release is no error here.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, usize), ItemError> {
        let mut rest = Bytes::new(bytes);
        let length = decode::read_array_len(&mut rest).map_err(|_| ItemError::Malformed)?;
        let number = decode::read_pfix(&mut rest).map_err(|_| ItemError::Malformed)?;
        let item = match (length, number) {
            (3, 0) => Self::Directory { path: read_path(&mut rest)?, mode: read_mode(&mut rest)? },
            (5 | 7 | 8, 1) => Self::File {
                path: read_path(&mut rest)?,
                mode: read_mode(&mut rest)?,
                size: read_uint(&mut rest, FILE_BYTES_MAX)?,
                recipe: read_recipe(&mut rest, length)?,
            },
            (3, 2) => Self::Symlink { path: read_path(&mut rest)?, target: read_bytes(&mut rest)? },
            (3, 3) => {
                let id = read_bytes(&mut rest)?.try_into().map_err(|_| ItemError::Malformed)?;
                let bytes = read_uint(&mut rest, u64::from(CHUNK_BYTES_MAX))?;
                let bytes = u32::try_from(bytes).map_err(|_| ItemError::Malformed)?;
                if bytes == 0 {
                    return Err(ItemError::Malformed);
                }
                Self::Chunk(ChunkRef { id: ChunkId::from_bytes(id), bytes })
            }
            (1, 4) => Self::Linked,
            (3, 5) => Self::HardLink { path: read_path(&mut rest)?, target: read_path(&mut rest)? },
            (3, 6) => Self::OutsideLink { path: read_path(&mut rest)?, target: read_bytes(&mut rest)? },
            _ => return Err(ItemError::Malformed),
        };
        let used = bytes.len() - rest.remaining_slice().len();
        // Each item has one form, so that equal content has equal ids: longer forms of the same value are refused.
        let mut canonical = Vec::with_capacity(used);
        item.encode(&mut canonical);
        if canonical == bytes[..used] { Ok((item, used)) } else { Err(ItemError::Malformed) }
    }

    /// Returns 32 uniform bits that depend on the item alone; they decide where segments end.
    pub(super) fn cut_bits(&self, encoded: &[u8]) -> u32 {
        let hash = match self {
            Self::Chunk(chunk) => *chunk.id.as_bytes(),
            _ => *blake3::hash(encoded).as_bytes(),
        };
        u32::from_le_bytes(hash[8..12].try_into().expect("a hash has 32 bytes"))
    }
}

/// The reasons to refuse an item, without its place.
#[derive(Debug)]
pub(super) enum ItemError {
    Malformed,
    Refused(Error),
}

fn read_uint(rest: &mut Bytes<'_>, max: u64) -> Result<u64, ItemError> {
    let value: u64 = decode::read_int(rest).map_err(|_| ItemError::Malformed)?;
    if value <= max { Ok(value) } else { Err(ItemError::Malformed) }
}

fn read_mode(rest: &mut Bytes<'_>) -> Result<u16, ItemError> {
    let mode = read_uint(rest, u64::from(MODE_MASK))?;
    u16::try_from(mode).map_err(|_| ItemError::Malformed)
}

fn read_bytes(rest: &mut Bytes<'_>) -> Result<Vec<u8>, ItemError> {
    let length = decode::read_bin_len(rest).map_err(|_| ItemError::Malformed)? as usize;
    if length > PATH_BYTES_MAX || length > rest.remaining_slice().len() {
        return Err(ItemError::Malformed);
    }
    let mut bytes = vec![0; length];
    rest.read_exact_buf(&mut bytes).map_err(|_| ItemError::Malformed)?;
    Ok(bytes)
}

fn read_hash(rest: &mut Bytes<'_>) -> Result<[u8; 32], ItemError> {
    read_bytes(rest)?.try_into().map_err(|_| ItemError::Malformed)
}

fn read_path(rest: &mut Bytes<'_>) -> Result<EntryPath, ItemError> {
    EntryPath::new(read_bytes(rest)?).map_err(ItemError::Refused)
}

/// Reads a recipe; `elements` are the array's elements of the whole item.
fn read_recipe(rest: &mut Bytes<'_>, elements: u32) -> Result<Recipe, ItemError> {
    let number = u8::try_from(read_uint(rest, 255)?).map_err(|_| ItemError::Malformed)?;
    match (number, elements) {
        (0, 5) => Ok(Recipe::Chunks),
        (2, 5) => Ok(Recipe::Packed),
        (1, 7) | (3, 8) => {
            let stream_bytes = read_uint(rest, FILE_BYTES_MAX)?;
            let artifact = ArtifactId::from_bytes(read_hash(rest)?);
            let content = if number == 3 { Some(ContentId::from_bytes(read_hash(rest)?)) } else { None };
            Ok(Recipe::Container(Container { stream_bytes, artifact, content }))
        }
        (0..=3, _) => Err(ItemError::Malformed),
        _ => Err(ItemError::Refused(Error::Recipe(number))),
    }
}
