//! Office, region, edge: releases go on from proxy to proxy, and the last one shows them in a directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use format::record::{DeliveryEvent, DeliveryReport, DeliveryState};
use ground::faults::Fault;
use ground::ids::DestinationName;
use protocol::token::Grant;
use protocol::wire::{Answer, Operation, Steering};
use serde_json::Value;
use whit::agent::Receipt;
use whit::agent::push::PushOptions;
use whit::delivery::destination::{self, Check, Definition, Destination};
use whit::restore::OutsideLinks;

use crate::archives::zip;
use crate::deliveries::{list, steer, until};
use crate::exec::configure;
use crate::trees::{assert_same, noise, text, walk_files, write};
use crate::world::{World, ask_as, delivered, push_options, within};

fn name(text: &str) -> DestinationName {
    text.parse().expect("a name")
}

/// Writes a build of which one file, one member of an archive and a word depend on `build`.
fn tree(folder: &Path, build: u64) {
    fs::create_dir_all(folder).expect("a folder");
    for file in 0..20 {
        write(folder, &format!("assets/{file}.bin"), noise(file, 100_000));
    }
    write(folder, "app.js", [text(1, 200_000), text(100 + build, 300), text(2, 200_000)].concat());
    let members = [
        ("core.js", text(4, 300_000)),
        ("version.js", text(200 + build, 2_000)),
        ("view.js", text(5, 300_000)),
    ];
    write(folder, "lib.jar", zip(&members, true));
}

/// Defines `to`, with a token for `user` in a file of `folder`, as a destination.
pub fn far(to: &World, user: &str, folder: &Path, more: &str) -> Arc<dyn Destination> {
    let behalf = |grant: &mut Grant| {
        grant.user = user.parse().expect("a name");
        grant.on_behalf = true;
    };
    far_with(to, &to.access_with(behalf).token, folder, more)
}

fn far_with(to: &World, token: &str, folder: &Path, more: &str) -> Arc<dyn Destination> {
    let url = to.access().url.to_string();
    let token_file = folder.join(format!("{}.token", to.access().url.port()));
    fs::write(&token_file, token).expect("written");
    let text =
        format!("kind = 'proxy'\nurl = '{url}'\ntoken = {{ file = '{}' }}\n{more}", token_file.display());
    let definition: Definition = toml::from_str(&text).expect("a definition");
    definition.check().expect("without a mistake");
    definition.open()
}

/// Starts a proxy whose only destination `on` is another one.
fn before(next: &World, on: &str, user: &str, folder: &Path, more: &str) -> World {
    let destination = far(next, user, folder, more);
    World::start_with(|options| options.destinations = BTreeMap::from([(name(on), destination)]))
}

/// Starts a proxy again where others know it.
fn again_at(world: &mut World, port: u16) {
    world.change(|options| options.listen = ([127, 0, 0, 1], port).into());
    world.again();
}

async fn push(world: &World, folder: &Path, to: &[&str]) -> Receipt {
    let options = PushOptions {
        destinations: to.iter().copied().map(name).collect(),
        state: Some(world.path("state")),
        link_rate: Some(1e6),
        ..push_options("web", folder)
    };
    world.push_with(&options).await
}

/// Returns the lines of the audit log whose action is `action`.
fn audit(world: &World, action: &str) -> Vec<Value> {
    let log = fs::read_to_string(world.path("data/audit.log")).expect("the audit log");
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["action"] == action).collect()
}

/// Returns the report of the last delivery that a proxy made.
fn last_report(world: &World) -> DeliveryReport {
    let last = audit(world, "delivered").pop().expect("a delivery");
    serde_json::from_value(last["result"]["delivered"].clone()).expect("a report")
}

