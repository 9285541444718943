//! Deliveries that end in the middle, and what comes after them.

use std::fs;

use super::faulty::{Do, Faulty};
use super::servers::s3;
use super::{assert_same_files, deliver, destination, fail, files, site, with_each};
use crate::trees::{noise, write};
use crate::world::{World, web, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_comes_back_has_again_what_a_later_one_had_begun_to_remove() {
    let server = Faulty::start(|_| Do::Serve);
    let world = server.world("parallel = 1\nlast = ['*.html']\n");
    let tree = world.path("tree");
    site(&tree);
    write(&tree, "app.1.css", "old");
    within(deliver(&world)).await;
    let first = files(&tree);
    server.change(|asked| match (asked.method.as_str(), asked.number) {
        ("DELETE", 2..) => Do::Answer("400 Bad Request"),
        _ => Do::Serve,
    });
    for name in ["app.1.js", "app.1.css"] {
        fs::remove_file(tree.join(name)).expect("removed");
    }
    write(&tree, "index.html", "<script src=app.2.js>");
    within(fail(&world)).await;
    assert_eq!(server.count("DELETE"), 2);
    server.change(|_| Do::Serve);
    fs::remove_dir_all(&tree).expect("removed");
    site(&tree);
    write(&tree, "app.1.css", "old");
    within(deliver(&world)).await;
    assert_same_files(&files(&tree), &first);
    assert_same_files(&server.shown(), &first);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_place_under_the_same_name_gets_everything_and_loses_nothing_of_its_own() {
    with_each("", |mut world, server| async move {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let other = s3(folder.path());
        let tree = world.path("tree");
        site(&tree);
        write(&tree, "theirs", "of the first place");
        deliver(&world).await;
        world.stop().await;
        world.change(|options| {
            options.destinations.insert(web(), destination(&other, ""));
        });
        world.again();
        fs::remove_file(tree.join("theirs")).expect("removed");
        write(&other.root, "theirs", "not of whit");
        deliver(&world).await;
        let mut expected = files(&tree);
        expected.insert("theirs".to_owned(), b"not of whit".to_vec());
        assert_same_files(&other.files(), &expected);
        assert!(server.files().contains_key("theirs"), "the first place is as it was");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_whose_order_was_changed_between_two_tries_leaves_out_nothing() {
    let server = Faulty::start(|_| Do::Serve);
    let mut world = server.world("parallel = 1\n");
    let tree = world.path("tree");
    site(&tree);
    within(deliver(&world)).await;
    server.change(|asked| {
        if asked.method == "PUT" && asked.path.ends_with("index.html") {
            Do::Answer("500 Internal Server Error")
        } else {
            Do::Serve
        }
    });
    write(&tree, "about/index.html", "changed");
    write(&tree, "index.html", "changed too");
    write(&tree, "new.js", "new");
    within(fail(&world)).await;
    assert!(server.shown().contains_key("new.js"), "the first class is written");
    within(world.stop()).await;
    server.change(|_| Do::Serve);
    // What was the first step of the plan becomes its last.
    let place = server.destination("parallel = 1\nlast = ['new.js']\n");
    world.change(|options| {
        options.destinations.insert(web(), place);
    });
    world.again();
    within(deliver(&world)).await;
    assert_same_files(&server.shown(), &files(&tree));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_try_wrote_is_looked_for_before_readers_are_sent_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = s3(folder.path());
    let world = World::start_with(|options| {
        options.destinations.insert(web(), destination(&server, "last = ['*.html']\n"));
    });
    within(async {
        let tree = world.path("tree");
        write(&tree, "entry/index.html", "one");
        deliver(&world).await;
        // The entry point cannot be written for now: its folder is a file.
        let entry = server.root.join("entry");
        fs::rename(&entry, folder.path().join("aside")).expect("renamed");
        fs::write(&entry, "").expect("written");
        for number in 0..40 {
            write(&tree, &format!("app.{number}.js"), noise(number, 1000));
        }
        write(&tree, "entry/index.html", "two");
        fail(&world).await;
        fs::remove_file(server.root.join("app.7.js")).expect("it was written");
        fs::remove_file(&entry).expect("removed");
        fs::rename(folder.path().join("aside"), &entry).expect("renamed");
        deliver(&world).await;
        assert_same_files(&server.files(), &files(&tree));
    })
    .await;
}
