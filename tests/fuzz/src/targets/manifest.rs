//! Segments, nodes, roots, and the reader of a whole manifest.

use format::manifest::{
    Builder, EntryPath, Item, NodeRef, Profile, Reader, Root, Shape, Totals, decode_node, decode_segment,
    segment_chunks,
};
use format::recipe::{ChunkRef, Container, Recipe};
use ground::ids::{ArtifactId, ChunkId, ContentId, ReleaseId};

pub fn run(bytes: &[u8]) {
    match decode_segment(bytes) {
        Ok(items) => segment(bytes, &items),
        Err(error) => drop(error.to_string()),
    }
    match decode_node(bytes) {
        Ok(children) => assert_eq!(encode_node(&children), bytes),
        Err(error) => drop(error.to_string()),
    }
    match Root::decode(bytes) {
        Ok(root) => {
            assert_eq!(root.encode(), bytes);
            assert_eq!(root.id(), ChunkId::of(bytes));
            assert_eq!(root.release(), root.named.unwrap_or_else(|| ReleaseId::of(bytes)));
        }
        Err(error) => drop(error.to_string()),
    }
}

fn segment(bytes: &[u8], items: &[Item]) {
    assert_eq!(encode_segment(items), bytes, "one content has one form");
    let chunks = segment_chunks(bytes).expect("it was just decoded");
    assert_eq!(chunks.len(), items.iter().filter(|item| matches!(item, Item::Chunk(_))).count());

    let mut whole = Reader::new();
    let outcome = whole.segment(bytes).map(drop);
    if items.len() > 1 {
        // Where a manifest is split does not change its items.
        let (left, right) = items.split_at(items.len() / 2);
        let mut parts = Reader::new();
        let both = parts.segment(&encode_segment(left)).and_then(|_| parts.segment(&encode_segment(right)));
        assert_eq!(both.map(drop), outcome);
    }
    if let Err(error) = outcome {
        drop(error.to_string());
        return;
    }
    let mut builder = Builder::new(Profile::DEFAULT);
    let mut segments: Vec<_> = items.iter().filter_map(|item| builder.push(item)).collect();
    let (last, root, nodes) = builder.finish(Shape::Tree).expect("few segments");
    segments.extend(last);
    assert_eq!(nodes, segments.iter().map(|segment| segment.node).collect::<Vec<_>>());
    assert_eq!(Root::decode(&root.encode()).as_ref(), Ok(&root));
    let mut rebuilt = Reader::new();
    for segment in &segments {
        rebuilt.segment(&segment.bytes).expect("the same items in the same order");
    }
    assert_eq!(rebuilt.finish(&root), whole.finish(&root));
}

fn encode_segment(items: &[Item]) -> Vec<u8> {
    let has_links =
        |item: &Item| matches!(item, Item::Linked | Item::HardLink { .. } | Item::OutsideLink { .. });
    let mut bytes = vec![if items.iter().any(has_links) { 0x15 } else { 0x11 }];
    for item in items {
        item.encode(&mut bytes);
    }
    bytes
}

fn encode_node(children: &[NodeRef]) -> Vec<u8> {
    let mut bytes = vec![0x12];
    rmp_serde::encode::write(&mut bytes, children).expect("a Vec takes every write");
    bytes
}

/// Returns a small tree with every kind of item.
pub fn items() -> Vec<Item> {
    let path = |text: &str| EntryPath::new(text).expect("a plain path");
    let chunk = |bytes| Item::Chunk(ChunkRef { id: ChunkId::of(&[bytes]), bytes: u32::from(bytes) });
    let file = |text, size| Item::File { path: path(text), mode: 0o644, size, recipe: Recipe::Chunks };
    vec![
        Item::Directory { path: path("bin"), mode: 0o755 },
        file("bin/run", 300),
        chunk(100),
        chunk(200),
        file("empty", 0),
        Item::Directory { path: path("lib"), mode: 0o700 },
        Item::Directory { path: path("lib/a"), mode: 0o755 },
        Item::Symlink { path: path("lib/a/link"), target: b"../../bin/run".to_vec() },
        file("lib/b.so", 7),
        chunk(7),
        Item::Linked,
        Item::OutsideLink { path: path("python"), target: b"/usr/bin/python3".to_vec() },
        Item::HardLink { path: path("so"), target: path("lib/b.so") },
        Item::Symlink { path: path("winding"), target: b"lib/a/../b.so".to_vec() },
    ]
}

pub fn seeds() -> Vec<Vec<u8>> {
    let items = items();
    let node = |n: u8| NodeRef { id: ChunkId::of(&[n]), bytes: 1000 + u32::from(n) };
    let totals =
        Totals { files: 3, directories: 3, symlinks: 3, chunks: 3, bytes: 307, folder_mode: Some(0o700) };
    let root = |children: Vec<NodeRef>, depth| Root {
        profile: Profile::DEFAULT,
        shape: Shape::Tree,
        totals,
        depth,
        children,
        named: None,
    };
    let mut seeds: Vec<_> = items.chunks(3).map(encode_segment).collect();
    seeds.push(encode_segment(&items));
    seeds.push(encode_node(&(0..20).map(node).collect::<Vec<_>>()));
    seeds.push(root((0..3).map(node).collect(), 0).encode());
    seeds.push(root((0..64).map(node).collect(), 2).encode());
    seeds.push(Root { shape: Shape::File, ..root(Vec::new(), 0) }.encode());
    seeds.push(Root { named: Some(ReleaseId::of(b"a release")), ..root(Vec::new(), 0) }.encode());
    let container = Container { stream_bytes: 18, artifact: ArtifactId::of(b"an archive"), content: None };
    let path = EntryPath::new("a").expect("a path");
    let named = Container { content: Some(ContentId::of(b"its chunks")), ..container };
    let recipes = [Recipe::Container(container), Recipe::Container(named), Recipe::Packed];
    for (recipe, bytes) in recipes.into_iter().zip([18, 18, 10]) {
        let archive = Item::File { path: path.clone(), mode: 0o644, size: 10, recipe };
        seeds.push(encode_segment(&[archive, Item::Chunk(ChunkRef { id: ChunkId::of(b"a stream"), bytes })]));
    }
    seeds
}
