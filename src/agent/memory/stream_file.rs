//! The bytes of remembered streams (FORMAT 8.5).

use std::collections::HashMap;

use super::Key;
use super::stream_memory::{KnownMember, UnpackedStream};
use format::chunking::Profile;
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::leb128;
use recode::archive::{KnownStream, StreamName};
use recode::codec::Method;

/// Magic and version.
const HEADER: [u8; 16] = *b"whitstrm\x01\0\0\0\0\0\0\0";
const CHECK_BYTES: usize = 16;
const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const PROFILE_BYTES: usize = 13;
/// A chunk's id, and its bytes less one.
const CHUNK_BYTES: usize = 34;
/// 262,144 streams of 60 B reach the most bytes of a file.
pub(super) const ENTRIES_MAX: usize = 256 * 1024;
/// 256: some dozens are in use.
const METHODS_MAX: usize = 256;

/// The plain bytes do not begin an archive.
const LEAF: u64 = 1;
/// The chunks follow.
const CHUNKS: u64 = 2;
/// The plain bytes begin as an ELF file does.
const ELF: u64 = 4;
/// The bits before the method's place.
const FLAG_BITS: u32 = 3;

/// A file that was read and checked. Memory: its bytes, and 40 B for each stream.
#[derive(Debug)]
pub(super) struct StreamFile {
    bytes: Vec<u8>,
    methods: Vec<Method>,
    /// The streams, most recently used first: name, and where the rest begins.
    order: Vec<(StreamName, u32)>,
    places: HashMap<StreamName, u32>,
}

/// What a file has of a stream, after its name.
struct Entry<'a> {
    known: KnownStream,
    /// None where no chunks follow.
    chunks: Option<&'a [u8]>,
    is_elf: bool,
}

impl StreamFile {
    /// 16 MiB: 240,000 small members, or 7 GB in large ones.
    pub const BYTES_MAX: usize = 16 * 1024 * 1024;

    /// Reads a whole file; returns none for bytes that [`Writer`] does not write for `key` and `profile`. Time: a tenth of a second
    /// for the largest.
    pub fn read(bytes: Vec<u8>, key: &Key, profile: Profile) -> Option<Self> {
        let (checked, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        if bytes.len() > Self::BYTES_MAX || blake3::hash(checked).as_bytes()[..CHECK_BYTES] != *check {
            return None;
        }
        let mut rest = checked.strip_prefix(&begin(key, profile)[..])?;
        let count = read_number(&mut rest).filter(|count| *count <= METHODS_MAX)?;
        let methods = (0..count).map(|_| Method::decode(&mut rest).ok()).collect::<Option<Vec<_>>>()?;
        let (mut order, mut places) = (Vec::new(), HashMap::new());
        while let Some((name, after)) = rest.split_first_chunk::<NAME_BYTES>() {
            let name = StreamName::from_bytes(*name);
            let place = u32::try_from(checked.len() - after.len()).ok()?;
            rest = after;
            Entry::read(&mut rest, &methods)?;
            order.push((name, place));
            places.insert(name, place);
        }
        let is_whole = rest.is_empty() && order.len() <= ENTRIES_MAX;
        is_whole.then_some(Self { bytes, methods, order, places })
    }

    fn at(&self, place: u32) -> Entry<'_> {
        let mut rest = &self.bytes[place as usize..];
        Entry::read(&mut rest, &self.methods).expect("it was read when the file was")
    }

    fn entry(&self, name: &StreamName) -> Option<Entry<'_>> {
        self.places.get(name).map(|place| self.at(*place))
    }

    /// Returns what is known of a stream.
    pub fn find(&self, name: &StreamName) -> Option<KnownStream> {
        self.entry(name).map(|entry| entry.known)
    }

    /// Returns the plain bytes of a stream, where the file has their chunks.
    pub fn member(&self, name: &StreamName) -> Option<KnownMember> {
        self.entry(name)?.member()
    }

    /// Returns all streams, the most recently used first.
    pub fn streams(&self) -> impl Iterator<Item = UnpackedStream> {
        self.order.iter().map(|(name, place)| {
            let entry = self.at(*place);
            UnpackedStream { name: *name, known: entry.known, member: entry.member() }
        })
    }
}

