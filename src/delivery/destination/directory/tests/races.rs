//! Somebody else who may write to a destination's folder puts links, pipes and other files where whit writes, before a
//! delivery and during it: what rsync's advisories of 2026 are about. Nothing outside may be written, given away, changed
//! in its mode or time, or removed.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

/// What lies outside: a folder with a file, never to be touched.
struct Outside {
    folder: PathBuf,
}

/// What could have been changed.
type State = Vec<(PathBuf, u32, u32, (i64, i64), Option<Vec<u8>>)>;

impl Outside {
    fn new(bench: &Bench) -> Self {
        let folder = bench.folder.path().join("outside");
        fs::create_dir_all(folder.join("bin")).expect("created");
        for name in ["file", "README", "bin/app", "lock"] {
            fs::write(folder.join(name), "outside").expect("written");
        }
        fs::set_permissions(folder.join("file"), fs::Permissions::from_mode(0o600)).expect("set");
        Self { folder }
    }

    fn state(&self) -> State {
        let (mut state, mut folders) = (Vec::new(), vec![self.folder.clone()]);
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).expect("a folder");
            let below = entries.map(|entry| entry.expect("an entry").path());
            for path in below.chain([folder.clone()]) {
                let found = fs::symlink_metadata(&path).expect("it is there");
                if found.is_dir() && path != folder {
                    folders.push(path);
                    continue;
                }
                let content = found.is_file().then(|| fs::read(&path).expect("a file"));
                let changed = (found.mtime(), found.ctime() * 1_000_000_000 + found.ctime_nsec());
                state.push((path, found.mode(), found.uid(), changed, content));
            }
        }
        state.sort();
        state
    }

    /// Puts a link of another user to the outside at a path.
    fn plant(&self, path: &Path) {
        symlink(&self.folder, path).expect("planted");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(path, Some(12345), None).expect("given away");
        }
    }
}

fn mapped(bench: &Bench) -> Directory {
    let modes = |text: &str| Permissions::try_from(text.to_owned()).ok();
    let owner = rustix::process::geteuid().is_root().then_some(Account::Number(12345));
    let shared = vec![SharedPath::try_from("data/".to_owned()).expect("a path")];
    Directory { owner, file_mode: modes("640"), dir_mode: modes("750"), shared, ..bench.directory() }
}

#[test]
fn links_that_were_planted_before_a_delivery_are_refused_or_replaced() {
    let mut bench = Bench::new();
    let (directory, outside) = (mapped(&bench), Outside::new(&bench));
    let (one, two) = (bench.root(1), bench.root(2));
    let place = directory.path.as_path();
    let before = outside.state();
    let plants: [(&str, bool); 8] = [
        ("current", true),
        ("releases", false),
        (".whit", false),
        (".whit/lock", false),
        (".whit/staging-ID", true),
        (".whit/current-next", true),
        ("releases/ID", true),
        ("shared", true),
    ];
    for (plant, goes) in plants {
        drop(disk::files::remove(place));
        bench.deliver_at(&directory, &one, 1000).expect("delivered");
        let path = place.join(plant.replace("ID", &two.release().to_string()));
        disk::files::remove(&path).expect("removed");
        outside.plant(&path);
        let delivered = bench.deliver_at(&directory, &two, 2000);
        assert_eq!(delivered.is_ok(), goes, "{plant}: {delivered:?}");
        assert_eq!(outside.state(), before, "{plant}");
        if goes {
            let third = bench.root(3);
            let keep = Directory { keep: 1, ..directory.clone() };
            for root in [&third, &one, &two, &third] {
                bench.deliver_at(&keep, root, 3000).expect("old copies are removed");
            }
            assert_eq!(outside.state(), before, "{plant}, removed");
        }
    }
}

