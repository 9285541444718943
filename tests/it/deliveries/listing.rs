//! What people and programs see of deliveries and destinations.

use format::record::{DeliveryReport, DeliveryState};
use ground::faults::{Fault, Faulty as _};
use ground::ids::ReleaseId;
use ground::pattern::Pattern;
use protocol::token::Action;
use protocol::wire::{Answer, CheckStep, DeliveriesWanted, DestinationStatus, Operation, Steering};
use whit::agent::Session;
use whit::delivery::{Deliveries, Delivery};
use whit::net::link;

use super::{Gate, Mode, STAYS_DOWN, list, name, open_queue, queue, steer, until, world};
use crate::world::{ask_as, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_has_each_state_and_who_asked_and_only_what_a_token_may_see() {
    within(async {
        let (shut, down, open) = (Gate::new(Mode::Shut), Gate::new(STAYS_DOWN), Gate::new(Mode::Open));
        let world = world(&[("shut", &shut), ("down", &down), ("open", &open)], |_| {});
        let receipt = queue(&world, "web", "one", &["shut", "down", "open"]).await;
        assert_eq!(receipt.delivered.len(), 3, "{:?}", receipt.delivered);
        queue(&world, "web", "two", &["shut"]).await;
        queue(&world, "api", "one", &["shut"]).await;
        let rows = until(world.access(), |rows| {
            rows.iter().any(|row| row.tries == 1) && rows.iter().any(|row| row.ended.is_some())
        })
        .await;
        let state = |app: &str, to: &str, nth: usize| {
            let mut of = rows.iter().filter(|row| row.app.as_str() == app && row.destination == name(to));
            of.nth(nth).expect("a delivery")
        };
        let running = state("web", "shut", 0);
        assert!(
            matches!(running.state, DeliveryState::Running(_)) && running.started.is_some(),
            "{running:?}"
        );
        assert!(running.user.as_ref().is_some_and(|user| user.as_str() == "ada") && running.asked > 0);
        assert_eq!(state("web", "shut", 1).state, DeliveryState::Queued);
        let retrying = state("web", "down", 0);
        let DeliveryState::Retrying { reason, seconds, fault } = &retrying.state else {
            panic!("{retrying:?}")
        };
        assert!(reason.contains("it fails") && *fault == Fault::Retry);
        assert!((3500..=3600).contains(seconds), "the service asked for an hour: {seconds}");
        let ended = state("web", "open", 0);
        let DeliveryState::Delivered(DeliveryReport { answer, sent_bytes, requests, .. }) = &ended.state
        else {
            panic!("{ended:?}")
        };
        assert_eq!((answer.as_deref(), *sent_bytes, *requests), (Some("201 Created"), 3, 1));
        assert!(rows.windows(2).all(|two| two[0].id < two[1].id), "in the order of their ids");

        let narrow = world.access_with(|grant| {
            grant.applications = vec!["api".parse::<Pattern>().expect("a pattern")];
            grant.destinations = vec!["shut".parse::<Pattern>().expect("a pattern")];
        });
        let seen = list(&narrow).await;
        assert!(seen.len() == 1 && seen[0].app.as_str() == "api", "{seen:?}");
        assert!(list(&world.access_to("other")).await.is_empty());
        let blind = world.access_with(|grant| grant.actions = vec![Action::Push]);
        let refused = ask_as(&blind, &Operation::Deliveries(DeliveriesWanted::default())).await;
        assert_eq!(refused.expect_err("it may not read").fault(), Fault::Denied);
        let hidden = steer(&narrow, running.id, Steering::Cancel).await.expect_err("it may not see it");
        assert_eq!(hidden.fault(), Fault::Missing);
        shut.set(Mode::Open);
        until(world.access(), |rows| rows.iter().filter(|row| row.ended.is_none()).count() == 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_each_change_and_one_who_does_not_read_holds_up_nobody() {
    within(async {
        let gate = Gate::new(Mode::Open);
        let world = world(&[("gate", &gate)], |_| {});
        let watch = Operation::Deliveries(DeliveriesWanted { watch: true, ..DeliveriesWanted::default() });
        let deaf = Session::open(world.access(), &link::Options::default()).await.expect("a session");
        let unread = deaf.request(&watch).await.expect("asked");
        let session = Session::open(world.access(), &link::Options::default()).await.expect("a session");
        let (seen, states) = tokio::sync::oneshot::channel();
        let watching = tokio::spawn(async move {
            let (mut states, mut seen) = (Vec::new(), Some(seen));
            let take = |answer| {
                let Answer::Deliveries(rows) = answer else { panic!("{answer:?}") };
                states.extend(rows.into_iter().map(|row| row.state));
                let has_run = states.iter().any(|state| matches!(state, DeliveryState::Running(_)));
                !has_run || !states.last().is_some_and(DeliveryState::is_last)
            };
            session.ask_while(&watch, take).await.expect("watched");
            drop(seen.take().expect("once").send(states));
        });
        let mut count = 0;
        while !watching.is_finished() {
            count += 1;
            queue(&world, "web", &count.to_string(), &["gate"]).await;
        }
        watching.await.expect("no panic");
        let states = states.await.expect("sent");
        assert!(states.iter().any(|state| matches!(state, DeliveryState::Running(_))), "{states:?}");
        for number in 0..20 {
            queue(&world, "web", &format!("more{number}"), &["gate"]).await;
        }
        until(world.access(), |rows| rows.iter().all(|row| row.ended.is_some())).await;
        assert_eq!(gate.made().len(), count + 20);
        drop(unread);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destinations_are_listed_tried_and_asked_what_they_would_do() {
    within(async {
        let (open, down) = (Gate::new(Mode::Open), Gate::new(STAYS_DOWN));
        let world = world(&[("open", &open), ("down", &down)], |_| {});
        let release = queue(&world, "web", "one", &["down"]).await.release;
        until(world.access(), |rows| rows.iter().any(|row| row.tries == 1)).await;
        let answers = ask_as(world.access(), &Operation::Destinations).await.expect("a list");
        let [Answer::Destinations(listed)] = &answers[..] else { panic!("{answers:?}") };
        let row = |name: &str, waiting, failing| DestinationStatus {
            name: self::name(name),
            kind: "gate".to_owned(),
            place: "gate of {app}".to_owned(),
            waiting,
            failing,
        };
        assert_eq!(*listed, [row("down", 1, 1), row("open", 0, 0)]);
        let narrow = world.access_with(|grant| {
            grant.destinations = vec!["open".parse::<Pattern>().expect("a pattern")];
        });
        let answers = ask_as(&narrow, &Operation::Destinations).await.expect("a list");
        assert!(matches!(&answers[..], [Answer::Destinations(listed)] if listed.len() == 1));

        let answers = ask_as(world.access(), &Operation::CheckDestinations(None)).await.expect("tried");
        let failures: Vec<_> = answers
            .iter()
            .map(|answer| match answer {
                Answer::Checked(checked) => {
                    let is_failed = |step: &CheckStep| step.failure.is_some();
                    (checked.name.to_string(), checked.steps.len(), checked.steps.iter().any(is_failed))
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(failures, [("down".to_owned(), 2, true), ("open".to_owned(), 2, false)]);
        let refused = ask_as(&narrow, &Operation::CheckDestinations(Some(name("down")))).await;
        assert_eq!(refused.expect_err("it may not").fault(), Fault::Denied);
        let missing = ask_as(world.access(), &Operation::CheckDestinations(Some(name("nowhere")))).await;
        assert_eq!(missing.expect_err("there is none").fault(), Fault::Missing);

        let plan = Operation::PlanDelivery {
            release: format!("web@{}", release.short()).parse().expect("a selector"),
            destinations: vec![name("open")],
            all: false,
        };
        let answers = ask_as(world.access(), &plan).await.expect("planned");
        let [Answer::Planned(plan)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!((plan.files, plan.bytes), ([1, 1, 1], [1, 5]));
        assert!(open.made().is_empty() && list(world.access()).await.len() == 1, "nothing was delivered");
    })
    .await;
}

#[test]
fn three_thousand_deliveries_to_a_dead_destination_are_listed_in_pages_and_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let space: ground::ids::SpaceName = "shop".parse().expect("a name");
    let delivery = |number: usize| Delivery {
        user: Some(format!("user{}", number / 50).parse().expect("a name")),
        ..Delivery::new(
            space.clone(),
            format!("app{number}").parse().expect("a name"),
            ReleaseId::of(b"a root"),
            name("gate"),
        )
    };
    let pages = |deliveries: &Deliveries| {
        let (mut after, mut all) = (0, 0);
        loop {
            let page = deliveries.page(&space, after, 100, |_, _| true);
            let Some(last) = page.last() else { return all };
            assert!(page.len() <= 100);
            (after, all) = (last.id.number, all + page.len());
        }
    };
    let deliveries = open_queue(folder.path());
    for first in (0..3000).step_by(50) {
        deliveries.add((first..first + 50).map(delivery).collect()).expect("queued");
    }
    assert_eq!(pages(&deliveries), 3000);
    deliveries.stop();
    drop(deliveries);
    let again = open_queue(folder.path());
    assert_eq!(pages(&again), 3000);
    let narrow = again.page(&space, 0, 100, |app, _| app.as_str() == "app2999");
    assert_eq!((narrow.len(), narrow[0].id.number), (1, 3000));
}
