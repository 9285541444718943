//! Destinations that are commands: what they get, and what their end means.

use std::fs;
use std::path::Path;

use format::record::DeliveryState;
use ground::faults::Fault;
use protocol::wire::Operation;
use whit::agent::push::PushOptions;
use whit::config::Config;
use whit::proxy::Options;

use crate::trees::{assert_same, some_tree, write};
use crate::world::{World, ask_as, delivered, push_options, within};

/// Gives a proxy the destinations and actions of a configuration, in which `OUT` stands for a folder beside the data.
pub fn configure(options: &mut Options, text: &str) {
    let out = options.data.parent().expect("a folder").join("out");
    fs::create_dir_all(&out).expect("a folder");
    let text = text.replace("OUT", out.to_str().expect("text"));
    let config = Config::parse(text.as_bytes(), Path::new("whit.toml")).expect("a configuration");
    (options.destinations, options.actions) = (config.destinations(), config.actions());
    options.groups = config.groups();
}

fn to(world: &World, app: &str, path: &str, destination: &str) -> PushOptions {
    let destinations = vec![destination.parse().expect("a name")];
    PushOptions {
        destinations,
        labels: vec!["v1".parse().expect("a label")],
        ..push_options(app, &world.path(path))
    }
}

const INPUTS: &str = r#"
[destinations.tar]
kind = "exec"
command = ["/bin/sh", "-c", "mkdir OUT/tar && tar -xpf - -C OUT/tar && env | grep ^WHIT > OUT/env && echo taken"]
[destinations.gz]
kind = "exec"
input = "tar.gz"
command = ["/bin/sh", "-c", "mkdir OUT/gz && gzip -d | tar -xpf - -C OUT/gz"]
[destinations.zip]
kind = "exec"
input = "zip"
command = ["/bin/sh", "-c", "cat > OUT/zip"]
[destinations.file]
kind = "exec"
input = "file"
command = ["/bin/sh", "-c", "cat > OUT/file"]
[destinations.directory]
kind = "exec"
input = "directory"
path = "OUT/space"
command = ["/bin/sh", "-c", "cp -a . OUT/directory && test $PWD = $WHIT_DIRECTORY"]
[destinations.none]
kind = "exec"
input = "none"
command = ["/bin/sh", "-c", "wc -c"]
always = true
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_gets_the_release_in_the_form_that_it_wants() {
    within(async {
        let world = World::start_with(|options| configure(options, INPUTS));
        some_tree(&world.path("tree"), 1);
        fs::write(world.path("single"), "one file").expect("written");
        let out = |name: &str| world.path("out").join(name);
        let tar = world.push_with(&to(&world, "app", "tree", "tar")).await;
        let report = delivered(&tar.delivered);
        assert_eq!((report.answer.as_deref(), report.already), (Some("taken"), false));
        assert!(report.sent_bytes > report.bytes);
        assert_same(&world.path("tree"), &out("tar"));
        let variables = fs::read_to_string(out("env")).expect("written");
        for line in [
            "WHIT_APP=app".to_owned(),
            format!("WHIT_RELEASE={}", tar.release),
            "WHIT_LABEL=v1".to_owned(),
            "WHIT_PREVIOUS=".to_owned(),
            format!("WHIT_DELIVERY={}", tar.delivered[0].id),
            "WHIT_USER=ada".to_owned(),
            "WHIT_DESTINATION=tar".to_owned(),
        ] {
            assert!(variables.lines().any(|found| found == line), "{line} in {variables}");
        }
        // The second time nothing runs: the folder is there already, and the command would fail.
        let again = world.push_with(&to(&world, "app", "tree", "tar")).await;
        assert!(delivered(&again.delivered).already);

        world.push_with(&to(&world, "app", "tree", "gz")).await;
        assert_same(&world.path("tree"), &out("gz"));
        world.push_with(&to(&world, "app", "tree", "zip")).await;
        assert!(fs::read(out("zip")).expect("written").starts_with(b"PK"));
        world.push_with(&to(&world, "one", "single", "file")).await;
        assert_eq!(fs::read_to_string(out("file")).expect("written"), "one file");
        world.push_with(&to(&world, "app", "tree", "directory")).await;
        assert_same(&world.path("tree"), &out("directory"));
        assert!(!out("space/release").exists());
        for _ in 0..2 {
            let none = world.push_with(&to(&world, "app", "tree", "none")).await;
            let report = delivered(&none.delivered);
            assert_eq!((report.answer.as_deref(), report.already), (Some("0"), false));
        }
    })
    .await;
}

const STATUSES: &str = r#"
[destinations.fails]
kind = "exec"
command = ["/bin/sh", "-c", "cat >/dev/null; echo no such channel; exit 3"]
[destinations.again]
kind = "exec"
command = ["/bin/sh", "-c", "cat >/dev/null; echo $WHIT_DELIVERY >> OUT/tries; test $(wc -l < OUT/tries) -gt 1 || exit 75"]
[destinations.unread]
kind = "exec"
command = ["/bin/true"]
[destinations.missing]
kind = "exec"
command = ["/no/such/program"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_a_command_decides_whether_it_is_tried_again() {
    within(async {
        let world = World::start_with(|options| configure(options, STATUSES));
        some_tree(&world.path("tree"), 1);
        write(&world.path("tree"), "large", vec![7; 1_000_000]);
        for (name, text) in [
            ("fails", "ended with status 3: no such channel"),
            ("unread", "ended with success before it had read"),
            ("missing", "/no/such/program"),
        ] {
            let receipt = world.push_with(&to(&world, "app", "tree", name)).await;
            match &receipt.delivered[0].state {
                DeliveryState::Failed { reason, .. } => assert!(reason.contains(text), "{reason}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        let receipt = world.push_with(&to(&world, "app", "tree", "again")).await;
        assert!(!delivered(&receipt.delivered).already);
        let tries = fs::read_to_string(world.path("out/tries")).expect("written");
        let tries: Vec<&str> = tries.lines().collect();
        assert_eq!((tries.len(), tries[0]), (2, tries[1]));
        let refused = Operation::Deliver {
            release: "app".parse().expect("a selector"),
            destinations: vec!["again".parse().expect("a name")],
            then: vec!["nothing".parse().expect("a name")],
        };
        let error = ask_as(world.access(), &refused).await.expect_err("no such action");
        assert_eq!(ground::faults::Faulty::fault(&error), Fault::Denied);
    })
    .await;
}
