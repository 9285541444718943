//! Whole pushes over QUIC on a simulated network, in virtual time.
//!
//! Agent and proxy use threads, which stop tokio's paused clock; so small loops over the link's own streams drive both
//! halves of a push here, on a view in memory.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use delta::compression::Decompressor;
use format::manifest::{Item, NodeRef, Reference, Root, SegmentName, decode_segment};
use format::pack::Frame;
use format::recipe::ChunkRef;
use format::record::Record;
use ground::ids::{ChunkId, ShortId};
use ground::limits::{ALIVE_EVERY, WORK_TIME_MAX};
use protocol::push::{Action, Agent, Opening, Proxy};
use protocol::wire::{FromAgent, Open, Operation, PushReply, Refusal, Request};
use protocol::{ContentView, Proposal, SpaceView, StorageView};
use whit::net::identity::Identity;
use whit::net::link::{self, Connection, Counters, Listener, Options, connect_over};

use crate::content::{Build, Pool};
use crate::network::{Network, Sent, Weather};
use crate::pusher::{Whole, batch};
use crate::random::{Random, seeds};

pub const PROXY: &str = "10.0.0.1:4433";
pub const AGENT: &str = "10.0.0.2:50000";
const AGENT_MOVED: &str = "10.9.0.7:61000";
/// Chunks in one message.
const BATCH: usize = 16;

/// A space in memory.
#[derive(Debug, Default)]
pub struct Memory {
    chunks: HashMap<ChunkId, Vec<u8>>,
    pub committed: Option<Vec<Item>>,
    latest: Option<Vec<NodeRef>>,
}

impl Memory {
    /// Creates a space whose application has one release.
    pub fn holding(build: &Build, pool: &Pool) -> Self {
        let segments =
            build.nodes.iter().zip(&build.segments).map(|(node, (bytes, _))| (node.id, bytes.clone()));
        let chunks = build.chunks().map(|id| (id, pool.bytes(&id).to_vec()));
        Self { chunks: segments.chain(chunks).collect(), committed: None, latest: Some(build.nodes.clone()) }
    }

    /// Adds the content of another release.
    pub fn with(mut self, build: &Build, pool: &Pool) -> Self {
        self.chunks.extend(Self::holding(build, pool).chunks);
        self
    }

    /// Returns the segments of the application's release.
    pub fn latest(&self) -> &[NodeRef] {
        self.latest.as_deref().unwrap_or_default()
    }

    /// Asserts that all of a release is here.
    pub fn assert_has(&self, build: &Build, pool: &Pool) {
        let all = Self::holding(build, pool).chunks;
        assert!(all.iter().all(|(id, bytes)| self.chunks.get(id) == Some(bytes)));
    }
}

impl ContentView for Memory {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        out.extend_from_slice(&self.chunks[&chunk.id]);
        Ok(())
    }
}

impl StorageView for Memory {
    fn find(&mut self, references: &[Reference]) -> Result<Vec<Option<ChunkRef>>, Refusal> {
        let find = |reference: &Reference| {
            let short = reference.short();
            let (id, bytes) = self.chunks.iter().find(|(id, _)| ShortId::from(**id) == short)?;
            Some(ChunkRef { id: *id, bytes: u32::try_from(bytes.len()).expect("chunks are small") })
        };
        Ok(references.iter().map(find).collect())
    }

    fn keep(&mut self, frame: Frame) -> Result<(), Refusal> {
        let mut plain = Vec::new();
        let bytes = usize::try_from(frame.plain_bytes()).expect("frames are small");
        let decoded = Decompressor::new().decompress(frame.codec, &frame.payload, bytes, &mut plain);
        decoded.expect("the state machine decoded it before");
        let mut rest = plain.as_slice();
        for chunk in &frame.chunks {
            let (bytes, after) = rest.split_at(chunk.bytes as usize);
            self.chunks.insert(chunk.id, bytes.to_vec());
            rest = after;
        }
        Ok(())
    }
}

impl SpaceView for Memory {
    fn recognize(&mut self, _: &Open) -> Result<Option<(Record, bool)>, Refusal> {
        Ok(None)
    }

