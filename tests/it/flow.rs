//! No conversation waits for ever: neither by itself, nor for a peer that says nothing, drips, or fails in the same way
//! again and again.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use format::manifest::{NodeRef, SegmentIndex};
use ground::faults::{Fault, Faulty};
use ground::limits::PULL_REQUESTS_OPEN;
use ground::monitor::{Monitor, Silent};
use protocol::address::ProxyUrl;
use protocol::push::Window;
use protocol::wire::{
    FromAgent, ManifestForm, Marks, Open, Operation, PullReply, PullRequest, PushReply, Refusal, Request,
};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use whit::agent::pull::{PullOptions, pull_tree};
use whit::agent::push::{PushOptions, push};
use whit::agent::{Access, Error, Receipt, Session};
use whit::net::identity::Identity;
use whit::net::link::{self, Listener, Receiver, Sender};
use whit::restore::OutsideLinks;

use crate::trees::{assert_same, noise, write};
use crate::world::{World, push_options, within};

/// Soon enough for a test, long enough for a busy machine.
const SOON: Duration = Duration::from_millis(400);

fn silent() -> Arc<dyn Monitor> {
    Arc::new(Silent)
}

/// Writes two trees of files; every chunk differs a little in the second.
fn changed_a_little(old: &Path, new: &Path, files: u64) {
    for file in 0..files {
        let mut bytes = noise(file, 20_000);
        // Numbers would count as versions of one name.
        let letter = |digit: u64| char::from(b'a' + u8::try_from(digit % 10).expect("a digit"));
        let name: String = [file / 100, file / 10, file].map(letter).into_iter().collect();
        write(&old.join("lib-1.0"), &name, &bytes);
        for at in [3_000, 10_000, 17_000] {
            bytes[at] ^= 1;
        }
        write(&new.join("lib-1.1"), &name, &bytes);
    }
}

