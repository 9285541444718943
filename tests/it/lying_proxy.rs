//! Proxies that lie to a pulling agent: no lie is believed, and the directory stays as it was.

use delta::compression::Codec;
use format::manifest::{
    EntryPath, Item, NodeRef, Outline, Profile, Root, SegmentIndex, Shape, Totals, shorten,
};
use format::recipe::{ChunkRef, Recipe};
use format::record::{Cost, Record};
use ground::faults::Fault;
use ground::ids::ChunkId;
use protocol::address::ProxyUrl;
use protocol::wire::{
    Answer, Basis, Batch, Change, ChangeKind, Cut, Marks, Operation, Parcel, PullReply, PullRequest, Refusal,
    Request, SegmentBatch, Span, pack_names,
};
use whit::agent::pull::PullOptions;
use whit::agent::{Access, Error, Session};
use whit::net::identity::Identity;
use whit::net::link::{self, Listener};
use whit::restore::OutsideLinks;

use crate::trees::{assert_same, noise, write};
use crate::world::{World, ask_as, pull_with, web, within};

/// A release that does not exist: one file of one chunk.
struct Forged {
    segment: Vec<u8>,
    root: Root,
}

impl Forged {
    fn of(content: &[u8]) -> Self {
        let bytes = u32::try_from(content.len()).expect("small");
        let path = EntryPath::new("a").expect("a path");
        let mut segment = vec![0x11];
        Item::File { path, mode: 0o644, size: u64::from(bytes), recipe: Recipe::Chunks }.encode(&mut segment);
        Item::Chunk(ChunkRef { id: ChunkId::of(content), bytes }).encode(&mut segment);
        let totals = Totals { files: 1, chunks: 1, bytes: u64::from(bytes), ..Totals::default() };
        let length = u32::try_from(segment.len()).expect("small");
        let node = NodeRef { id: ChunkId::of(&segment), bytes: length };
        let root = Root::above(Profile::DEFAULT, Shape::Tree, totals, vec![node], |_| {}).expect("small");
        Self { segment, root }
    }

    fn release(&self, segments: u32) -> PullReply {
        let record = Record {
            app: "app".parse().expect("a name"),
            release: self.root.release(),
            sequence: 2,
            created: 1,
            user: "eve".parse().expect("a name"),
            labels: Vec::new(),
            totals: self.root.totals,
            cost: Cost::default(),
            behalf: Vec::new(),
        };
        PullReply::Release { record, root: self.root.encode(), segments }
    }

    fn thin(&self) -> Vec<u8> {
        shorten(&self.segment).expect("a segment")
    }
}

/// Returns an outline of these steps, whether there is such a base or not.
fn outline(steps: &[(u32, u32, u32)]) -> PullReply {
    let bytes = rmp_serde::to_vec(steps).expect("a Vec takes every write");
    PullReply::Outline(rmp_serde::from_slice::<Outline>(&bytes).expect("an outline"))
}

fn thin(segments: &[Vec<u8>]) -> PullReply {
    PullReply::Thin(SegmentBatch::new(segments, None, Marks::default()))
}

fn content(bytes: &[u8]) -> PullReply {
    let lengths = vec![u32::try_from(bytes.len()).expect("small")];
    PullReply::Chunks(Batch { codec: Codec::Raw, lengths, payload: bytes.to_vec() })
}

const OLD: u64 = 1;
const NEW: u64 = 2;

/// Returns the error of an agent that has a release, when it pulls from a proxy that sends all this; the proxy refuses
/// a request that does not build on that release as full.
async fn told(says: Vec<PullReply>) -> Error {
    told_over(None, says).await
}

/// The same over a link with the given bytes per second.
async fn told_over(link_rate: Option<f64>, says: Vec<PullReply>) -> Error {
    told_of("app", link_rate, says).await
}

