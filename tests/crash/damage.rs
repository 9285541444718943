//! Random damage to the files of a store at rest is found or harmless, and the next push repairs it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::trees::{Dice, Shape};
use crate::world::{APP, World, rounds};

const VERSIONS: [u64; 3] = [1, 2, 3];

/// Returns a world of three releases: all in sealed packs, or the last in a pack that `kill -9` left open.
fn template(open: bool) -> &'static World {
    static SEALED: OnceLock<World> = OnceLock::new();
    static OPEN: OnceLock<World> = OnceLock::new();
    (if open { &OPEN } else { &SEALED }).get_or_init(|| {
        let mut world = World::new(Shape::SMALL, 1);
        for versions in [&VERSIONS[..2], &VERSIONS[2..]] {
            // Rebuilt from the packs, so that the index has every kind of file.
            drop(fs::remove_dir_all(world.index()));
            let mut served = world.serve(None);
            for version in versions {
                world.push(*version);
            }
            if open && versions.len() == 1 {
                served.kill();
            } else {
                served.terminate();
                assert!(served.ended(Duration::from_secs(60)).is_some_and(|status| status.success()));
            }
        }
        world
    })
}

/// Damages one file and describes how.
fn damage(files: &[PathBuf], dice: &mut Dice) -> String {
    let place = usize::try_from(dice.below(files.len() as u64)).expect("small");
    let path = &files[place];
    let bytes = fs::metadata(path).expect("it is there").len();
    let at = dice.below(bytes);
    let what = match dice.below(10) {
        0..5 => {
            World::flip(path, at);
            format!("byte {at} changed")
        }
        5..7 => {
            let page = at / 4096 * 4096;
            let zeros = vec![0; usize::try_from((bytes - page).min(4096)).expect("a page")];
            let file = File::options().write(true).open(path).expect("it is there");
            file.write_all_at(&zeros, page).expect("written");
            format!("page at {page} zeroed")
        }
        7..9 => {
            File::options().write(true).open(path).expect("it is there").set_len(at).expect("cut");
            format!("cut to {at} B")
        }
        _ => {
            fs::remove_file(path).expect("removed");
            "removed".to_owned()
        }
    };
    let shown = path.strip_prefix(path.ancestors().nth(3).unwrap_or(Path::new("/"))).unwrap_or(path);
    format!("{} of {bytes} B: {what}", shown.display())
}

/// How a damage came to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// A pull or a delivery read it.
    MetByReading,
    /// The proxy reported it at its start.
    MetAtStart,
    /// `whit verify` named it.
    MetByVerify,
    /// Nothing came of it.
    Harmless,
}

fn round(files: impl Fn(&World) -> Vec<PathBuf>, open: bool, dice: &mut Dice) -> Result<Fate, String> {
    let mut world = template(open).copy();
    let what = damage(&files(&world), dice);
    let checked = catch_unwind(AssertUnwindSafe(|| mends(&mut world)));
    checked.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("{what}: {}", text.unwrap_or_default())
    })
}

fn mends(world: &mut World) -> Fate {
    let mut served = world.serve(None);
    let mut met = false;
    let releases = world.acknowledged.clone();
    for (release, version) in &releases {
        let target = world.path("pulled");
        drop(fs::remove_dir_all(&target));
        let done = world.run(&["pull", &format!("{APP}@{release}"), &target.display().to_string()]);
        if done.is_good() {
            assert!(crate::trees::is_same(&world.tree(*version), &target), "wrong bytes of {version}");
        } else {
            assert!(matches!(done.status.code(), Some(3 | 5 | 6)), "{done:?}");
            assert!(!target.exists(), "a failed pull left something");
            met = true;
        }
    }
    assert_eq!(world.current(&VERSIONS), Some(3));
    let done = world.run(&["verify", "--repair"]);
    assert!(matches!(done.status.code(), Some(0 | 5)), "{done:?}");
    let line = done.out.lines().next().unwrap_or_default();
    let verified: serde_json::Value = serde_json::from_str(line).expect("a report");
    let some = |list: &str| verified[list].as_array().is_some_and(|list| !list.is_empty());
    let counts = |what: &str| verified[what].as_u64() != Some(0);
    let named = some("damaged") || some("incomplete") || counts("indexed") || counts("healed_chunks");
    let told = world.log();
    // The proxy may have mended it before anybody asked.
    let noted = ["damaged", "gone", "rebuilt", "cut short"].iter().any(|word| told.contains(word));
    assert!(named || noted || !met, "what a pull has met, verify does not name: {verified}");
    // The same content is pushed again from the trees it came from.
    for version in VERSIONS {
        world.push(version);
        world.settle();
        assert_eq!(world.current(&VERSIONS), Some(version));
    }
    world.check_releases(&[]);
    let again = world.run(&["verify", "--repair"]);
    assert!(again.is_good(), "not mended by pushing again: {again:?}\n{}", world.log());
    world.check_verified();
    world.check_releases(&[]);
    served.terminate();
    assert!(served.ended(Duration::from_secs(60)).is_some_and(|status| status.success()));
    let _served = world.serve(None);
    world.check_verified();
    if met {
        Fate::MetByReading
    } else if noted {
        Fate::MetAtStart
    } else if named {
        Fate::MetByVerify
    } else {
        Fate::Harmless
    }
}

fn many(what: &str, count: u64, files: impl Fn(&World) -> Vec<PathBuf>, open: bool) {
    let mut dice = Dice::cast(what);
    let mut fates: BTreeMap<Fate, u64> = BTreeMap::new();
    let mut failed = Vec::new();
    for number in 0..count {
        match round(&files, open, &mut dice) {
            Ok(fate) => *fates.entry(fate).or_default() += 1,
            Err(text) => failed.push(format!("round {number}: {text}")),
        }
    }
    println!("{what}, {count} damages: {fates:?}, {} not mended", failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn damaged_packs_are_found_and_mended() {
    many("packs", rounds("WHIT_DAMAGE_ROUNDS", 26), World::sealed, false);
}

#[test]
fn a_damaged_pack_that_was_left_open_is_found_and_mended() {
    let files = |world: &World| {
        let open = fs::read_dir(world.packs().join("open")).expect("a folder");
        open.map(|entry| entry.expect("an entry").path()).collect()
    };
    many("open packs", rounds("WHIT_DAMAGE_OPEN_ROUNDS", 8), files, true);
}

#[test]
fn a_damaged_index_is_found_and_rebuilt() {
    let files = |world: &World| {
        let entries = fs::read_dir(world.index()).expect("an index");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0)).collect()
    };
    many("the index", rounds("WHIT_DAMAGE_INDEX_ROUNDS", 10), files, false);
}
