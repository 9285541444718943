//! Targets at the proxy when much happens at once, or something fails.

use std::sync::Arc;
use std::time::Duration;

use format::target::TargetState;
use ground::ids::{AppName, Label, ReleaseId, SpaceName};
use protocol::wire::{Answer, DeliveriesWanted, Operation, PullReply};
use whit::agent::Session;
use whit::ledger::{Change, Key, Ledger as _, Table};
use whit::net::link::{self, Receiver, Sender};

use crate::fake_target::{FakeTarget, access_of, confirmed};
use crate::ledgers::memory::MemoryLedger;
use crate::targets::{list, listed, push, remove};
use crate::world::{World, ask_as, within};

/// A pull that is begun and goes no further.
struct Begun {
    _session: Session,
    _sender: Sender,
    receiver: Receiver,
}

impl Begun {
    async fn of(world: &World, target: &str) -> Self {
        let access = access_of(world, target);
        let session = Session::open(&access, &link::Options::default()).await.expect("a connection");
        let release = "app".parse().expect("a selector");
        let asked = session.request(&Operation::Pull { release, have: None, unpacked: false }).await;
        let (sender, receiver) = asked.expect("a request");
        Self { _session: session, _sender: sender, receiver }
    }

    async fn is_served(&mut self) -> bool {
        let reply = tokio::time::timeout(Duration::from_secs(1), self.receiver.receive::<PullReply>()).await;
        match reply {
            Err(_) => false,
            Ok(Ok(Some(PullReply::Release { .. }))) => true,
            Ok(other) => panic!("{other:?} is no release"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_targets_wait_for_each_other_and_take_nothing_from_people() {
    within(async {
        let world = World::start_with(|options| options.requests_max = 4);
        push(&world, "app", "one", &[]).await;
        let mut pulls = Vec::new();
        for target in 1..=6 {
            pulls.push(Begun::of(&world, &format!("web-{target}")).await);
        }
        let mut served = 0;
        while !pulls.is_empty() {
            let mut next = None;
            for (place, pull) in pulls.iter_mut().enumerate() {
                if pull.is_served().await {
                    next = Some(place);
                    break;
                }
            }
            list(&world).await;
            if let Some(place) = next {
                drop(pulls.remove(place));
                served += 1;
            }
        }
        assert_eq!(served, 6);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_hears_that_the_proxy_is_there() {
    within(async {
        let world = World::start();
        let wanted = DeliveriesWanted { watch: true, ..DeliveriesWanted::default() };
        let questions = [
            Operation::Targets { app: None, watch: true },
            Operation::Deliveries(wanted),
            Operation::Rollouts { app: None, watch: true },
        ];
        let session = Session::open(world.access(), &link::Options::default()).await.expect("a connection");
        let mut streams = Vec::new();
        for question in questions {
            streams.push(session.request(&question).await.expect("a request"));
        }
        for (_sender, receiver) in &mut streams {
            match receiver.receive::<Answer>().await.expect("a message") {
                Some(Answer::Targets(rows)) => assert!(rows.is_empty()),
                Some(Answer::Deliveries(rows)) => assert!(rows.is_empty()),
                Some(Answer::Rollouts(rows)) => assert!(rows.is_empty()),
                other => panic!("{other:?} is no list"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_down_is_tried_again() {
    within(async {
        let ledger = Arc::new(MemoryLedger::default());
        let of_proxy = Arc::clone(&ledger);
        let mut world = World::start_with(|options| options.ledger = Some(of_proxy));
        let one = push(&world, "app", "one", &[]).await;
        let mut target = FakeTarget::watch(&access_of(&world, "web-1"), "app", 1).await;
        assert_eq!(target.wanted_release().await, one);
        ledger.fill(Some(0));
        target.report(confirmed(one, None)).await;
        listed(&world, |row| row.status.known.report.shown == Some(one)).await;
        target.leave().await;
        listed(&world, |row| !row.status.reachable).await;
        // The writer has tried it by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        ledger.fill(None);
        world.stop().await;
        world.again();
        assert_eq!(listed(&world, |_| true).await.status.known.report.state, TargetState::Confirmed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_some_labels_of_each_release() {
    within(async {
        let world = World::start();
        let one = push(&world, "app", "one", &["one"]).await;
        let labels: Vec<Label> = (0..60).map(|n| format!("l{n}").parse().expect("a label")).collect();
        let release = "app@one".parse().expect("a selector");
        ask_as(world.access(), &Operation::Label { release, labels, moves: false }).await.expect("labelled");
        let mut target = FakeTarget::watch(&access_of(&world, "web-1"), "app", 1).await;
        target.report(confirmed(one, None)).await;
        let row = listed(&world, |row| row.status.known.report.shown == Some(one)).await;
        assert_eq!(row.labels.len(), 16);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_holds_all_releases_until_its_target_reports() {
    within(async {
        let ledger = Arc::new(MemoryLedger::default());
        let of_proxy = Arc::clone(&ledger);
        let mut world = World::start_with(|options| options.ledger = Some(of_proxy));
        let space: SpaceName = "default".parse().expect("a name");
        let app: AppName = "app".parse().expect("a name");
        for word in ["one", "two", "three", "four"] {
            push(&world, "app", word, &[word]).await;
        }
        world.stop().await;
        let target = "web-1".parse().expect("a name");
        let key = Key::Target { space: space.clone(), app, target };
        ledger.apply(&[Change::Put { key, value: vec![99] }]).expect("put");
        world.again();
        let refused = remove(&world, "app@one").await.expect_err("a target may have it");
        assert!(refused.to_string().contains("target `web-1` has it"), "{refused}");
        let mut target = FakeTarget::watch(&access_of(&world, "web-1"), "app", 1).await;
        let four = target.wanted_release().await;
        target.report(confirmed(four, None)).await;
        listed(&world, |row| row.status.known.report.shown == Some(four)).await;
        remove(&world, "app@one").await.expect("nobody has it");
        // Of an application that does not exist nothing is kept, and nothing holds another's release.
        let mut other = FakeTarget::watch(&access_of(&world, "web-2"), "no-app", 1).await;
        other.report(confirmed(ReleaseId::of(b"none"), None)).await;
        while list(&world).await.iter().all(|row| row.status.known.report.shown == Some(four)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        other.leave().await;
        listed(&world, |row| row.status.app.as_str() == "app").await;
        world.stop().await;
        let table = Table::Targets { space, app: "no-app".parse().expect("a name") };
        assert!(ledger.list(&table).expect("listed").is_empty());
    })
    .await;
}
