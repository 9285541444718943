//! The process dies at every crash point, and the interrupted operation can be completed afterwards.
//!
//! Each case starts from a copy of one small world (three releases, delivered), arms one point, runs an operation that
//! passes it, sees the process die, restarts it and checks every promise.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::time::Duration;

use disk::crash_points::POINTS;

use crate::improving::{IMPROVED, improvable, improves};
use crate::points_of_services as services;
use crate::points_of_targets as targets;
use crate::trees::{self, Shape};
use crate::world::{APP, Done, Process, World, rounds};

/// An operation that passes a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    /// A push of new content, with its delivery.
    Push,
    /// The proxy is told to stop after a push, and seals the open pack.
    Stop,
    /// The proxy starts after `kill -9`.
    Start,
    /// The proxy starts and finds its index damaged.
    Rebuild,
    /// A release is removed.
    Remove,
    /// Garbage is collected after two of three releases were removed.
    Collect,
    /// Damage is repaired.
    Repair,
    /// The proxy starts with more runs in its index than allowed.
    Merge,
    /// The idle proxy unpacks archives, packs others, and forgets packed bytes of an earlier release.
    Improve,
    /// A directory is pulled.
    Pull,
    /// A directory that keeps the copy before is pulled, and goes back.
    PullAndBack,
    /// The same of a directory of releases.
    Releases,
    /// A release is delivered to an HTTP server, object by object.
    Http,
    /// A release is delivered to a bucket.
    S3,
    /// A release is delivered to another proxy.
    Chain,
    /// A release is rolled out to a group of destinations.
    Rollout,
}

/// Returns the operations that pass the point; several lead to seals and to the index.
fn acts(point: &str) -> Vec<Act> {
    let (word, _) = point.split_once('.').expect("points have two words");
    match (word, point) {
        (_, "pack.renamed") | ("seal", _) => vec![Act::Stop, Act::Start, Act::Collect, Act::Repair],
        ("run", _) => vec![Act::Stop, Act::Start, Act::Rebuild, Act::Merge],
        ("take-in", _) => vec![Act::Stop, Act::Start, Act::Rebuild],
        ("merge", _) => vec![Act::Merge],
        (_, "recovery.index") => vec![Act::Rebuild],
        ("recovery", _) => vec![Act::Start],
        ("pack" | "append" | "sync", _) => vec![Act::Push, Act::Collect, Act::Repair, Act::Improve],
        ("manifests", _) => vec![Act::Push, Act::Improve],
        ("improve", _) => vec![Act::Improve],
        ("tree", _) => vec![Act::Push, Act::Pull, Act::Releases],
        ("copy" | "link" | "current", _) => vec![Act::Push, Act::Releases],
        ("layout", _) | (_, "pulled.half" | "pulled.written") => vec![Act::Releases],
        (_, "pull.exchanged" | "pull.removed" | "pulled.renamed") => vec![Act::Pull, Act::PullAndBack],
        ("back", _) | (_, "pull.kept") => vec![Act::PullAndBack],
        (_, "pull.fetched" | "pull.tree" | "pull.after") => vec![Act::Pull, Act::Releases],
        ("pull" | "pulled-next" | "ready", _) => vec![Act::Pull],
        ("removed", _) => vec![Act::Remove],
        ("collect", _) => vec![Act::Collect],
        // A repair removes a damaged pack's chunks too.
        ("take-out", _) => vec![Act::Collect, Act::Repair],
        ("aside", _) => vec![Act::Repair],
        ("object" | "class" | "stamp" | "deletions", _) | (_, "release.shown") => vec![Act::Http, Act::S3],
        ("release", _) => vec![Act::Chain],
        ("rollout" | "group", _) => vec![Act::Rollout],
        ("shown", _) | (_, "delivery.there" | "delivery.shown" | "delivery.told") => {
            vec![Act::Push, Act::Http, Act::S3, Act::Chain]
        }
        _ => vec![Act::Push],
    }
}

const OLD: [u64; 3] = [1, 2, 3];
pub const NEW: u64 = 4;
/// Enough pushes that their runs and the first one exceed what an index keeps by one.
const MORE: std::ops::Range<u64> = 5..11;

/// Returns a world of three releases in one sealed pack, all delivered; two copies stay at the destination.
pub fn template() -> &'static World {
    static TEMPLATE: OnceLock<World> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let mut world = World::new(Shape::SMALL, 1);
        // Among them an archive, whose release has a list of manifests.
        world.related = true;
        let mut served = world.serve(None);
        for version in OLD {
            world.push(version);
        }
        served.terminate();
        let status = served.ended(Duration::from_secs(60)).expect("it stops");
        assert!(status.success());
        world.tree(NEW);
        world
    })
}

