//! Random histories of a person and of whit in the same places: everything the person made is still there.
//!
//! They run in the test's own mount namespace, as root; without it, there are no mounts and no other owners.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mounts::{Namespace, namespace};
use crate::program::Home;
use crate::trees::{Entry, is_slow, snapshot, write};

const SEED: &str = "WHIT_TEST_SEED";

/// Random numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        // SplitMix64, Steele et al. 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % end as u64).expect("below a usize")
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// The places, and the person's changes in them.
struct History {
    home: Home,
    random: Random,
    /// True if the test can mount and change owners.
    is_root: bool,
    number: usize,
    /// Files that the person added to the pulled directory, by their path in it.
    added: BTreeMap<PathBuf, String>,
    /// The person's edits to files of the release.
    edits: BTreeSet<String>,
    mounts: Vec<PathBuf>,
    said: Vec<String>,
}

impl History {
    fn new(seed: u64, is_root: bool) -> Self {
        let home = Home::new();
        for name in ["outside/a", "outside/deep/b", "volume/customers", "tars/link-target"] {
            write(&home.path("."), name, name);
        }
        symlink("link-target", home.path("tars/link")).expect("linked");
        let history = Self {
            home,
            random: Random(seed),
            is_root,
            number: 0,
            added: BTreeMap::new(),
            edits: BTreeSet::new(),
            mounts: Vec::new(),
            said: Vec::new(),
        };
        for name in ["a", "bin/b", "bin/c", "share/deep/d", "e"] {
            write(&history.home.path("tree"), name, name);
        }
        fs::create_dir_all(history.home.path("tree/uploads")).expect("created");
        history
    }

    fn text(&mut self, what: &str) -> String {
        self.number += 1;
        format!("{what} {}", self.number)
    }