    fn base(&mut self, _: Option<&ChunkId>) -> Result<Option<Vec<NodeRef>>, Refusal> {
        Ok(self.latest.clone())
    }

    fn resolve(&mut self, names: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal> {
        Ok(vec![None; names.len()])
    }

    fn kept_message(&mut self) {}

    fn commit(&mut self, proposal: Proposal) -> Result<(Record, bool), Refusal> {
        let open = &proposal.open;
        let root = Root::above(open.profile, open.shape, open.totals, proposal.segments.clone(), |_| {})
            .map_err(|error| Refusal::of(&error))?;
        assert_eq!(root.release(), open.release);
        let segments = proposal.segments.iter().map(|node| self.chunks[&node.id].as_slice());
        let items = segments.flat_map(|bytes| decode_segment(bytes).expect("the state machine checked it"));
        self.committed = Some(items.collect());
        let record = Record {
            app: open.app.clone(),
            release: open.release,
            sequence: 1,
            created: 1,
            user: "sim".parse().expect("a name"),
            labels: Vec::new(),
            totals: open.totals,
            cost: proposal.cost,
            behalf: Vec::new(),
        };
        Ok((record, false))
    }
}

/// Runs the proxy's half until the agent is done.
async fn serve(mut listener: Listener) -> Result<Memory, String> {
    let told = |error: &dyn std::error::Error| format!("proxy: {error}");
    let connection = listener.accept().await.ok_or("the listener ended")?;
    connection.prove(u32::MAX).map_err(|error| told(&error))?;
    let stream = connection.accept().await.map_err(|error| told(&error))?;
    let (mut sender, mut receiver) = stream.ok_or("the agent ended")?;
    let request = receiver.receive::<Request>().await.map_err(|error| told(&error))?.ok_or("no request")?;
    let Ok(Operation::Push(open)) = request.operation() else { return Err("no push".to_owned()) };
    let mut memory = Memory::default();
    let (mut machine, mut replies) = Proxy::open(open, &mut memory).map_err(|error| told(&error))?;
    let mut stored = 0;
    loop {
        for reply in replies {
            sender.send(&reply).await.map_err(|error| told(&error))?;
        }
        if machine.is_finished() {
            break;
        }
        let message = receiver.receive::<FromAgent>().await.map_err(|error| told(&error))?;
        let message = message.ok_or("the push ended before its commit")?;
        let is_content = matches!(message, FromAgent::Chunks(_));
        replies = machine.receive(message, &mut memory).map_err(|error| told(&error))?;
        if is_content {
            stored += 1;
            replies.insert(0, PushReply::Stored(stored));
        }
    }
    sender.send(&PushReply::Done).await.map_err(|error| told(&error))?;
    sender.finish().map_err(|error| told(&error))?;
    // The agent's last datagram may be lost: then the connection ends by its idle timeout.
    drop(connection.closed().await);
    Ok(memory)
}

/// Runs the agent's half.
async fn push(connection: &Connection, build: &Build, pool: &Pool) -> Result<(), String> {
    let told = |error: &dyn std::error::Error| format!("agent: {error}");
    let open = build.open("app".parse().expect("a name"));
    let (mut machine, open) = Agent::new(open, build.nodes.clone(), Opening::Short);
    let mut input = Whole::new(build);
    let (mut sender, mut receiver) = connection.open().await.map_err(|error| told(&error))?;
    let request = Request::new("", &Operation::Push(open));
    sender.send(&request).await.map_err(|error| told(&error))?;
    loop {
        let reply = receiver.receive::<PushReply>().await.map_err(|error| told(&error))?;
        let reply = reply.ok_or("the proxy ended")?;
        let mut actions = machine.receive(reply, &mut input).map_err(|error| told(&error))?;
        loop {
            for action in actions {
                match action {
                    Action::Send(message) => sender.send(&message).await.map_err(|error| told(&error))?,
                    Action::Finish => return Ok(()),
                    Action::Stored(_)
                    | Action::Committed { .. }
                    | Action::Cached(_)
                    | Action::Delivery(_)
                    | Action::RollsOut(_) => {}
                }
            }
            let Some(chunks) = input.encoding.pop_front() else { break };
            for chunks in chunks.chunks(BATCH) {
                let message = FromAgent::Chunks(batch(chunks.iter().map(|id| pool.bytes(id))));
                sender.send(&message).await.map_err(|error| told(&error))?;
            }
            actions = machine.chunks_sent(&mut input).map_err(|error| told(&error))?;
        }
    }
}

/// Measurements of a push over the network.
#[derive(Debug)]
struct Push {
    seconds: f64,
    counters: Counters,
    trace: Vec<Sent>,
}

/// Pushes a release of some 1.2 MB over the network; at `moved` the agent's address changes.
fn simulate(seed: u64, weather: Weather, moved: Option<Duration>) -> Result<Push, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (identity, _) = Identity::open_or_create(folder.path()).expect("an identity");
    runtime.expect("a runtime").block_on(async {
        let mut random = Random::new(seed);
        let pool = Pool::new(&mut random, 600, 4000);
        let build = Build::new(&pool.chunks.chunks(100).map(<[_]>::to_vec).collect::<Vec<_>>());
        let network = Network::new(seed, weather);
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let options = Options { connect_time_max: Duration::from_secs(60), ..Options::default() };
        let listener = Listener::bind_over(network.socket(address(PROXY)), &identity, &options);
        let serving = tokio::spawn(serve(listener.map_err(|error| error.to_string())?));
        let socket = network.socket(address(AGENT));
        let begin = Instant::now();
        if let Some(at) = moved {
            let socket = socket.clone();
            tokio::spawn(async move {
                tokio::time::sleep(at).await;
                socket.move_to(address(AGENT_MOVED));
            });
        }
        let connection = connect_over(socket, address(PROXY), identity.fingerprint(), &options).await;
        let connection = connection.map_err(|error| error.to_string())?;
        push(&connection, &build, &pool).await?;
        let seconds = begin.elapsed().as_secs_f64();
        let counters = connection.counters();
        connection.finish().await;
        let memory = serving.await.expect("the proxy's half does not panic")?;
        assert_eq!(memory.committed.as_ref(), Some(&build.items), "the manifest arrived as it was");
        let ids: HashSet<ChunkId> = pool.chunks.iter().map(|chunk| chunk.id).collect();
        assert!(ids.iter().all(|id| memory.chunks.get(id).map(Vec::as_slice) == Some(pool.bytes(id))));
        Ok(Push { seconds, counters, trace: network.trace() })
    })
}