impl<'a> Entry<'a> {
    fn read(rest: &mut &'a [u8], methods: &[Method]) -> Option<Self> {
        let plain = leb128::read(rest).ok()?;
        let word = leb128::read(rest).ok()?;
        let method = *methods.get(usize::try_from(word >> FLAG_BITS).ok()?)?;
        let known = KnownStream { method, plain: Some(plain), is_leaf: word & LEAF != 0 };
        let is_elf = word & ELF != 0;
        if word & CHUNKS == 0 {
            return Some(Self { known, chunks: None, is_elf });
        }
        let bytes = read_number(rest)?.checked_mul(CHUNK_BYTES)?;
        let (chunks, after) = rest.split_at_checked(bytes)?;
        *rest = after;
        Some(Self { known, chunks: Some(chunks), is_elf })
    }

    fn member(&self) -> Option<KnownMember> {
        Some(KnownMember { chunks: chunks_of(self.chunks?), is_elf: self.is_elf })
    }
}

fn read_number(rest: &mut &[u8]) -> Option<usize> {
    leb128::read(rest).ok().and_then(|number| usize::try_from(number).ok())
}

fn chunks_of(bytes: &[u8]) -> Vec<ChunkRef> {
    let (chunks, _) = bytes.as_chunks::<CHUNK_BYTES>();
    let chunk = |bytes: &[u8; CHUNK_BYTES]| {
        let (id, length) = bytes.split_at(32);
        let id = ChunkId::from_bytes(id.try_into().expect("32 bytes"));
        ChunkRef { id, bytes: u32::from(u16::from_le_bytes([length[0], length[1]])) + 1 }
    };
    chunks.iter().map(chunk).collect()
}

fn begin(key: &Key, profile: Profile) -> [u8; HEADER.len() + KEY_BYTES + PROFILE_BYTES] {
    let mut begin = [0; HEADER.len() + KEY_BYTES + PROFILE_BYTES];
    let [min, average, max] = [profile.min, profile.average, profile.max].map(u32::to_le_bytes);
    let fields = [&HEADER[..], key.as_bytes(), &[profile.algorithm], &min, &average, &max];
    begin.copy_from_slice(&fields.concat());
    begin
}

/// Makes the bytes of a file. Memory: those.
pub(super) struct Writer {
    begin: Vec<u8>,
    methods: Vec<Method>,
    entries: Vec<u8>,
    count: usize,
}

impl Writer {
    /// Begins a file for `key`, of streams cut by `profile`.
    pub fn new(key: &Key, profile: Profile) -> Self {
        Self { begin: begin(key, profile).to_vec(), methods: Vec::new(), entries: Vec::new(), count: 0 }
    }

    /// Adds a stream that was used before those that were added; returns false where the file is full.
    pub fn add(&mut self, stream: &UnpackedStream) -> bool {
        let UnpackedStream { name, known: KnownStream { method, plain, is_leaf }, member } = stream;
        let Some(plain) = *plain else { return true };
        let known = self.methods.iter().position(|known| known == method);
        let number = known.unwrap_or(self.methods.len());
        // Methods have at most 11 bytes.
        let others = self.begin.len() + 2 + METHODS_MAX * 11 + CHECK_BYTES;
        let bytes = NAME_BYTES + 30 + member.as_ref().map_or(0, |member| member.chunks.len() * CHUNK_BYTES);
        let is_full = others + self.entries.len() + bytes > StreamFile::BYTES_MAX;
        if number == METHODS_MAX || self.count == ENTRIES_MAX || is_full {
            return false;
        }
        if known.is_none() {
            self.methods.push(*method);
        }
        self.count += 1;
        let is_elf = member.as_ref().is_some_and(|member| member.is_elf);
        let flags = [(*is_leaf, LEAF), (member.is_some(), CHUNKS), (is_elf, ELF)];
        let flags = flags.map(|(is_set, flag)| u64::from(is_set) * flag).iter().sum::<u64>();
        self.entries.extend_from_slice(name.as_bytes());
        leb128::write(plain, &mut self.entries);
        leb128::write((number as u64) << FLAG_BITS | flags, &mut self.entries);
        if let Some(KnownMember { chunks, .. }) = member {
            leb128::write(chunks.len() as u64, &mut self.entries);
            for ChunkRef { id, bytes } in chunks {
                let less = bytes.checked_sub(1).and_then(|less| u16::try_from(less).ok());
                self.entries.extend_from_slice(id.as_bytes());
                self.entries.extend(less.expect("chunks have 1 B to 64 KiB").to_le_bytes());
            }
        }
        true
    }