#[test]
fn what_is_planted_in_an_old_copy_is_not_followed_linked_waited_for_or_removed_through() {
    let mut bench = Bench::new();
    let outside = Outside::new(&bench);
    let (one, two) = (bench.root(1), bench.root(2));
    for reuse in [Reuse::Copy, Reuse::HardLink] {
        let path = Template::new(bench.folder.path().join(format!("{reuse:?}")));
        let directory = Directory { reuse, keep: 1, path, ..mapped(&bench) };
        let first = bench.deliver_at(&directory, &one, 1000).expect("delivered");
        let old = Path::new(&first.place);
        // The same content as the release has, in a place that somebody else may change.
        fs::copy(old.join("bin/app"), outside.folder.join("bin/app")).expect("copied");
        let before = outside.state();
        disk::files::remove(&old.join("bin")).expect("removed");
        symlink(outside.folder.join("bin"), old.join("bin")).expect("planted");
        fs::remove_file(old.join("README")).expect("removed");
        rustix::fs::mknodat(rustix::fs::CWD, old.join("README"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("a pipe");
        fs::remove_file(old.join("version")).expect("removed");
        fs::hard_link(outside.folder.join("file"), old.join("version")).expect("linked");
        let linked = outside.state();
        let copies = directory.read_back(&bench.app, &one.release());
        for name in ["bin/app", "README"] {
            let name = EntryPath::new(name).expect("a path");
            assert!(copies.iter().all(|copy| copy.read(&name, 0, 1).is_none()), "{name}");
        }
        let second = bench.deliver_at(&directory, &two, 2000).expect("delivered");
        let app = fs::metadata(Path::new(&second.place).join("bin/app")).expect("a file");
        assert_ne!(app.ino(), fs::metadata(outside.folder.join("bin/app")).expect("a file").ino());
        assert_eq!((app.mtime(), outside.state()), (2000, linked));
        bench.deliver_at(&directory, &one, 1000).expect("delivered");
        bench.deliver_at(&directory, &two, 2000).expect("delivered");
        assert_eq!(fs::metadata(outside.folder.join("file")).expect("a file").nlink(), 1, "it was removed");
        let but_times =
            |state: State| state.into_iter().map(|(path, mode, uid, _, content)| (path, mode, uid, content));
        assert!(but_times(outside.state()).eq(but_times(before)));
    }
}

/// A folder is swapped for a link to the outside and back, as fast as that goes, while releases are delivered.
#[test]
fn folders_that_are_swapped_for_links_during_deliveries_lead_nobody_outside() {
    let mut bench = Bench::new();
    let outside = Outside::new(&bench);
    let (one, two) = (bench.root(1), bench.root(2));
    let is_root = rustix::process::geteuid().is_root();
    // Without another user's link, the place itself is where one's own link leads.
    let targets = if is_root { &["", ".whit"][..] } else { &[".whit"] };
    let others = ["releases", "shared", "shared/data", "releases/ID", "releases/ID/bin"];
    for target in targets.iter().chain(&others) {
        let path = bench.folder.path().join(format!("of {}", target.replace('/', "-"))).join("app");
        let directory = Directory { path: Template::new(&path), keep: 1, ..mapped(&bench) };
        bench.deliver_at(&directory, &one, 1000).expect("delivered");
        let before = outside.state();
        let swapped = path.join(target.replace("ID", &one.release().to_string()));
        let (aside, link) = (path.with_file_name("aside"), path.with_file_name("link"));
        outside.plant(&link);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let swapper = scope.spawn(|| {
                let mut swaps = 0_u64;
                while !done.load(Ordering::Relaxed) || swaps < 100 {
                    // Each step may fail where a delivery was quicker.
                    if fs::rename(&swapped, &aside).is_ok() {
                        drop(fs::rename(&link, &swapped));
                        drop(fs::rename(&swapped, &link));
                        drop(fs::rename(&aside, &swapped));
                    }
                    if fs::symlink_metadata(&link).is_err() {
                        outside.plant(&link);
                    }
                    if fs::symlink_metadata(&aside).is_ok() {
                        drop(disk::files::remove(&aside));
                    }
                    swaps += 1;
                }
            });
            let mut delivered = 0;
            for round in 0..12 {
                let (root, created) = if round % 2 == 0 { (&two, 2000) } else { (&one, 1000) };
                delivered += u32::from(bench.deliver_at(&directory, root, created).is_ok());
            }
            done.store(true, Ordering::Relaxed);
            swapper.join().expect("it swaps");
            println!("{target}: {delivered} of 12 went");
        });
        assert_eq!(outside.state(), before, "{target}");
    }
}

#[test]
fn a_way_that_leads_through_another_users_link_is_refused() {
    let mut bench = Bench::new();
    let (outside, root) = (Outside::new(&bench), bench.root(1));
    let link = bench.folder.path().join("link");
    symlink(&outside.folder, &link).expect("linked");
    let directory = Directory { path: Template::new(link.join("app")), ..bench.directory() };
    let before = outside.state();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(&link, Some(12345), None).expect("given away");
        let error = bench.deliver(&directory, &root).expect_err("it leads anywhere");
        assert!(error.to_string().contains("another user"), "{error}");
        assert_eq!(outside.state(), before);
        std::os::unix::fs::lchown(&link, Some(0), None).expect("taken back");
    }
    bench.deliver(&directory, &root).expect("one's own link leads to the place");
    assert!(outside.folder.join("app/current").exists());
}