#[tokio::test]
async fn each_hop_of_a_chain_carries_what_changed_and_on_whose_behalf() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let edge = World::start();
        let limit = "limit = '8mbit'";
        let region = before(&edge, "edge", "region", folder.path(), &format!("to = ['web']\n{limit}"));
        let office = before(&region, "region", "office", folder.path(), &format!("to = ['edge']\n{limit}"));
        for build in [1, 2] {
            let built = folder.path().join(format!("build{build}"));
            tree(&built, build);
            let receipt = push(&office, &built, &["region"]).await;
            let first = delivered(&receipt.delivered);
            let place = edge.path("web/current").display().to_string();
            let answer = first.answer.as_deref().expect("an answer");
            assert!(answer.contains("edge: delivered to web of whit://127.0.0.1:"), "{answer}");
            assert_same(&built, Path::new(&place));
            let second = last_report(&region);
            let most = receipt.wire.up + receipt.wire.up / 10;
            for (hop, report) in [first, &second].into_iter().enumerate() {
                assert!(report.sent_bytes <= most, "hop {hop}: {} B, pushed {most} B", report.sent_bytes);
            }
            assert_eq!(audit(&region, "push").len() as u64, build);
        }
        assert!(last_report(&region).reused_bytes > 2_000_000);
        // The last proxy's log names the first user, with where, and the token's own.
        for action in ["push", "delivered"] {
            let line = audit(&edge, action).pop().expect("a line");
            let users: Vec<&str> = line["behalf"]
                .as_array()
                .expect("a chain")
                .iter()
                .filter_map(|hop| hop["user"].as_str())
                .collect();
            assert_eq!((users, line["user"].as_str()), (vec!["ada", "office"], Some("region")), "{line}");
            let fingerprint = office.access().url.fingerprint().to_string();
            assert_eq!(line["behalf"][0]["proxy"].as_str(), Some(&fingerprint[..8]));
            assert_eq!(line["behalf"][0]["sequence"], 2);
        }
        // So does the release's record.
        for (world, expected) in [(&office, vec![]), (&region, vec!["ada"]), (&edge, vec!["ada", "office"])] {
            let releases = world.releases("web").await.expect("listed");
            let users: Vec<&str> = releases[0].behalf.iter().map(|hop| hop.user.as_str()).collect();
            assert_eq!(users, expected);
        }
        let listed = list(edge.access()).await;
        let users: Vec<&str> = listed[0].behalf.iter().map(|hop| hop.user.as_str()).collect();
        assert_eq!(users, ["ada", "office"]);
        // Nothing crosses twice.
        let again = push(&office, &folder.path().join("build2"), &["region"]).await;
        assert!(delivered(&again.delivered).already);
    })
    .await;
}

#[tokio::test]
async fn a_hop_that_is_killed_midway_goes_on_and_delays_no_other_destination() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut region = World::start_with(|options| options.drain_patience = Duration::from_millis(50));
        let to_region = far(&region, "office", folder.path(), "to = ['web']\nlimit = '16mbit'");
        let here = destination::local(folder.path().join("here"), OutsideLinks::Refuse);
        let office = World::start_with(|options| {
            options.destinations = BTreeMap::from([(name("here"), here), (name("region"), to_region)]);
        });
        let built = folder.path().join("build");
        write(&built, "large.bin", noise(1, 6_000_000));
        let pushing = push(&office, &built, &["region", "here"]);
        let killing = async {
            let stored = region.path("data/spaces/default/packs");
            // Its store is opened by the first release.
            let bytes = || -> u64 {
                let files = if stored.exists() { walk_files(&stored) } else { Vec::new() };
                files.iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
            };
            while bytes() < 3_000_000 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let port = region.access().url.port();
            region.stop().await;
            assert!(folder.path().join("here/current/large.bin").exists(), "it waits for nobody");
            again_at(&mut region, port);
        };
        let (receipt, ()) = tokio::join!(pushing, killing);
        let states: BTreeMap<_, _> =
            receipt.delivered.iter().map(|event| (event.destination.as_str(), &event.state)).collect();
        assert!(states.values().all(|state| matches!(state, DeliveryState::Delivered(_))), "{states:?}");
        assert_same(&built, &region.path("web/current"));
        let releases = region.releases("web").await.expect("listed");
        assert!(releases[0].cost.sent_bytes < 5_000_000, "{:?}", releases[0].cost);
    })
    .await;
}