/// Pushes over links that buffer `window` bytes ahead of the reader.
async fn push_over(access: &Access, push_options: &PushOptions, window: u32) -> Receipt {
    let options = link::Options { window_max: window, ..link::Options::default() };
    let session = Session::open(access, &options).await.expect("a session");
    let receipt = Box::pin(push(&session, push_options, &silent())).await.expect("pushed");
    session.finish().await;
    receipt
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_whose_every_chunk_changed_a_little_ends_with_any_window() {
    within(async {
        for (window, steps, step_bytes) in [(8_192, 8, 4_096), (8_192, 1, 1)] {
            let begin = Instant::now();
            let world = World::start_with(|options| options.link.window_max = window);
            let (old, new) = (world.path("old"), world.path("new"));
            changed_a_little(&old, &new, 300);
            world.push("app", &old).await;
            // Some 300 answers, each with block sums of older content.
            let options = PushOptions {
                window: Window { steps, step_bytes },
                link_rate: Some(100e3),
                patience: Duration::from_secs(5),
                ..push_options("app", &new)
            };
            let receipt = push_over(world.access(), &options, window).await;
            let sent = receipt.bytes.sent;
            assert!(
                receipt.chunks.unseen >= 300 && sent < receipt.bytes.logical * 3 / 4,
                "{sent} B: by deltas"
            );
            let copy = world.path("copy");
            world.pull("app", &copy).await.expect("pulled");
            assert_same(&new, &copy);
            println!("window {window} B, {steps} steps of {step_bytes} B: {:?}", begin.elapsed());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_ends_with_the_smallest_windows() {
    within(async {
        let window = 8_192;
        let begin = Instant::now();
        let world = World::start_with(|options| options.link.window_max = window);
        let (old, new) = (world.path("old"), world.path("new"));
        changed_a_little(&old, &new, 6);
        let copy = world.path("copy");
        let options = link::Options { window_max: window, ..link::Options::default() };
        let session = Session::open(world.access(), &options).await.expect("a session");
        for tree in [&old, &new] {
            world.push("app", tree).await;
            let selector = "app".parse().expect("a selector");
            let outside_links = OutsideLinks::Refuse;
            let options =
                PullOptions { delete: false, threads: 2, outside_links, link_rate: Some(100e3), keep: None };
            Box::pin(pull_tree(&session, &selector, &copy, options, &silent())).await.expect("pulled");
            assert_same(tree, &copy);
            println!("{:?}", begin.elapsed());
        }
        session.finish().await;
    })
    .await;
}

/// Runs a proxy of the test that treats each push in the given way.
async fn serve_as(
    listener: &mut Listener,
    serve: impl AsyncFn(usize, &mut Sender, &mut Receiver) -> Option<Fault>,
) {
    let pushes = Cell::new(0);
    let mut serving: Pin<Box<dyn Future<Output = ()>>> = Box::pin(std::future::pending());
    loop {
        // An agent that reconnects has closed the connection before.
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            () = &mut serving => continue,
        };
        let Some(connection) = connection else { return };
        serving = Box::pin(async {
            let connection = connection;
            while let Ok(Some((mut sender, mut receiver))) = connection.accept().await {
                let request = receiver.receive::<Request>().await.expect("a request").expect("one");
                assert!(matches!(request.operation(), Ok(Operation::Push(_))));
                pushes.set(pushes.get() + 1);
                if let Some(fault) = serve(pushes.get(), &mut sender, &mut receiver).await {
                    sender.reset(fault);
                }
            }
            std::future::pending::<()>().await;
        });
    }
}

/// Files of the pushed tree, a chunk each.
const FILES: u64 = 40;

/// Pushes a small tree to such a proxy; returns the error, and the time until it.
async fn push_to(
    patience: Duration,
    serve: impl AsyncFn(usize, &mut Sender, &mut Receiver) -> Option<Fault>,
) -> (Error, Duration) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tree = folder.path().join("tree");
    for file in 0..FILES {
        write(&tree, &format!("{file}"), noise(file, 2_000));
    }
    let (identity, _) = Identity::open_or_create(&folder.path().join("identity")).expect("an identity");
    let options = link::Options { silence_max: SOON, ..link::Options::default() };
    let mut listener = Listener::bind(([127, 0, 0, 1], 0).into(), &identity, &options).expect("bound");
    let access = access_to(&listener, &identity);
    let pushing = async {
        let session = Session::open(&access, &options).await.expect("a session");
        let begin = Instant::now();
        let options = PushOptions { patience, ..push_options("app", &tree) };
        let error = Box::pin(push(&session, &options, &silent())).await.expect_err("no proxy serves it");
        (error, begin.elapsed())
    };
    tokio::select! {
        ended = pushing => ended,
        () = serve_as(&mut listener, serve) => panic!("the listener ended"),
    }
}

fn access_to(listener: &Listener, identity: &Identity) -> Access {
    let port = listener.local_address().expect("bound").port();
    let url = ProxyUrl::new("127.0.0.1", port, identity.fingerprint()).expect("an address");
    Access { url, token: String::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_reads_and_says_nothing_ends_the_push_with_the_reason() {
    within(async {
        let (error, took) = push_to(SOON, async |_, _, receiver| {
            while let Ok(Some(_)) = receiver.receive::<FromAgent>().await {}
            None
        })
        .await;
        assert!(matches!(error, Error::Stalled(_)) && error.fault() == Fault::Retry, "{error}");
        assert!(took < Duration::from_secs(30), "{took:?}");
    })
    .await;
}

/// Forwards datagrams both ways until `cut`.
async fn relay(agents: &UdpSocket, proxy: SocketAddr, cut: &Notify) {
    let onwards = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
    let mut agent = None;
    loop {
        tokio::select! {
            () = cut.notified() => return,
            Ok((bytes, from)) = agents.recv_from(&mut there) => {
                agent = Some(from);
                drop(onwards.send_to(&there[..bytes], proxy).await);
            }
            Ok((bytes, _)) = onwards.recv_from(&mut back) => {
                if let Some(agent) = agent {
                    drop(agents.send_to(&back[..bytes], agent).await);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_vanishes_ends_a_push_in_the_time_that_was_given() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tree = folder.path().join("tree");
        write(&tree, "file", noise(1, 2_000));
        let (identity, _) = Identity::open_or_create(&folder.path().join("identity")).expect("an identity");
        let options = link::Options { unheard_min: SOON, ..link::Options::default() };
        let mut listener = Listener::bind(([127, 0, 0, 1], 0).into(), &identity, &options).expect("bound");
        let agents = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let port = agents.local_addr().expect("bound").port();
        let url = ProxyUrl::new("127.0.0.1", port, identity.fingerprint()).expect("an address");
        let access = Access { url, token: String::new() };
        let cut = Notify::new();
        let proxy = listener.local_address().expect("bound");
        let serving = serve_as(&mut listener, async |_, _, receiver| {
            while let Ok(Some(_)) = receiver.receive::<FromAgent>().await {
                cut.notify_one();
            }
            None
        });
        let pushing = async {
            let session = Session::open(&access, &options).await.expect("a session");
            let begin = Instant::now();
            let options = PushOptions { patience: Duration::from_secs(2), ..push_options("app", &tree) };
            let error = Box::pin(push(&session, &options, &silent())).await.expect_err("nobody answers");
            (error, begin.elapsed())
        };
        let passing = async {
            relay(&agents, proxy, &cut).await;
            std::future::pending::<()>().await;
        };
        let (error, took) = tokio::select! {
            ended = pushing => ended,
            () = serving => panic!("the listener ended"),
            () = passing => unreachable!("it never ends"),
        };
        assert_eq!(error.fault(), Fault::Retry, "{error}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_comes_to_the_same_end_each_time_ends_in_time() {
    within(async {
        let patience = Duration::from_secs(3);
        let (error, took) = push_to(patience, async |_, sender, receiver| {
            // Many messages, which each try receives again.
            for _ in 0..1_000 {
                drop(sender.send(&PushReply::Stored(0)).await);
            }
            // By names, also where the input was announced while it was read.
            drop(sender.send(&PushReply::WantNames).await);
            while matches!(receiver.receive().await, Ok(Some(message)) if !matches!(message, FromAgent::Names(_))) {}
            drop(sender.send(&PushReply::WantSegments(Marks::from_iter([true]))).await);
            drop(receiver.receive::<FromAgent>().await);
            Some(Fault::Retry)
        })
        .await;
        assert_eq!(error.fault(), Fault::Retry, "{error}");
        assert!(took < patience + Duration::from_secs(10), "{took:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_newly_stored_gives_a_push_its_whole_time_again() {
    within(async {
        let patience = Duration::from_secs(2);
        let stops = 6;
        let (error, took) = push_to(patience, async |pushes, sender, receiver| {
            if pushes > stops {
                return Some(Fault::Retry);
            }
            // By names, also where the input was announced while it was read.
            drop(sender.send(&PushReply::WantNames).await);
            while matches!(receiver.receive().await, Ok(Some(message)) if !matches!(message, FromAgent::Names(_))) {}
            drop(sender.send(&PushReply::WantSegments(Marks::from_iter([true]))).await);
            drop(receiver.receive::<FromAgent>().await);
            // Each file is a chunk; only chunks that were sent can be stored.
            drop(sender.send(&PushReply::Missing((0..FILES).map(|_| true).collect())).await);
            drop(receiver.receive::<FromAgent>().await);
            // After a few tries no time would be left.
            tokio::time::sleep(patience / 4).await;
            drop(sender.send(&PushReply::Stored(1)).await);
            // The agent reads it before the end.
            tokio::time::sleep(SOON / 4).await;
            Some(Fault::Retry)
        })
        .await;
        assert_eq!(error.fault(), Fault::Retry, "{error}");
        assert!(took > patience / 4 * u32::try_from(stops).expect("few"), "{took:?}: it went on");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_connection_is_tried_for_as_long_as_is_said_and_no_longer() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (identity, _) = Identity::open_or_create(folder.path()).expect("an identity");
        let options = link::Options::default();
        let bind = |port| Listener::bind(([127, 0, 0, 1], port).into(), &identity, &options).expect("bound");
        let listener = bind(0);
        let access = access_to(&listener, &identity);
        let port = access.url.port();
        listener.close(Fault::Retry, "it goes").await;

        let begin = Instant::now();
        let limit = Duration::from_secs(2);
        let error =
            Session::open_within(&access, &options, limit, &silent()).await.expect_err("nobody is there");
        assert_eq!(error.fault(), Fault::Retry, "{error}");
        assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());

        let opening =
            async { Session::open_within(&access, &options, Duration::from_secs(60), &silent()).await };
        let coming = async {
            // The proxy comes up while the first try waits, or after it.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut listener = bind(port);
            listener.accept().await
        };
        let (session, connection) = tokio::join!(opening, coming);
        session.expect("it came").finish().await;
        assert!(connection.is_some());
    })
    .await;
}

/// Sends a request and returns its connection and stream.
async fn ask(world: &World, operation: &Operation) -> (link::Connection, Sender, Receiver) {
    let access = world.access();
    let connection = link::connect(&access.url, &link::Options::default()).await.expect("a connection");
    let (mut sender, receiver) = connection.open().await.expect("a stream");
    sender.send(&Request::new(&access.token, operation)).await.expect("sent");
    (connection, sender, receiver)
}

fn impatient() -> World {
    World::start_with(|options| options.link.progress_max = SOON)
}

fn refused(refusal: &Refusal, why: &str) {
    assert_eq!(refusal.fault, Fault::Retry, "{refusal:?}");
    assert!(refusal.text.contains(why), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_only_drips_is_ended() {
    within(async {
        let world = impatient();
        let build = crate::space_view::release(&(0..200).map(|file| (file, vec![0])).collect());
        let names = build.segments.iter().map(NodeRef::name);
        let told = ManifestForm::Full(protocol::wire::pack_names(names));
        let open = Open { manifest: told, ..crate::space_view::open(&build, false) };
        let (_connection, mut sender, mut receiver) = ask(&world, &Operation::Push(open)).await;
        let dripping = async {
            for (bytes, _) in &build.parts {
                let batch = crate::walker::raw_segments(std::slice::from_ref(bytes));
                if sender.send(&FromAgent::Segments(batch)).await.is_err() {
                    break;
                }
                tokio::time::sleep(SOON / 3).await;
            }
            std::future::pending::<()>().await;
        };
        let hearing = async {
            loop {
                if let PushReply::Refused(refusal) = receiver.receive().await.expect("a reply").expect("one")
                {
                    return refusal;
                }
            }
        };
        tokio::select! {
            refusal = hearing => refused(&refusal, "made no progress"),
            () = dripping => unreachable!("it waits"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_only_drips_or_asks_for_too_much_at_a_time_is_ended() {
    within(async {
        let world = impatient();
        let tree = world.path("tree");
        write(&tree, "a", noise(1, 3_000_000));
        world.push("app", &tree).await;
        let pull =
            Operation::Pull { release: "app".parse().expect("a selector"), have: None, unpacked: false };
        let refusal = async |receiver: &mut Receiver| loop {
            if let PullReply::Refused(refusal) = receiver.receive().await.expect("a reply").expect("one") {
                return refusal;
            }
        };
        let nothing =
            PullRequest::WantChunks { first: SegmentIndex::new(0), count: 1, marks: Marks::default() };

        let (_connection, mut sender, mut receiver) = ask(&world, &pull).await;
        let dripping = async {
            while sender.send(&nothing).await.is_ok() {
                tokio::time::sleep(SOON / 3).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            refusal = refusal(&mut receiver) => refused(&refusal, "made no progress"),
            () = dripping => unreachable!("it waits"),
        }

        let (_connection, mut sender, mut receiver) = ask(&world, &pull).await;
        let all: Marks = std::iter::repeat_n(true, 1000).collect();
        for _ in 0..10 * PULL_REQUESTS_OPEN {
            // Of what the agent does not read, the proxy sends no more than the window takes.
            let request =
                PullRequest::WantChunks { first: SegmentIndex::new(0), count: 1, marks: all.clone() };
            if sender.send(&request).await.is_err() {
                break;
            }
        }
        let refusal = refusal(&mut receiver).await;
        assert_eq!(refusal.fault, Fault::Bug, "{refusal:?}");
    })
    .await;
}
