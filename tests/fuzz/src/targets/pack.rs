//! Frames, footers, trailers and the scan of a pack.
//!
//! The first byte says whether checksums are corrected before the bytes are read: a fuzzer cannot guess them.

use delta::compression::{Compressor, Decompressor, LEVEL_DEFAULT};
use format::pack::{
    Footer, FooterView, Frame, FrameKind, FrameView, HEADER_BYTES, PackId, Scanner, TRAILER_BYTES, Trailer,
    header, read_header,
};
use format::recipe::ChunkRef;
use ground::limits::{CHUNK_BYTES_MAX, FRAME_CHUNKS_MAX, FRAME_PLAIN_MAX};

pub fn run(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let mut pack = bytes.to_vec();
    if mode & 1 == 1 {
        make_whole(&mut pack);
    }
    if let Ok(view) = FrameView::parse(&pack, 0) {
        frame(&view);
    }
    read_header(&pack).map_err(|error| error.to_string()).ok();
    if let Ok(mut scanner) = Scanner::new(&pack) {
        let mut end = HEADER_BYTES as u64;
        for (offset, view) in scanner.by_ref() {
            assert_eq!(offset, end, "frames follow one another");
            end += view.bytes().len() as u64;
            frame(&view);
        }
        assert_eq!(scanner.valid_bytes(), end);
        assert!(end <= pack.len() as u64);
    }
    match FooterView::of_pack(&pack) {
        Ok(view) => footer(&view),
        Err(error) => drop(error.to_string()),
    }
}

fn frame(view: &FrameView<'_>) {
    let chunks: Vec<ChunkRef> = view.chunks().collect();
    assert!((1..=FRAME_CHUNKS_MAX).contains(&chunks.len()));
    assert!(chunks.iter().all(|chunk| (1..=CHUNK_BYTES_MAX).contains(&chunk.bytes)));
    assert!(view.plain_bytes() <= FRAME_PLAIN_MAX);
    if view.is_whole() {
        let (kind, codec, payload) = (view.kind(), view.codec(), view.payload().to_vec());
        let mut again = Vec::new();
        Frame { kind, codec, chunks, payload }.encode(&mut again);
        assert_eq!(again, view.bytes(), "a frame has one form");
    }
    let mut plain = Vec::new();
    let decoded =
        Decompressor::new().decompress(view.codec(), view.payload(), view.plain_bytes(), &mut plain);
    if decoded.is_ok() {
        assert_eq!(plain.len(), view.plain_bytes());
    }
    assert!(plain.capacity() <= 2 * FRAME_PLAIN_MAX, "no more than was announced");
}

fn footer(view: &FooterView<'_>) {
    let chunks: Vec<_> = view.chunks().collect();
    assert_eq!(chunks.len(), view.chunk_count());
    let offsets: Vec<u64> = (0..view.frame_count()).map(|at| view.frame(at).0).collect();
    let sorted = chunks.is_sorted_by_key(|found| found.chunk.id);
    for found in &chunks {
        assert!(offsets.contains(&found.frame_offset));
        let again = view.find(&found.chunk.id);
        assert!(!sorted || again.is_some_and(|again| again.chunk.id == found.chunk.id));
    }
}

/// Writes the right checksum into each frame and into the trailer, if they are in place.
fn make_whole(pack: &mut [u8]) {
    let mut offset = if read_header(pack).is_ok() { HEADER_BYTES } else { 0 };
    while let Ok(view) = FrameView::parse(&pack[offset..], 0) {
        let end = offset + view.bytes().len();
        let check = blake3::hash(&pack[offset..end - 16]);
        pack[end - 16..end].copy_from_slice(&check.as_bytes()[..16]);
        offset = end;
    }
    let length = pack.len();
    if let Some(trailer) = pack.last_chunk::<TRAILER_BYTES>()
        && let Ok(trailer) = Trailer::parse(trailer, length as u64)
    {
        let begin = usize::try_from(trailer.footer_offset).expect("it is inside the pack");
        let end = length - TRAILER_BYTES;
        let check = blake3::hash(&pack[begin..end]);
        pack[end + 16..end + 48].copy_from_slice(check.as_bytes());
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    let text = b"the same words again and again, the same words again and again. ".repeat(4);
    let frames = [
        Frame::compress(FrameKind::Content, [&text[..], b"short", &text[3..]], &mut compressor),
        Frame::compress(FrameKind::Manifest, [&b"\x11segment"[..]], &mut compressor),
    ];
    let mut pack = header(PackId::from_bytes([7; 16])).to_vec();
    let mut footer = Footer::default();
    let mut seeds = Vec::new();
    for frame in &frames {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let length = u32::try_from(bytes.len()).expect("a small frame");
        footer.add(pack.len() as u64, length, frame.kind, frame.chunks.iter().copied());
        pack.extend_from_slice(&bytes);
        seeds.push(bytes);
    }
    seeds.push(pack.clone());
    let footer = footer.encode(pack.len() as u64);
    pack.extend_from_slice(&footer);
    seeds.push(pack);
    seeds.push(footer);
    let with_mode = |mode: u8| seeds.iter().map(move |seed| [&[mode], seed.as_slice()].concat());
    with_mode(1).chain(with_mode(0)).collect()
}
