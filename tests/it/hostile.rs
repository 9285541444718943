//! Agents that lie: whatever they send, they are refused, nothing of theirs is listed, and the next honest push is
//! served.

use std::time::Duration;

use delta::compression::Codec;
use format::manifest::{EntryPath, Item, NodeRef, Profile, Root, Shape, Totals};
use format::recipe::{ChunkRef, Container, Recipe};
use ground::faults::{Fault, Faulty};
use ground::ids::{ArtifactId, ChunkId};
use protocol::wire::{
    Basis, Batch, FromAgent, ManifestForm, Open, Operation, Parcel, PushReply, Refusal, Request,
    SegmentBatch, pack_names, pack_short_names,
};
use whit::net::link::{self, Connection, Receiver, Sender};

use crate::trees::{assert_same, noise, write};
use crate::walker::{Step, Walker, raw, raw_segments};
use crate::world::{World, within};

/// A segment that no honest builder makes.
#[derive(Clone)]
struct Forged {
    bytes: Vec<u8>,
    totals: Totals,
}

impl Forged {
    fn of(items: &[Item]) -> Self {
        let (mut bytes, mut totals) = (vec![0x11], Totals::default());
        for item in items {
            item.encode(&mut bytes);
            match item {
                Item::Directory { .. } => totals.directories += 1,
                Item::Symlink { .. } | Item::OutsideLink { .. } => totals.symlinks += 1,
                Item::Linked | Item::HardLink { .. } => {}
                Item::Chunk(_) => totals.chunks += 1,
                Item::File { size, .. } => {
                    totals.files += 1;
                    totals.bytes = totals.bytes.wrapping_add(*size);
                }
            }
        }
        Self { bytes, totals }
    }

    /// Replaces bytes by as many others, to make names that no type allows.
    fn with(mut self, from: &[u8], to: &[u8]) -> Self {
        assert_eq!(from.len(), to.len());
        let at = self.bytes.windows(from.len()).position(|window| window == from).expect("it is there");
        self.bytes[at..at + to.len()].copy_from_slice(to);
        self
    }

    fn node(&self) -> NodeRef {
        NodeRef { id: ChunkId::of(&self.bytes), bytes: u32::try_from(self.bytes.len()).expect("small") }
    }

    fn root(&self) -> Root {
        Root::above(Profile::DEFAULT, Shape::Tree, self.totals, vec![self.node()], |_| {}).expect("small")
    }

    fn open(&self) -> Open {
        open(&self.root(), &[self.node()])
    }
}

fn open(root: &Root, segments: &[NodeRef]) -> Open {
    Open {
        app: "bad".parse().expect("a name"),
        labels: Vec::new(),
        destinations: Vec::new(),
        release: root.release(),
        profile: root.profile,
        shape: root.shape,
        totals: root.totals,
        segments: u32::try_from(segments.len()).expect("few"),
        manifest: ManifestForm::Full(pack_names(segments.iter().map(NodeRef::name))),
        dry_run: false,
        behalf: Vec::new(),
        then: Vec::new(),
        keeps_current: false,
        moves: false,
        cache_only: false,
        root: None,
    }
}

fn path(text: &str) -> EntryPath {
    EntryPath::new(text).expect("a path")
}

fn file(name: &str, size: u64) -> Item {
    Item::File { path: path(name), mode: 0o644, size, recipe: Recipe::Chunks }
}

fn folder(name: &str) -> Item {
    Item::Directory { path: path(name), mode: 0o755 }
}

fn link_to(name: &str, target: &str) -> Item {
    Item::Symlink { path: path(name), target: target.as_bytes().to_vec() }
}

fn chunk(bytes: &[u8]) -> Item {
    Item::Chunk(ChunkRef { id: ChunkId::of(bytes), bytes: u32::try_from(bytes.len()).expect("small") })
}

/// A push driven message by message.
struct Liar {
    _connection: Connection,
    sender: Sender,
    receiver: Receiver,
}

impl Liar {
    async fn open(world: &World, open: Open) -> Self {
        let access = world.access();
        let connection = link::connect(&access.url, &link::Options::default()).await.expect("a connection");
        let (mut sender, receiver) = connection.open().await.expect("a stream");
        sender.send(&Request::new(&access.token, &Operation::Push(open))).await.expect("sent");
        Self { _connection: connection, sender, receiver }
    }

