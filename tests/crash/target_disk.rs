//! A target whose disk is full: it keeps what it shows and what it remembers, says why, and goes on once there is room.

use std::fs;

use crate::disk::{Mounted, fill};
use crate::points::{NEW, release_of, template};
use crate::targets::{Site, label};
use crate::world::{PATIENCE, is_root};

/// Bytes that are free on a disk that is nearly full: not enough for a release.
const LEFT: u64 = 300_000;

fn goes_on_with_room(layout: &'static str) {
    let mut world = template().copy();
    let place = world.path("disk");
    let Some(_mounted) = Mounted::new(&place, 24) else {
        println!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let mut served = world.serve(None);
    let [old, new] = [2, 3].map(|version| release_of(&world, version));
    label(&world, &old);
    let ballast = place.join("ballast");
    let mut site = Site::new(&world, layout);
    site.dir = place.join("app");
    // The last release fills the disk before it fails.
    let filler = format!("dd if=/dev/zero of={} bs=4096 2>/dev/null", ballast.display());
    site.then =
        format!("if test \"$(cat version)\" = {NEW} && test $WHIT_EVENT = released; then {filler}; fi; true");
    let mut watch = site.watch(&world, "", None);
    watch.until("first release", |report| report["state"] == "confirmed");
    let starts = || fs::read_to_string(&site.log).expect("a log").matches("start ").count();

    fill(&place, LEFT);
    label(&world, &new);
    let is_full = |report: &serde_json::Value| {
        let reason = report["reason"].as_str().unwrap_or_default();
        report["state"] == "failed" && reason.contains("no room at") && report["shown"] == *old
    };
    watch.until("word of the full disk", is_full);
    assert_eq!((site.shows(&world, &[2]), starts()), (2, 1));
    watch.process.kill();
    // It starts on the full disk, and knows what it had shown and confirmed.
    watch = site.watch(&world, "", None);
    watch.until("word of the full disk after a start", is_full);
    assert_eq!((site.shows(&world, &[2]), starts()), (2, 1));
    fs::remove_file(&ballast).expect("removed");
    watch
        .until("release that fits now", |report| report["state"] == "confirmed" && report["release"] == *new);
    assert_eq!(site.shows(&world, &[3]), 3);
    watch.stop();

    world.push(NEW);
    let bad = release_of(&world, NEW);
    label(&world, &bad);
    let mut watch = site.watch(&world, &bad, None);
    watch.until("way back on a full disk", |report| {
        report["state"] == "rolled_back" && report["release"] == *bad
    });
    assert!(fs::metadata(&ballast).is_ok_and(|filled| filled.len() > LEFT), "the disk was not full");
    assert_eq!((site.shows(&world, &[3]), site.started()), (3, new.clone()));
    watch.process.kill();
    // What was left has made room.
    fs::remove_file(&ballast).expect("removed");
    fill(&place, 0);
    let mut watch = site.watch(&world, &bad, None);
    watch.until("word of what failed before", |report| {
        report["reason"].as_str().is_some_and(|reason| reason.contains("went back from this release before"))
    });
    assert_eq!((site.shows(&world, &[3]), site.started()), (3, new));
    fs::remove_file(&ballast).expect("removed");
    world.push(NEW + 1);
    let last = release_of(&world, NEW + 1);
    label(&world, &last);
    watch.until("last release", |report| report["state"] == "confirmed" && report["release"] == *last);
    site.shows(&world, &[NEW + 1]);
    watch.stop();
    served.terminate();
    assert!(served.ended(PATIENCE).is_some_and(|status| status.success()));
}

#[test]
fn a_target_keeps_what_it_shows_on_a_full_disk_and_goes_on_with_room() {
    if !is_root("mounting a small tmpfs") {
        return;
    }
    ["plain", "releases"].into_iter().for_each(goes_on_with_room);
}
