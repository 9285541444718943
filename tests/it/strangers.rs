//! Unknown peers, and neighbours who want everything: they get little, and others get their share.

use std::time::{Duration, Instant};

use format::manifest::{EntryPath, Item, Profile, Shape, Totals};
use format::recipe::ChunkRef;
use ground::faults::{Fault, Faulty as _};
use ground::ids::{ChunkId, ReleaseId};
use ground::limits::STRANGER_TRIES_MAX;
use protocol::wire::{FromAgent, ManifestForm, Marks, Open, Operation, PushReply, SegmentBatch};
use whit::agent::{Access, Error, Session};
use whit::net::link;

use crate::program::Home;
use crate::trees::{noise, write};
use crate::world::{World, ask_as, releases_as, web, within};

/// Returns a push that consists only of its opening.
fn standing(number: u64) -> Operation {
    Operation::Push(Open {
        app: "app".parse().expect("a name"),
        labels: Vec::new(),
        destinations: Vec::new(),
        release: ReleaseId::of(&number.to_le_bytes()),
        profile: Profile::DEFAULT,
        shape: Shape::Tree,
        totals: Totals::default(),
        segments: 1,
        manifest: ManifestForm::Short(Vec::new()),
        dry_run: false,
        behalf: Vec::new(),
        then: Vec::new(),
        keeps_current: false,
        moves: false,
        cache_only: false,
        root: None,
    })
}

async fn session(access: &Access) -> Session {
    Session::open(access, &link::Options::default()).await.expect("a session")
}

