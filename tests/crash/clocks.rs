//! Clocks that are wrong by 400 days: nothing that must stay is removed, and an error caused by the clock says so.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::trees::Shape;
use crate::world::{APP, World};

/// Debian's libfaketime, in its form for programs with threads.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// Returns the command prefix that runs a program with the clock set by `file`; none where that is impossible. The
/// clock that measures waits and leases keeps running unchanged, as when somebody sets a machine's time.
pub fn clock(file: &Path) -> Option<Vec<String>> {
    let Some(library) = LIBRARIES.into_iter().find(|library| Path::new(library).exists()) else {
        println!("skipped: libfaketime is not here to change the clock (Debian: faketime)");
        return None;
    };
    let settings = [
        format!("LD_PRELOAD={library}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "NO_FAKE_STAT=1".to_owned(),
    ];
    Some(std::iter::once("env".to_owned()).chain(settings).collect())
}

/// Removes one release, so that a collection has something to collect.
fn remove(world: &mut World, version: u64) {
    let release =
        world.acknowledged.iter().find(|(_, known)| **known == version).expect("it was pushed").0.clone();
    let done = world.run(&["rm", &format!("{APP}@{release}"), "--force"]);
    assert!(done.is_good(), "{done:?}");
    world.acknowledged.remove(&release);
}

fn collect(world: &World) {
    let done = world.run(&["gc"]);
    assert!(done.is_good(), "{done:?}\n{}", world.log());
}

fn no_panic(world: &World) {
    assert!(!world.log().contains("panicked"), "{}", world.log());
}

#[test]
fn a_proxy_whose_clock_is_wrong_takes_nothing_that_must_stay() {
    for wrong in ["+400d", "-400d"] {
        let mut world = World::new(Shape::SMALL, 1);
        let told = world.path("clock");
        let Some(below) = clock(&told) else { return };
        let below: Vec<&str> = below.iter().map(String::as_str).collect();
        let set = |text: &str| fs::write(&told, text).expect("written");
        // The latest release and those with a label stay by rule, whatever the time.
        let rules = "[[keep]]\napp = \"*\"\nlast = 3\n";
        let config = fs::read_to_string(world.path("whit.toml")).expect("a configuration");
        fs::write(world.path("whit.toml"), format!("{config}{rules}")).expect("written");

        set("+0d");
        let mut served = world.try_serve_under(&below).expect("it starts");
        world.push(1);
        world.push(2);
        let everything = world.use_token_of("30d");
        world.push(3);
        // The clock jumps during a push, and stays wrong.
        let push = world.begin_push(4);
        set(wrong);
        let done = push.done(Duration::from_secs(60));
        if !world.took(4, &done) {
            assert!(done.err.contains("the token expired at"), "{done:?}");
        }
        let tried = world.run(&["releases", APP]);
        if wrong == "+400d" {
            assert_eq!(tried.status.code(), Some(4), "{tried:?}");
            assert!(tried.err.contains("the token expired at") && tried.err.contains("clock"), "{tried:?}");
        } else {
            assert!(tried.is_good(), "{tried:?}");
        }
        world.use_token(everything);
        world.push(4);
        world.settle();
        assert_eq!(world.current(&[4]), Some(4));
        remove(&mut world, 1);
        collect(&world);
        collect(&world);
        world.check_releases(&[]);
        world.check_verified();
        // The proxy is killed and restarted with the wrong clock; then the clock is corrected.
        served.kill();
        served = world.try_serve_under(&below).expect("it starts");
        world.push(5);
        world.check_releases(&[]);
        set("+0d");
        world.push(6);
        remove(&mut world, 2);
        collect(&world);
        world.check_releases(&[]);
        served.kill();
        let _served = world.serve(None);
        world.push(7);
        world.settle();
        collect(&world);
        assert_eq!(world.current(&[7]), Some(7));
        world.check_releases(&[]);
        world.check_verified();
        no_panic(&world);
    }
}

#[test]
fn an_agent_whose_clock_is_wrong_pushes_and_pulls_as_ever() {
    for wrong in ["+400d", "-400d"] {
        let mut world = World::new(Shape::SMALL, 1);
        let told = world.path("clock");
        let Some(below) = clock(&told) else { return };
        fs::write(&told, wrong).expect("written");
        let _served = world.serve(None);
        world.push(1);
        world.agents_below = below;
        // The proxy judges whether the token has expired, not the agent.
        let everything = world.use_token_of("1h");
        world.push(2);
        world.use_token(everything);
        world.push(3);
        world.settle();
        remove(&mut world, 1);
        collect(&world);
        world.check_releases(&[]);
        assert_eq!(world.current(&[3]), Some(3));
        world.check_verified();
        no_panic(&world);
    }
}
