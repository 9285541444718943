//! Lets a scan look up and record packed streams.

use std::fmt::Debug;

use format::recipe::ChunkRef;
use recode::archive::{KnownStream, KnownStreams, StreamName};

/// Knows packed streams of archives that were unpacked before. It is believed: only rebuilding an archive proves what it says.
pub trait StreamMemory: KnownStreams + Debug {
    /// Returns the stream's plain bytes as they are cut by themselves under the scan's profile; none where they are to be read.
    fn member(&self, name: &StreamName) -> Option<KnownMember>;

    /// Takes the streams of an archive that was unpacked, the known ones too.
    fn remember(&self, streams: Vec<UnpackedStream>);
}

/// A packed stream of an archive that was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackedStream {
    /// Its name.
    pub name: StreamName,
    /// What planners may know of it.
    pub known: KnownStream,
    /// Its plain bytes, where these are a part of their own (FORMAT 2.5).
    pub member: Option<KnownMember>,
}

/// The plain bytes of a packed stream, which nobody needs to decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownMember {
    /// Their chunks.
    pub chunks: Vec<ChunkRef>,
    /// True if they begin as an ELF file does.
    pub is_elf: bool,
}