    /// Returns the file's bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = self.begin;
        leb128::write(self.methods.len() as u64, &mut bytes);
        self.methods.iter().for_each(|method| method.encode(&mut bytes));
        bytes.extend_from_slice(&self.entries);
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::address::Fingerprint;
    use recode::deflate::{self, Maker};

    fn key(app: &str) -> Key {
        Key::new(&Fingerprint::of_key(b"a key"), "a token", &app.parse().expect("a name"))
    }

    fn stream(number: u32) -> UnpackedStream {
        let name = StreamName::of(&number.to_le_bytes());
        let level = u8::try_from(number % 9).expect("small") + 1;
        let method = deflate::Method::new(level, Maker::Zlib).into();
        let chunks: Vec<ChunkRef> =
            (0..number % 4).map(|part| ChunkRef::of(&[7; 900][part as usize..])).collect();
        let plain = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        let known = KnownStream { method, plain: Some(plain), is_leaf: number.is_multiple_of(2) };
        let member = KnownMember { chunks, is_elf: number.is_multiple_of(5) };
        UnpackedStream { name, known, member: (!number.is_multiple_of(4)).then_some(member) }
    }

    fn file(streams: &[UnpackedStream]) -> Vec<u8> {
        let mut writer = Writer::new(&key("web"), Profile::DEFAULT);
        assert!(streams.iter().all(|stream| writer.add(stream)));
        writer.finish()
    }

    #[test]
    fn streams_come_back_in_their_order() {
        let streams: Vec<UnpackedStream> = (0..100).map(stream).collect();
        let read = StreamFile::read(file(&streams), &key("web"), Profile::DEFAULT).expect("whole");
        assert_eq!(read.streams().collect::<Vec<_>>(), streams);
        for stream in &streams {
            assert_eq!(read.find(&stream.name), Some(stream.known));
            assert_eq!(read.member(&stream.name), stream.member);
        }
        assert_eq!(read.find(&StreamName::of(b"another")), None);
    }

    #[test]
    fn a_file_that_is_damaged_cut_short_or_of_others_counts_as_none() {
        let bytes = file(&[stream(3), stream(6)]);
        let read = |bytes: &[u8]| StreamFile::read(bytes.to_vec(), &key("web"), Profile::DEFAULT);
        assert!(read(&bytes).is_some());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_none() && read(&bytes[..at]).is_none(), "at {at}");
        }
        assert!(StreamFile::read(bytes.clone(), &key("api"), Profile::DEFAULT).is_none());
        let other = Profile { max: 32 * 1024, ..Profile::DEFAULT };
        assert!(StreamFile::read(bytes.clone(), &key("web"), other).is_none());
        // With a right check, but nonsense before it.
        let body = &bytes[..bytes.len() - CHECK_BYTES];
        for at in begin(&key("web"), Profile::DEFAULT).len()..body.len() {
            let mut changed = body.to_vec();
            changed[at] = 0xff;
            let check = blake3::hash(&changed);
            changed.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
            if let Some(read) = read(&changed) {
                assert!(read.streams().count() <= 2);
            }
        }
    }

    #[test]
    fn a_full_file_takes_no_more_and_can_be_read() {
        let mut writer = Writer::new(&key("web"), Profile::DEFAULT);
        let chunks = vec![ChunkRef::of(b"a chunk"); 100_000];
        let member = KnownMember { chunks, is_elf: false };
        let with = |number| UnpackedStream { member: Some(member.clone()), ..stream(number) };
        let taken = (0..10).take_while(|number| writer.add(&with(*number))).count();
        assert_eq!(taken, 4);
        let read = StreamFile::read(writer.finish(), &key("web"), Profile::DEFAULT).expect("whole");
        assert_eq!(read.streams().count(), taken);
    }
}
