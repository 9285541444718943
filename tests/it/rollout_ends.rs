//! What follows the end of a rollout: hooks hear of it in one transaction with it; a panic in one rollout ends no other.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ground::faults::{Fault, Faulty as _};
use ground::ids::{AppName, SpaceName};
use ground::pattern::Pattern;
use protocol::wire::{RolloutState, RolloutStatus, RolloutSteering, RolloutWait};
use whit::agent::push::PushOptions;
use whit::ledger::{Change, Error, Key, Leases, Ledger, Result, Retired, Table};

use crate::exec::configure;
use crate::fleet::{Fleet, name};
use crate::ledgers::memory::MemoryLedger;
use crate::trees::write;
use crate::world::{World, push_as, push_options, within};

/// A ledger that makes only the first change of the first transaction with a message for an action, and reports an error; and
/// panics where the first rollout changes, if it is told to.
#[derive(Debug, Default)]
struct Cut {
    ledger: MemoryLedger,
    /// The transactions with such a message.
    told: Mutex<Vec<Vec<Key>>>,
    panics: AtomicBool,
}

impl Ledger for Cut {
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        self.ledger.read(key)
    }

    fn has(&self, key: &Key) -> Result<bool> {
        self.ledger.has(key)
    }

    fn scan(&self, table: &Table) -> Result<Vec<(Key, Option<Retired>)>> {
        self.ledger.scan(table)
    }

    fn apps(&self, space: &SpaceName) -> Result<Vec<AppName>> {
        self.ledger.apps(space)
    }

    fn apply(&self, changes: &[Change]) -> Result<()> {
        let is_first =
            |change: &Change| matches!(change, Change::Put { key: Key::Rollout { number: 1 }, .. });
        assert!(!(self.panics.load(Ordering::Relaxed) && changes.iter().any(is_first)), "as it was told to");
        let is_message =
            |change: &Change| matches!((change.key(), change.value()), (Key::Notice { .. }, Some(_)));
        // A message that was heard is removed.
        if changes.iter().any(is_message) {
            let mut told = self.told.lock().expect("no panic");
            told.push(changes.iter().map(|change| change.key().clone()).collect());
            if told.len() == 1 {
                self.ledger.apply(&changes[..1])?;
                return Err(Error::Exists(changes[0].key().clone()));
            }
        }
        self.ledger.apply(changes)
    }

    fn touch(&self, key: &Key) -> Result<()> {
        self.ledger.touch(key)
    }

    fn touched(&self, key: &Key) -> Result<Option<SystemTime>> {
        self.ledger.touched(key)
    }

    fn describe(&self, key: &Key) -> String {
        self.ledger.describe(key)
    }

    fn recover(&self, table: &Table) -> Result<()> {
        self.ledger.recover(table)
    }

    fn leases(&self, space: &SpaceName) -> Arc<dyn Leases> {
        self.ledger.leases(space)
    }
}

const GROUPS: &str = r#"
[destinations.edge]
kind = "dir"
path = "OUT/file/{app}"
[destinations.good]
kind = "dir"
path = "OUT/good/{app}"
[groups.edges]
destinations = ["edge"]
healthy_within = "1s"
[groups.goods]
destinations = ["good"]
[hooks.pager]
command = ["/bin/sh", "-c", "echo $WHIT_EVENT $WHIT_DESTINATION >> OUT/heard"]
on = ["given_up", "rolled_back", "held"]
destinations = ["edges"]
always = true
[hooks.good]
command = ["/bin/true"]
destinations = ["good"]
"#;

/// A proxy with a ledger and these groups; what goes to `edges` fails.
fn fleet(ledger: Arc<dyn Ledger>) -> Fleet {
    let world = World::start_with(|options| {
        options.ledger = Some(ledger);
        configure(options, GROUPS);
    });
    fs::write(world.path("out/file"), "no folder").expect("written");
    Fleet { world, watchers: BTreeMap::new(), tasks: BTreeMap::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_hear_of_the_end_of_a_rollout_in_one_transaction_with_it() {
    within(async {
        let cut = Arc::new(Cut::default());
        let fleet = fleet(Arc::clone(&cut) as Arc<dyn Ledger>);
        fleet.push("first", &["edges"]).await.expect("pushed");
        assert!(matches!(fleet.ended(1).await.state, RolloutState::Failed { .. }));
        let heard = || fs::read_to_string(fleet.world.path("out/heard")).unwrap_or_default();
        fleet.until(|_| heard().ends_with('\n')).await;
        assert_eq!(heard(), "given_up edges\n", "once, although the first write failed");
        let told = cut.told.lock().expect("no panic");
        let is_whole = |keys: &Vec<Key>| {
            matches!(&keys[..], [Key::Notice { .. }, last] if *last == Key::Rollout { number: 1 })
        };
        assert!(told.iter().all(is_whole) && told.len() == 2, "{told:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_rollout_ends_no_other() {
    within(async {
        let ledger = Arc::new(Cut { panics: AtomicBool::new(true), ..Cut::default() });
        let fleet = fleet(Arc::clone(&ledger) as Arc<dyn Ledger>);
        fleet.push("first", &["edges"]).await.expect("pushed");
        fleet.push("second", &["goods"]).await.expect("pushed");
        assert_eq!(fleet.ended(2).await.state, RolloutState::Succeeded);
        let is_told = |status: &RolloutStatus| {
            let reason = "its step panicked".to_owned();
            status.waits == Some(RolloutWait::Trouble { reason })
        };
        let waits = fleet.rollout(1, is_told).await;
        assert_eq!(waits.state, RolloutState::Waiting { behind: None });
        let id = waits.id;
        ledger.panics.store(false, Ordering::Relaxed);
        fleet.steer(id, RolloutSteering::Abort).await.expect("a person may end it");
        assert!(matches!(fleet.ended(1).await.state, RolloutState::Aborted { .. }));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_follows_a_rollout_is_one_of_the_groups_destinations() {
    within(async {
        let fleet = fleet(Arc::new(MemoryLedger::default()));
        let access = fleet.world.access_with(|grant| grant.then = vec![Pattern::any()]);
        let folder = fleet.world.path("in");
        write(&folder, "file", "first");
        let to = |group: &str| PushOptions {
            destinations: vec![name(group)],
            then: vec!["good".parse().expect("a name")],
            ..push_options("app", &folder)
        };
        let error = push_as(&access, &to("edges")).await.expect_err("it is not for the group's destination");
        assert!(error.fault() == Fault::Denied && error.to_string().contains("`edge`"), "{error}");
        push_as(&access, &to("goods")).await.expect("pushed");
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
    })
    .await;
}
