//! Writes the stream of an unpacked archive to a file, and cuts it into chunks.
//!
//! Members whose chunks are known are neither decoded nor written: the file has a hole there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::section::{BUFFER_BYTES, FileSection, OffsetWriter};
use crate::agent::memory::KnownMember;
use delta::relink::MAGIC;
use format::chunking::Profile;
use format::recipe::ChunkRef;
use recode::archive::{Part, Parts, Plan, StreamName, unpack};

/// The members that nobody decodes, by the names of their packed streams.
pub(super) type KnownMembers = HashMap<StreamName, KnownMember>;

/// Lengths of a stream's head, framing and content.
pub(super) struct Lengths {
    pub head: u64,
    framing: u64,
    content: u64,
}

impl Lengths {
    pub fn of(plan: &Plan, head: u64) -> Self {
        Self { head, framing: plan.framing_bytes(), content: plan.contents().iter().sum() }
    }

    pub fn all(&self) -> u64 {
        self.head + self.framing + self.content
    }
}

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamPart {
    /// Where it ends, counted from the stream's beginning.
    pub end: u64,
    /// The number of chunks to its end.
    pub chunks_end: usize,
    /// The name of the packed stream that decodes to it, where it has one.
    pub name: Option<StreamName>,
    /// True if it is a hole.
    pub is_hole: bool,
    /// True if it begins as an ELF file does.
    pub is_elf: bool,
}

/// Writes the stream of `archive` to the file, from `begin` on.
///
/// # Errors
/// The file cannot be written; `InvalidData` if the plan is not one of the archive.
pub(super) fn write_stream(
    plan: &Plan,
    archive: &[u8],
    head: &[u8],
    lengths: &Lengths,
    streams: &File,
    begin: u64,
    members: &KnownMembers,
) -> io::Result<()> {
    streams.write_all_at(head, begin)?;
    let writer = |offset| BufWriter::with_capacity(BUFFER_BYTES, OffsetWriter { file: streams, offset });
    let mut framing = writer(begin + lengths.head);
    let mut content = writer(begin + lengths.head + lengths.framing);
    unpack(plan, archive, &|name| members.contains_key(name), &mut |part| match part {
        Part::Framing(bytes) => framing.write_all(bytes),
        Part::Content(bytes) => content.write_all(bytes),
        Part::Known(bytes) => {
            content.flush()?;
            content.get_mut().offset += bytes;
            Ok(())
        }
        Part::End => Ok(()),
    })?;
    framing.flush()?;
    content.flush()
}

/// Cuts the stream into chunks; each of its parts begins with a chunk of its own.
///
/// # Errors
/// The file cannot be read.
pub(super) fn cut(
    parts: &Parts,
    streams: &File,
    begin: u64,
    profile: Profile,
    buffer: &mut Vec<u8>,
    members: &KnownMembers,
) -> io::Result<(Vec<ChunkRef>, Vec<StreamPart>)> {
    let (mut chunks, mut cut, mut end) = (Vec::new(), Vec::new(), 0);
    for (length, name) in parts.named() {
        let known = name.and_then(|name| members.get(&name));
        let mut is_elf = known.is_some_and(|member| member.is_elf);
        if let Some(member) = known {
            chunks.extend_from_slice(&member.chunks);
        } else {
            let first = chunks.len();
            let part = FileSection::new(streams, begin + end, length);
            profile.cut_all::<io::Error>(part, buffer, |bytes| {
                is_elf |= chunks.len() == first && bytes.starts_with(MAGIC);
                chunks.push(ChunkRef::of(bytes));
                Ok(())
            })?;
        }
        end += length;
        cut.push(StreamPart { end, chunks_end: chunks.len(), name, is_hole: known.is_some(), is_elf });
    }
    Ok((chunks, cut))
}