    /// Returns all folders or files below the pulled directory that are on its own file system and are not links.
    fn below(&self, folders: bool) -> Vec<PathBuf> {
        let top = self.home.path("copy");
        let mut all = if folders { vec![top.clone()] } else { Vec::new() };
        let mut left = vec![top];
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
                if kind.is_dir() && !self.mounts.contains(&path) {
                    left.push(path.clone());
                }
                if (folders && kind.is_dir() && !self.mounts.contains(&path)) || (!folders && kind.is_file())
                {
                    all.push(path);
                }
            }
        }
        all.sort();
        all
    }

    fn person(&mut self) {
        let copy = self.home.path("copy");
        let (folders, files) = (self.below(true), self.below(false));
        if !copy.is_dir() {
            return;
        }
        let text = self.text("person");
        match self.random.below(if self.is_root { 9 } else { 5 }) {
            0 => {
                let path = self.random.one(&folders).join(format!("added-{}", self.number));
                fs::write(&path, &text).expect("written");
                self.added.insert(path.strip_prefix(&copy).expect("below").to_owned(), text);
            }
            1 if !files.is_empty() => {
                let path = self.random.one(&files).clone();
                self.edits.remove(&fs::read_to_string(&path).expect("text"));
                fs::write(&path, &text).expect("written");
                let below = path.strip_prefix(&copy).expect("below");
                match self.added.get_mut(below) {
                    Some(added) => *added = text,
                    None => drop(self.edits.insert(text)),
                }
            }
            2 if !files.is_empty() => {
                let path = self.random.one(&files).clone();
                let content = fs::read_to_string(&path).expect("text");
                fs::remove_file(&path).expect("removed");
                self.edits.remove(&content);
                self.added.remove(path.strip_prefix(&copy).expect("below"));
            }
            3 => {
                let at = self.random.one(&folders).join(format!("link-{}", self.number));
                symlink(self.home.path("outside"), at).expect("linked");
            }
            // Sometimes the person replaces the pulled directory with a directory of their own.
            4 if self.random.below(4) == 0 && self.mounts.is_empty() => {
                fs::rename(&copy, self.home.path(&format!("moved-{}", self.number))).expect("renamed");
                self.added.clear();
                self.edits.clear();
                fs::create_dir(&copy).expect("created");
                write(&copy, "thesis", &text);
                self.added.insert("thesis".into(), text);
            }
            5 => {
                let at = self.random.one(&folders).clone();
                self.mount(&at);
            }
            6 => {
                let current = self.home.path("site/current/uploads");
                if let Ok(at) = fs::canonicalize(current) {
                    self.mount(&at);
                }
            }
            7 if !self.mounts.is_empty() => {
                let number = self.random.below(self.mounts.len());
                self.mounts.remove(number);
                // A copy that was set aside may have taken the mount along, under another path; so all are unmounted.
                self.unmount_all();
            }
            8 if !files.is_empty() => {
                let path = self.random.one(&files).clone();
                std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("given away");
            }
            _ => {}
        }
    }

    fn mount(&mut self, at: &Path) {
        let is_free = self.mounts.iter().all(|mount| !at.starts_with(mount) && !mount.starts_with(at));
        let volume = self.home.path("volume");
        // A mount would only hide what the person made below.
        let hides = self.below(false).iter().filter(|file| file.starts_with(at)).any(|file| {
            let content = fs::read_to_string(file).expect("text");
            self.edits.contains(&content) || self.added.values().any(|added| *added == content)
        });
        if is_free && !hides && at != self.home.path("copy") {
            let done = Command::new("mount").arg("--bind").arg(volume).arg(at).status();
            assert!(done.is_ok_and(|done| done.success()), "mounted");
            self.mounts.push(at.to_owned());
        }
    }

    fn unmount_all(&mut self) {
        let mounted = fs::read_to_string("/proc/self/mounts").expect("the mounts");
        let top = self.home.path(".");
        let top = fs::canonicalize(top).expect("a folder");
        let ours = mounted.lines().filter_map(|line| line.split(' ').nth(1));
        for place in ours.filter(|place| Path::new(place).starts_with(&top)) {
            let done = Command::new("umount").arg("-l").arg(place).status();
            assert!(done.is_ok_and(|done| done.success()), "unmounted");
        }
        self.mounts.clear();
    }

    fn whit(&mut self) {
        let text = self.text("release");
        let deletes = self.random.below(6) == 0;
        let arguments: Vec<&str> = match self.random.below(8) {
            0 | 1 => {
                let name = *self.random.one(&["a", "bin/b", "bin/c", "share/deep/d", "e", "bin/new", "f/g"]);
                write(&self.home.path("tree"), name, text);
                vec!["push", "app", "tree", "--to", "dir:site"]
            }
            2 => {
                let name = *self.random.one(&["a", "bin/b", "e", "bin/new"]);
                drop(fs::remove_file(self.home.path("tree").join(name)));
                vec!["push", "app", "tree", "--to", "dir:site"]
            }
            3 => vec!["gc"],
            4 => vec!["pull", "app", "--tar", "tars/link"],
            _ if deletes => vec!["pull", "app", "copy", "--delete"],
            _ => vec!["pull", "app", "copy"],
        };
        let ran = self.home.run(&arguments);
        self.said.push(format!(
            "{arguments:?}: {:?} {}",
            ran.code,
            ran.err.lines().next().unwrap_or_default()
        ));
        let is_pull = arguments.starts_with(&["pull", "app", "copy"]);
        if is_pull && ran.code == Some(0) {
            assert!(
                deletes || self.added.is_empty(),
                "a pull that goes on has nothing in its way: {:?}",
                self.added
            );
            self.added.clear();
        } else if is_pull {
            let is_refused =
                !self.added.is_empty() || !self.mounts.is_empty() || ran.err.contains("no pull has put");
            assert!(is_refused, "{}", ran.err);
        } else {
            assert_eq!(ran.code, Some(0), "{}", ran.err);
        }
    }

    /// Asserts that everything the person made is there.
    fn check(&self, outside: &BTreeMap<std::ffi::OsString, Entry>) {
        assert_eq!(snapshot(&self.home.path("outside")), *outside);
        let customers = fs::read(self.home.path("volume/customers"));
        assert_eq!(customers.expect("it is there"), b"volume/customers");
        assert!(fs::symlink_metadata(self.home.path("tars/link")).expect("it is there").is_symlink());
        for (path, content) in &self.added {
            let there = fs::read_to_string(self.home.path("copy").join(path));
            assert_eq!(there.ok().as_ref(), Some(content), "{}", path.display());
        }
        if self.edits.is_empty() {
            return;
        }
        let mut found = BTreeSet::new();
        for place in [self.home.path("copy"), self.home.path(".copy.whit/edited")] {
            let mut left = vec![place];
            while let Some(folder) = left.pop() {
                for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                    match entry.file_type().expect("a kind") {
                        kind if kind.is_dir() => left.push(entry.path()),
                        kind if kind.is_file() => found.extend(fs::read_to_string(entry.path())),
                        _ => {}
                    }
                }
            }
        }
        for edit in &self.edits {
            assert!(found.contains(edit), "`{edit}` is lost");
        }
    }
}

fn run(is_root: bool) {
    let (histories, steps) = if is_slow() { (40, 60) } else { (3, 30) };
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let first = given.unwrap_or_else(|| u64::from(std::process::id()) << 20);
    for seed in first..first + histories {
        println!("{SEED}={seed}");
        let mut history = History::new(seed, is_root);
        let outside = snapshot(&history.home.path("outside"));
        history.home.run(&["push", "app", "tree", "--to", "dir:site"]).good();
        for _ in 0..steps {
            if history.random.below(2) == 0 {
                history.person();
            } else {
                history.whit();
                let checked =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history.check(&outside)));
                assert!(checked.is_ok(), "{SEED}={seed}:\n{}", history.said.join("\n"));
            }
        }
        history.unmount_all();
    }
}

#[test]
fn whatever_a_person_made_is_still_there() {
    let name = "places_random::whatever_a_person_made_is_still_there";
    match namespace(name) {
        Namespace::Inside => run(true),
        Namespace::None => run(false),
        Namespace::Passed => {}
    }
}
