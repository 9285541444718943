//! The queue of deliveries, seen and steered: a real proxy whose destinations block, fail and come back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use format::record::{DeliveryReport, DeliveryState};
use ground::faults::{Fault, Faulty as _};
use ground::ids::{AppName, DeliveryId, DestinationName, ReleaseId};
use ground::pattern::Pattern;
use protocol::token::Action;
use protocol::wire::{
    Answer, CheckStep, DeliveriesWanted, DeliveryStatus, DestinationStatus, Operation, Steering,
};
use whit::agent::push::PushOptions;
use whit::agent::{self, Access, Receipt, Session};
use whit::delivery::destination::{Check, Delivered, Destination, Error, Job, KeptCopy, Preview};
use whit::delivery::{Deliveries, Delivery, DeliveryOptions, Executor, Failure, Policy, Task};
use whit::ledger::{FileLedger, Key, Ledger, Table};
use whit::net::link;
use whit::proxy::Options;

use crate::trees::write;
use crate::world::{World, ask_as, push_as, push_options, within};

/// What a [`Gate`] does with the next delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    /// Makes it.
    Open,
    /// Holds it until the mode is another.
    Shut,
    /// Fails it.
    Fails(Fault, Option<Duration>),
}

/// A destination that makes, holds or fails deliveries as the test says.
#[derive(Debug)]
struct Gate {
    mode: Mutex<Mode>,
    changed: Condvar,
    made: Mutex<Vec<(AppName, ReleaseId, DeliveryId)>>,
}

impl Gate {
    fn new(mode: Mode) -> Arc<Self> {
        Arc::new(Self { mode: Mutex::new(mode), changed: Condvar::new(), made: Mutex::default() })
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().expect("no panic") = mode;
        self.changed.notify_all();
    }

    fn made(&self) -> Vec<ReleaseId> {
        self.made.lock().expect("no panic").iter().map(|(_, release, _)| *release).collect()
    }
}

impl Destination for Gate {
    fn deliver(&self, job: &Job<'_>) -> Result<Delivered, Error> {
        let mut mode = self.mode.lock().expect("no panic");
        while *mode == Mode::Shut {
            if job.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            mode = self.changed.wait_timeout(mode, Duration::from_millis(5)).expect("no panic").0;
        }
        if let Mode::Fails(fault, retry_after) = *mode {
            let (what, reason) = ("the gate".to_owned(), "it fails".to_owned());
            return Err(Error::Service { what, reason, fault, retry_after });
        }
        self.made.lock().expect("no panic").push((job.app.clone(), job.release(), job.id));
        let (files, bytes) = (job.root.totals.files, job.root.totals.bytes);
        let answer = Some("201 Created".to_owned());
        let place = self.describe(Some(job.app));
        Ok(Delivered { place, files, bytes, sent_bytes: bytes, requests: 1, answer, ..Delivered::default() })
    }

    fn plan(&self, job: &Job<'_>) -> Result<Preview, Error> {
        let put = (0..job.root.totals.files).map(|number| (format!("file{number}"), 1)).collect();
        Ok(Preview { put, keep: vec![("kept".to_owned(), 5)], delete: vec!["gone".to_owned()] })
    }

    fn check(&self) -> Vec<Check> {
        let failure = (*self.mode.lock().expect("no panic") != Mode::Open).then(|| "it is shut".to_owned());
        vec![
            Check { step: "find the gate".to_owned(), failure: None },
            Check { step: "pass it".to_owned(), failure },
        ]
    }

    fn kind(&self) -> &'static str {
        "gate"
    }

    fn read_back(&self, _app: &AppName, _release: &ReleaseId) -> Vec<Box<dyn KeptCopy>> {
        Vec::new()
    }

    fn describe(&self, app: Option<&AppName>) -> String {
        format!("gate of {}", app.map_or("{app}", AppName::as_str))
    }
}

fn name(text: &str) -> DestinationName {
    text.parse().expect("a name")
}

