//! What the idle proxy does with archives, when it dies or its disk is full.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use format::release_manifests::ReleaseManifests;

use crate::disk::{Mounted, fill};
use crate::points::{NEW, SOON, died, release_of, template};
use crate::trees::Shape;
use crate::world::{APP, PATIENCE, Process, World, is_root};

/// Returns the world of the crash points with its first release stored both ways, one more whose archive crossed as it is, and the second current, whose
/// archive crossed unpacked. The proxy improves all three.
pub fn improvable() -> &'static World {
    static IMPROVABLE: OnceLock<World> = OnceLock::new();
    IMPROVABLE.get_or_init(|| {
        let mut world = template().copy();
        let config = fs::read_to_string(world.path("whit.toml")).expect("a configuration");
        let improving = format!("improve_after_seconds = 1\n{config}");
        fs::write(world.path("whit.toml"), &improving).expect("written");
        let mut served = world.serve(None);
        promote(&world, 1);
        assert!(!improves(&world, &mut served, &[(1, 2), (2, 1), (3, 2)]));
        served.kill();
        fs::write(world.path("whit.toml"), config).expect("written");
        let mut served = world.serve(None);
        let tree = world.tree(NEW).display().to_string();
        let done = world.run(&["push", APP, &tree, "--raw"]);
        assert!(world.took(NEW, &done), "{done:?}");
        promote(&world, 2);
        served.kill();
        assert_eq!(manifests(&world), [(1, 2), (2, 1), (3, 2), (NEW, 1)].into());
        fs::write(world.path("whit.toml"), improving).expect("written");
        world
    })
}

/// How many manifests each version has once nothing is left to improve.
pub const IMPROVED: [(u64, usize); 4] = [(1, 1), (2, 2), (3, 2), (NEW, 2)];

fn promote(world: &World, version: u64) {
    let done = world.run(&["promote", &format!("{APP}@{}", release_of(world, version))]);
    assert!(done.is_good(), "{done:?}");
}

/// Returns how many manifests each version's release has.
fn manifests(world: &World) -> BTreeMap<u64, usize> {
    let count = |release: &String| {
        let file = format!("data/spaces/default/manifests/{release}.manifests");
        let value = fs::read(world.path(&file)).ok().and_then(|bytes| ReleaseManifests::decode(&bytes).ok());
        value.map_or(0, |manifests| manifests.roots().count())
    };
    world.acknowledged.iter().map(|(release, version)| (*version, count(release))).collect()
}

/// Waits until the proxy dies, or each version has so many manifests; returns whether it died.
pub fn improves(world: &World, served: &mut Process, expected: &[(u64, usize)]) -> bool {
    let deadline = Instant::now() + SOON;
    while !manifests(world).into_iter().eq(expected.iter().copied()) {
        assert!(Instant::now() < deadline, "{:?}: not improved\n{}", manifests(world), world.log());
        if let Some(ended) = served.ended(Duration::from_millis(5)) {
            return died(Some(ended));
        }
    }
    // It may die of the last step.
    died(served.ended(Duration::from_millis(100)))
}

#[test]
fn a_full_disk_ends_an_improvement_and_nothing_else() {
    if !is_root("mounting a small tmpfs") {
        return;
    }
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let place = temporary.path().join("m");
    let Some(_mounted) = Mounted::new(&place, 48) else {
        println!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let mut world = World::at(&place, Shape::SMALL, 1);
    world.related = true;
    // Beside the mebibyte that stays reserved: no room for a copy, for what is in it, for packs.
    for (round, left) in [0, 1_000_000, 1_100_000, 1_200_000, 1_400_000, 4_000_000].into_iter().enumerate() {
        let version = round as u64 + 1;
        let without = fs::read_to_string(world.path("whit.toml")).expect("a configuration");
        fs::write(world.path("whit.toml"), format!("improve_after_seconds = 1\n{without}")).expect("written");
        let mut served = world.serve(None);
        let tree = world.tree(version).display().to_string();
        let done = world.run(&["push", APP, &tree, "--raw"]);
        assert!(world.took(version, &done), "{done:?}");
        let ballast = fill(&place, left);
        let seen = world.log().len();
        let deadline = Instant::now() + PATIENCE;
        while manifests(&world)[&version] != 2 && !world.log()[seen..].contains("not unpacked") {
            assert!(Instant::now() < deadline, "nothing is tried\n{}", world.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("{left} B left: {} manifests", manifests(&world)[&version]);
        assert!(world.run(&["apps"]).is_good(), "it answers no longer\n{}", world.log());
        fs::remove_file(ballast).expect("removed");
        world.check_releases(&[]);
        world.check_verified();
        served.kill();
        let mut served = world.serve(None);
        assert!(world.run(&["apps"]).is_good());
        let expected: Vec<(u64, usize)> =
            (1..=version).map(|earlier| (earlier, if earlier + 1 < version { 1 } else { 2 })).collect();
        assert!(!improves(&world, &mut served, &expected));
        world.check_releases(&[]);
        world.check_verified();
        served.kill();
        fs::write(world.path("whit.toml"), without).expect("written");
    }
}
