//! The agent's conversation of a push over a real link: its thread, and the tasks that move its messages.

use std::sync::Arc;
use std::time::Duration;

use format::manifest::Thin;
use ground::faults::Fault;
use ground::monitor::{Monitor, Silent};
use protocol::address::ProxyUrl;
use protocol::wire::{
    BlockSums, Challenge, FromAgent, ManifestForm, Marks, Operation, PushReply, Refusal, Request,
};
use tokio::sync::Notify;
use whit::agent::push::push;
use whit::agent::{Access, Session};
use whit::net::identity::Identity;
use whit::net::link::{Listener, Options, Receiver, Sender};

use crate::trees::{noise, write};
use crate::world::{push_options, within};

/// 8 KiB: bytes that each side takes ahead of its reader.
const WINDOW: u32 = 8 * 1024;
/// Files of the pushed tree, a chunk each: their segments take several windows.
const FILES: u16 = 1_500;

/// A listener of the test, access to it, and a tree to push.
struct Place {
    folder: tempfile::TempDir,
    listener: Listener,
    access: Access,
    options: Options,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (identity, _) = Identity::open_or_create(&folder.path().join("identity")).expect("an identity");
        let options = Options { window_max: WINDOW, ..Options::default() };
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), &identity, &options).expect("bound");
        let port = listener.local_address().expect("bound").port();
        let url = ProxyUrl::new("127.0.0.1", port, identity.fingerprint()).expect("an address");
        Self { folder, listener, access: Access { url, token: String::new() }, options }
    }
}

/// Serves one push: `serve` gets its stream and the number of its segments. Returns once `serve` does and the agent is gone.
async fn serve_one(listener: &mut Listener, serve: impl AsyncFnOnce(&mut Sender, &mut Receiver, usize)) {
    let connection = listener.accept().await.expect("an agent");
    let (mut sender, mut receiver) = connection.accept().await.expect("live").expect("a stream");
    let request = receiver.receive::<Request>().await.expect("a request").expect("one");
    let Ok(Operation::Push(open)) = request.operation() else { panic!("no push") };
    let mut segments = open.segments;
    if open.manifest == ManifestForm::Growing {
        // Reading takes long on this machine: its end is awaited.
        sender.send(&PushReply::WantNames).await.expect("it reads");
        let grown = receiver.receive::<FromAgent>().await.expect("the end").expect("more");
        let FromAgent::Grown(grown) = grown else { panic!("{grown:?}") };
        receiver.receive::<FromAgent>().await.expect("names").expect("more");
        segments = grown.segments;
    }
    serve(&mut sender, &mut receiver, segments as usize).await;
    // The agent ends first, or has not connected again.
    drop(connection.closed().await);
}

fn all(count: usize) -> Marks {
    (0..count).map(|_| true).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_reads_on_while_its_link_takes_nothing() {
    const PROOFS: usize = 40;
    within(async {
        let Place { folder, mut listener, access, options } = Place::new();
        let tree = folder.path().join("tree");
        for file in 0..FILES {
            write(&tree, &format!("{file}"), noise(u64::from(file), 100));
        }
        let refusal = Refusal { fault: Fault::Input, text: "enough".to_owned(), hint: None };
        let monitor: Arc<dyn Monitor> = Arc::new(Silent);
        let serving = serve_one(&mut listener, async |sender, receiver, segments| {
            sender.send(&PushReply::WantSegments(all(segments))).await.expect("it reads");
            // From here on the agent has more to send than the link and all queues hold, and this side reads nothing.
            for proof in 0..PROOFS {
                let marks = (0..usize::from(FILES)).map(|at| at == proof).collect();
                let challenge = Challenge::new([1; 32], marks);
                sender.send(&PushReply::Prove(challenge)).await.expect("it reads");
            }
            for first in 0..64 {
                let signature = vec![7; 64 * 1024];
                let sums = BlockSums { region: first, first, chunks: 1, rule: 0, signature };
                sender.send(&PushReply::BlockSums(sums)).await.expect("it reads on");
            }
            let mut proofs = 0;
            while proofs < PROOFS {
                let message = receiver.receive::<FromAgent>().await.expect("it is alive").expect("more");
                proofs += usize::from(matches!(message, FromAgent::Proof(_)));
            }
            sender.send(&PushReply::Refused(refusal)).await.expect("it reads");
        });
        let pushing = async {
            let session = Session::open(&access, &options).await.expect("a session");
            let error = Box::pin(push(&session, &push_options("app", &tree), &monitor)).await;
            session.finish().await;
            error.expect_err("it is refused")
        };
        let (error, ()) = tokio::join!(pushing, serving);
        assert_eq!(error.to_string(), "enough");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_on_after_a_push_that_was_dropped() {
    within(async {
        let Place { folder, mut listener, access, options } = Place::new();
        let tree = folder.path().join("tree");
        write(&tree, "file", noise(1, 8_000_000));
        let monitor: Arc<dyn Monitor> = Arc::new(Silent);
        let (is_under_way, is_dropped, is_reset) = (Notify::new(), Notify::new(), Notify::new());
        let serving = serve_one(&mut listener, async |sender, receiver, segments| {
            sender.send(&PushReply::WantSegments(all(segments))).await.expect("it reads");
            let message = receiver.receive::<FromAgent>().await.expect("segments").expect("some");
            let FromAgent::Segments(batch) = message else { panic!("{message:?}") };
            let parts = batch.open(&[]).expect("an honest agent");
            let references = |part: &Vec<u8>| Thin::decode(part).expect("a segment").references().count();
            let chunks = parts.iter().map(references).sum();
            sender.send(&PushReply::Missing(all(chunks))).await.expect("it reads");
            receiver.receive::<FromAgent>().await.expect("chunks").expect("some");
            // Encoders, thread and writer all have work; the link is full.
            is_under_way.notify_one();
            is_dropped.notified().await;
            let end = loop {
                match receiver.receive::<FromAgent>().await {
                    Ok(Some(_)) => {}
                    end => break end,
                }
            };
            assert!(end.is_err(), "a stream that broke off does not end as if that were all: {end:?}");
            is_reset.notify_one();
        });
        let pushing = async {
            let session = Session::open(&access, &options).await.expect("a session");
            let options = push_options("app", &tree);
            tokio::select! {
                ended = Box::pin(push(&session, &options, &monitor)) => panic!("{ended:?}"),
                () = is_under_way.notified() => {}
            }
            is_dropped.notify_one();
            // The connection is alive: it is the stream that was given up.
            is_reset.notified().await;
            // The thread and the tasks of the push hold the monitor.
            while Arc::strong_count(&monitor) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            session.finish().await;
        };
        tokio::join!(pushing, serving);
    })
    .await;
}
