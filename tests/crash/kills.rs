//! `kill -9` of the proxy and of agents at random moments during pushes of changing content.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::trees::{Dice, Shape};
use crate::world::{World, rounds};

/// Some 3 MB, a third of it changing, plus files that are encoded against their earlier versions.
const SHAPE: Shape = Shape { files: 30, changing: 10, file_bytes: 80_000 };
/// One push in this many remembers nothing; the others build on the previous release.
const FORGETS: u64 = 3;

/// The process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Proxy,
    Agent,
}

/// Results of a loop.
#[derive(Debug, Default)]
struct Figures {
    rounds: u64,
    /// Pushes that had been acknowledged when the process died.
    acknowledged: u64,
    /// Releases that the proxy had committed, though the agent died before it heard so.
    unheard: u64,
    /// Pushes that were not interrupted, and the chunks they sent.
    whole: (u64, u64),
    /// Interrupted pushes, and the chunks that the repeated push sent again or for the first time.
    broken_off: (u64, u64),
    /// Chunks of acknowledged pushes that were missing when the same push was repeated.
    again: u64,
    /// Files encoded by the functions that changed.
    moved: u64,
    /// Acknowledged releases that were lost.
    lost: u64,
    /// Destinations or pulls whose bytes match no release.
    wrong: u64,
    /// Rounds after which the destination showed the new release without another push.
    delivered: u64,
    restarts: Vec<Duration>,
}

/// Returns the number of chunks that a push sent, and of the files that it encoded by the functions that changed.
fn brought(receipt: &Value) -> (u64, u64) {
    let unseen = receipt["chunks"]["unseen"].as_u64().expect("a number");
    let explained = receipt["explained"].as_array().into_iter().flatten();
    (unseen, explained.filter(|file| file["reason"] == "moved-code").count() as u64)
}

fn kill(victim: Victim, count: u64) -> Figures {
    let mut dice = Dice::cast(&format!("{victim:?}"));
    let mut world = World::new(SHAPE, 1);
    world.related = true;
    let mut served = world.serve(None);
    world.push(0);
    let mut figures = Figures { rounds: count, ..Figures::default() };
    // The duration of a push: the kills are spread over it.
    let mut usual = Duration::from_millis(200);
    let mut last = 0;
    for version in 1..=count {
        world.tree(version);
        world.remembers = version % FORGETS != 0;
        let begin = Instant::now();
        let mut push = world.begin_push(version);
        let moment = usual.mul_f64(f64::from(u32::try_from(dice.below(1250)).expect("small")) / 1000.0);
        let ended = push.ended(moment);
        if ended.is_some() {
            usual = (usual * 7 + begin.elapsed()) / 8;
        } else if dice.below(16) == 0 {
            usual = usual * 9 / 8;
        }
        match victim {
            Victim::Proxy => served.kill(),
            Victim::Agent => push.kill(),
        }
        let done = push.done(Duration::from_millis(20));
        let acknowledged = world.took(version, &done);
        figures.acknowledged += u64::from(acknowledged);
        if acknowledged {
            let receipt = done.out.lines().next().and_then(|line| serde_json::from_str(line).ok());
            let (brought, moved) = brought(&receipt.expect("it was read before"));
            figures.whole = (figures.whole.0 + 1, figures.whole.1 + brought);
            figures.moved += moved;
        }
        if victim == Victim::Proxy {
            if world.current(&[last, version]).is_none() {
                figures.wrong += 1;
            }
            let begin = Instant::now();
            served = world.serve(None);
            drop(world.releases());
            figures.restarts.push(begin.elapsed());
        }
        let listed: BTreeSet<String> = world.releases().into_iter().collect();
        figures.lost += world.acknowledged.keys().filter(|release| !listed.contains(*release)).count() as u64;
        let unheard: Vec<String> =
            listed.iter().filter(|release| !world.acknowledged.contains_key(*release)).cloned().collect();
        for release in unheard {
            figures.unheard += 1;
            figures.wrong += u64::from(world.pulls(&release, &[version]).is_none());
            world.acknowledged.insert(release, version);
        }
        world.settle();
        let shown = world.current(&[version, last]);
        figures.wrong += u64::from(shown.is_none());
        figures.delivered += u64::from(shown == Some(version));
        // The same push again, to its end, with a pull every few rounds.
        let (brought, moved) = brought(&world.push(version));
        figures.moved += moved;
        if acknowledged {
            figures.again += brought;
        } else {
            figures.broken_off = (figures.broken_off.0 + 1, figures.broken_off.1 + brought);
        }
        world.settle();
        figures.wrong += u64::from(world.current(&[version]) != Some(version));
        if version % 5 == 0 {
            let (release, version) = world.acknowledged.iter().nth_back(0).expect("there is one");
            figures.wrong += u64::from(world.pulls(release, &[*version]).is_none());
        }
        if version % 50 == 0 || version == count {
            world.check_verified();
        }
        drop(fs::remove_dir_all(world.path(&format!("tree-{last}"))));
        last = version;
    }
    // Pulls some of all acknowledged releases, wherever they are stored now.
    for (release, version) in &world.acknowledged {
        if dice.below(world.acknowledged.len() as u64) < 12 {
            figures.wrong += u64::from(world.pulls(release, &[*version]).is_none());
        }
    }
    figures
}

fn report(victim: Victim, mut figures: Figures) {
    figures.restarts.sort();
    let at = |percent: usize| {
        let place = figures.restarts.len() * percent / 100;
        figures.restarts.get(place.min(figures.restarts.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    println!(
        "{victim:?} killed {} times: {} pushes had been acknowledged, {} more were stored; {} lost, {} wrong; the destination went on {} times; {} whole pushes brought {} chunks, and once more {}; after {} that were broken off {} chunks came; {} executables were told by their functions; restart and first answer: median {:?}, 99 % {:?}, longest {:?}",
        figures.rounds,
        figures.acknowledged,
        figures.unheard,
        figures.lost,
        figures.wrong,
        figures.delivered,
        figures.whole.0,
        figures.whole.1,
        figures.again,
        figures.broken_off.0,
        figures.broken_off.1,
        figures.moved,
        at(50),
        at(99),
        at(100)
    );
    assert_eq!((figures.lost, figures.wrong, figures.again), (0, 0, 0));
    assert!(figures.moved > 0, "no push built on an executable");
}

#[test]
fn a_proxy_killed_at_random_moments_keeps_what_it_acknowledged() {
    report(Victim::Proxy, kill(Victim::Proxy, rounds("WHIT_KILL_ROUNDS", 30)));
}

#[test]
fn an_agent_killed_at_random_moments_hurts_nobody() {
    report(Victim::Agent, kill(Victim::Agent, rounds("WHIT_KILL_AGENT_ROUNDS", 20)));
}
