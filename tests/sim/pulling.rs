//! Whole pulls over QUIC on a simulated network, in virtual time: lossy, reordering, stalling, and with windows of any
//! size.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use format::manifest::{NodeRef, Root, SegmentName};
use format::record::{Cost, Record};
use ground::ids::Selector;
use ground::limits::PULL_REQUESTS_OPEN;
use protocol::pull::{Agent, DirectoryView, Proxy, Release, ReleaseView, Window};
use protocol::transfer::Bounds;
use protocol::wire::{Operation, PullReply, PullRequest, Refusal, Request};
use whit::net::identity::Identity;
use whit::net::link::{Connection, Listener, Options, connect_over};

use crate::content::{Build, Pool};
use crate::link::{AGENT, Memory, PROXY};
use crate::network::{Network, Weather};
use crate::random::{Random, seeds};

impl DirectoryView for Memory {
    fn announced(&mut self, _: &Record, _: &Root) -> Result<(), Refusal> {
        Ok(())
    }

    fn resolve(&mut self, names: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal> {
        Ok(vec![None; names.len()])
    }

    fn is_unkept(&mut self, _: &NodeRef) -> Result<bool, Refusal> {
        Ok(false)
    }
}

impl ReleaseView for Memory {}

/// Runs the proxy's half: a task reads requests while replies are sent.
async fn serve(mut listener: Listener, build: Build, mut memory: Memory, base: bool) -> Result<(), String> {
    let told = |error: &dyn std::error::Error| format!("proxy: {error}");
    let connection = listener.accept().await.ok_or("the listener ended")?;
    connection.prove(u32::MAX).map_err(|error| told(&error))?;
    let stream = connection.accept().await.map_err(|error| told(&error))?;
    let (mut sender, mut receiver) = stream.ok_or("the agent ended")?;
    let request = receiver.receive::<Request>().await.map_err(|error| told(&error))?.ok_or("no request")?;
    let Ok(Operation::Pull { .. }) = request.operation() else { return Err("no pull".to_owned()) };
    let (heard_in, mut heard) = mpsc::channel::<PullRequest>(PULL_REQUESTS_OPEN);
    let reader = tokio::spawn(async move {
        while let Ok(Some(request)) = receiver.receive().await {
            heard_in.try_send(request).map_err(|_| "more requests than allowed".to_owned())?;
        }
        Ok::<_, String>(())
    });
    let record = Record {
        app: "app".parse().expect("a name"),
        release: build.release,
        sequence: 1,
        created: 1,
        user: "sim".parse().expect("a name"),
        labels: Vec::new(),
        totals: build.root.totals,
        cost: Cost::default(),
        behalf: Vec::new(),
    };
    let base = base.then(|| memory.latest().to_vec());
    let release = Release { record, root: build.root.clone(), segments: build.nodes.clone() };
    let mut machine = Proxy::open(release, base, Bounds::PULL, &mut memory);
    loop {
        while let Some(reply) = machine.next(&mut memory).map_err(|error| told(&error))? {
            sender.send(&reply).await.map_err(|error| told(&error))?;
        }
        let Some(request) = heard.recv().await else { break };
        machine.receive(request).map_err(|error| told(&error))?;
    }
    reader.await.expect("it does not panic")?;
    sender.finish().map_err(|error| told(&error))?;
    drop(connection.closed().await);
    Ok(())
}

/// Runs the agent's half into `memory`.
async fn pull(
    connection: &Connection,
    window: Window,
    base: Vec<NodeRef>,
    memory: &mut Memory,
) -> Result<(), String> {
    let told = |error: &dyn std::error::Error| format!("agent: {error}");
    let release: Selector = "app".parse().expect("a selector");
    let (mut sender, mut receiver) = connection.open().await.map_err(|error| told(&error))?;
    let request = Request::new("", &Operation::Pull { release, have: None, unpacked: false });
    sender.send(&request).await.map_err(|error| told(&error))?;
    let mut machine = Agent::new(window, base);
    while !machine.is_finished() {
        let reply = receiver.receive::<PullReply>().await.map_err(|error| told(&error))?;
        let requests = machine.receive(reply.ok_or("the proxy ended")?, memory);
        for request in requests.map_err(|error| told(&error))? {
            sender.send(&request).await.map_err(|error| told(&error))?;
        }
    }
    sender.finish().map_err(|error| told(&error))
}

/// Pulls a release, by the one before it or into an empty directory; returns virtual seconds.
fn simulate(
    seed: u64,
    weather: Weather,
    window_max: u32,
    window: Window,
    by_base: bool,
) -> Result<f64, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (identity, _) = Identity::open_or_create(folder.path()).expect("an identity");
    runtime.expect("a runtime").block_on(async {
        let mut random = Random::new(seed);
        let old = Pool::new(&mut random, 150, 1_500);
        let new = old.changed();
        let files = |pool: &Pool| Build::new(&pool.chunks.chunks(3).map(<[_]>::to_vec).collect::<Vec<_>>());
        let (before, build) = (files(&old), files(&new));
        let network = Network::new(seed, weather);
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let connect_time_max = Duration::from_secs(120);
        let options = Options { connect_time_max, window_max, ..Options::default() };
        let listener = Listener::bind_over(network.socket(address(PROXY)), &identity, &options);
        let listener = listener.map_err(|error| error.to_string())?;
        let shelves = Memory::holding(&before, &old).with(&build, &new);
        let serving = tokio::spawn(serve(listener, files(&new), shelves, by_base));
        let socket = network.socket(address(AGENT));
        let begin = Instant::now();
        let connection = connect_over(socket, address(PROXY), identity.fingerprint(), &options).await;
        let connection = connection.map_err(|error| error.to_string())?;
        let mut memory = if by_base { Memory::holding(&before, &old) } else { Memory::default() };
        let base = if by_base { before.nodes.clone() } else { Vec::new() };
        pull(&connection, window, base, &mut memory).await?;
        let seconds = begin.elapsed().as_secs_f64();
        connection.finish().await;
        serving.await.expect("the proxy's half does not panic")?;
        memory.assert_has(&build, &new);
        Ok(seconds)
    })
}

/// Simulates each seed with each window; panics with the case.
fn all(weather: &Weather, window_max: u32) {
    for seed in seeds(1..4) {
        for by_base in [false, true] {
            for window in
                [Window { requests: 1, segments: 1 }, Window { requests: 15, segments: 1 }, Window::default()]
            {
                let case = format!("seed {seed}, by base {by_base}, {window_max} B of window, {window:?}");
                let seconds = simulate(seed, weather.clone(), window_max, window, by_base)
                    .unwrap_or_else(|error| panic!("{case}: {error}"));
                println!("{case}: {seconds:.1} s");
            }
        }
    }
}

#[test]
fn a_pull_goes_on_at_any_rate_with_any_window() {
    for rate in [1_000, 100_000] {
        for window_max in [1_200, u32::MAX] {
            all(&Weather { rate, ..Weather::default() }, window_max);
        }
    }
}

#[test]
fn a_pull_survives_datagrams_that_are_lost_repeated_and_overtake_one_another() {
    let jitter = Duration::from_millis(15);
    all(&Weather { lost: 100, ..Weather::default() }, u32::MAX);
    all(&Weather { lost: 5, repeated: 30, jitter, ..Weather::default() }, 20_000);
}

#[test]
fn a_pull_goes_on_after_twenty_seconds_without_a_network() {
    let blackout = Some((Duration::from_millis(150), Duration::from_millis(20_150)));
    all(&Weather { blackout, ..Weather::default() }, u32::MAX);
}