    /// Sends a message, which a proxy that has refused need not read.
    async fn say(&mut self, message: FromAgent) {
        drop(self.sender.send(&message).await);
    }

    async fn hear(&mut self) -> PushReply {
        self.receiver.receive().await.expect("a reply").expect("the stream goes on")
    }

    /// Returns the refusal that ends the conversation.
    async fn refusal(mut self) -> Refusal {
        Self::refused(&mut self.receiver).await
    }

    /// Returns the refusal after the agent has finished sending.
    async fn end(mut self) -> Refusal {
        drop(self.sender.finish());
        Self::refused(&mut self.receiver).await
    }

    async fn refused(receiver: &mut Receiver) -> Refusal {
        loop {
            match receiver.receive().await.expect("a reply").expect("the stream goes on") {
                PushReply::Refused(refusal) => return refusal,
                reply @ (PushReply::Committed { .. } | PushReply::Done) => panic!("believed: {reply:?}"),
                _ => {}
            }
        }
    }
}

/// Asserts that the proxy lists nothing bad and serves an honest push and pull.
async fn assert_unharmed(world: &World) {
    let error = world.releases("bad").await.expect_err("nothing of it is listed");
    assert_eq!(error.fault(), Fault::Missing, "{error}");
    let tree = world.path("honest");
    write(&tree, "a/b", noise(7, 100_000));
    write(&tree, "shared", b"shared content");
    world.push("good", &tree).await;
    let copy = tempfile::tempdir().expect("a temporary folder");
    world.pull("good", &copy.path().join("copy")).await.expect("pulled");
    assert_same(&tree, &copy.path().join("copy"));
}

/// Sends a forged manifest with all its chunks and commits it; returns the refusal.
async fn commit(world: &World, forged: &Forged, chunks: &[&[u8]]) -> Refusal {
    let mut liar = Liar::open(world, forged.open()).await;
    liar.say(FromAgent::Segments(raw_segments(std::slice::from_ref(&forged.bytes)))).await;
    if !chunks.is_empty() {
        let parts: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.to_vec()).collect();
        liar.say(FromAgent::Chunks(raw(&parts))).await;
    }
    liar.say(FromAgent::Commit).await;
    // The missing chunks then never come.
    liar.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_no_honest_agent_makes_is_refused() {
    within(async {
        let world = World::start();
        let cases = [
            ("a path above the release", Forged::of(&[file("QQ", 0)]).with(b"QQ", b"..")),
            ("a path through above", Forged::of(&[folder("a"), file("a/QQ", 0)]).with(b"QQ", b"..")),
            ("an absolute path", Forged::of(&[file("Qetc", 0)]).with(b"Qetc", b"/etc")),
            ("a NUL", Forged::of(&[file("aQb", 0)]).with(b"aQb", b"a\0b")),
            ("a name twice", Forged::of(&[file("a", 0), file("a", 0)])),
            ("a file and a folder of one name", Forged::of(&[file("a", 0), folder("a")])),
            ("names out of order", Forged::of(&[file("b", 0), file("a", 0)])),
            ("a file below a file", Forged::of(&[file("a", 0), file("a/b", 0)])),
            ("a file below a link", Forged::of(&[link_to("a", "b"), file("a/b", 0)])),
            ("a file below nothing", Forged::of(&[file("a/b", 0)])),
            ("a link above the release", Forged::of(&[link_to("a", "../b")])),
            ("an absolute link", Forged::of(&[link_to("a", "/etc/passwd")])),
            ("an empty link", Forged::of(&[link_to("a", "")])),
            ("a file larger than its chunks", Forged::of(&[file("a", 20), chunk(b"0123456789")])),
            ("a file smaller than its chunks", Forged::of(&[file("a", 5), chunk(b"0123456789")])),
            ("chunks of nothing", Forged::of(&[folder("a"), chunk(b"0123456789")])),
            (
                "sizes that overflow",
                Forged::of(&[file("a", 1 << 62), file("b", 1 << 62), file("c", 1 << 62)]),
            ),
        ];
        for (what, forged) in cases {
            let chunks: &[&[u8]] = if forged.totals.chunks > 0 { &[b"0123456789"] } else { &[] };
            let refusal = commit(&world, &forged, chunks).await;
            assert!(matches!(refusal.fault, Fault::Input | Fault::Corrupt), "{what}: {refusal:?}");
        }
        assert_unharmed(&world).await;
    })
    .await;
}