#[tokio::test]
async fn who_shows_no_good_token_in_time_is_sent_off() {
    let world = World::start_with(|options| options.stranger_patience = Duration::from_millis(300));
    within(async {
        let silent = link::connect(&world.access().url, &link::Options::default()).await.expect("connected");
        let error = silent.closed().await.expect_err("sent off");
        assert_eq!(error.fault(), Fault::Denied);

        let bad = Access { token: "whit1.x.y".to_owned(), ..world.access().clone() };
        let bad = session(&bad).await;
        let error = bad.ask(&Operation::Identify, |_| {}).await.expect_err("refused");
        assert!(matches!(error, Error::Refused(_)), "{error}");
        let begin = Instant::now();
        while bad
            .ask(&Operation::Identify, |_| {})
            .await
            .is_err_and(|error| matches!(error, Error::Refused(_)))
        {}
        assert!(begin.elapsed() < Duration::from_secs(10));

        // A peer that has shown a token may be silent for longer.
        let known = session(world.access()).await;
        known.ask(&Operation::Identify, |_| {}).await.expect("an answer");
        let silent = link::connect(&world.access().url, &link::Options::default()).await.expect("connected");
        assert!(silent.closed().await.is_err());
        known.ask(&Operation::Identify, |_| {}).await.expect("an answer");
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_has_nothing_to_ask_for_yet_says_who_it_is() {
    let world = World::start_with(|options| options.stranger_patience = Duration::from_secs(2));
    let options = link::Options { introduction_time: Duration::from_millis(20), ..link::Options::default() };
    within(async {
        let session = Session::open(world.access(), &options).await.expect("a session");
        // A later connection that says nothing is closed.
        let silent = link::connect(&world.access().url, &options).await.expect("connected");
        assert!(silent.closed().await.is_err());
        session.ask(&Operation::Identify, |_| {}).await.expect("the proxy knows it");
    })
    .await;
}

#[tokio::test]
async fn a_user_who_takes_what_there_is_leaves_as_much_for_others() {
    let world = World::start_with(|options| options.requests_max = 8);
    let eve = world.access_with(|grant| grant.user = "eve".parse().expect("a name"));
    within(async {
        let session = session(&eve).await;
        let (mut held, mut refused) = (Vec::new(), 0);
        for number in 0..8 {
            let (sender, mut receiver) = session.request(&standing(number)).await.expect("sent");
            match receiver.receive::<PushReply>().await.expect("an answer") {
                Some(PushReply::Refused(refusal)) => {
                    assert_eq!(refusal.fault, Fault::Retry);
                    assert!(refusal.text.contains("`eve`"), "{}", refusal.text);
                    refused += 1;
                }
                _ => held.push((sender, receiver)),
            }
        }
        assert_eq!((held.len(), refused), (4, 4));
        write(&world.path("tree"), "a", noise(1, 1000));
        world.push("app", &world.path("tree")).await;
        drop(held);
    })
    .await;
}

/// Returns segments of many directories with short names, each with a chunk that never comes: small on the link, large
/// in memory.
fn swelling(number: u32) -> FromAgent {
    let segment = |at: u32| {
        let mut bytes = vec![0x11];
        for number in 0..1000u16 {
            let path = EntryPath::new(format!("{number:04x}")).expect("a path");
            Item::Directory { path, mode: 0o755 }.encode(&mut bytes);
        }
        let id = ChunkId::of(&[number.to_le_bytes(), at.to_le_bytes()].concat());
        Item::Chunk(ChunkRef { id, bytes: 1 }).encode(&mut bytes);
        bytes
    };
    let segments: Vec<Vec<u8>> = (0..20).map(segment).collect();
    FromAgent::Segments(SegmentBatch::at_level(3, &segments, None, Marks::default()))
}

#[tokio::test]
async fn what_pushes_hold_in_memory_is_shared_by_the_users() {
    let world = World::start_with(|options| options.held_max = 16 * 1024 * 1024);
    let eve = world.access_with(|grant| grant.user = "eve".parse().expect("a name"));
    within(async {
        let session = session(&eve).await;
        let Operation::Push(open) = standing(0) else { unreachable!("it is a push") };
        let open = Operation::Push(Open { manifest: ManifestForm::Growing, segments: 0, ..open });
        let (mut sender, mut receiver) = session.request(&open).await.expect("sent");
        let mut messages = 0;
        let refusal = loop {
            match receiver.receive::<PushReply>().await.expect("an answer") {
                Some(PushReply::Refused(refusal)) => break refusal,
                Some(PushReply::WantSegments(_) | PushReply::Missing(_)) => {
                    messages += 1;
                    assert!(messages < 20, "it goes on and on");
                    // A proxy that has refused no longer reads.
                    drop(sender.send(&swelling(messages)).await);
                }
                Some(_) => {}
                None => panic!("it ended without a word"),
            }
        };
        assert_eq!(refusal.fault, Fault::Retry);
        assert!(messages > 2 && refusal.text.contains("`eve`"), "{messages}: {}", refusal.text);
        write(&world.path("tree"), "a", noise(1, 100_000));
        world.push("app", &world.path("tree")).await;
    })
    .await;
}

#[tokio::test]
async fn a_user_who_holds_connections_leaves_as_many_for_others() {
    let world = World::start_with(|options| options.connections_max = 6);
    let eve = world.access_with(|grant| grant.user = "eve".parse().expect("a name"));
    within(async {
        let (mut held, mut refused) = (Vec::new(), 0);
        for _ in 0..6 {
            let session = session(&eve).await;
            match session.ask(&Operation::Identify, |_| {}).await {
                Ok(()) => held.push(session),
                Err(Error::Refused(refusal)) => {
                    assert_eq!(refusal.fault, Fault::Retry);
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((held.len(), refused), (3, 3));
        ask_as(world.access(), &Operation::Identify).await.expect("an answer");
    })
    .await;
}

#[tokio::test]
async fn the_same_destination_many_times_is_one_delivery() {
    let world = World::start();
    within(async {
        write(&world.path("tree"), "a", noise(1, 1000));
        world.push("app", &world.path("tree")).await;
        let release = "app".parse().expect("a selector");
        let question = Operation::Deliver { release, destinations: vec![web(); 64], then: Vec::new() };
        let answers = ask_as(world.access(), &question).await.expect("delivered");
        let ended = |answer: &&protocol::wire::Answer| format!("{answer:?}").contains("Delivered");
        assert_eq!(answers.iter().filter(ended).count(), 1, "{answers:?}");
        let waiting = std::fs::read_dir(world.path("data/deliveries")).expect("a folder").flatten();
        let is_delivery =
            |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "delivery");
        assert_eq!(waiting.filter(is_delivery).count(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_stranger_who_stays_does_not_keep_a_proxy_from_stopping() {
    let mut world = World::start_with(|options| options.drain_patience = Duration::from_secs(600));
    within(async {
        let stranger =
            link::connect(&world.access().url, &link::Options::default()).await.expect("connected");
        // Once a later agent has its answer, the stranger is connected.
        let known = session(world.access()).await;
        known.ask(&Operation::Identify, |_| {}).await.expect("an answer");
        known.finish().await;
        let begin = Instant::now();
        world.stop().await;
        assert!(begin.elapsed() < Duration::from_secs(30));
        drop(stranger.closed().await);
    })
    .await;
}

#[tokio::test]
async fn many_strangers_of_one_address_keep_nobody_out() {
    let world = World::start_with(|options| options.link.strangers_max = 8);
    within(async {
        let mut strangers = Vec::new();
        for _ in 0..40 {
            strangers.push(
                link::connect(&world.access().url, &link::Options::default()).await.expect("connected"),
            );
        }
        write(&world.path("tree"), "a", noise(1, 1000));
        world.push("app", &world.path("tree")).await;
        assert_eq!(releases_as(world.access(), "app").await.expect("a list").len(), 1);
        drop(strangers);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_ask_again_and_again_is_a_few_lines_of_the_log_each_with_the_address() {
    let home = Home::new();
    let proxy = home.serve(&["--data", "data"]);
    let url = proxy.first_line.parse().expect("an address");
    let access = Access { url, token: "whit1.x\u{1b}[31mred\r\n.y".to_owned() };
    within(async {
        for _ in 0..30 {
            let session = session(&access).await;
            for _ in 0..STRANGER_TRIES_MAX {
                let error = session.ask(&Operation::Identify, |_| {}).await.expect_err("refused");
                assert!(matches!(error, Error::Refused(_)), "{error}");
            }
        }
    })
    .await;
    let said = proxy.said();
    let refused: Vec<&String> = said.iter().filter(|line| line.contains("refused")).collect();
    assert!((2..=30).contains(&refused.len()), "{refused:#?}");
    assert!(refused.iter().all(|line| line.contains("peer=127.0.0.1")), "{refused:#?}");
    assert!(refused.iter().any(|line| line.contains(" more in ")), "{refused:#?}");
    assert!(said.iter().all(|line| !line.contains('\u{1b}')), "{said:#?}");
}