#[tokio::test]
async fn a_delivery_to_a_proxy_that_is_down_goes_on_after_a_restart_of_this_one() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut region = World::start();
        let mut office = before(&region, "region", "office", folder.path(), "to = ['web']");
        let port = region.access().url.port();
        region.stop().await;
        let built = folder.path().join("build");
        tree(&built, 1);
        let to_region = vec![name("region")];
        let options = PushOptions { destinations: to_region, no_wait: true, ..push_options("web", &built) };
        let queued = office.push_with(&options).await;
        until(office.access(), |rows| !matches!(rows[0].state, DeliveryState::Queued)).await;
        office.stop().await;
        assert_eq!(audit(&office, "delivered").len() + audit(&office, "failed").len(), 0);
        office.again();
        again_at(&mut region, port);
        let rows = until(office.access(), |rows| rows.iter().all(|row| row.state.is_last())).await;
        assert!(matches!(rows[0].state, DeliveryState::Delivered(_)), "{rows:?}");
        assert_eq!((rows.len(), rows[0].id), (1, queued.delivered[0].id));
        assert_same(&built, &region.path("web/current"));
    })
    .await;
}

#[tokio::test]
async fn a_delivery_that_waits_for_no_other_ends_once_those_are_queued() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let slow = r#"
            [destinations.slow]
            kind = "exec"
            input = "none"
            command = ["/bin/sh", "-c", "while [ ! -e OUT/go ]; do sleep 0.05; done"]
        "#;
        let region = World::start_with(|options| configure(options, slow));
        let office = before(&region, "region", "office", folder.path(), "to = ['slow']\nwait = false");
        let built = folder.path().join("build");
        tree(&built, 1);
        let receipt = push(&office, &built, &["region"]).await;
        let under_way = list(region.access()).await;
        assert!(!under_way[0].state.is_last(), "{under_way:?}");
        let answer = delivered(&receipt.delivered).answer.as_deref().expect("an answer");
        assert!(answer.contains(&format!("slow: delivery {} there", under_way[0].id)), "{answer}");
        fs::write(region.path("out/go"), "").expect("written");
        until(region.access(), |rows| matches!(rows[0].state, DeliveryState::Delivered(_))).await;
    })
    .await;
}

/// Tries a destination, which is work for a thread.
async fn check(destination: &Arc<dyn Destination>) -> Vec<Check> {
    let destination = Arc::clone(destination);
    whit::net::blocking::start(move || destination.check(&AtomicBool::new(false))).await.expect("a thread")
}

fn failure(receipt: &Receipt) -> (Fault, &str) {
    match receipt.delivered.as_slice() {
        [DeliveryEvent { state: DeliveryState::Failed { fault, reason }, .. }] => (*fault, reason),
        other => panic!("not failed: {other:?}"),
    }
}

