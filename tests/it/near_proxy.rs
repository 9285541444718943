//! Targets of one site that fetch from a proxy near them, to which another one passes releases on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use format::record::DeliveryState;
use protocol::wire::{Answer, Operation, RolloutState};
use whit::agent::Receipt;
use whit::agent::push::PushOptions;
use whit::delivery::rollout::{Group, Rules, Share};

use crate::chain::far;
use crate::fleet::{Fleet, name, rules, scan};
use crate::trees::write;
use crate::world::{World, ask_as, push_options, within};

/// An office whose destination `edge` is the proxy of a fleet, with these keys.
fn office(fleet: &Fleet, folder: &Path, more: &str) -> World {
    let edge = far(&fleet.world, "office", folder, more);
    World::start_with(|options| options.destinations = BTreeMap::from([(name("edge"), edge)]))
}

async fn push(office: &World, word: &str) -> Receipt {
    let folder = office.path(&format!("in-{word}"));
    write(&folder, "file", word.as_bytes());
    let options = PushOptions { destinations: vec![name("edge")], ..push_options("app", &folder) };
    office.push_with(&options).await
}

fn state(receipt: &Receipt) -> &DeliveryState {
    let [event] = &receipt.delivered[..] else { panic!("{receipt:?}") };
    &event.state
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_of_a_proxy_show_what_another_one_passes_on_to_it() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Nobody rolls it out there: the application is in no group.
        let (fleet, _) = Fleet::start(rules(), 2).await;
        let office = office(&fleet, folder.path(), "");
        let second = push(&office, "second").await.release;
        fleet.until(|fleet| fleet.all_show(second)).await;
        assert_eq!(fleet.current().await, second);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_to_a_group_of_another_proxy_ends_as_its_rollout_does() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (fleet, _) = Fleet::start(rules(), 3).await;
        let office = office(&fleet, folder.path(), "to = ['all']");
        let receipt = push(&office, "second").await;
        let second = receipt.release;
        let DeliveryState::Delivered(report) = state(&receipt) else { panic!("{receipt:?}") };
        assert!(
            report.answer.as_deref().is_some_and(|answer| answer.ends_with("-1 there succeeded")),
            "{report:?}"
        );
        assert!(fleet.all_show(second) && fleet.current().await == second);
        let bad = scan(&fleet, "bad").await;
        fleet.watcher("web-1").refuses(bad);
        let receipt = push(&office, "bad").await;
        let DeliveryState::Failed { reason, .. } = state(&receipt) else { panic!("{receipt:?}") };
        assert!(
            reason.contains("delivery to all failed: it was rolled back, as 1 of 3 members failed"),
            "{reason}"
        );
        assert!(fleet.all_show(second) && fleet.current().await == second);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_proxies_goes_on_only_where_the_targets_of_the_first_one_confirm() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sites = [Fleet::start(rules(), 2).await.0, Fleet::start(rules(), 2).await.0];
        let first = sites[0].current().await;
        let office = World::start_with(|options| {
            for (number, site) in sites.iter().enumerate() {
                let edge = far(&site.world, "office", folder.path(), "to = ['all']");
                options.destinations.insert(name(&format!("edge-{number}")), edge);
            }
            let destinations = [name("edge-0"), name("edge-1")].into();
            let rules = Rules { canary: Share::Members(1), ..Rules::default() };
            options.groups.insert(name("edges"), Group { destinations, rules, ..Group::default() });
        });
        let push = async |word: &str| {
            let folder = office.path(&format!("in-{word}"));
            write(&folder, "file", word.as_bytes());
            let options = PushOptions { destinations: vec![name("edges")], ..push_options("app", &folder) };
            office.push_with(&options).await.release
        };
        let ended = async |number: u64| loop {
            let question = Operation::Rollouts { app: None, watch: false };
            let answers = ask_as(office.access(), &question).await.expect("listed");
            let rows = answers.into_iter().filter_map(|answer| match answer {
                Answer::Rollouts(rows) => Some(rows),
                _ => None,
            });
            let row = rows.flatten().find(|row| row.id.number == number && row.state.is_last());
            if let Some(row) = row {
                return row.state;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let second = push("second").await;
        assert_eq!(ended(1).await, RolloutState::Succeeded);
        assert!(sites.iter().all(|site| site.all_show(second)) && first != second);
        let bad = scan(&sites[0], "bad").await;
        sites[0].watcher("web-2").refuses(bad);
        push("bad").await;
        assert!(matches!(ended(2).await, RolloutState::RolledBack { .. }));
        assert!(sites.iter().all(|site| site.all_show(second)));
        assert!(sites[1].watchers.values().all(|watcher| !watcher.machine().told.contains(&bad)));
    })
    .await;
}
