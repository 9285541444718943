//! Releases as objects of real servers: nginx by `WebDAV`, and S3.

mod bundles;
mod faulty;
mod garage;
mod interrupted;
mod priming;
mod readers;
mod refusals;
mod secrets;
pub mod servers;
pub mod tls;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use format::record::{DeliveryReport, DeliveryState};
use ground::faults::Fault;
use whit::agent::push::{PushOptions, Receipt};
use whit::delivery::destination::{Definition, Destination};
use whit::net::blocking;

use self::servers::{Server, nginx, s3};
use crate::trees::{noise, walk_files, write};
use crate::world::{World, delivered, push_as, push_options, web, within};

/// Calls `test` with a world whose destination `web` is each server in turn, defined with `more` keys.
async fn with_each<F: Future<Output = ()>>(more: &str, test: impl Fn(World, Server) -> F) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["nginx", "s3"] {
        let below = folder.path().join(name);
        fs::create_dir(&below).expect("a folder");
        let server = if name == "nginx" { nginx(&below) } else { Some(s3(&below)) };
        let Some(server) = server else { continue };
        let place = destination(&server, more);
        let world = World::start_with(|options| {
            options.destinations.insert(web(), place);
        });
        within(test(world, server)).await;
    }
}

/// Creates a destination of a server, with more keys.
fn destination(server: &Server, more: &str) -> Arc<dyn Destination> {
    defined(&format!("{}{more}", server.keys))
}

/// Creates a destination from a definition.
fn defined(text: &str) -> Arc<dyn Destination> {
    let definition: Definition = toml::from_str(text).expect("a definition");
    definition.check().expect("no mistakes");
    definition.open()
}

fn options(world: &World) -> PushOptions {
    PushOptions { destinations: vec![web()], ..push_options("web", &world.path("tree")) }
}

async fn deliver(world: &World) -> DeliveryReport {
    let receipt = world.push_with(&options(world)).await;
    delivered(&receipt.delivered).clone()
}

/// Pushes, and expects that the delivery fails: returns the fault and the reason.
async fn fail(world: &World) -> (Fault, String) {
    let receipt: Receipt = push_as(world.access(), &options(world)).await.expect("the push itself succeeds");
    let state = receipt.delivered.last().expect("a delivery").state.clone();
    match state {
        DeliveryState::Failed { reason, fault } | DeliveryState::Retrying { reason, fault, .. } => {
            (fault, reason)
        }
        other => panic!("{other:?}"),
    }
}

fn files(tree: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |path: &Path| {
        String::from_utf8(path.strip_prefix(tree).expect("below").as_os_str().as_bytes().to_vec())
    };
    walk_files(tree)
        .into_iter()
        .map(|path| (name(&path).expect("text"), fs::read(&path).expect("a file")))
        .collect()
}

/// Checks that two places have the same files; says only which differ.
fn assert_same_files(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    let names = found.keys().chain(expected.keys());
    let other: Vec<&String> = names.filter(|name| found.get(*name) != expected.get(*name)).collect();
    assert!(other.is_empty(), "{other:?} differ; there is {:?}", found.keys());
}

