//! Pushes answered by many signatures, over slow links and with the smallest windows, in virtual time.
//!
//! The halves are driven as in the program: a task reads all the while something is sent, the messages it has read stay
//! within the protocol's credit, and one thing is done at a time. A watchdog ends a push that receives nothing but
//! keep-alives for half a minute.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use protocol::push::{Action, Agent, Opening, Proxy, Window};
use protocol::wire::{FromAgent, Operation, PushReply, Request};
use whit::net::identity::Identity;
use whit::net::link::{Connection, Listener, Options, Replies, connect_over, replies};

use crate::content::{Build, Pool};
use crate::link::{AGENT, Memory, PROXY};
use crate::network::{Network, Weather};
use crate::pusher::{Whole, batch};
use crate::random::{Random, seeds};

/// The longest time without anything useful: ten datagrams at the slowest rate, and the queue before them.
const STILL_MAX: Duration = Duration::from_secs(30);
/// Keep-alives are smaller, replies with one signature larger.
const USEFUL_BYTES: usize = 100;

/// Runs the proxy's half: a task sends replies while messages are processed.
async fn serve(mut listener: Listener, mut memory: Memory) -> Result<Memory, String> {
    let told = |error: &dyn std::error::Error| format!("proxy: {error}");
    let connection = listener.accept().await.ok_or("the listener ended")?;
    let (mut sender, mut receiver) =
        connection.accept().await.map_err(|error| told(&error))?.ok_or("the agent ended")?;
    let request = receiver.receive::<Request>().await.map_err(|error| told(&error))?.ok_or("no request")?;
    let Ok(Operation::Push(open)) = request.operation() else { return Err("no push".to_owned()) };
    connection.prove(u32::MAX).map_err(|error| told(&error))?;
    let (said, mut backlog) = replies();
    let writer = tokio::spawn(async move {
        while let Some(reply) = backlog.next().await {
            sender.send(&reply).await.map_err(|error| format!("proxy: {error}"))?;
        }
        sender.finish().map_err(|error| format!("proxy: {error}"))
    });
    let say = |said: &Replies, replies: Vec<PushReply>| {
        replies.into_iter().try_for_each(|reply| said.say(reply)).map_err(|error| told(&error))
    };
    let (mut machine, first) = Proxy::open(open, &mut memory).map_err(|error| told(&error))?;
    say(&said, first)?;
    let mut stored = 0;
    while !machine.is_finished() {
        let message = receiver.receive::<FromAgent>().await.map_err(|error| told(&error))?;
        let message = message.ok_or("the push ended before its commit")?;
        if matches!(message, FromAgent::Chunks(_)) {
            stored += 1;
            said.stored(stored);
        }
        say(&said, machine.receive(message, &mut memory).map_err(|error| told(&error))?)?;
    }
    say(&said, vec![PushReply::Done])?;
    drop(said);
    writer.await.expect("it does not panic")?;
    connection.closed().await.map_err(|error| told(&error))?;
    Ok(memory)
}

/// Runs the agent's half; returns the number of signatures it received.
async fn push(connection: &Connection, window: Window, build: &Build, pool: &Pool) -> Result<usize, String> {
    let told = |error: &dyn std::error::Error| format!("agent: {error}");
    let open = build.open("app".parse().expect("a name"));
    let (mut machine, open) = Agent::with_window(window, open, build.nodes.clone(), Opening::Short);
    let (mut sender, mut receiver) = connection.open().await.map_err(|error| told(&error))?;
    sender.send(&Request::new("", &Operation::Push(open))).await.map_err(|error| told(&error))?;
    let (said, mut backlog) = replies();
    let reader = tokio::spawn(async move {
        while let Some(reply) =
            receiver.receive::<PushReply>().await.map_err(|error| format!("agent: {error}"))?
        {
            said.say(reply).map_err(|error| format!("agent: {error}"))?;
        }
        Ok::<_, String>(())
    });
    let (mut signatures, mut input) = (0, Whole::new(build));
    while let Some(reply) = backlog.next().await {
        signatures += usize::from(matches!(reply, PushReply::BlockSums(_)));
        let mut actions = machine.receive(reply, &mut input).map_err(|error| told(&error))?;
        loop {
            for action in actions {
                match action {
                    Action::Send(message) => sender.send(&message).await.map_err(|error| told(&error))?,
                    Action::Finish => return Ok(signatures),
                    Action::Stored(_)
                    | Action::Committed { .. }
                    | Action::Cached(_)
                    | Action::Delivery(_)
                    | Action::RollsOut(_) => {}
                }
            }
            let Some(chunks) = input.encoding.pop_front() else { break };
            for id in chunks {
                let message = FromAgent::Chunks(batch([pool.bytes(&id)].into_iter()));
                sender.send(&message).await.map_err(|error| told(&error))?;
            }
            actions = machine.chunks_sent(&mut input).map_err(|error| told(&error))?;
        }
    }
    Err(reader.await.expect("it does not panic").err().unwrap_or_else(|| "the proxy ended".to_owned()))
}

/// Returns once nothing useful has arrived for too long.
async fn watch(network: &Network) -> String {
    let (mut useful, mut since) = (0, Instant::now());
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let arrived = network.useful(USEFUL_BYTES);
        if arrived > useful {
            (useful, since) = (arrived, Instant::now());
        }
        if since.elapsed() > STILL_MAX {
            return format!("nothing has arrived for {STILL_MAX:?}");
        }
    }
}

/// Pushes a release whose chunks all nearly equal those of the previous one; returns virtual seconds and signatures.
fn simulate(seed: u64, weather: Weather, window_max: u32, window: Window) -> Result<(f64, usize), String> {
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
        let memory = Memory::holding(&before, &old);
        let serving = tokio::spawn(serve(listener.map_err(|error| error.to_string())?, memory));
        let socket = network.socket(address(AGENT));
        let begin = Instant::now();
        let pushing = async {
            let connection = connect_over(socket, address(PROXY), identity.fingerprint(), &options).await;
            let connection = connection.map_err(|error| error.to_string())?;
            let signatures = push(&connection, window, &build, &new).await?;
            let seconds = begin.elapsed().as_secs_f64();
            connection.finish().await;
            Ok::<_, String>((seconds, signatures))
        };
        let ended = tokio::select! {
            ended = pushing => ended?,
            still = watch(&network) => return Err(still),
        };
        let memory = serving.await.expect("the proxy's half does not panic")?;
        assert_eq!(memory.committed.as_ref(), Some(&build.items), "the manifest arrived as it was");
        Ok(ended)
    })
}

#[test]
fn a_push_goes_on_at_any_rate_with_any_window() {
    for seed in seeds(1..3) {
        for rate in [1_000, 10_000, 1_000_000] {
            for window_max in [1_200, 20_000, u32::MAX] {
                for window in [
                    Window { steps: 1, step_bytes: 1 },
                    Window { steps: 8, step_bytes: 1 },
                    Window::default(),
                ] {
                    let weather = Weather { rate, ..Weather::default() };
                    let case = format!("seed {seed}, {rate} B/s, {window_max} B of window, {window:?}");
                    let (seconds, signatures) = simulate(seed, weather, window_max, window)
                        .unwrap_or_else(|error| panic!("{case}: {error}"));
                    println!("{case}: {seconds:.1} s, {signatures} signatures");
                    assert!(signatures > 5, "{case}");
                }
            }
        }
    }
}
