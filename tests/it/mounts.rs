//! File systems mounted inside a pulled directory or a delivered copy, and disks that are too small: in the test's own
//! mount namespace, which needs root.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev};

use crate::program::Home;
use crate::trees::{noise, write};

const INSIDE: &str = "WHIT_TEST_MOUNTS";

/// Where a test that mounts runs.
pub enum Namespace {
    /// In its own namespace: mounts are invisible elsewhere and end with the process.
    Inside,
    /// The test has run in one, as its own process, and passed.
    Passed,
    /// None is available.
    None,
}

/// Runs the test of that name again in its own mount namespace, where that is allowed.
pub fn namespace(name: &str) -> Namespace {
    if std::env::var_os(INSIDE).is_some() {
        return Namespace::Inside;
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|done| done.success()) {
        println!("not with mounts and other owners: that takes root and a namespace");
        return Namespace::None;
    }
    let mut inside = Command::new("unshare");
    inside.arg("-m").arg(std::env::current_exe().expect("this test"));
    let inside = inside.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").status();
    assert!(inside.is_ok_and(|done| done.success()), "{name} failed in its namespace: see above");
    Namespace::Passed
}

fn mount(arguments: &[&str], at: &Path) {
    let done = Command::new("mount").args(arguments).arg(at).status();
    assert!(done.is_ok_and(|done| done.success()), "mounted at {}", at.display());
}

fn unmount(at: &Path) {
    let done = Command::new("umount").arg(at).status();
    assert!(done.is_ok_and(|done| done.success()), "unmounted {}", at.display());
}

#[test]
fn what_is_mounted_in_a_pulled_directory_is_left_alone_and_named() {
    let Namespace::Inside =
        namespace("mounts::what_is_mounted_in_a_pulled_directory_is_left_alone_and_named")
    else {
        return;
    };
    let home = Home::new();
    write(&home.path("tree"), "uploads/.keep", "keep");
    write(&home.path("tree"), "file", "one");
    write(&home.path("volume"), "customers", "precious");
    home.run(&["push", "app", "tree"]).good();
    home.run(&["pull", "app", "copy"]).good();
    let volume = home.path("volume");
    let (volume, uploads) = (volume.to_str().expect("plain"), home.path("copy/uploads"));
    // A bind mount of the same file system, which has the same device number.
    for arguments in [&["--bind", volume][..], &["-t", "tmpfs", "none"]] {
        mount(arguments, &uploads);
        write(&home.path("tree"), "file", "two");
        home.run(&["push", "app", "tree"]).good();
        for deletes in [&[][..], &["--delete"]] {
            let ran = home.run(&[&["pull", "app", "copy"], deletes].concat());
            let ran = ran.failed(2, "mounted inside it, at `uploads`");
            assert!(ran.err.contains("hint: unmount"), "{ran:?}");
        }
        assert_eq!(fs::read(home.path("volume/customers")).expect("it is there"), b"precious");
        unmount(&uploads);
    }
    home.run(&["pull", "app", "copy"]).good();
    assert_eq!(fs::read(home.path("copy/file")).expect("a file"), b"two");
    mount(&["-t", "tmpfs", "none"], &home.path("copy"));
    let ran = home.run(&["pull", "app", "copy"]).failed(2, "is a mount point");
    assert!(ran.err.contains("hint: "), "{ran:?}");
    unmount(&home.path("copy"));
}

#[test]
fn what_is_mounted_in_an_old_copy_holds_up_no_delivery() {
    let Namespace::Inside = namespace("mounts::what_is_mounted_in_an_old_copy_holds_up_no_delivery") else {
        return;
    };
    let home = Home::new();
    write(&home.path("volume"), "customers", "precious");
    let volume = home.path("volume");
    let volume = volume.to_str().expect("plain");
    fs::create_dir_all(home.path("tree/uploads")).expect("created");
    let mut told = 0;
    for number in 0..7 {
        write(&home.path("tree"), "version", number.to_string());
        let said = home.run(&["push", "app", "tree", "--to", "dir:site"]).good();
        told += said.matches("something is mounted there").count();
        assert_eq!(
            fs::read_to_string(home.path("site/current/version")).expect("a file"),
            number.to_string()
        );
        if number < 2 {
            mount(&["--bind", volume], &home.path("site/current/uploads"));
        }
    }
    assert_eq!(told, 2, "each was named once");
    assert_eq!(fs::read_dir(home.path("site/releases")).expect("a folder").count(), 3);
    assert_eq!(fs::read(home.path("volume/customers")).expect("it is there"), b"precious");
    let left = || {
        let names = fs::read_dir(home.path("site/.whit")).expect("a folder").flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().starts_with("removed-")).count()
    };
    assert_eq!(left(), 2);
    for entry in fs::read_dir(home.path("site/.whit")).expect("a folder").flatten() {
        if entry.path().join("uploads").exists() {
            unmount(&entry.path().join("uploads"));
        }
    }
    write(&home.path("tree"), "version", "last");
    home.run(&["push", "app", "tree", "--to", "dir:site"]).good();
    assert_eq!(left(), 0, "what could not be removed is removed once it can be");
    assert_eq!(fs::read(home.path("volume/customers")).expect("it is there"), b"precious");
}