/// The same for any requested release.
async fn told_of(asked: &str, link_rate: Option<f64>, says: Vec<PullReply>) -> Error {
    let world = World::start();
    let (tree, copy) = (world.path("tree"), world.path("copy"));
    write(&tree, "a", noise(OLD, 4_000));
    world.push("app", &tree).await;
    world.pull("app", &copy).await.expect("pulled");
    let options = link::Options::default();
    let mut listener = Listener::bind(([127, 0, 0, 1], 0).into(), world.identity(), &options).expect("bound");
    let port = listener.local_address().expect("bound").port();
    let url = ProxyUrl::new("127.0.0.1", port, world.identity().fingerprint()).expect("an address");
    let access = Access { url, token: world.access().token.clone() };
    let liar = tokio::spawn(async move {
        let connection = listener.accept().await.expect("a connection");
        while let Ok(Some((mut sender, mut receiver))) = connection.accept().await {
            let request = receiver.receive::<Request>().await.expect("a request").expect("one");
            let Ok(Operation::Pull { have, .. }) = request.operation() else { panic!("it pulls") };
            let no = Refusal { fault: Fault::Full, text: "no".to_owned(), hint: None };
            let says = if have.is_some() { says.clone() } else { vec![PullReply::Refused(no)] };
            for reply in says {
                // An agent that has heard enough leaves.
                if sender.send(&reply).await.is_err() {
                    break;
                }
            }
            drop(sender.finish());
            // The proxy reads until the stream ends.
            while let Ok(Some(_)) = receiver.receive::<PullRequest>().await {}
        }
    });
    let options =
        PullOptions { delete: false, threads: 2, outside_links: OutsideLinks::Refuse, link_rate, keep: None };
    let error = pull_with(&access, asked, &copy, options).await.expect_err("a lie");
    assert_same(&tree, &copy);
    liar.abort();
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outline_of_something_else_is_refused() {
    within(async {
        let forged = Forged::of(&noise(NEW, 4_000));
        for steps in [&[(0, 0, 2)][..], &[(7, 1, 0)], &[(0, 2, 0)], &[(u32::MAX, u32::MAX, 1)], &[]] {
            let error = told(vec![forged.release(1), outline(steps)]).await;
            assert!(matches!(error, Error::OutOfTurn(_)), "{steps:?}: {error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_segments_than_are_new_or_none_at_all_are_refused() {
    within(async {
        let forged = Forged::of(&noise(NEW, 4_000));
        let begin = || vec![forged.release(1), outline(&[(0, 0, 1)])];
        let twice = [begin(), vec![thin(&[forged.thin(), forged.thin()])]].concat();
        assert!(matches!(told(twice).await, Error::OutOfTurn("Thin")));
        let chunks = [begin(), vec![content(b"early")]].concat();
        assert!(matches!(told(chunks).await, Error::OutOfTurn(_)));
        assert!(matches!(told(begin()).await, Error::Ended));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_beyond_what_a_puller_holds_are_refused() {
    within(async {
        // Links of 4 KiB, four to a segment, 15 segments to a batch.
        let mut segment = vec![0x14];
        for file in 0..4 {
            let path =
                EntryPath::new(format!("{file:02}/{}", "x/".repeat(120) + &"y".repeat(200))).expect("a path");
            Item::Symlink { path, target: vec![b'z'; 3_600] }.encode(&mut segment);
        }
        let batches = 16 * 1024 * 1024 / (15 * segment.len()) + 1;
        let count = u32::try_from(15 * batches).expect("few");
        let forged = Forged::of(b"anything");
        let mut says = vec![forged.release(count), outline(&[(0, 0, count)])];
        says.extend((0..batches).map(|_| thin(&vec![segment.clone(); 15])));
        let error = told(says).await;
        assert!(matches!(error, Error::Push(protocol::Error::Limit { .. })), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_begins_otherwise_is_refused() {
    within(async {
        let forged = Forged::of(&noise(NEW, 4_000));
        let says = vec![
            forged.release(1),
            outline(&[(0, 0, 1)]),
            thin(&[forged.thin()]),
            content(&noise(NEW + 1, 4_000)),
        ];
        let error = told(says).await;
        assert!(matches!(error, Error::Push(protocol::Error::Unasked(_))), "{error:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_make_the_root_is_asked_for_again_in_full() {
    within(async {
        // The segment names the directory's chunk, though the root was made of another.
        let (forged, held) = (Forged::of(&noise(NEW, 4_000)), Forged::of(&noise(OLD, 4_000)));
        let says = vec![forged.release(1), outline(&[(0, 0, 1)]), thin(&[held.thin()])];
        let error = told(says).await;
        assert!(matches!(&error, Error::Refused(refusal) if refusal.fault == Fault::Full), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executables_of_something_else_are_refused() {
    within(async {
        let forged = Forged::of(&noise(NEW, 4_000));
        let begin = || vec![forged.release(1), outline(&[(0, 0, 1)]), thin(&[forged.thin()])];
        let parcel = |basis: Basis, bytes: u32| {
            PullReply::Parcel(Parcel { lengths: vec![bytes], basis, codec: Codec::Raw, payload_bytes: 1 })
        };
        let of = |span: Span| Basis::Executable(vec![span], vec![Cut { skipped: 0, chunks: 1 }]);
        let (first, outside) = (
            Span { segment: SegmentIndex::new(0), first: 0, count: 1 },
            Span { segment: SegmentIndex::new(7), first: 0, count: u32::MAX },
        );
        for lies in [
            vec![PullReply::Executables(u32::MAX)],
            vec![PullReply::Executables(1), parcel(Basis::None, 4_000), PullReply::Piece(vec![0])],
            vec![PullReply::Executables(1), parcel(of(outside), 4_000), PullReply::Piece(vec![0])],
            // More chunks than the release has.
            vec![PullReply::Executables(1), parcel(of(first), 9_000), PullReply::Piece(vec![0])],
            // A payload that rebuilds nothing: the agent requests the chunks in the usual way, and then nothing comes.
            vec![PullReply::Executables(1), parcel(of(first), 4_000), PullReply::Piece(vec![0])],
            vec![PullReply::Executables(2), parcel(of(first), 4_000), PullReply::Piece(vec![0])],
        ] {
            let said = format!("{lies:?}");
            let error = told_over(Some(1e6), begin().into_iter().chain(lies).collect()).await;
            let is_limit = matches!(error, Error::Push(protocol::Error::Limit { .. }));
            assert!(is_limit || matches!(error, Error::OutOfTurn(_) | Error::Ended), "{said}: {error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_is_heard_though_it_no_longer_listens() {
    within(async {
        let world = World::start();
        let options = link::Options::default();
        let mut listener =
            Listener::bind(([127, 0, 0, 1], 0).into(), world.identity(), &options).expect("bound");
        let port = listener.local_address().expect("bound").port();
        let url = ProxyUrl::new("127.0.0.1", port, world.identity().fingerprint()).expect("an address");
        let access = Access { url, token: world.access().token.clone() };
        let proxy = tokio::spawn(async move {
            let connection = listener.accept().await.expect("a connection");
            let (mut sender, mut receiver) = connection.accept().await.expect("a stream").expect("one");
            receiver.receive::<Request>().await.expect("a request").expect("one");
            // The proxy receives nothing more; then the agent hears why.
            receiver.stop(Fault::Retry);
            let forged = Forged::of(&noise(NEW, 4_000));
            let name = ChunkId::of(&forged.segment).into();
            let damaged = Refusal { fault: Fault::Corrupt, text: "damaged".to_owned(), hint: None };
            let names = PullReply::Names(pack_names(std::iter::once(name)));
            for reply in [forged.release(1), names, PullReply::Refused(damaged)] {
                sender.send(&reply).await.expect("sent");
            }
            drop(sender.finish());
            drop(connection.accept().await);
        });
        let options = PullOptions {
            delete: false,
            threads: 2,
            outside_links: OutsideLinks::Refuse,
            link_rate: None,
            keep: None,
        };
        let error = pull_with(&access, "app", &world.path("copy"), options).await.expect_err("refused");
        assert!(matches!(&error, Error::Refused(refusal) if refusal.fault == Fault::Corrupt), "{error}");
        proxy.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_release_than_was_asked_for_is_refused_by_whoever_asks() {
    within(async {
        let (forged, asked) = (Forged::of(&noise(NEW, 4_000)), ChunkId::of(b"what is asked for").to_string());
        let PullReply::Release { record, .. } = forged.release(1) else { panic!("a release") };
        for at in [&asked, &asked[..12], "v1"] {
            let named = format!("app@{at}");
            let error = told_of(&named, None, vec![forged.release(1)]).await;
            assert!(matches!(error, Error::OtherRelease { .. }), "{named}: {error}");
            let selector = || named.parse().expect("a selector");
            let latest = || "app".parse().expect("a selector");
            for (operation, says) in [
                (
                    Operation::Deliver { release: selector(), destinations: vec![web()], then: Vec::new() },
                    vec![record.clone()],
                ),
                (Operation::Difference { from: selector(), to: latest() }, vec![record.clone(); 2]),
                (Operation::Difference { from: latest(), to: selector() }, vec![record.clone(); 2]),
                (Operation::Pin { release: selector(), pinned: true }, vec![record.clone()]),
                (
                    Operation::Remove { release: selector(), all_labels: false, force: false },
                    vec![record.clone()],
                ),
            ] {
                let error = answered(&operation, says.into_iter().map(Answer::Meant).collect()).await;
                assert!(matches!(error, Error::OtherRelease { .. }), "{operation:?}: {error}");
                // Nor is an answer believed that does not first say what it is about.
                let error = answered(&operation, vec![Answer::Done(record.clone())]).await;
                assert!(matches!(error, Error::OutOfTurn(_)), "{operation:?}: {error}");
                assert!(matches!(answered(&operation, Vec::new()).await, Error::Ended));
            }
        }
    })
    .await;
}

/// Returns the error of an agent that asks, when the proxy answers this.
async fn answered(operation: &Operation, says: Vec<Answer>) -> Error {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (identity, _) = Identity::open_or_create(folder.path()).expect("an identity");
    let options = link::Options::default();
    let mut listener = Listener::bind(([127, 0, 0, 1], 0).into(), &identity, &options).expect("bound");
    let port = listener.local_address().expect("bound").port();
    let url = ProxyUrl::new("127.0.0.1", port, identity.fingerprint()).expect("an address");
    let liar = tokio::spawn(async move {
        let connection = listener.accept().await.expect("a connection");
        while let Ok(Some((mut sender, mut receiver))) = connection.accept().await {
            receiver.receive::<Request>().await.expect("a request").expect("one");
            for answer in &says {
                drop(sender.send(answer).await);
            }
            drop(sender.finish());
        }
    });
    let error = ask_as(&Access { url, token: String::new() }, operation).await.expect_err("a lie");
    liar.abort();
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_bring_nothing_are_no_way_to_go_on_for_ever() {
    within(async {
        let forged = Forged::of(&noise(NEW, 4_000));
        let names = vec![forged.release(1), PullReply::Names(Vec::new())];
        assert!(matches!(told(names).await, Error::OutOfTurn(_)));
        let segments = vec![forged.release(1), outline(&[(0, 0, 1)]), thin(&[])];
        assert!(matches!(told(segments).await, Error::OutOfTurn("Thin")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_is_given_up() {
    within(async {
        let world = World::start();
        let mut listener =
            Listener::bind(([127, 0, 0, 1], 0).into(), world.identity(), &link::Options::default())
                .expect("bound");
        let port = listener.local_address().expect("an address").port();
        let url = ProxyUrl::new("127.0.0.1", port, world.identity().fingerprint()).expect("an address");
        let access = Access { url, token: world.access().token.clone() };
        let liar = tokio::spawn(async move {
            let connection = listener.accept().await.expect("a connection");
            let (mut sender, _receiver) = connection.accept().await.expect("live").expect("a stream");
            let row =
                Change { kind: ChangeKind::Added, path: vec![b'a'; 1_000_000], bytes: 1, unseen_bytes: 1 };
            let mut rows = 0;
            while sender.send(&Answer::Changes(vec![row.clone()])).await.is_ok() {
                rows += 1;
            }
            rows
        });
        let question = Operation::Applications;
        let session = Session::open(&access, &link::Options::default()).await.expect("a session");
        let error = session.ask(&question, drop).await.expect_err("no end");
        assert!(matches!(error, Error::Endless { .. }), "{error}");
        assert!(liar.await.expect("it ends too") < 300);
    })
    .await;
}
