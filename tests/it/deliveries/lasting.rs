//! What outlives the proxy, and the agent that asked.

use format::record::DeliveryState;
use ground::faults::Fault;
use ground::ids::ReleaseId;
use protocol::wire::Steering;
use whit::agent::push::PushOptions;
use whit::delivery::Delivery;
use whit::ledger::{FileLedger, Key, Ledger, Table};

use super::{Gate, Mode, STAYS_DOWN, list, name, open_queue, queue, steer, until, world};
use crate::trees::write;
use crate::world::{push_as, push_options, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_it_was_with_the_tries_and_gives_no_id_twice() {
    within(async {
        let gate = Gate::new(STAYS_DOWN);
        let mut world = world(&[("gate", &gate)], |_| {});
        queue(&world, "web", "one", &["gate"]).await;
        let before = until(world.access(), |rows| rows.iter().any(|row| row.tries == 1)).await;
        world.stop().await;
        world.again();
        let after = list(world.access()).await;
        assert_eq!((after[0].id, after[0].tries, after.len()), (before[0].id, 1, 1));
        // An hour, as the service asked, and why it failed.
        let DeliveryState::Retrying { reason, seconds, fault } = &after[0].state else { panic!("{after:?}") };
        assert!(reason.contains("it fails") && *fault == Fault::Retry, "{reason}");
        assert!((3400..=3600).contains(seconds), "{seconds}");
        gate.set(Mode::Open);
        steer(world.access(), after[0].id, Steering::Retry).await.expect("retried");
        until(world.access(), |rows| rows[0].ended.is_some()).await;
        world.stop().await;
        world.again();
        let ended = list(world.access()).await;
        assert!(matches!(ended[0].state, DeliveryState::Delivered(_)), "its end is remembered: {ended:?}");
        let next = queue(&world, "web", "two", &["gate"]).await;
        assert_eq!(next.delivered[0].id.number, ended[0].id.number + 1);
        assert_eq!(next.delivered[0].id.proxy, ended[0].id.proxy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stops_following_a_failing_delivery_says_which_one() {
    within(async {
        let gate = Gate::new(Mode::Fails(Fault::Input, None));
        let world = world(&[("gate", &gate)], |_| {});
        let tree = world.path("tree");
        write(&tree, "file", "one");
        let options = PushOptions { destinations: vec![name("gate")], ..push_options("web", &tree) };
        let receipt = push_as(world.access(), &options).await.expect("the release is stored");
        let event = &receipt.delivered[0];
        assert!(matches!(&event.state, DeliveryState::Failed { fault: Fault::Input, .. }), "{event:?}");
        let rows = list(world.access()).await;
        assert_eq!((rows[0].id, &rows[0].state), (event.id, &event.state));
    })
    .await;
}

#[test]
fn an_end_that_was_written_before_a_crash_is_not_made_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ledger = FileLedger::of_space(folder.path(), std::time::Instant::now);
    let (space, app) = ("shop".parse().expect("a name"), "web".parse().expect("a name"));
    let delivery = Delivery::new(space, app, ReleaseId::of(b"a root"), name("gate"));
    let state = DeliveryState::Cancelled { by: "ada".parse().expect("a name") };
    let ended = whit::delivery::Ended { delivery: delivery.clone(), started: 0, ended: 1, state };
    let put = |key, value| whit::ledger::Change::Put { key, value };
    ledger
        .apply(&[
            put(Key::Ended { number: 7 }, ended.encode()),
            put(Key::Delivery { number: 7 }, delivery.encode()),
        ])
        .expect("written");
    let deliveries = open_queue(folder.path());
    assert!(deliveries.pending(&delivery.space).is_empty());
    assert!(ledger.list(&Table::Deliveries).expect("listed").is_empty());
    let rows = deliveries.page(&delivery.space, 0, 10, |_, _| true);
    assert!(rows.len() == 1 && rows[0].id.number == 7);
    let event = deliveries.add(vec![delivery]).expect("queued").remove(0).blocking_recv();
    assert_eq!(event.expect("it is queued").id.number, 8);
}