/// Starts a proxy whose destinations are gates.
fn world(gates: &[(&str, &Arc<Gate>)], change: impl FnOnce(&mut Options)) -> World {
    World::start_with(|options| {
        options.destinations = BTreeMap::new();
        for (gate, kind) in gates {
            options.destinations.insert(name(gate), Arc::<Gate>::clone(kind) as Arc<dyn Destination>);
        }
        change(options);
    })
}

/// Queues a release with this content, without waiting for its deliveries.
async fn queue(world: &World, app: &str, content: &str, to: &[&str]) -> Receipt {
    let tree = world.path(&format!("tree-{app}-{content}"));
    write(&tree, "file", content);
    let destinations = to.iter().map(|to| name(to)).collect();
    let options = PushOptions { destinations, no_wait: true, ..push_options(app, &tree) };
    world.push_with(&options).await
}

/// Returns the deliveries that a proxy remembers.
pub async fn list(access: &Access) -> Vec<DeliveryStatus> {
    let answers = ask_as(access, &Operation::Deliveries(DeliveriesWanted::default())).await;
    let rows = answers.expect("a list").into_iter().flat_map(|answer| match answer {
        Answer::Deliveries(rows) => rows,
        other => panic!("{other:?}"),
    });
    rows.collect()
}

/// Waits until the list of deliveries fits.
pub async fn until(access: &Access, fits: impl Fn(&[DeliveryStatus]) -> bool) -> Vec<DeliveryStatus> {
    loop {
        let rows = list(access).await;
        if fits(&rows) {
            return rows;
        }
        tokio::task::yield_now().await;
    }
}

async fn steer(access: &Access, id: DeliveryId, how: Steering) -> agent::Result<DeliveryStatus> {
    let answers = ask_as(access, &Operation::Steer { delivery: id, how }).await?;
    let mut rows = answers.into_iter().filter_map(|answer| match answer {
        Answer::Deliveries(rows) => rows.into_iter().next(),
        other => panic!("{other:?}"),
    });
    Ok(rows.next_back().expect("the delivery"))
}

const STAYS_DOWN: Mode = Mode::Fails(Fault::Retry, Some(Duration::from_secs(3600)));

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
async fn a_failed_delivery_is_tried_again_at_once_when_somebody_asks() {
    within(async {
        let gate = Gate::new(STAYS_DOWN);
        let world = world(&[("gate", &gate)], |_| {});
        let release = queue(&world, "web", "one", &["gate"]).await.release;
        let rows = until(world.access(), |rows| rows.iter().any(|row| row.tries == 1)).await;
        gate.set(Mode::Open);
        let id = rows[0].id;
        steer(world.access(), id, Steering::Retry).await.expect("retried");
        let rows = until(world.access(), |rows| rows[0].ended.is_some()).await;
        assert!(matches!(rows[0].state, DeliveryState::Delivered(_)) && rows[0].tries == 1);
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
        assert!(matches!(after[0].state, DeliveryState::Retrying { seconds: 1.., .. }), "{after:?}");
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

/// Fails whatever it is asked to do.
#[derive(Default)]
struct Dead(AtomicBool);

impl Executor for Dead {
    fn deliver(&self, _task: &Task<'_>) -> Result<DeliveryReport, Failure> {
        self.0.store(true, Ordering::Relaxed);
        let retry_after = Some(Duration::from_secs(3600));
        Err(Failure { fault: Fault::Retry, reason: "dead".to_owned(), retry_after })
    }
}

fn open_queue(folder: &Path) -> Deliveries {
    let ledger: Arc<dyn Ledger> = Arc::new(FileLedger::of_space(folder, std::time::Instant::now));
    let destinations = BTreeMap::from([(name("gate"), Gate::new(Mode::Open) as Arc<dyn Destination>)]);
    let executor: Arc<dyn Executor> = Arc::new(Dead::default());
    Deliveries::start(ledger, destinations, &executor, DeliveryOptions::default()).expect("started")
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