#[test]
fn a_release_that_does_not_fit_is_refused_before_anything_is_written() {
    let Namespace::Inside =
        namespace("mounts::a_release_that_does_not_fit_is_refused_before_anything_is_written")
    else {
        return;
    };
    let home = Home::new();
    // Many files of the same chunks: little to send, much to write.
    for number in 0..40 {
        write(&home.path("tree"), &number.to_string(), noise(1, 1_000_000));
    }
    let disk = home.path("disk");
    fs::create_dir(&disk).expect("created");
    mount(&["-t", "tmpfs", "-o", "size=30m", "none"], &disk);
    let free = || rustix::fs::statvfs(&disk).expect("it is there").f_bavail;
    home.run(&["push", "app", "tree"]).good();
    let before = free();
    home.run(&["pull", "app", "disk/copy"]).failed(7, "no room");
    assert!(before - free() <= 256, "some of the manifest is at most kept: {} of {before}", before - free());
    let before = free();
    home.run(&["push", "app", "tree", "--to", "dir:disk/site"]).failed(6, "no room");
    assert!(before - free() <= 8, "at most some folders were made");
    assert!(!disk.join("site/current").exists());
    mount(&["-t", "tmpfs", "-o", "remount,size=120m", "none"], &disk);
    home.run(&["pull", "app", "disk/copy"]).good();
    mount(&["-t", "tmpfs", "-o", "size=120m,nr_inodes=60", "none"], &disk);
    home.run(&["pull", "app", "disk/copy"]).good();
    mount(&["-t", "tmpfs", "-o", "size=120m,nr_inodes=40", "none"], &disk);
    home.run(&["pull", "app", "disk/copy"]).failed(7, "entries needed");
}

#[test]
fn an_update_whose_files_must_be_copied_needs_room_for_them() {
    let Namespace::Inside = namespace("mounts::an_update_whose_files_must_be_copied_needs_room_for_them")
    else {
        return;
    };
    let home = Home::new();
    // Little content in many blocks.
    for number in 0..3000 {
        write(&home.path("tree"), &number.to_string(), "small");
    }
    let disk = home.path("disk");
    fs::create_dir(&disk).expect("created");
    mount(&["-t", "tmpfs", "-o", "size=20m", "none"], &disk);
    let push = |content: &str| {
        write(&home.path("tree"), "new", content);
        home.run(&["push", "app", "tree"]).good();
        // So that the times of what was pulled before tell.
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    push("one");
    home.run(&["pull", "app", "disk/copy"]).good();
    push("two");
    home.run(&["pull", "app", "disk/copy"]).good();
    let is_done = |command: &mut Command| assert!(command.status().is_ok_and(|done| done.success()));
    is_done(Command::new("cp").arg("-al").arg(disk.join("copy")).arg(disk.join("backup")));
    push("three");
    home.run(&["pull", "app", "disk/copy"]).failed(7, "B needed");
    assert_eq!(fs::read(disk.join("copy/new")).expect("a file"), b"two");
    fs::remove_dir_all(disk.join("backup")).expect("removed");
    home.run(&["pull", "app", "disk/copy"]).good();
    assert_eq!(fs::read(disk.join("copy/new")).expect("a file"), b"three");
}

#[test]
fn a_tar_file_is_written_to_what_is_there() {
    let home = Home::new();
    write(&home.path("tree"), "file", "content");
    home.run(&["push", "app", "tree"]).good();
    let expected = home.run(&["pull", "app", "--tar", "-"]).good();
    // A bare name, and a path.
    for name in ["new.tar", "./folder/new.tar"] {
        fs::create_dir_all(home.path("folder")).expect("created");
        home.run(&["pull", "app", "--tar", name]).good();
        assert_eq!(fs::read_to_string(home.path(name)).expect("a file"), expected);
        let usual = fs::File::create(home.path("usual")).expect("created").metadata().expect("a file");
        let mode = fs::metadata(home.path(name)).expect("a file").permissions().mode();
        assert_eq!(mode, usual.permissions().mode(), "as any program's new file");
    }
    fs::set_permissions(home.path("new.tar"), fs::Permissions::from_mode(0o600)).expect("set");
    home.run(&["pull", "app", "--tar", "new.tar"]).good();
    assert_eq!(fs::metadata(home.path("new.tar")).expect("a file").permissions().mode() & 0o777, 0o600);
    // Through a link to a file, and through one to a file that does not exist yet.
    for (link, to) in [("link", "new.tar"), ("dangling", "made.tar")] {
        std::os::unix::fs::symlink(to, home.path(link)).expect("linked");
        home.run(&["pull", "app", "--tar", link]).good();
        assert!(fs::symlink_metadata(home.path(link)).expect("it is there").is_symlink());
        assert_eq!(fs::read_to_string(home.path(to)).expect("a file"), expected);
    }
    rustix::fs::mknodat(CWD, home.path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
    let pipe = home.path("pipe");
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).expect("read"));
    home.run(&["pull", "app", "--tar", "pipe"]).good();
    assert_eq!(reader.join().expect("a reader"), expected);
    assert!(fs::symlink_metadata(home.path("pipe")).expect("it is there").file_type().is_fifo());
    let null = home.path("null");
    if rustix::fs::mknodat(CWD, &null, FileType::CharacterDevice, Mode::WUSR, makedev(1, 3)).is_ok() {
        home.run(&["pull", "app", "--tar", "null"]).good();
        assert!(fs::symlink_metadata(&null).expect("it is there").file_type().is_char_device());
    }
    let names: Vec<_> = fs::read_dir(home.path(".")).expect("a folder").flatten().collect();
    assert!(names.iter().all(|entry| !entry.path().ends_with(".part")), "{names:?}");
    home.run(&["pull", "app", "--tar", "folder"]).failed(2, "is a directory");
}
