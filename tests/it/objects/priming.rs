//! The cache filled from a bucket.

use std::fs;

use ground::faults::{Fault, Faulty as _};
use protocol::wire::{Answer, Operation, Primed};
use whit::agent;

use super::destination;
use super::servers::{nginx, s3};
use crate::trees::{assert_same, noise, write};
use crate::world::{World, ask_as, web, within};

async fn prime(world: &World) -> agent::Result<Primed> {
    let prime = Operation::Prime { app: "web".parse().expect("a name"), destination: web() };
    match ask_as(world.access(), &prime).await?.as_slice() {
        [Answer::Primed(primed)] => Ok(*primed),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bucket_holds_is_not_sent_by_the_first_push() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = s3(folder.path());
    let world = World::start_with(|options| {
        options.destinations.insert(web(), destination(&server, ""));
    });
    within(async {
        let error = prime(&world).await.expect_err("there is nothing");
        assert!(
            error.fault() == Fault::Missing && error.to_string().contains("holds nothing of `web`"),
            "{error}"
        );
        let tree = world.path("tree");
        for (number, size) in [(1, 9_000_000), (2, 300_000), (3, 0)] {
            write(&server.root, &format!("assets/{number}"), noise(number, size));
            write(&tree, &format!("assets/{number}"), noise(number, size));
        }
        write(&server.root, "index.html", noise(4, 20_000));
        write(&tree, "index.html", noise(5, 20_000));
        // Of another application.
        write(&server.root.with_file_name("web2"), "other", noise(6, 1_000));
        let primed = prime(&world).await.expect("primed");
        assert_eq!((primed.files, primed.bytes, primed.unseen_bytes), (4, 9_320_000, 9_320_000));
        assert_eq!(prime(&world).await.expect("primed").unseen_bytes, 0);
        let pushed = world.push("web", &tree).await;
        assert_eq!((pushed.sequence, pushed.bytes.unseen), (Some(1), 20_000));
        world.pull("web", &world.path("pulled")).await.expect("pulled");
        assert_same(&tree, &world.path("pulled"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_list_what_it_has_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (at_nginx, at_s3) = (folder.path().join("nginx"), folder.path().join("s3"));
    for folder in [&at_nginx, &at_s3] {
        fs::create_dir(folder).expect("a folder");
    }
    let servers = [nginx(&at_nginx).map(|server| (server, "")), Some((s3(&at_s3), "bundle = 'tar'\n"))];
    for (server, more) in servers.into_iter().flatten() {
        let world = World::start_with(|options| {
            options.destinations.insert(web(), destination(&server, more));
        });
        let error = within(prime(&world)).await.expect_err("refused");
        assert!(error.fault() == Fault::Input && error.to_string().contains("cannot list"), "{error}");
    }
}
