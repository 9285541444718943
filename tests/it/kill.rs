//! `kill -9` at random moments: acknowledged chunks are never sent again, and committed releases are whole.

use std::time::Duration;

use protocol::address::ProxyUrl;
use whit::agent::Access;
use whit::net::identity::Identity;

use crate::program::{Home, Served};
use crate::trees::{assert_same, is_slow, noise, write};
use crate::walker::{Step, Walker};
use crate::world::{pull_as, push_as, push_options, token, within};

/// xorshift, which is random enough to choose moments; its seed is printed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("WHIT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::from(clock.expect("after 1970").subsec_nanos()) | 1
        });
        println!("WHIT_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn rounds() -> u64 {
    if is_slow() { 20 } else { 6 }
}

/// Starts the proxy on its data, on the port it had before, if any.
fn serve(home: &Home, port: Option<u16>) -> (Served, Access) {
    let listen = format!("127.0.0.1:{}", port.unwrap_or(0));
    let served = home.serve_at(&listen, &["--data", "data"]);
    let url: ProxyUrl = served.first_line.parse().expect("an address");
    let (identity, _) = Identity::open_or_create(&home.path("data/identity")).expect("an identity");
    (served, Access { url, token: token(&identity, |_| {}) })
}

/// Writes a tree of some 44 MB in 22 files, few of them unchanged since the round before.
fn tree(home: &Home, round: u64) {
    for file in 0..22 {
        let seed = if file < 3 { file } else { file + 100 * (round + 1) };
        write(&home.path("tree"), &format!("{file}"), noise(seed, 2_000_000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_killed_at_any_moment_loses_nothing_that_it_acknowledged() {
    within(async {
        let mut dice = Dice::new();
        let home = Home::new();
        let (mut served, mut access) = serve(&home, None);
        for round in 0..rounds() {
            tree(&home, round);
            let mut walker = Walker::begin(&access, "app", &home.path("tree")).await.expect("begun");
            // After some batch, or at the commit.
            let batches = dice.below(700);
            let mut sent = 0;
            while sent < batches {
                match walker.step().await.expect("an honest proxy") {
                    Step::Sent => sent += 1,
                    Step::Committing | Step::Committed(_) => break,
                    Step::Heard => {}
                }
            }
            tokio::time::sleep(Duration::from_micros(dice.below(20_000))).await;
            served.kill();
            // Replies that it sent before it died still count.
            let committed = tokio::time::timeout(Duration::from_millis(300), walker.finish()).await;
            let committed = matches!(committed, Ok(Ok(_)));
            let acknowledged = walker.acknowledged();
            drop(walker);

            (served, access) = serve(&home, Some(access.url.port()));
            let mut again = Walker::begin(&access, "app", &home.path("tree")).await.expect("begun");
            again.finish().await.expect("committed");
            let twice = again.sent().iter().filter(|id| acknowledged.contains(id)).count();
            let (safe, after) = (acknowledged.len(), again.sent().len());
            println!("round {round}: killed after {sent} batches, {safe} chunks acknowledged, {after} sent after it");
            assert_eq!(twice, 0, "acknowledged chunks were sent again");
            assert!(!committed || again.sent().is_empty(), "a committed release was not whole");
            let copy = home.path("copy");
            pull_as(&access, "app", &copy, false).await.expect("pulled");
            assert_same(&home.path("tree"), &copy);
        }
        served.kill();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_moment_leaves_a_proxy_that_serves_and_goes_on() {
    within(async {
        let mut dice = Dice::new();
        let home = Home::new();
        let (served, access) = serve(&home, None);
        for round in 0..rounds() {
            tree(&home, round);
            let url = access.url.to_string();
            let arguments =
                ["push", "app", "tree", "--retry-for", "0s", "--proxy", &url, "--token", &access.token];
            let mut agent = home.command(&arguments).spawn().expect("it starts");
            tokio::time::sleep(Duration::from_millis(dice.below(800))).await;
            agent.kill().expect("it is ours");
            agent.wait().expect("it ended");
            let receipt = push_as(&access, &push_options("app", &home.path("tree"))).await.expect("pushed");
            println!(
                "round {round}: {} chunks of {} sent after it",
                receipt.chunks.unseen, receipt.chunks.total
            );
            let copy = home.path("copy");
            pull_as(&access, "app", &copy, false).await.expect("pulled");
            assert_same(&home.path("tree"), &copy);
        }
        served.kill();
    })
    .await;
}

/// Otherwise an agent hears nothing until its connection counts as idle, after a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_was_killed_tells_its_agents_so_when_it_is_back() {
    within(async {
        let home = Home::new();
        let (served, access) = serve(&home, None);
        tree(&home, 0);
        let mut walker = Walker::begin(&access, "app", &home.path("tree")).await.expect("begun");
        while !matches!(walker.step().await.expect("an honest proxy"), Step::Sent) {}
        served.kill();
        let (served, _) = serve(&home, Some(access.url.port()));
        let error = loop {
            if let Err(error) = walker.step().await {
                break error.to_string();
            }
        };
        assert!(error.contains("reset by peer"), "{error}");
        served.kill();
    })
    .await;
}
