//! A full disk and a failing disk: nothing acknowledged is lost, the error says what to do, and everything works again
//! once there is room.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::trees::{Dice, Shape};
use crate::world::{APP, World, is_root, rounds};

/// A mounted tmpfs, unmounted on drop.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn new(at: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("created");
        let options = format!("size={mebibytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        mount.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["--lazy"]).arg(&self.0).status());
    }
}

/// Fills a file system until only `left` bytes are free.
pub fn fill(folder: &Path, left: u64) -> PathBuf {
    let path = folder.join("ballast");
    let file = File::create(&path).expect("created");
    let stat = rustix::fs::statvfs(folder).expect("a file system");
    let free = stat.f_bavail * stat.f_frsize;
    if free > left {
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - left).expect("filled");
    }
    path
}

/// Rounds before a new file system is used.
const ROUNDS_EACH: u64 = 10;

#[test]
fn a_full_disk_refuses_pushes_and_nothing_else() {
    if !is_root("mounting a small tmpfs") {
        return;
    }
    let mut dice = Dice::cast("full disk");
    let count = rounds("WHIT_FULL_ROUNDS", 20);
    let (mut refused, mut succeeded, mut undelivered) = (0, 0, 0);
    let mut restarts = [0, 0];
    let mut version = 0;
    for set in 0..count.div_ceil(ROUNDS_EACH) {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let place = temporary.path().join("m");
        let Some(_mounted) = Mounted::new(&place, 48) else {
            println!("skipped: a tmpfs cannot be mounted here");
            return;
        };
        let mut world = World::at(&place, Shape::SMALL, 1);
        if set % 2 == 1 {
            // No room is reserved for records and the index.
            let config = fs::read_to_string(world.path("whit.toml")).expect("a configuration");
            let config = config.replace("reserve_mib = 1", "reserve_mib = 0");
            fs::write(world.path("whit.toml"), config).expect("written");
        }
        let mut served = world.serve(None);
        version += 1;
        world.push(version);
        for number in 0..ROUNDS_EACH.min(count - set * ROUNDS_EACH) {
            let last = version;
            version += 1;
            world.tree(version);
            let most = [4_500_000, 300_000][usize::from(dice.below(3) == 0)];
            let ballast = fill(&place, dice.below(most));
            let done = world.begin_push(version).done(Duration::from_secs(60));
            let stored = world.took(version, &done);
            match (done.status.code(), stored) {
                (Some(0), _) => succeeded += 1,
                (Some(7), false) => refused += 1,
                // The destination is on the same file system: the release is stored, its copy is not made.
                (Some(6), true) => undelivered += 1,
                _ => panic!("set {set}, round {number}: {done:?}\n{}", world.log()),
            }
            let shown = world.current(&[last, version]);
            assert!(shown.is_some());
            let apps = world.run(&["apps"]);
            assert!(apps.is_good(), "the proxy no longer answers: {apps:?}\n{}", world.log());
            let restarted = number % 3 == 1;
            if restarted {
                // The proxy seals and indexes on the full disk; then it starts there, or says why it cannot.
                served.terminate();
                assert!(served.ended(Duration::from_secs(60)).is_some(), "it does not stop");
                let again = world.try_serve_under(&[]);
                let answers = again.is_some() && world.run(&["apps"]).is_good();
                restarts[usize::from(answers)] += 1;
                if let Some(again) = again {
                    served = again;
                } else {
                    assert!(world.log().contains("error:"), "no clear error: {}", world.log());
                }
            }
            fs::remove_file(ballast).expect("removed");
            if restarted && served.ended(Duration::ZERO).is_some() {
                served = world.serve(None);
            }
            world.push(version);
            world.settle();
            assert_eq!(world.current(&[version]), Some(version));
            if number % 5 == 4 {
                world.check_releases(&[]);
                world.check_verified();
                // A kill with work under way, and a restart from what is on disk.
                served.kill();
                served = world.serve(None);
                world.check_verified();
            }
            drop(fs::remove_dir_all(world.path("pulled")));
            drop(fs::remove_dir_all(world.path(&format!("tree-{last}"))));
        }
        served.kill();
    }
    println!(
        "full disk, {count} times: {refused} pushes refused, {succeeded} made, {undelivered} stored and not delivered until there was room; started anew on the full disk, it answered {} times at once, {} times only with room",
        restarts[1], restarts[0]
    );
}

/// The system calls that fail, each with the highest number of the failing call in one thread.
const CALLS: [(&str, u64); 5] =
    [("fdatasync", 3), ("fsync", 6), ("pwrite64", 6), ("write", 24), ("renameat,rename,renameat2", 3)];

#[test]
fn a_failing_disk_loses_nothing_acknowledged() {
    let has_strace = Command::new("strace").arg("-V").output().is_ok_and(|done| done.status.success());
    if !has_strace {
        println!("skipped: strace is not here to make calls fail");
        return;
    }
    let mut dice = Dice::cast("failing disk");
    let count = rounds("WHIT_EIO_ROUNDS", 10);
    let mut template = World::new(Shape::SMALL, 1);
    let mut served = template.serve(None);
    template.push(1);
    served.terminate();
    assert!(served.ended(Duration::from_secs(60)).is_some());
    let mut outcomes: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    for number in 0..count {
        let (call, most) = CALLS[usize::try_from(number).expect("small") % CALLS.len()];
        let when = 1 + dice.below(most);
        // Once, or every time from then on.
        let on = if dice.below(2) == 0 { "" } else { "+" };
        let inject = format!("inject={call}:error=EIO:when={when}{on}");
        let mut world = template.copy();
        let trace = format!("trace={call}");
        let under = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let Some(mut served) = world.try_serve_under(&under) else {
            // The write may be one by which threads of the runtime wake each other, which no disk makes fail: then the
            // program may end in another way, or hang.
            let told = call == "write" || world.log().contains("error:");
            assert!(told, "no clear error: {}", world.log());
            *outcomes.entry(format!("{call}: refused to start")).or_default() += 1;
            check(&mut world, &inject);
            continue;
        };
        let done = world.begin_push(2).done(Duration::from_secs(8));
        let stored = world.took(2, &done);
        let outcome = match done.status.code() {
            Some(0) => "pushed",
            Some(_) if stored => "stored, not delivered",
            Some(_) => {
                assert!(done.err.contains("error:"), "no clear error: {done:?}");
                "refused"
            }
            None => "the proxy hung or died",
        };
        *outcomes.entry(format!("{call}: {outcome}")).or_default() += 1;
        served.kill();
        check(&mut world, &inject);
    }
    println!("failing disk, {count} times, nothing lost: {outcomes:#?}");
}

/// Checks everything after a restart on a disk that works again.
fn check(world: &mut World, inject: &str) {
    println!("{inject}");
    let _served = world.serve(None);
    world.check_releases(&[2]);
    world.push(2);
    world.settle();
    assert_eq!(world.current(&[2]), Some(2));
    world.check_verified();
    assert!(world.run(&["releases", APP]).is_good());
}