/// Simulates each seed; returns the longest time that a push took.
fn longest(default: std::ops::Range<u64>, weather: &Weather, moved: Option<Duration>) -> f64 {
    let mut longest = 0.0_f64;
    for seed in seeds(default) {
        match simulate(seed, weather.clone(), moved) {
            Ok(told) => {
                println!("seed {seed}: {:.2} s, {:?}", told.seconds, told.counters);
                longest = longest.max(told.seconds);
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    longest
}

#[test]
fn a_push_over_a_clear_network_takes_little_more_than_its_bytes_and_round_trips() {
    // 1.2 MB at 2.5 MB/s, and some round trips of 40 ms while the window opens.
    assert!(longest(1..4, &Weather::default(), None) < 2.0);
}

#[test]
fn a_push_survives_one_datagram_lost_of_a_hundred() {
    longest(1..6, &Weather { lost: 10, ..Weather::default() }, None);
}

#[test]
fn a_push_survives_one_datagram_lost_of_ten() {
    longest(1..6, &Weather { lost: 100, ..Weather::default() }, None);
}

#[test]
fn a_push_survives_datagrams_that_are_repeated_and_overtake_one_another() {
    let jitter = Duration::from_millis(15);
    longest(1..6, &Weather { lost: 5, repeated: 30, jitter, ..Weather::default() }, None);
}

#[test]
fn a_push_over_a_long_way_completes() {
    let delay = Duration::from_millis(200);
    longest(1..4, &Weather { lost: 5, delay, ..Weather::default() }, None);
}

#[test]
fn a_push_goes_on_after_twenty_seconds_without_a_network() {
    let blackout = Some((Duration::from_millis(300), Duration::from_millis(20_300)));
    longest(1..6, &Weather { blackout, ..Weather::default() }, None);
}

#[test]
fn a_push_goes_on_from_another_address() {
    longest(1..6, &Weather::default(), Some(Duration::from_millis(300)));
    longest(1..6, &Weather { lost: 20, ..Weather::default() }, Some(Duration::from_millis(300)));
}

#[test]
fn a_network_that_is_gone_for_good_ends_the_push_within_the_idle_time() {
    let blackout = Some((Duration::from_millis(300), Duration::from_secs(100_000)));
    let error = simulate(1, Weather { blackout, ..Weather::default() }, None).expect_err("nobody answers");
    assert!(error.contains("lost") || error.contains("silent"), "{error}");
}

#[test]
fn equal_seeds_give_equal_datagrams() {
    let jitter = Duration::from_millis(5);
    let weather = Weather { lost: 20, repeated: 10, jitter, ..Weather::default() };
    let run = |seed| simulate(seed, weather.clone(), Some(Duration::from_millis(400))).expect("a push").trace;
    for seed in seeds(1..4) {
        let (first, second) = (run(seed), run(seed));
        let differ = first.iter().zip(&second).position(|(first, second)| first != second);
        assert!(differ.is_none(), "seed {seed}: datagram {differ:?} of {} differs", first.len());
        assert_eq!(first.len(), second.len());
    }
    assert_ne!(run(1), run(2));
}

/// Sends a message of 1 MB to a proxy that reads nothing for `busy`, and that says every 15 s that it is at work if
/// `says_so` is set. Returns the time until the agent's send ended.
fn send_to_a_busy_proxy(busy: Duration, says_so: bool) -> Result<Duration, link::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (identity, _) = Identity::open_or_create(folder.path()).expect("an identity");
    runtime.expect("a runtime").block_on(async {
        let network = Network::new(1, Weather::default());
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let options = Options { window_max: 64 * 1024, ..Options::default() };
        let listener = Listener::bind_over(network.socket(address(PROXY)), &identity, &options);
        let mut listener = listener.expect("a listener");
        let serving = tokio::spawn(async move {
            let connection = listener.accept().await.expect("a connection");
            connection.prove(u32::MAX).expect("nobody else is there");
            let (mut sender, mut receiver) = connection.accept().await.expect("live").expect("a stream");
            let begin = Instant::now();
            while begin.elapsed() < busy {
                tokio::time::sleep(ALIVE_EVERY).await;
                // An agent that gave up has stopped listening.
                if says_so && sender.send(&PushReply::Stored(0)).await.is_err() {
                    return;
                }
            }
            while let Ok(Some(_)) = receiver.receive::<serde_bytes::ByteBuf>().await {}
        });
        let socket = network.socket(address(AGENT));
        let connection = connect_over(socket, address(PROXY), identity.fingerprint(), &options).await?;
        let (mut sender, receiver) = connection.open().await?;
        let mut receiver = receiver.with_pause(WORK_TIME_MAX);
        let hearing =
            tokio::spawn(async move { while let Ok(Some(_)) = receiver.receive::<PushReply>().await {} });
        let begin = Instant::now();
        let sent = sender.send(&serde_bytes::ByteBuf::from(vec![7; 1_000_000])).await;
        let seconds = begin.elapsed();
        hearing.abort();
        drop(sender);
        connection.finish().await;
        drop(serving.await);
        sent.map(|()| seconds)
    })
}

#[test]
fn a_proxy_that_says_it_is_at_work_may_read_nothing_for_as_long_as_work_may_take() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let took = send_to_a_busy_proxy(minutes(10), true).expect("it reads in the end");
    assert!(took > minutes(9), "{took:?}");
    let silent = |result| matches!(result, Err(link::Error::Silent { .. }));
    assert!(silent(send_to_a_busy_proxy(minutes(10), false)), "it says nothing");
    assert!(silent(send_to_a_busy_proxy(2 * WORK_TIME_MAX, true)), "it says no more than that");
}
