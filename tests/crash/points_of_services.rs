//! Crash points within deliveries to servers and to other proxies.

use std::fs;
use std::path::Path;

use crate::points::outlives;
use crate::servers::{Server, nginx, s3};
use crate::site;
use crate::trees::{Shape, is_same};
use crate::world::{Process, World};

pub fn http_dies_and_goes_on(crash: &str) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    nginx(folder.path()).is_some_and(|server| server_dies_and_goes_on(&server, crash))
}

pub fn s3_dies_and_goes_on(crash: &str) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("s3");
    fs::create_dir(&root).expect("a folder");
    server_dies_and_goes_on(&s3(&root), crash)
}

/// Pushes, and returns whether the proxy died of it.
fn dies(world: &World, served: &mut Process, tree: &Path, to: &str) -> bool {
    outlives(served, world.begin_push_to(tree, to)).0
}

/// Checks that the place shows a version, and nothing besides.
fn check(world: &World, server: &Server, version: u64) {
    let mut shown = server.files();
    let stamp = shown.remove(site::STAMP).expect("a stamp");
    let last = world.releases().pop().expect("a release");
    assert_eq!(String::from_utf8_lossy(&stamp).trim(), last);
    let expected = site::files(version);
    assert!(shown == expected, "{:?} instead of {:?}", shown.keys(), expected.keys());
}

fn stops(served: &mut Process) {
    served.terminate();
    let status = served.ended(std::time::Duration::from_secs(60)).expect("it stops");
    assert!(status.success());
}

/// Delivers one release, dies in the delivery of the next, and goes on.
fn server_dies_and_goes_on(server: &Server, crash: &str) -> bool {
    let mut world = World::new(Shape::SMALL, 1);
    world.configure_more(&site::definition(server, "s", 1));
    let first = site::write(world.path("site-1"), 1);
    let second = site::write(world.path("site-2"), 2);
    let mut served = world.serve(None);
    assert!(!dies(&world, &mut served, &first, "s"));
    world.settle();
    check(&world, server, 1);
    let first_stamp = server.files()[site::STAMP].clone();
    stops(&mut served);
    let mut served = world.serve(Some(crash));
    if !dies(&world, &mut served, &second, "s") {
        return false;
    }
    let shown = site::look(&server.root).expect("all that the entry point names is there");
    let is_stamped = server.files()[site::STAMP] != first_stamp;
    assert!(shown == Some(2) || (shown == Some(1) && !is_stamped), "{shown:?}, stamped: {is_stamped}");
    let marks = (world.deliveries() == 0).then(|| site::marks(&server.root));
    let mut served = world.serve(None);
    // Nobody pushes again: the delivery was promised.
    world.settle();
    check(&world, server, 2);
    if let Some(before) = marks {
        assert_eq!(before, site::marks(&server.root), "a delivery that had ended was made again");
    }
    let before = site::marks(&server.root);
    assert!(!dies(&world, &mut served, &second, "s"));
    world.settle();
    assert_eq!(before, site::marks(&server.root), "what is shown already was written again");
    world.check_verified();
    stops(&mut served);
    true
}

/// Delivers one release through another proxy, dies in the delivery of the next, and goes on.
pub fn chain_dies_and_goes_on(crash: &str) -> bool {
    let mut edge = World::new(Shape::SMALL, 1);
    let mut edge_served = edge.serve(None);
    let mut office = World::new(Shape::SMALL, 1);
    office.configure_more(&passing_to(&edge, &office));
    let trees = [1, 2].map(|version| office.tree(version));
    let mut served = office.serve(None);
    assert!(!dies(&office, &mut served, &trees[0], "next"));
    office.settle();
    stops(&mut served);
    let mut served = office.serve(Some(crash));
    if !dies(&office, &mut served, &trees[1], "next") {
        return false;
    }
    let current = edge.path("dest/current");
    let shows = |version: usize| is_same(&fs::canonicalize(&current).expect("a release"), &trees[version]);
    assert!(shows(0) || shows(1), "half a release");
    let mut served = office.serve(None);
    office.settle();
    edge.settle();
    assert!(shows(1));
    assert_eq!(edge.releases().len(), 2, "the release was recorded twice");
    office.check_verified();
    edge.check_verified();
    stops(&mut served);
    stops(&mut edge_served);
    true
}

/// Rolls one release out to two destinations, dies in the rollout of the next, and goes on.
pub fn rollout_dies_and_goes_on(crash: &str) -> bool {
    let mut world = World::new(Shape::SMALL, 1);
    let edge = |name: &str| {
        let path = world.path(name);
        format!("[destinations.{name}]\nkind = \"dir\"\npath = \"{}\"\n", path.display())
    };
    let group = "[groups.all]\ndestinations = [\"one\", \"two\"]\nhealthy_within = \"1m\"\n";
    world.configure_more(&format!("{}{}{group}", edge("one"), edge("two")));
    let trees = [1, 2].map(|version| world.tree(version));
    let mut served = world.serve(None);
    assert!(!dies(&world, &mut served, &trees[0], "all"));
    rolled_out(&world, 1);
    stops(&mut served);
    let mut served = world.serve(Some(crash));
    if !dies(&world, &mut served, &trees[1], "all") {
        return false;
    }
    let mut served = world.serve(None);
    if world.run(&["rollouts"]).json().as_array().is_some_and(|rollouts| rollouts.len() == 1) {
        // It was not acknowledged, and the agent tries again. Otherwise nobody does: the rollout was promised.
        assert!(!dies(&world, &mut served, &trees[1], "all"));
    }
    rolled_out(&world, 2);
    for place in ["one/current", "two/current"] {
        let current = fs::canonicalize(world.path(place)).expect("a release");
        assert!(is_same(&current, &trees[1]), "{place}");
    }
    let current = world.run(&["current", crate::world::APP]).json();
    assert_eq!(current["current"].as_str(), world.releases().pop().as_deref());
    world.check_verified();
    stops(&mut served);
    true
}

/// Waits until a number of rollouts have succeeded, and no other is there.
fn rolled_out(world: &World, number: usize) {
    for _ in 0..600 {
        let rollouts = world.run(&["rollouts"]).json();
        let states: Vec<_> =
            rollouts.as_array().expect("a list").iter().map(|it| it["state"].clone()).collect();
        if states.len() == number && states.iter().all(|state| state == "succeeded") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("a rollout is lost: {:?}", world.run(&["rollouts"]).json());
}

/// Returns the definition of a destination `next` of `office`: the directory of another proxy, which is running.
pub fn passing_to(next: &World, office: &World) -> String {
    let token = next.new_token(&["--allow", "push", "--on-behalf"]);
    let file = office.path("next.token");
    fs::write(&file, token).expect("written");
    format!(
        "[destinations.next]\nkind = \"proxy\"\nurl = \"{}\"\ntoken = {{ file = \"{}\" }}\nto = [\"d\"]\n",
        next.url(),
        file.display()
    )
}
