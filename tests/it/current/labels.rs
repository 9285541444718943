//! Labels are fixed names, which move only where that is meant.

use std::fs;

use format::record::Record;
use ground::faults::{Fault, Faulty as _};
use ground::ids::{Label, ReleaseId};
use protocol::token::Action;
use protocol::wire::Operation;
use whit::store;
use whit::store::Records;
use whit::store::retention::Retention;

use super::{label, labelled, mover, record};
use crate::world::{World, ask_as, push_as, records, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_label_is_a_fixed_name_that_moves_only_where_that_is_meant() {
    within(async {
        let mut world = World::start();
        let one = world.push_with(&labelled(&world, "1", "v1", false)).await.release;
        let refused =
            push_as(world.access(), &labelled(&world, "2", "v1", false)).await.expect_err("it names another");
        assert!(refused.fault() == Fault::Input && refused.to_string().contains("`v1`"), "{refused}");
        assert_eq!(world.releases("app").await.expect("listed").len(), 1);
        let two = push_as(world.access(), &labelled(&world, "2", "v2", false)).await.expect("pushed");
        let two = two.release;
        let set = |selector: &str, labels: &[&str], moves| Operation::Label {
            release: selector.parse().expect("a selector"),
            labels: labels.iter().map(|text| label(text)).collect(),
            moves,
        };
        let taken = ask_as(world.access(), &set("app@v2", &["stable", "v1"], false)).await;
        assert_eq!(taken.expect_err("it names another").fault(), Fault::Input);
        assert!(world.pull("app@stable", &world.path("pulled")).await.is_err(), "all or none");
        ask_as(world.access(), &set("app@v2", &["stable", "v1"], true)).await.expect("labelled");
        ask_as(world.access(), &set("app@v2", &["stable"], false)).await.expect("it names that one");
        for bad in ["latest", "abcdef"] {
            assert_eq!(
                ask_as(world.access(), &set("app", &[bad], true)).await.expect_err("refused").fault(),
                Fault::Input
            );
        }
        let shown = async |world: &World| -> Vec<(ReleaseId, String)> {
            let records = world.releases("app").await.expect("listed");
            let words =
                |record: &Record| record.labels.iter().map(Label::as_str).collect::<Vec<_>>().join(" ");
            records.iter().map(|record| (record.release, words(record))).collect()
        };
        assert_eq!(shown(&world).await, [(two, "v2 stable v1".to_owned()), (one, String::new())]);
        world.stop().await;
        world.again();
        assert_eq!(shown(&world).await, [(two, "v2 stable v1".to_owned()), (one, String::new())]);
        world.pull("app@v1", &world.path("pulled")).await.expect("pulled");
        assert_eq!(fs::read_to_string(world.path("pulled/file")).expect("a file"), "2");
        let unlabel = |labels: &[&str]| Operation::Unlabel {
            app: "app".parse().expect("a name"),
            labels: labels.iter().map(|text| label(text)).collect(),
        };
        let error = ask_as(world.access(), &unlabel(&["v1", "nothing"])).await.expect_err("there is none");
        assert_eq!(error.fault(), Fault::Missing, "{error}");
        ask_as(world.access(), &unlabel(&["v1", "v2"])).await.expect("taken away");
        assert_eq!(shown(&world).await, [(two, "stable".to_owned()), (one, String::new())]);
        // A push may give the label again, and is then what it means.
        world.push_with(&labelled(&world, "3", "v1", false)).await;
        assert_eq!(shown(&world).await[0].1, "v1");
        let denied = world.access_with(|grant| grant.actions = vec![Action::Read]);
        assert_eq!(ask_as(&denied, &unlabel(&["v1"])).await.expect_err("denied").fault(), Fault::Denied);
        let audit = fs::read_to_string(world.path("data/audit.log")).expect("a log");
        assert!(
            audit.contains(r#""action":"label""#) && audit.contains(r#""labels":["stable","v1"]"#),
            "{audit}"
        );
        assert_eq!(audit.matches(r#""action":"unlabel""#).count(), 2, "{audit}");
    })
    .await;
}

#[test]
fn a_label_of_a_removed_release_does_not_come_back_with_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (app, user) = ("app".parse().expect("a name"), "ada".parse().expect("a name"));
    let open = records(folder.path());
    let [one, two, three] = [1, 2, 3].map(|seed| open.add(record(seed, &[])).expect("recorded").release);
    open.label(&app, &one, &[label("stable")], false, &mover(&user)).expect("labelled");
    assert!(matches!(
        open.label(&app, &two, &[label("stable")], false, &mover(&user)),
        Err(store::Error::LabelTaken { release, .. }) if release == one
    ));
    let by_label = Retention {
        keep_last: Some(1),
        keep_labels: vec!["st*".parse().expect("a pattern")],
        ..Retention::default()
    };
    let expired = by_label.expired(&open.pushed(&app).expect("pushes"), |_| false);
    assert_eq!(expired, [two], "the label keeps the first, the number the third");
    open.remove(&app, &one).expect("removed");
    open.add(record(1, &[])).expect("recorded");
    let select = |open: &Records, at: &str| open.select(&format!("app@{at}").parse().expect("a selector"));
    assert!(select(&open, "stable").is_err() && select(&records(folder.path()), "stable").is_err());
    assert!(open.remove(&app, &three).is_err(), "a rollback goes back to it");
}
