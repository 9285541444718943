//! Deliveries that somebody retries, cancels or drops, and destinations that are gone.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use format::record::DeliveryState;
use ground::faults::{Fault, Faulty as _};
use ground::ids::DeliveryId;
use ground::pattern::Pattern;
use protocol::token::Action;
use protocol::wire::{Answer, DeliveryStatus, Operation, Steering};
use whit::delivery::destination::Definition;

use super::{Gate, Mode, STAYS_DOWN, list, name, queue, steer, until, world};
use crate::world::{ask_as, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_delivery_is_tried_again_at_once_when_somebody_asks() {
    within(async {
        let gate = Gate::new(STAYS_DOWN);
        let world = world(&[("gate", &gate)], |_| {});
        let release = queue(&world, "web", "one", &["gate"]).await.release;
        let rows = until(world.access(), |rows| rows.iter().any(|row| row.tries == 1)).await;
        let id = rows[0].id;
        // Asked for twice, one try is made each time.
        for tries in [2, 3] {
            steer(world.access(), id, Steering::Retry).await.expect("retried");
            until(world.access(), |rows| {
                rows[0].tries == tries && matches!(rows[0].state, DeliveryState::Retrying { .. })
            })
            .await;
        }
        gate.set(Mode::Open);
        steer(world.access(), id, Steering::Retry).await.expect("retried");
        let rows = until(world.access(), |rows| rows[0].ended.is_some()).await;
        assert!(matches!(rows[0].state, DeliveryState::Delivered(_)) && rows[0].tries == 3);
        assert_eq!(gate.made(), [release]);
        let ended = steer(world.access(), id, Steering::Retry).await.expect_err("it has ended");
        assert!(ended.hint().is_some_and(|hint| hint.contains("whit deliver")), "{ended}");
        let unknown = DeliveryId { number: 1000, ..id };
        let missing = steer(world.access(), unknown, Steering::Retry).await.expect_err("there is none");
        assert_eq!(missing.fault(), Fault::Missing);
        let foreign = DeliveryId { proxy: [0; 4], ..id };
        let missing = steer(world.access(), foreign, Steering::Retry).await.expect_err("another proxy's");
        assert_eq!(missing.fault(), Fault::Missing);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_cancelled_while_it_waits_and_while_it_is_under_way() {
    within(async {
        let gate = Gate::new(Mode::Shut);
        let world = world(&[("gate", &gate)], |_| {});
        for content in ["one", "two", "three"] {
            queue(&world, "web", content, &["gate"]).await;
        }
        let running = |rows: &[DeliveryStatus]| matches!(rows[0].state, DeliveryState::Running(_));
        let rows = until(world.access(), running).await;
        let eve = world.access_with(|grant| grant.user = "eve".parse().expect("a name"));
        for id in [rows[1].id, rows[0].id] {
            let cancelled = steer(&eve, id, Steering::Cancel).await.expect("cancelled");
            let DeliveryState::Cancelled { by } = &cancelled.state else { panic!("{cancelled:?}") };
            assert!(by.as_str() == "eve" && cancelled.ended.is_some());
        }
        gate.set(Mode::Open);
        let rows = until(world.access(), |rows| rows[2].ended.is_some()).await;
        assert!(matches!(rows[2].state, DeliveryState::Delivered(_)));
        assert_eq!(gate.made(), [rows[2].release]);
        let reader = world.access_with(|grant| grant.actions = vec![Action::Read]);
        let refused = steer(&reader, rows[2].id, Steering::Cancel).await.expect_err("it may only read");
        assert_eq!(refused.fault(), Fault::Denied);
        let audit = std::fs::read_to_string(world.path("data/audit.log")).expect("a log");
        let ends = |word: &str| audit.lines().filter(|line| line.contains(word)).count();
        assert_eq!((ends("\"action\":\"cancelled\""), ends("\"action\":\"delivered\"")), (2, 1), "{audit}");
        assert_eq!(ends("\"action\":\"cancel\""), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_whose_destination_is_gone_says_so_and_can_be_dropped() {
    within(async {
        let gate = Gate::new(STAYS_DOWN);
        let mut world = world(&[("gate", &gate), ("other", &gate)], |_| {});
        queue(&world, "web", "one", &["gate"]).await;
        let rows = until(world.access(), |rows| rows.iter().any(|row| row.tries == 1)).await;
        let id = rows[0].id;
        let configured = steer(world.access(), id, Steering::Drop).await.expect_err("it has a destination");
        assert!(configured.hint().is_some_and(|hint| hint.contains("cancel")), "{configured}");
        world.stop().await;
        world.change(|options| drop(options.destinations.remove(&name("gate"))));
        world.again();
        assert_eq!(list(world.access()).await[0].state, DeliveryState::Stranded);
        for how in [Steering::Retry, Steering::Cancel] {
            let stranded = steer(world.access(), id, how).await.expect_err("it has no destination");
            assert!(stranded.hint().is_some_and(|hint| hint.contains(&format!("drop {id}"))), "{stranded}");
        }
        let dropped = steer(world.access(), id, Steering::Drop).await.expect("dropped");
        assert!(matches!(dropped.state, DeliveryState::Cancelled { .. }));
        world.stop().await;
        world.again();
        assert!(matches!(list(world.access()).await[0].state, DeliveryState::Cancelled { .. }));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_gone_holds_its_releases_until_somebody_drops_it() {
    within(async {
        let (gate, other) = (Gate::new(Mode::Open), Gate::new(Mode::Open));
        let mut world = world(&[("gate", &gate), ("other", &other)], |_| {});
        let first = queue(&world, "web", "one", &["gate"]).await.release;
        until(world.access(), |rows| rows[0].ended.is_some()).await;
        gate.set(STAYS_DOWN);
        for content in ["two", "three"] {
            queue(&world, "web", content, &["gate"]).await;
        }
        until(world.access(), |rows| rows.iter().any(|row| row.tries == 1)).await;
        let drop_gate = || Operation::DropDestination(name("gate"));
        let configured = ask_as(world.access(), &drop_gate()).await.expect_err("it is configured");
        assert_eq!(configured.fault(), Fault::Input, "{configured}");
        world.stop().await;
        world.change(|options| drop(options.destinations.remove(&name("gate"))));
        world.again();
        let remove = Operation::Remove {
            release: format!("web@{first}").parse().expect("a selector"),
            all_labels: true,
            force: false,
        };
        let held = ask_as(world.access(), &remove).await.expect_err("the destination may be back tomorrow");
        assert!(held.hint().is_some_and(|hint| hint.contains("`whit destinations drop gate`")), "{held}");
        let elsewhere = world.access_with(|grant| {
            grant.applications = vec!["api".parse::<Pattern>().expect("a pattern")];
        });
        let none = ask_as(&elsewhere, &drop_gate()).await.expect_err("nothing of its application");
        assert_eq!(none.fault(), Fault::Missing, "{none}");
        let reader = world.access_with(|grant| grant.actions = vec![Action::Read, Action::Push]);
        assert_eq!(ask_as(&reader, &drop_gate()).await.expect_err("it may not").fault(), Fault::Denied);

        let answers = ask_as(world.access(), &drop_gate()).await.expect("dropped");
        let [Answer::Dropped(dropped)] = &answers[..] else { panic!("{answers:?}") };
        assert!(dropped.deliveries >= 1 && dropped.releases >= 2, "{dropped:?}");
        let rows = list(world.access()).await;
        assert!(rows.iter().all(|row| row.state.is_last()), "{rows:?}");
        ask_as(world.access(), &remove).await.expect("nothing holds it");
        let again = ask_as(world.access(), &drop_gate()).await.expect_err("there is nothing left");
        assert_eq!(again.fault(), Fault::Missing, "{again}");
        let audit = std::fs::read_to_string(world.path("data/audit.log")).expect("a log");
        assert!(audit.matches("\"action\":\"drop\"").count() >= 3, "{audit}");
    })
    .await;
}

#[test]
fn trying_a_destination_ends_when_nobody_waits_for_it_any_more() {
    // It takes connections and never answers.
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = server.local_addr().expect("an address");
    for more in ["kind = 'http'\nurl = 'http://ADDRESS/{app}/'", S3] {
        let text = more.replace("ADDRESS", &address.to_string());
        let definition: Definition = toml::from_str(&text).expect("a definition");
        let (destination, cancelled) = (definition.open(), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&cancelled);
        let trying = std::thread::spawn(move || destination.check(&flag));
        let (_silent, _) = server.accept().expect("a connection");
        cancelled.store(true, Ordering::Relaxed);
        let steps = trying.join().expect("no panic");
        let failure = steps.iter().find_map(|step| step.failure.as_deref()).expect("a step failed");
        assert!(failure.contains("cancelled"), "{failure}");
    }
}

const S3: &str = "
    kind = 's3'
    bucket = 'site'
    endpoint = 'http://ADDRESS'
    access_key = { env = 'PATH' }
    secret_key = { env = 'PATH' }
";
