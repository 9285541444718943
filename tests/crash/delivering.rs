//! `kill -9` of the proxy at random moments of deliveries to a server, with a reader who follows what its pages name.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::servers::{Server, nginx, s3};
use crate::site::{self, Reader, STAMP};
use crate::trees::{Dice, Shape};
use crate::world::{World, rounds};

/// Releases whose files stay: the one that is shown and the one before, whose pages readers may still have.
const KEEP: usize = 2;

/// Results of a loop.
#[derive(Debug, Default)]
struct Figures {
    kills: u64,
    /// Kills after which the delivery had to go on.
    in_delivery: u64,
    looks: u64,
    /// Requests that the server noted, if it does.
    requests: usize,
    half: Vec<String>,
    /// Releases that were queued and not delivered by the proxy alone.
    lost: Vec<String>,
    /// Files that were written again, though their delivery had ended.
    twice: u64,
}

/// Returns a moment up to a quarter beyond the usual time.
pub fn moment(dice: &mut Dice, usual: Duration) -> Duration {
    usual.mul_f64(f64::from(u32::try_from(dice.below(1250)).expect("small")) / 1000.0)
}

/// Returns some of the files that are not the same in `known`.
fn others(files: &BTreeMap<String, Vec<u8>>, known: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let other = files.iter().filter(|(path, content)| known.get(*path) != Some(content));
    other.map(|(path, _)| path.clone()).take(5).collect()
}

/// Kills the proxy in so many deliveries. Some releases come back, some deliveries are killed twice.
fn kill(server: &Server, name: &str, count: u64) -> Figures {
    let mut dice = Dice::cast(name);
    let mut world = World::new(Shape::SMALL, 1);
    world.configure_more(&site::definition(server, "s", KEEP));
    let mut served = world.serve(None);
    let mut figures = Figures::default();
    let root = server.root.clone();
    let reader = Reader::start(move || site::look(&root));
    let mut usual = Duration::from_millis(100);
    // The versions that were delivered, the last one last.
    let mut delivered: Vec<u64> = Vec::new();
    for round in 1..=count {
        // One of six goes back.
        let back = delivered.len().checked_sub(2).filter(|_| dice.below(6) == 0);
        let version = back.map_or(round, |place| delivered[place]);
        let tree = site::write(world.path("site"), version);
        let mut push = world.begin_push_to(&tree, "s");
        site::wait("no delivery", || world.deliveries() > 0);
        let begun = Instant::now();
        for again in 0..2 {
            std::thread::sleep(moment(&mut dice, usual));
            let marks = (world.deliveries() == 0).then(|| site::marks(&server.root));
            if marks.is_some() {
                usual = usual * 15 / 16;
            } else {
                usual = usual * 17 / 16;
                figures.in_delivery += 1;
            }
            served.kill();
            push.kill();
            figures.kills += 1;
            served = world.serve(None);
            if let Some(marks) = marks {
                drop(world.releases());
                let now = site::marks(&server.root);
                figures.twice +=
                    now.iter().filter(|(path, mark)| marks.get(*path) != Some(mark)).count() as u64;
            }
            if again == 0 && dice.below(4) > 0 {
                break;
            }
        }
        // Nobody pushes again: the delivery was promised.
        world.settle();
        usual = usual.min(begun.elapsed());
        let mut expected = delivered.last().map(|last| site::files(*last)).unwrap_or_default();
        expected.retain(|path, _| path.starts_with("assets/"));
        expected.extend(site::files(version));
        let mut shown = server.files();
        let stamp = shown.remove(STAMP).map(|stamp| String::from_utf8_lossy(&stamp).trim().to_owned());
        if shown != expected || stamp != world.releases().pop() {
            figures.lost.push(format!(
                "round {round}, version {version} after {delivered:?}: there is {:?}, missing is {:?}, stamp {stamp:?}",
                others(&shown, &expected),
                others(&expected, &shown)
            ));
        }
        delivered.push(version);
    }
    (figures.looks, figures.half) = reader.end();
    figures.requests = server.requests().len();
    world.check_verified();
    figures
}

fn report(server: &Server, name: &str) {
    let figures = kill(server, name, rounds("WHIT_KILL_DELIVERY_ROUNDS", 8));
    let Figures { kills, in_delivery, looks, requests, half, lost, twice } = &figures;
    println!(
        "{kills} kills of a proxy that delivers to {name}, {in_delivery} of them in the delivery: {looks} looks, {} half releases, {} lost, {twice} files written again; {requests} requests",
        half.len(),
        lost.len()
    );
    assert!(half.is_empty() && lost.is_empty() && *twice == 0, "{figures:?}");
    assert!(*in_delivery > 0, "no kill came in time");
}

#[test]
fn a_proxy_killed_while_it_delivers_to_an_http_server_shows_and_keeps_whole_releases() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    if let Some(server) = nginx(folder.path()) {
        report(&server, "nginx");
    }
}

#[test]
fn a_proxy_killed_while_it_delivers_to_a_bucket_shows_and_keeps_whole_releases() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("s3");
    fs::create_dir(&root).expect("a folder");
    report(&s3(&root), "S3");
}
