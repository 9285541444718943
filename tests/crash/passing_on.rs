//! `kill -9` of one of three proxies in a chain at random moments, with a reader of what the last one shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::delivering::moment;
use crate::points_of_services::passing_to;
use crate::site::{self, Reader};
use crate::trees::{self, Dice, Shape};
use crate::world::{Process, World, rounds};

/// Some 700 kB, half of it changing.
const SHAPE: Shape = Shape { files: 24, changing: 12, file_bytes: 28_000 };

/// Looks at the release that is shown: every file of it is of the version that it says.
fn look(current: &Path) -> Result<Option<u64>, String> {
    let Ok(release) = fs::canonicalize(current) else { return Ok(None) };
    let version =
        fs::read_to_string(release.join("version")).map_err(|error| format!("no version: {error}"))?;
    let version: u64 = version.parse().map_err(|_| format!("the version is `{version}`"))?;
    for file in 0..SHAPE.files {
        let (path, content) = SHAPE.file(file, version);
        if fs::read(release.join(&path)).map_err(|error| format!("{path} of {version}: {error}"))? != content
        {
            return Err(format!("{path} is not of {version}"));
        }
    }
    Ok(Some(version))
}

/// Returns the copies that a destination holds, without what is being written.
fn copies(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("releases")).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn three_proxies_of_which_one_is_killed_again_and_again_show_and_keep_whole_releases() {
    let count = rounds("WHIT_KILL_CHAIN_ROUNDS", 8);
    let mut dice = Dice::cast("chain");
    // The last one first: each is told of the next.
    let mut proxies: Vec<(World, Process)> = Vec::new();
    for _ in 0..3 {
        let mut world = World::new(SHAPE, 2);
        if let Some((next, _)) = proxies.last() {
            let to = if proxies.len() == 1 { "d" } else { "next" };
            world.configure_more(&passing_to(next, &world).replace("\"d\"", &format!("\"{to}\"")));
        }
        let served = world.serve(None);
        proxies.push((world, served));
    }
    let dest = proxies[0].0.path("dest");
    let current = dest.join("current");
    let reader = Reader::start(move || look(&current));
    let mut usual = Duration::from_millis(300);
    let (mut kills, mut in_delivery, mut lost, mut twice) = (0, 0, 0, 0);
    for version in 1..=count {
        let tree = proxies[2].0.tree(version);
        let mut push = proxies[2].0.begin_push_to(&tree, "next");
        site::wait("no delivery", || proxies[2].0.deliveries() > 0);
        std::thread::sleep(moment(&mut dice, usual));
        let waiting = |proxies: &[(World, Process)]| proxies.iter().any(|(world, _)| world.deliveries() > 0);
        let marks = (!waiting(&proxies)).then(|| site::marks(&dest.join("releases")));
        usual = if marks.is_some() { usual * 15 / 16 } else { usual * 17 / 16 };
        in_delivery += u64::from(marks.is_none());
        let victim = usize::try_from(dice.below(3)).expect("small");
        proxies[victim].1.kill();
        kills += 1;
        proxies[victim].1 = proxies[victim].0.serve(None);
        if let Some(marks) = marks {
            drop(proxies[victim].0.releases());
            twice += u64::from(site::marks(&dest.join("releases")) != marks);
        }
        // Nobody pushes again: the delivery was promised.
        site::wait("a delivery never ends", || !waiting(&proxies));
        push.kill();
        let shown = fs::canonicalize(dest.join("current")).expect("a release");
        lost += u64::from(!trees::is_same(&tree, &shown));
        let listed = proxies.iter().map(|(world, _)| world.releases().len() as u64);
        // One record for each push, wherever it came through.
        twice += listed.filter(|listed| *listed != version).count() as u64;
        let of_copies = copies(&dest);
        twice += of_copies.iter().filter(|copy| copy.extension().is_some()).count() as u64;
        drop(fs::remove_dir_all(proxies[2].0.path(&format!("tree-{}", version - 1))));
    }
    let (looks, half) = reader.end();
    for (world, _) in &proxies {
        world.check_verified();
    }
    println!(
        "{kills} kills of one of three proxies in a chain, {in_delivery} of them in the delivery: {looks} looks, {} half releases, {lost} lost, {twice} delivered twice",
        half.len()
    );
    assert!(half.is_empty() && (lost, twice) == (0, 0), "{half:?}");
    assert!(in_delivery > 0, "no kill came in time");
}
