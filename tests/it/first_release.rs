//! An application's first release through a group: nothing is current before its rollout has succeeded.

use std::fs;

use ground::faults::{Fault, Faulty as _};
use protocol::wire::{Operation, RolloutState};
use whit::agent::push::PushOptions;

use crate::fake_target::{FakeTarget, access_of};
use crate::fleet::{Fleet, rules, scanned};
use crate::program::Home;
use crate::trees::write;
use crate::world::{ask_as, push_options, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_first_release_is_current_once_its_rollout_has_succeeded() {
    within(async {
        let mut fleet = Fleet::without_release(rules(), 3).await;
        let mut outside = FakeTarget::watch(&access_of(&fleet.world, "lab"), "app", 9).await;
        let first = scanned(&fleet, "first").await;
        fleet.watcher("web-2").machine().ignores.insert(first);
        assert_eq!(fleet.push("first", &["all"]).await.expect("pushed"), first);
        fleet.rollout(1, |status| status.batch == 2).await;
        assert_eq!((fleet.watcher("web-1").shown(), fleet.standing().await), (Some(first), None));
        assert!(outside.hears_nothing().await, "it follows the current release");
        let pulled = fleet.world.path("pulled");
        let error = fleet.world.pull("app", &pulled).await.expect_err("none is current");
        assert!(
            error.fault() == Fault::Missing && error.to_string().contains("no release of `app` is current")
        );
        assert!(
            error.hint().is_some_and(|hint| hint.contains("app@latest") && hint.contains("whit rollouts"))
        );
        fleet.world.pull("app@latest", &pulled).await.expect("it is named");
        let back = Operation::Rollback {
            app: "app".parse().expect("a name"),
            destinations: Vec::new(),
            because: None,
            then: Vec::new(),
        };
        let error = ask_as(fleet.world.access(), &back).await.expect_err("there is nothing to leave");
        assert!(error.to_string().contains("no release of `app` is current"), "{error}");
        // A push that leaves the current release as it is leaves it so.
        let folder = fleet.world.path("in-kept");
        write(&folder, "file", "kept");
        let kept = PushOptions { keeps_current: true, ..push_options("app", &folder) };
        fleet.world.push_with(&kept).await;
        assert_eq!(fleet.standing().await, None);
        fleet.leave("web-2");
        fleet.watcher("web-2").machine().ignores.clear();
        fleet.join("web-2");
        assert_eq!(fleet.ended(1).await.state, RolloutState::Succeeded);
        assert!(fleet.all_show(first) && fleet.standing().await == Some(first));
        assert_eq!(outside.wanted_release().await, first);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_release_that_fails_leaves_none_current_and_the_next_one_may_succeed() {
    within(async {
        let mut fleet = Fleet::without_release(rules(), 3).await;
        let first = scanned(&fleet, "first").await;
        fleet.watcher("web-1").keeps_what_it_refuses(first);
        fleet.push("first", &["all"]).await.expect("pushed");
        let status = fleet.ended(1).await;
        let RolloutState::Failed { reason } = &status.state else { panic!("{status:?}") };
        assert!(reason.contains("1 of 3 members failed; there is no release to go back to"), "{reason}");
        let told = |fleet: &Fleet, target: &str| fleet.watcher(target).machine().told.contains(&first);
        assert!(told(&fleet, "web-1") && !told(&fleet, "web-2") && !told(&fleet, "web-3"));
        assert_eq!((fleet.watcher("web-1").shown(), fleet.standing().await), (Some(first), None));
        for target in ["web-1", "web-2", "web-3"] {
            fleet.leave(target);
        }
        fleet.world.stop().await;
        fleet.world.again();
        assert_eq!(fleet.standing().await, None, "after a start, too");
        for target in ["web-1", "web-2", "web-3"] {
            fleet.join(target);
        }
        let second = fleet.push("second", &["all"]).await.expect("pushed");
        assert_eq!(fleet.ended(2).await.state, RolloutState::Succeeded);
        assert!(fleet.all_show(second) && fleet.standing().await == Some(second));
        // Without the group, a push moves it as ever.
        let third = fleet.push("third", &[]).await.expect("pushed");
        assert_eq!(fleet.standing().await, Some(third));
    })
    .await;
}

#[test]
fn what_is_asked_about_an_application_without_a_current_release_says_what_to_do() {
    let home = Home::new();
    fs::write(home.path("file"), "no folder").expect("written");
    let place = home.path("file").display().to_string();
    let config = format!(
        "[destinations.web]\nkind = 'dir'\npath = '{place}/{{app}}'\n\
        [groups.edges]\ndestinations = ['web']\nhealthy_within = '1s'\n"
    );
    fs::write(home.path("whit.toml"), config).expect("written");
    let proxy = home.serve(&["--data", "data", "--config", "whit.toml"]);
    let login = proxy.line(|line| line.contains("whit login"));
    home.run(&login.split_whitespace().skip(1).collect::<Vec<_>>()).good();
    write(&home.path("tree"), "index.html", "one");
    let pushed = home.run(&["push", "app", "tree", "--to", "edges", "--json"]);
    assert_eq!(pushed.code, Some(10), "{pushed:?}");
    let current = home.run(&["current", "app", "--json"]).json();
    assert!(
        current["current"].is_null() && current["log"].as_array().is_some_and(Vec::is_empty),
        "{current}"
    );
    let text = home.run(&["current", "app"]).good();
    assert!(text.contains("no release is current") && text.contains("whit promote app@RELEASE"), "{text}");
    let releases = home.run(&["releases", "app", "--json"]).json();
    assert_eq!(releases[0]["current"], false);
    let promoted = home.run(&["promote", "app@latest", "--json"]).json();
    assert_eq!((&promoted["moved"], &promoted["from"]), (&true.into(), &serde_json::Value::Null));
    home.run(&["pull", "app", "pulled"]).good();
}
