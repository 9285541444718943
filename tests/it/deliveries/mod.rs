//! The queue of deliveries, seen and steered: a real proxy whose destinations block, fail and come back.

mod lasting;
mod listing;
mod order;
mod steering;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use format::record::DeliveryReport;
use ground::faults::Fault;
use ground::ids::{AppName, DeliveryId, DestinationName, ReleaseId};
use protocol::wire::{Answer, DeliveriesWanted, DeliveryStatus, Operation, Steering};
use whit::agent;
use whit::agent::push::PushOptions;
use whit::agent::{Access, Receipt};
use whit::delivery::destination::{Check, Delivered, Destination, Error, Job, KeptCopy, Preview};
use whit::delivery::{Deliveries, DeliveryOptions, Executor, Failure, Task};
use whit::ledger::{FileLedger, Ledger};
use whit::proxy::Options;

use crate::trees::write;
use crate::world::{World, ask_as, push_options};

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

    fn check(&self, _cancelled: &AtomicBool) -> Vec<Check> {
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

/// Steers a delivery; returns its status afterwards.
pub async fn steer(access: &Access, id: DeliveryId, how: Steering) -> agent::Result<DeliveryStatus> {
    let answers = ask_as(access, &Operation::Steer { delivery: id, how }).await?;
    let mut rows = answers.into_iter().filter_map(|answer| match answer {
        Answer::Deliveries(rows) => rows.into_iter().next(),
        other => panic!("{other:?}"),
    });
    Ok(rows.next_back().expect("the delivery"))
}

const STAYS_DOWN: Mode = Mode::Fails(Fault::Retry, Some(Duration::from_secs(3600)));

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