fn archive(name: &str, size: u64, stream_bytes: u64, artifact: &[u8]) -> Item {
    let container = Container { stream_bytes, artifact: ArtifactId::of(artifact), content: None };
    Item::File { path: path(name), mode: 0o644, size, recipe: Recipe::Container(container) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_is_rebuilt_as_something_else_is_told_and_not_recorded() {
    within(async {
        let world = World::start();
        // One piece of content, unchanged: version, length, no methods, one piece of ten bytes.
        let honest = [1, 3, 0, 0, 0, 0, 1, 10 << 2 | 1];
        let level_ten = [1, 11, 0, 0, 0, 1, 1, 10, 8, 15, 0, 0, 1, 2, 10, 0, 0, 0];
        let cases: [(&str, &[u8], u64, bool); 7] = [
            ("another hash", &honest, 10, true),
            ("another size", &honest, 9, false),
            ("more bytes than there are", &[1, 3, 0, 0, 0, 0, 1, 11 << 2 | 1], 10, false),
            ("fewer bytes than there are", &[1, 3, 0, 0, 0, 0, 1, 9 << 2 | 1], 9, false),
            ("no plan", &[1, 255, 255, 255, 255], 10, false),
            ("a newer plan", &[9, 3, 0, 0, 0, 0, 1, 41], 10, false),
            ("a method out of bounds", &level_ten, 10, false),
        ];
        // A refused push leaves its chunks in the store, so that each lie needs content of its own.
        for (number, (what, head, size, other)) in (0..).zip(cases) {
            let plain: [u8; 10] = std::array::from_fn(|_| b'0' + number);
            let content = [head, &plain].concat();
            let artifact: &[u8] =
                if other { b"other" } else { &plain[..usize::try_from(size).expect("few")] };
            let forged = Forged::of(&[archive("a", size, content.len() as u64, artifact), chunk(&content)]);
            let mut liar = Liar::open(&world, forged.open()).await;
            liar.say(FromAgent::Segments(raw_segments(std::slice::from_ref(&forged.bytes)))).await;
            liar.say(FromAgent::Chunks(raw(std::slice::from_ref(&content)))).await;
            liar.say(FromAgent::Commit).await;
            let told = loop {
                match liar.hear().await {
                    PushReply::Missing(_) | PushReply::Stored(_) | PushReply::WantSegments(_) => {}
                    reply => break reply,
                }
            };
            assert_eq!(told, PushReply::Unproven(b"a".to_vec().into()), "{what}");
        }
        // More than an archive of this size can contain.
        let forged = Forged::of(&[archive("a", 10, 10 << 20, b""), chunk(b"0123456789")]);
        assert_eq!(commit(&world, &forged, &[b"0123456789"]).await.fault, Fault::Input);
        assert_unharmed(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_whose_totals_or_root_lie_is_refused() {
    within(async {
        let world = World::start();
        let honest = Forged::of(&[file("a", 10), chunk(b"0123456789")]);
        // A refused push leaves its chunks in the store, so that each lie needs content of its own.
        for (name, lie) in [
            ("b", Totals { bytes: 1, files: 1, chunks: 1, ..Totals::default() }),
            ("c", Totals { bytes: 10, files: 2, chunks: 1, ..Totals::default() }),
            ("d", Totals { bytes: 10, files: 1, chunks: u64::MAX, ..Totals::default() }),
        ] {
            let content = name.repeat(10);
            let mut forged = Forged::of(&[file(name, 10), chunk(content.as_bytes())]);
            forged.totals = lie;
            let refusal = commit(&world, &forged, &[content.as_bytes()]).await;
            assert!(matches!(refusal.fault, Fault::Input | Fault::Corrupt), "{refusal:?}");
        }
        // The segments make a root other than the named one.
        let root = Root { children: vec![NodeRef { bytes: 1, ..honest.node() }], ..honest.root() };
        let mut liar = Liar::open(&world, open(&root, &[honest.node()])).await;
        liar.say(FromAgent::Segments(raw_segments(std::slice::from_ref(&honest.bytes)))).await;
        liar.say(FromAgent::Chunks(raw(&[b"0123456789".to_vec()]))).await;
        liar.say(FromAgent::Commit).await;
        assert_eq!(liar.refusal().await.fault, Fault::Corrupt);
        // A tree whose root says that it is a file.
        let root = Root { shape: Shape::File, ..Forged::of(&[folder("a")]).root() };
        let mut liar = Liar::open(&world, open(&root, &[Forged::of(&[folder("a")]).node()])).await;
        liar.say(FromAgent::Segments(raw_segments(&[Forged::of(&[folder("a")]).bytes]))).await;
        liar.say(FromAgent::Commit).await;
        assert_eq!(liar.refusal().await.fault, Fault::Input);
        assert_unharmed(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_are_not_what_was_asked_for_are_refused() {
    within(async {
        let world = World::start();
        let honest = Forged::of(&[file("a", 10), chunk(b"0123456789")]);
        for (what, lie) in [
            ("other bytes", raw(&[b"9876543210".to_vec()])),
            ("more than asked for", raw(&[b"0123456789".to_vec(), b"more".to_vec()])),
            ("twice the same", raw(&[b"0123456789".to_vec(), b"0123456789".to_vec()])),
            ("cut in two", raw(&[b"01234".to_vec(), b"56789".to_vec()])),
            ("lengths that do not add up", Batch { lengths: vec![11], ..raw(&[b"0123456789".to_vec()]) }),
            ("no lengths", Batch { lengths: vec![], ..raw(&[b"0123456789".to_vec()]) }),
            ("no bytes", Batch { payload: vec![], lengths: vec![10], codec: Codec::Raw }),
            ("a length of nothing", Batch { lengths: vec![0, 10], ..raw(&[b"0123456789".to_vec()]) }),
            ("not what its codec says", Batch { codec: Codec::Zstd, ..raw(&[b"0123456789".to_vec()]) }),
            ("very many lengths", Batch { lengths: vec![1; 100_000], ..raw(&[b"0123456789".to_vec()]) }),
            (
                "a length beyond all chunks",
                Batch { lengths: vec![u32::MAX], ..raw(&[b"0123456789".to_vec()]) },
            ),
        ] {
            let mut liar = Liar::open(&world, honest.open()).await;
            liar.say(FromAgent::Segments(raw_segments(std::slice::from_ref(&honest.bytes)))).await;
            liar.say(FromAgent::Chunks(lie)).await;
            let refusal = liar.refusal().await;
            assert_eq!(refusal.fault, Fault::Corrupt, "{what}: {refusal:?}");
        }
        assert_unharmed(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decompression_bomb_costs_nothing_and_is_refused() {
    within(async {
        let world = World::start();
        let zeros = vec![0; 64 << 20];
        let payload = zstd::bulk::compress(&zeros, 19).expect("zeros compress");
        drop(zeros);
        assert!(payload.len() < 256 * 1024);
        let honest = Forged::of(&[file("a", 10), chunk(b"0123456789")]);
        for lengths in [vec![10], vec![65536; 5]] {
            let bomb = Batch { codec: Codec::Zstd, lengths: lengths.clone(), payload: payload.clone() };
            let mut liar = Liar::open(&world, honest.open()).await;
            let segments = raw_segments(std::slice::from_ref(&honest.bytes));
            liar.say(FromAgent::Segments(SegmentBatch {
                lengths: lengths.clone(),
                payload: payload.clone(),
                ..segments.clone()
            }))
            .await;
            // The payload is corrupt, or the proxy wanted fewer segments.
            assert!(matches!(liar.refusal().await.fault, Fault::Corrupt | Fault::Bug));
            let mut liar = Liar::open(&world, honest.open()).await;
            liar.say(FromAgent::Segments(segments.clone())).await;
            liar.say(FromAgent::Chunks(bomb)).await;
            assert_eq!(liar.refusal().await.fault, Fault::Corrupt);
            let mut liar = Liar::open(&world, honest.open()).await;
            liar.say(FromAgent::Segments(segments)).await;
            let payload_bytes = u32::try_from(payload.len()).expect("small");
            let parcel = Parcel { lengths, basis: Basis::None, codec: Codec::Zstd, payload_bytes };
            liar.say(FromAgent::Parcel(parcel)).await;
            liar.say(FromAgent::Piece(payload.clone())).await;
            assert_eq!(liar.refusal().await.fault, Fault::Corrupt);
        }
        assert_unharmed(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_before_its_time_is_refused() {
    within(async {
        let world = World::start();
        let honest = Forged::of(&[file("a", 10), chunk(b"0123456789")]);
        let mut liar = Liar::open(&world, honest.open()).await;
        liar.say(FromAgent::Commit).await;
        assert!(liar.refusal().await.text.contains("missing"));
        let mut liar = Liar::open(&world, honest.open()).await;
        liar.say(FromAgent::Segments(raw_segments(std::slice::from_ref(&honest.bytes)))).await;
        liar.say(FromAgent::Commit).await;
        // The proxy waits for the chunk, which never comes.
        assert!(liar.end().await.text.contains("ended before its commit"));
        let mut liar = Liar::open(&world, honest.open()).await;
        liar.say(FromAgent::Segments(raw_segments(std::slice::from_ref(&honest.bytes)))).await;
        liar.say(FromAgent::Commit).await;
        liar.say(FromAgent::Segments(raw_segments(std::slice::from_ref(&honest.bytes)))).await;
        assert!(liar.refusal().await.text.contains("unexpected message"));
        let mut liar =
            Liar::open(&world, Open { manifest: ManifestForm::Full(Vec::new()), ..honest.open() }).await;
        assert_eq!(liar.hear().await, PushReply::WantNames);
        liar.say(FromAgent::Commit).await;
        assert!(liar.refusal().await.text.contains("unexpected message"));
        let mut liar = Liar::open(&world, Open { dry_run: true, ..honest.open() }).await;
        liar.say(FromAgent::Commit).await;
        assert!(liar.refusal().await.text.contains("unexpected message"));
        assert_unharmed(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_counts_that_lie_are_refused() {
    within(async {
        let world = World::start();
        let (honest, other) = (Forged::of(&[file("a", 0)]), Forged::of(&[file("b", 0)]));
        // A segment other than the named one.
        let mut liar = Liar::open(&world, honest.open()).await;
        liar.say(FromAgent::Segments(raw_segments(std::slice::from_ref(&other.bytes)))).await;
        liar.say(FromAgent::Commit).await;
        assert_eq!(liar.refusal().await.fault, Fault::Corrupt);
        let short = ManifestForm::Short(pack_short_names([honest.node().name()].into_iter()));
        let mut liar = Liar::open(&world, Open { manifest: short, ..honest.open() }).await;
        liar.say(FromAgent::Segments(raw_segments(std::slice::from_ref(&other.bytes)))).await;
        liar.say(FromAgent::Commit).await;
        assert!(matches!(liar.hear().await, PushReply::WantSegments(_)));
        assert!(matches!(liar.hear().await, PushReply::Missing(_)));
        assert_eq!((liar.hear().await, liar.hear().await), (PushReply::Mismatch, PushReply::Done));
        // More segments than were wanted.
        let mut liar = Liar::open(&world, honest.open()).await;
        liar.say(FromAgent::Segments(raw_segments(&[honest.bytes.clone(), other.bytes.clone()]))).await;
        assert!(liar.refusal().await.text.contains("unexpected message"));
        // More names than segments, and a name cut short.
        for names in [vec![0; 16], vec![0; 7]] {
            let liar =
                Liar::open(&world, Open { manifest: ManifestForm::Full(names), ..honest.open() }).await;
            liar.refusal().await;
        }
        // More segments than any release has.
        let liar = Liar::open(
            &world,
            Open { segments: u32::MAX, manifest: ManifestForm::Full(Vec::new()), ..honest.open() },
        )
        .await;
        assert_eq!(liar.refusal().await.fault, Fault::Full);
        // More names in all than were announced.
        let mut liar = Liar::open(
            &world,
            Open { segments: 40_000, manifest: ManifestForm::Full(Vec::new()), ..honest.open() },
        )
        .await;
        assert_eq!(liar.hear().await, PushReply::WantNames);
        liar.say(FromAgent::Names(vec![0; 8 * 30_000])).await;
        liar.say(FromAgent::Names(vec![0; 8 * 30_000])).await;
        assert!(liar.refusal().await.text.contains("unexpected message"));
        // Chunks cut by an impossible profile.
        let profile = Profile { max: u32::MAX, ..Profile::DEFAULT };
        let liar = Liar::open(&world, Open { profile, ..honest.open() }).await;
        assert_eq!(liar.refusal().await.fault, Fault::Input);
        // Labels beyond the bound.
        let labels = (0..65).map(|n| format!("l{n}").parse().expect("a label")).collect();
        let liar = Liar::open(&world, Open { labels, ..honest.open() }).await;
        assert_eq!(liar.refusal().await.fault, Fault::Full);
        assert_unharmed(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_chunk_under_a_wrong_length_is_refused_and_stays_good() {
    within(async {
        let world = World::start();
        write(&world.path("tree"), "shared", b"shared content");
        world.push("good", &world.path("tree")).await;
        let lie = ChunkRef { id: ChunkId::of(b"shared content"), bytes: 20_000 };
        let forged = Forged::of(&[file("a", 20_000), Item::Chunk(lie)]);
        let refusal = commit(&world, &forged, &[]).await;
        assert!(matches!(refusal.fault, Fault::Corrupt | Fault::Input | Fault::Bug), "{refusal:?}");
        // Nor does the second push pass, though the first left the segment in the store.
        let refusal = commit(&world, &forged, &[b"shared content"]).await;
        assert!(matches!(refusal.fault, Fault::Corrupt | Fault::Input), "{refusal:?}");
        let mut liar = Liar::open(&world, forged.open()).await;
        liar.say(FromAgent::Commit).await;
        liar.refusal().await;
        // Two lengths for one chunk inside one release.
        let (id, bytes) = (ChunkId::of(b"a new chunk"), 11);
        let two = [ChunkRef { id, bytes }, ChunkRef { id, bytes: 12 }].map(Item::Chunk);
        let forged = Forged::of(&[file("a", 23), two[0].clone(), two[1].clone()]);
        commit(&world, &forged, &[b"a new chunk"]).await;
        assert_unharmed(&world).await;
        assert!(world.push("good", &world.path("honest")).await.unchanged, "the store is as whole as before");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_none_or_too_large_is_refused() {
    within(async {
        let world = World::start();
        let honest = Forged::of(&[file("a", 10), chunk(b"0123456789")]);
        let mut liar = Liar::open(&world, honest.open()).await;
        liar.sender.send(&vec![1, 2, 3]).await.expect("sent");
        assert_eq!(liar.refusal().await.fault, Fault::Corrupt);
        let access = world.access();
        let connection = link::connect(&access.url, &link::Options::default()).await.expect("a connection");
        for nonsense in ["hello", "", "whit"] {
            let (mut sender, mut receiver) = connection.open().await.expect("a stream");
            sender.send(nonsense).await.expect("sent");
            match receiver.receive::<PushReply>().await.expect("an answer") {
                // It shows no token.
                Some(PushReply::Refused(refusal)) => assert_eq!(refusal.fault, Fault::Denied),
                other => panic!("{other:?}"),
            }
        }
        // A batch of plain bytes larger than a frame, inside a message within its bound.
        let large = raw_segments(&(0..6).map(|seed| noise(seed, 65536)).collect::<Vec<_>>());
        let told = ManifestForm::Full(vec![7; 8 * 6]);
        let mut liar = Liar::open(&world, Open { manifest: told, segments: 6, ..honest.open() }).await;
        liar.say(FromAgent::Segments(large)).await;
        assert_eq!(liar.refusal().await.fault, Fault::Corrupt);
        assert_unharmed(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_goes_silent_is_given_up() {
    within(async {
        let world = World::start_with(|options| {
            let soon = Duration::from_millis(300);
            (options.link.silence_max, options.link.pause_max) = (soon, soon);
        });
        let honest = Forged::of(&[file("a", 10), chunk(b"0123456789")]);
        let mut liar = Liar::open(&world, honest.open()).await;
        liar.say(FromAgent::Segments(raw_segments(std::slice::from_ref(&honest.bytes)))).await;
        let refusal = liar.refusal().await;
        assert_eq!(refusal.fault, Fault::Retry, "{refusal:?}");
        assert!(refusal.text.contains("silent"), "{refusal:?}");
        assert_unharmed(&world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_breaks_off_leaves_what_it_sent_and_no_release() {
    within(async {
        let world = World::start();
        for file in 0..10 {
            write(&world.path("tree"), &format!("{file}"), noise(file, 300_000));
        }
        let mut walker = Walker::begin(world.access(), "bad", &world.path("tree")).await.expect("begun");
        for _ in 0..4 {
            while !matches!(walker.step().await.expect("a step"), Step::Sent) {}
        }
        drop(walker);
        assert_unharmed(&world).await;
        let receipt = world.push("late", &world.path("tree")).await;
        assert!(receipt.chunks.unseen <= receipt.chunks.total, "{receipt:?}");
    })
    .await;
}