#[tokio::test]
async fn a_token_that_does_not_allow_a_chain_or_was_revoked_fails_a_delivery_at_once() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let region = World::start();
        let built = folder.path().join("build");
        tree(&built, 1);
        let own = far_with(&region, &region.access().token, folder.path(), "");
        let office =
            World::start_with(|options| options.destinations = BTreeMap::from([(name("region"), own)]));
        let receipt = push(&office, &built, &["region"]).await;
        let (fault, reason) = failure(&receipt);
        assert!(fault == Fault::Denied && reason.contains("on behalf of `ada`"), "{reason}");

        let mut id = None;
        let access = region.access_with(|grant| {
            grant.on_behalf = true;
            id = Some(grant.id);
        });
        let revoked = far_with(&region, &access.token, folder.path(), "");
        let steps = check(&revoked).await;
        assert!(steps.iter().all(|step| step.failure.is_none()), "{steps:?}");
        let office = World::start_with(|options| {
            options.destinations = BTreeMap::from([(name("region"), revoked.clone())]);
        });
        region.identity().revoke(id.expect("made")).expect("revoked");
        let receipt = push(&office, &built, &["region"]).await;
        let (fault, reason) = failure(&receipt);
        assert!(fault == Fault::Denied && reason.contains("revoked"), "{reason}");
        assert!(!reason.contains(&access.token) && !format!("{revoked:?}").contains(&access.token));
        let failed = check(&revoked).await.pop().expect("a step").failure.expect("a failure");
        assert!(failed.contains("revoked"), "{failed}");
    })
    .await;
}

#[tokio::test]
async fn proxies_that_deliver_to_one_another_end_at_the_first_that_has_it_already() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut office = World::start();
        let region = before(&office, "office", "region", folder.path(), "to = ['region']");
        let port = office.access().url.port();
        office.stop().await;
        let to_region = far(&region, "office", folder.path(), "to = ['office']");
        office.change(|options| options.destinations = BTreeMap::from([(name("region"), to_region)]));
        again_at(&mut office, port);
        let built = folder.path().join("build");
        tree(&built, 1);
        let receipt = push(&office, &built, &["region"]).await;
        let (fault, reason) = failure(&receipt);
        assert_eq!(fault, Fault::Input);
        assert!(reason.contains("the release came through this proxy before"), "{reason}");
    })
    .await;
}

#[tokio::test]
async fn a_try_after_a_later_release_of_another_writer_does_not_bring_the_older_one_back() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = r#"
            [destinations.live]
            kind = "exec"
            input = "none"
            command = ["/bin/sh", "-c", "test -e OUT/up || exit 75; echo $WHIT_RELEASE >> OUT/made"]
        "#;
        let region = World::start_with(|options| configure(options, place));
        let office = before(&region, "region", "office", folder.path(), "to = ['live']");
        let [older, later] = [1, 2].map(|build| {
            let built = folder.path().join(format!("build{build}"));
            write(&built, "file", build.to_string());
            built
        });
        let no_wait = |built: &Path, to: &str| PushOptions {
            destinations: vec![name(to)],
            no_wait: true,
            ..push_options("web", built)
        };
        office.push_with(&no_wait(&older, "region")).await;
        // The region's proxy has it, and goes on trying; this one will ask again.
        let waits =
            until(office.access(), |rows| matches!(rows[0].state, DeliveryState::Retrying { .. })).await;
        fs::write(region.path("out/up"), "").expect("written");
        let later = region.push_with(&no_wait(&later, "live")).await.release;
        until(region.access(), |rows| rows.iter().all(|row| row.state.is_last())).await;
        steer(office.access(), waits[0].id, Steering::Retry).await.expect("retried");
        let ended = until(office.access(), |rows| rows[0].state.is_last()).await;
        let made = fs::read_to_string(region.path("out/made")).expect("written");
        assert_eq!(made.lines().last(), Some(later.to_string().as_str()), "{made}");
        assert_eq!(list(region.access()).await.len(), 2, "the same request is one delivery");
        let asked = Operation::Current { app: "web".parse().expect("a name"), log: false };
        let answers = ask_as(region.access(), &asked).await.expect("answered");
        let Some(Answer::Standing(standing)) = answers.first() else { panic!("{answers:?}") };
        assert_eq!(standing.current, Some(later), "and what is current stays so");
        // What became of it there decides here.
        let first = list(region.access()).await.remove(0).state;
        let is_made = matches!(first, DeliveryState::Delivered(_));
        assert_eq!(matches!(ended[0].state, DeliveryState::Delivered(_)), is_made, "{first:?} {ended:?}");
    })
    .await;
}
