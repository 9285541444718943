//! Which delivery comes next, and which gives way.

use format::record::DeliveryState;
use whit::delivery::Policy;

use super::{Gate, Mode, STAYS_DOWN, list, name, queue, until, world};
use crate::world::within;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_destination_delays_no_other_and_one_applications_failure_no_other_application() {
    within(async {
        let (gate, open) = (Gate::new(STAYS_DOWN), Gate::new(Mode::Open));
        let world = world(&[("gate", &gate), ("open", &open)], |_| {});
        queue(&world, "web", "one", &["gate", "open"]).await;
        until(world.access(), |rows| rows.iter().any(|row| row.tries == 1)).await;
        gate.set(Mode::Open);
        let api = queue(&world, "api", "one", &["gate"]).await.release;
        until(world.access(), |rows| rows.iter().filter(|row| row.ended.is_some()).count() == 2).await;
        assert_eq!(gate.made(), [api], "the failed one still waits");
        assert_eq!(open.made().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_the_latest_counts_what_waits_is_skipped_and_a_release_may_come_back() {
    within(async {
        let (each, latest) = (Gate::new(Mode::Shut), Gate::new(Mode::Shut));
        let world = world(&[("each", &each), ("latest", &latest)], |options| {
            options.policies.insert(name("latest"), Policy { latest_only: true });
        });
        let mut releases = Vec::new();
        for (pushed, content) in ["one", "two", "one", "one", "three"].iter().enumerate() {
            releases.push(queue(&world, "web", content, &["each", "latest"]).await.release);
            // The first is under way before the next is queued.
            until(world.access(), |rows| {
                rows.iter().filter(|row| matches!(row.state, DeliveryState::Running(_))).count() == 2
            })
            .await;
            let queued = list(world.access()).await.len();
            assert_eq!(queued, [2, 4, 6, 6, 8][pushed], "the same again is one delivery");
        }
        each.set(Mode::Open);
        latest.set(Mode::Open);
        let rows = until(world.access(), |rows| rows.iter().all(|row| row.ended.is_some())).await;
        assert_eq!(each.made(), [releases[0], releases[1], releases[2], releases[4]]);
        assert_eq!(latest.made(), [releases[0], releases[4]]);
        let of_latest: Vec<_> = rows.iter().filter(|row| row.destination == name("latest")).collect();
        assert_eq!(of_latest[1].state, DeliveryState::Skipped { by: of_latest[2].id });
        assert_eq!(of_latest[2].state, DeliveryState::Skipped { by: of_latest[3].id });
    })
    .await;
}