fn site(tree: &Path) {
    write(tree, "index.html", "<script src=app.1.js>");
    write(tree, "about/index.html", "about");
    write(tree, "app.1.js", noise(1, 200_000));
    write(tree, "logo.png", noise(2, 3_000_000));
    write(tree, "nothing", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_becomes_an_object_and_later_only_what_changed_crosses() {
    with_each("", |world, server| async move {
        let tree = world.path("tree");
        site(&tree);
        let first = deliver(&world).await;
        assert_eq!(server.files(), files(&tree));
        assert_eq!((first.files, first.sent_bytes, first.already), (5, first.bytes, false));
        let again = deliver(&world).await;
        assert!(again.already && again.sent_bytes == 0 && again.requests == 0, "{again:?}");
        write(&tree, "app.1.js", noise(3, 190_000));
        write(&tree, "new/deep/file", "new");
        fs::remove_file(tree.join("nothing")).expect("removed");
        let second = deliver(&world).await;
        assert_eq!(server.files(), files(&tree));
        assert_eq!((second.sent_bytes, second.requests), (190_003, 5), "two PUT, two HEAD, one DELETE");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_come_before_changed_ones_then_entry_points_and_deletions_last() {
    with_each("last = ['*.html']\n", |world, server| async move {
        let tree = world.path("tree");
        site(&tree);
        deliver(&world).await;
        let before = server.requests().len();
        fs::remove_file(tree.join("app.1.js")).expect("removed");
        write(&tree, "index.html", "<script src=app.2.js>");
        write(&tree, "app.2.js", noise(3, 200_000));
        write(&tree, "zzz.js", "new as well");
        write(&tree, "logo.png", noise(4, 1000));
        deliver(&world).await;
        assert_eq!(server.files(), files(&tree));
        if server.log.is_some() {
            let requests = server.requests().split_off(before);
            let changes: Vec<_> =
                requests.iter().filter(|line| !line.starts_with("HEAD")).map(String::as_str).collect();
            let (new, rest) = changes.split_at(2);
            assert!(new.contains(&"PUT /web/app.2.js") && new.contains(&"PUT /web/zzz.js"), "{changes:?}");
            assert_eq!(rest, ["PUT /web/logo.png", "PUT /web/index.html", "DELETE /web/app.1.js"]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_older_releases_have_stays_for_as_many_releases_as_were_asked_for() {
    with_each("keep = 2\n", |world, server| async move {
        let tree = world.path("tree");
        site(&tree);
        deliver(&world).await;
        for number in 2..5 {
            fs::remove_file(tree.join(format!("app.{}.js", number - 1))).expect("removed");
            write(&tree, &format!("app.{number}.js"), noise(number, 1000));
            deliver(&world).await;
            let scripts: Vec<_> =
                server.files().into_keys().filter(|path| path.starts_with("app.")).collect();
            assert_eq!(scripts, [format!("app.{}.js", number - 1), format!("app.{number}.js")]);
        }
        // The same release once more takes nobody's place.
        deliver(&world).await;
        let scripts: Vec<_> = server.files().into_keys().filter(|path| path.starts_with("app.")).collect();
        assert_eq!(scripts, ["app.3.js", "app.4.js"]);
        // A release comes back: what it needs is there or is written again.
        fs::remove_file(tree.join("app.4.js")).expect("removed");
        write(&tree, "app.1.js", noise(1, 200_000));
        deliver(&world).await;
        let scripts: Vec<_> = server.files().into_keys().filter(|path| path.starts_with("app.")).collect();
        assert_eq!(scripts, ["app.1.js", "app.4.js"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_delivery_into_a_filled_place_compares_and_deletes_nothing_of_others() {
    with_each("", |world, server| async move {
        let tree = world.path("tree");
        site(&tree);
        // Another proxy filled it, of which this one knows nothing.
        let place = destination(&server, "");
        let other = World::start_with(|options| {
            options.destinations.insert(web(), place);
        });
        site(&other.path("tree"));
        write(&other.path("tree"), "about/index.html", "old");
        deliver(&other).await;
        write(&server.root, "theirs.txt", "not of whit");
        let first = deliver(&world).await;
        assert_eq!(first.sent_bytes, 5, "{first:?}");
        fs::remove_file(tree.join("app.1.js")).expect("removed");
        deliver(&world).await;
        let shown = server.files();
        assert!(shown.contains_key("theirs.txt") && !shown.contains_key("app.1.js"), "{:?}", shown.keys());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_deletions_than_allowed_are_refused_before_anything_is_written() {
    let rules = "max_delete = '20%'\n[[metadata]]\nfiles = ['*']\ncache_control = 'max-age=60'\n";
    with_each(rules, |world, server| async move {
        let tree = world.path("tree");
        site(&tree);
        deliver(&world).await;
        let before = server.files();
        fs::remove_dir_all(tree.join("about")).expect("removed");
        fs::remove_file(tree.join("app.1.js")).expect("removed");
        write(&tree, "index.html", "changed");
        let (fault, reason) = fail(&world).await;
        assert!(
            fault == Fault::Input && reason.contains("2 of 5 files") && reason.contains("20%"),
            "{reason}"
        );
        assert!(reason.contains("raise `max_delete`"), "it says what to do: {reason}");
        assert_eq!(server.files(), before);
        site(&tree);
        let again = deliver(&world).await;
        assert!(again.already && again.requests == 0, "nothing is unsure: {again:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_written_as_they_are_and_none_is_taken_for_another() {
    with_each("", |world, server| async move {
        let tree = world.path("tree");
        let names =
            ["a b", "%2e%2e", "a%2Fb", "ü/ö", "q?x=1", "h#a", "plus+", "Case", "case", "a&b;c", "..."];
        for name in names {
            write(&tree, name, name);
        }
        deliver(&world).await;
        assert_eq!(server.files(), files(&tree));
        let bad = std::ffi::OsStr::from_bytes(b"\xff");
        fs::write(tree.join(bad), "not UTF-8").expect("written");
        let (fault, reason) = fail(&world).await;
        assert!(fault == Fault::Input && reason.contains("is not UTF-8"), "{reason}");
        fs::remove_file(tree.join(bad)).expect("removed");
        std::os::unix::fs::symlink("a b", tree.join("link")).expect("linked");
        fs::hard_link(tree.join("Case"), tree.join("hard")).expect("linked");
        deliver(&world).await;
        let shown = server.files();
        assert_eq!(
            (shown["link"].as_slice(), shown["hard"].as_slice()),
            (b"a b".as_slice(), b"Case".as_slice())
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_stamped_and_every_step_of_a_check_succeeds() {
    with_each("stamp = 'release.txt'\n", |world, server| async move {
        let tree = world.path("tree");
        site(&tree);
        let receipt = world.push_with(&options(&world)).await;
        let stamp = String::from_utf8(server.files()["release.txt"].clone()).expect("text");
        assert_eq!(stamp.trim(), receipt.release.to_string());
        let place = destination(&server, "");
        let checks = blocking::start(move || place.check(&AtomicBool::new(false))).await.expect("a thread");
        assert!(checks.len() >= 4 && checks.iter().all(|check| check.failure.is_none()), "{checks:?}");
        assert_eq!(server.files().len(), 6, "a check leaves nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_rule_of_metadata_is_a_change_of_the_files_that_it_is_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = s3(folder.path());
    let rule = |age: u32| format!("[[metadata]]\nfiles = ['*.js']\ncache_control = 'max-age={age}'\n");
    let mut world = World::start_with(|options| {
        options.destinations.insert(web(), destination(&server, &rule(60)));
    });
    within(async {
        let tree = world.path("tree");
        site(&tree);
        deliver(&world).await;
        world.stop().await;
        world.change(|options| {
            options.destinations.insert(web(), destination(&server, &rule(90)));
        });
        world.again();
        let second = deliver(&world).await;
        assert_eq!(second.sent_bytes, 200_000, "only the script: {second:?}");
    })
    .await;
}