/// Returns whether the process died at the point.
pub fn died(status: Option<ExitStatus>) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.is_some_and(|status| status.signal() == Some(9))
}

/// Waits until the proxy dies, or the agent is done and the proxy survives it. The last steps of a delivery come after
/// the agent has heard of it.
pub fn outlives(served: &mut Process, mut agent: Process) -> (bool, Done) {
    let mut ended = None;
    while ended.is_none() && agent.ended(Duration::ZERO).is_none() {
        ended = served.ended(Duration::from_millis(5));
    }
    let ended = ended.or_else(|| served.ended(Duration::from_millis(500)));
    // An agent would wait for a proxy that is gone.
    (died(ended), agent.done(Duration::from_millis(50)))
}

pub const SOON: Duration = Duration::from_secs(20);

/// Runs a case; returns false if the point was not passed that often.
fn dies_and_goes_on(point: &str, act: Act, pass: u64) -> bool {
    let crash = format!("{point}:{pass}");
    match act {
        Act::Http => return services::http_dies_and_goes_on(&crash),
        Act::S3 => return services::s3_dies_and_goes_on(&crash),
        Act::Chain => return services::chain_dies_and_goes_on(&crash),
        Act::Rollout => return services::rollout_dies_and_goes_on(&crash),
        _ => {}
    }
    let mut world = if act == Act::Improve { improvable() } else { template() }.copy();
    match act {
        Act::Pull => return targets::pull_dies_and_goes_on(&mut world, &crash),
        Act::PullAndBack => return targets::back_dies_and_goes_on(&mut world, &crash, "plain"),
        Act::Releases => return targets::back_dies_and_goes_on(&mut world, &crash, "releases"),
        _ => {}
    }
    let dies = dies(&mut world, act, &crash);
    if dies {
        goes_on(&mut world, act);
    }
    dies
}

/// Returns the release that was pushed as `version`.
pub fn release_of(world: &World, version: u64) -> String {
    let found = world.acknowledged.iter().find(|(_, known)| **known == version);
    found.expect("it was pushed").0.clone()
}

/// Runs the operation, and returns whether the proxy died of it.
fn dies(world: &mut World, act: Act, crash: &str) -> bool {
    match act {
        Act::Collect => {
            let mut served = world.serve(None);
            for version in [1, 2] {
                let release = release_of(world, version);
                assert!(world.run(&["rm", &format!("{APP}@{release}"), "--force"]).is_good());
                world.acknowledged.remove(&release);
            }
            served.kill();
        }
        Act::Start | Act::Rebuild => {
            let mut served = world.serve(None);
            world.push(NEW);
            served.kill();
        }
        Act::Merge => {
            // Each start that finds pushed content ends with a new run.
            for version in MORE {
                let mut served = world.serve(None);
                world.push(version);
                served.terminate();
                assert!(served.ended(SOON).is_some_and(|status| status.success()));
            }
        }
        Act::Repair => {
            let pack = world.sealed().remove(0);
            World::flip(&pack, fs::metadata(&pack).expect("a pack").len() / 2);
        }
        Act::Push | Act::Stop | Act::Remove | Act::Improve => {}
        Act::Pull | Act::PullAndBack | Act::Releases | Act::Http | Act::S3 | Act::Chain | Act::Rollout => {
            unreachable!("they have worlds of their own")
        }
    }
    if act == Act::Rebuild {
        let file = world.index().join("db");
        let mut bytes = fs::read(&file).expect("an index");
        bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x10);
        fs::write(&file, bytes).expect("written");
    }
    let mut served = world.serve(Some(crash));
    let first = release_of(world, if act == Act::Collect { 3 } else { 1 });
    let agent = match act {
        Act::Stop => {
            world.push(NEW);
            served.terminate();
            return died(served.ended(SOON));
        }
        Act::Push => world.begin_push(NEW),
        Act::Remove => world.begin(&["rm", &format!("{APP}@{first}"), "--force"], None),
        Act::Collect => world.begin(&["gc"], None),
        Act::Repair => world.begin(&["verify", "--repair"], None),
        _ => world.begin(&["releases", APP], None),
    };
    let (died, done) = outlives(&mut served, agent);
    if act == Act::Improve {
        // The space is open now, and then idle.
        return died || improves(world, &mut served, &IMPROVED);
    }
    match act {
        Act::Push => drop(world.took(NEW, &done)),
        // The release may be removed or not.
        Act::Remove => drop(world.acknowledged.remove(&first)),
        _ => {}
    }
    died
}

