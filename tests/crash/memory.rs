//! Too little memory: a push succeeds or says why it failed, and nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use crate::trees::{Dice, Shape};
use crate::world::{World, rounds};

/// Some 6 MB, so that a push needs memory.
const SHAPE: Shape = Shape { files: 60, changing: 50, file_bytes: 100_000 };
/// KiB of address space that is enough for everything.
const MOST: u64 = 1024 * 1024;

/// Returns the command prefix that runs a program with this many KiB of address space.
fn limited(kibibytes: u64) -> Vec<String> {
    let script = format!("ulimit -v {kibibytes}; exec \"$@\"");
    ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

fn can_limit() -> bool {
    let [program, arguments @ ..] = &limited(MOST)[..] else { unreachable!("a shell and its script") };
    let done = Command::new(program).args(arguments).arg("true").status();
    let can = done.is_ok_and(|status| status.success());
    if !can {
        println!("skipped: memory cannot be limited here");
    }
    can
}

/// Returns the KiB with which the program can be loaded at all: with less, the system ends it without a message.
fn least(world: &World) -> u64 {
    let loads = |kibibytes: &u64| world.is_loaded_below(&limited(*kibibytes));
    (1024..MOST).step_by(1024).find(loads).expect("1 GiB is enough for a version number")
}

/// Draws a limit between the two, small ones more often than large ones.
fn some_limit(dice: &mut Dice, least: u64) -> u64 {
    let most = least + dice.below(MOST - least);
    least + dice.below(most - least)
}

/// True if the program ended by itself with a message: an error, a panic that names what was missing, or the
/// allocator's message.
fn says_why(text: &str) -> bool {
    let words = ["error", "memory allocation", "Cannot allocate", "panicked", "cannot allocate", "failed to"];
    words.iter().any(|word| text.contains(word))
}

#[test]
fn a_proxy_short_of_memory_loses_nothing() {
    if !can_limit() {
        return;
    }
    let mut dice = Dice::cast("proxy short of memory");
    let count = rounds("WHIT_MEMORY_ROUNDS", 8);
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut world = World::new(SHAPE, 1);
    let mut served = world.serve(None);
    world.push(1);
    served.kill();
    let least = least(&world);
    for version in 2..2 + count {
        let kibibytes = some_limit(&mut dice, least);
        let before = world.log().len();
        let below = limited(kibibytes);
        let below: Vec<&str> = below.iter().map(String::as_str).collect();
        let outcome = match world.try_serve_under(&below) {
            None => "did not start",
            Some(mut served) => {
                let done = world.begin_push(version).done(Duration::from_secs(20));
                world.took(version, &done);
                let ended = served.ended(Duration::ZERO).is_some();
                served.kill();
                match done.status.code() {
                    Some(0) => "pushed",
                    _ if ended => "ended within the push",
                    _ => {
                        assert!(
                            done.status.code().is_none() || says_why(&done.err),
                            "{kibibytes} KiB: {done:?}"
                        );
                        "refused the push"
                    }
                }
            }
        };
        if outcome == "did not start" || outcome == "ended within the push" {
            assert!(
                says_why(&world.log()[before..]),
                "{kibibytes} KiB, {outcome}: {}",
                &world.log()[before..]
            );
        }
        *outcomes.entry(outcome).or_default() += 1;
        let mut served = world.serve(None);
        world.check_releases(&[version]);
        world.push(version);
        world.settle();
        assert_eq!(world.current(&[version]), Some(version));
        served.kill();
    }
    let _served = world.serve(None);
    world.check_verified();
    println!("proxy short of memory, {count} times, nothing lost: {outcomes:?}");
}

#[test]
fn an_agent_short_of_memory_hurts_nobody() {
    if !can_limit() {
        return;
    }
    let mut dice = Dice::cast("agent short of memory");
    let count = rounds("WHIT_MEMORY_ROUNDS", 8);
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut world = World::new(SHAPE, 1);
    let _served = world.serve(None);
    world.push(1);
    let least = least(&world);
    for version in 2..2 + count {
        let kibibytes = some_limit(&mut dice, least);
        world.agents_below = limited(kibibytes);
        let done = world.begin_push(version).done(Duration::from_secs(60));
        world.agents_below.clear();
        world.took(version, &done);
        let outcome = if done.is_good() {
            "pushed"
        } else {
            assert_ne!(done.status.signal(), Some(9), "{kibibytes} KiB: it did not end by itself: {done:?}");
            assert!(says_why(&done.err), "{kibibytes} KiB: {done:?}");
            "ended with a word"
        };
        *outcomes.entry(outcome).or_default() += 1;
        world.check_releases(&[version]);
        world.push(version);
        world.settle();
        assert_eq!(world.current(&[version]), Some(version));
    }
    world.check_verified();
    println!("agent short of memory, {count} times, nothing lost: {outcomes:?}");
}