/// Restarts the proxy and checks every promise.
fn goes_on(world: &mut World, act: Act) {
    // Before any restart, readers of the destination see a whole release.
    let shown: Vec<u64> = [3, NEW].into_iter().chain(MORE).collect();
    let before = world.current(&shown).expect("there was one");
    assert!(before == 3 || matches!(act, Act::Push | Act::Stop | Act::Start | Act::Rebuild | Act::Merge));
    let waiting = world.deliveries();
    let mut served = world.serve(None);
    if act == Act::Repair {
        repaired(world);
    }
    world.check_releases(&[1, NEW]);
    if act == Act::Improve {
        assert!(!improves(world, &mut served, &IMPROVED), "it died again");
        world.check_releases(&[]);
    }
    if waiting > 0 {
        // The proxy makes a recorded delivery without the agent.
        world.settle();
        assert_eq!(world.current(&[NEW]), Some(NEW));
    }
    if act == Act::Collect {
        let collected = world.run(&["gc"]).json();
        let waits = collected["waits_for_pushes"].as_bool();
        assert_eq!((waits, collected["removed_chunks"].is_u64()), (Some(false), true), "{collected}");
    }
    if act == Act::Remove {
        // Version 1 was pushed first; it may be removed already.
        for release in world.releases() {
            if world.pulls(&release, &[1]).is_some() {
                assert!(world.run(&["rm", &format!("{APP}@{release}"), "--force"]).is_good());
            }
        }
    }
    world.push(NEW);
    world.settle();
    assert_eq!(world.current(&[NEW]), Some(NEW));
    world.check_releases(&[]);
    world.check_verified();
    served.terminate();
    let status = served.ended(Duration::from_secs(60)).expect("it stops");
    assert!(status.success(), "{}", world.log());
    let data = trees::read(&world.path("data"));
    let left: Vec<_> = data.keys().filter(|path| path.extension().is_some_and(|end| end == "part")).collect();
    assert!(left.is_empty(), "an open pack or an aside file stays: {left:?}");
}

/// Completes an interrupted repair, with the content that the agents still have.
fn repaired(world: &mut World) {
    let again = world.run(&["verify", "--repair"]);
    assert!(matches!(again.status.code(), Some(0 | 5)), "{again:?}");
    for version in OLD {
        world.push(version);
    }
    world.push(3);
    world.settle();
    let done = world.run(&["verify", "--repair"]);
    assert!(done.is_good(), "{done:?}\n{}", world.log());
}

/// Tests half of the points; two tests split them, for two processors.
fn end_at_points(share: usize) {
    let most = rounds("WHIT_CRASH_ROUNDS", 1);
    let only = std::env::var("WHIT_CRASH_POINT").ok();
    let mut table: BTreeMap<(usize, Act), u64> = BTreeMap::new();
    let mut missed = Vec::new();
    for (place, point) in POINTS.into_iter().enumerate() {
        // Those of a target that watches are passed in `targets.rs`.
        let is_elsewhere = point.starts_with("watched.") || point.starts_with("update.");
        if is_elsewhere
            || place % 2 != share
            || only.as_ref().is_some_and(|only| !point.starts_with(only.as_str()))
        {
            continue;
        }
        let mut met = false;
        for act in acts(point) {
            // Crashes at each pass in turn, then from the first again.
            let (mut pass, mut times) = (1, 0);
            while times < most {
                if dies_and_goes_on(point, act, pass) {
                    times += 1;
                    pass += 1;
                } else if pass > 1 {
                    pass = 1;
                } else {
                    break;
                }
            }
            if times > 0 {
                met = true;
                table.insert((place, act), times);
            }
        }
        if !met {
            missed.push(point);
        }
    }
    for ((place, act), times) in &table {
        println!("{:<20} {act:?}: died {times} times, nothing lost", POINTS[*place]);
    }
    println!("{} crashes in {} ways", table.values().sum::<u64>(), table.len());
    assert_eq!(missed, Vec::<&str>::new(), "points that nothing passes");
}

#[test]
fn the_process_may_end_at_every_even_point() {
    end_at_points(0);
}

#[test]
fn the_process_may_end_at_every_odd_point() {
    end_at_points(1);
}
