//! A push contains what its user intends, and reports what it omits: patterns, links, holes, odd kinds, odd names.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::program::Home;
use crate::trees::{assert_same, noise, snapshot, write};

/// Returns the paths below a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    snapshot(folder).into_keys().map(|name| name.into_string().expect("text")).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn a_later_pattern_brings_back_what_an_earlier_one_leaves_out() {
    let home = Home::new();
    for name in ["README", "a.o", "keep.o", "d/b.o", "d/keep.o"] {
        write(&home.path("tree"), name, name);
    }
    home.run(&["push", "app", "tree", "--exclude", "*.o", "--exclude", "!keep.o"]).good();
    home.run(&["pull", "app", "one"]).good();
    assert_eq!(names(&home.path("one")), set(["README", "d", "d/keep.o", "keep.o"]));
    // So does a pattern beside a `.whitignore`, which is not part of a release itself.
    write(&home.path("tree"), ".whitignore", "*.o\n");
    home.run(&["push", "app", "tree", "--exclude", "!/keep.o"]).good();
    home.run(&["pull", "app", "two"]).good();
    assert_eq!(names(&home.path("two")), set(["README", "d", "keep.o"]));
}

/// Writes a tree like that of a virtual environment.
fn environment(home: &Home) {
    let tree = home.path("tree");
    write(&home.path("outside"), "lib/module", "a module");
    symlink("module", home.path("outside/lib/alias")).expect("linked");
    write(&tree, "bin/run", "run");
    fs::create_dir_all(tree.join("a/b")).expect("created");
    for (target, link) in [
        (home.path("outside/lib/module").to_str().expect("text"), "bin/python"),
        ("../outside/lib", "lib"),
        ("../../bin/run", "a/b/../b/up"),
        ("a/b/../../bin/run", "winding"),
    ] {
        symlink(target, tree.join(link)).expect("linked");
    }
}

#[test]
fn links_that_lead_outside_are_listed_together_and_then_kept_followed_or_skipped() {
    let home = Home::new();
    environment(&home);
    let refused = home.run(&["push", "app", "tree"]).failed(2, "2 symbolic links lead outside the tree");
    assert!(refused.err.contains("`bin/python`") && refused.err.contains("`lib` -> `../outside/lib`"));
    assert!(refused.err.contains("--links keep"), "{refused:?}");
    assert!(!refused.err.contains("winding"), "it leads inside: {refused:?}");

    let report = home.run(&["push", "app", "tree", "--links", "skip", "--json"]).json();
    assert_eq!(report["dropped"][0]["what"], "outside-links");
    assert_eq!(report["dropped"][0]["count"], 2);
    home.run(&["pull", "app", "skipped"]).good();
    assert_eq!(names(&home.path("skipped")), set(["a", "a/b", "a/b/up", "bin", "bin/run", "winding"]));

    home.run(&["push", "app", "tree", "--links", "follow"]).good();
    home.run(&["pull", "app", "followed"]).good();
    assert_eq!(fs::read(home.path("followed/bin/python")).expect("a file"), b"a module");
    assert!(fs::symlink_metadata(home.path("followed/lib")).expect("there").is_dir());
    assert_eq!(fs::read_link(home.path("followed/lib/alias")).expect("a link"), Path::new("module"));

    // The pushing user does not decide whether links are followed at another place.
    let to = format!("dir:{}", home.path("web").display());
    home.run(&["push", "app", "tree", "--links", "keep", "--to", &to]).good();
    assert_same(&home.path("tree"), &home.path("web/current"));
    home.run(&["pull", "app", "kept"]).failed(2, "leads outside the release");
    assert!(!home.path("kept").exists());
    home.run(&["pull", "app", "kept", "--links", "keep"]).good();
    assert_same(&home.path("tree"), &home.path("kept"));
    home.run(&["deliver", "app", "--to", &format!("dir:{}", home.path("other").display())])
        .failed(2, "leads outside the release");
    home.run(&["pull", "app", "--tar", "kept.tar"]).failed(2, "leads outside the release");
    home.run(&["pull", "app", "--tar", "kept.tar", "--links", "keep"]).good();
}

#[test]
fn very_many_links_that_lead_outside_are_counted_and_some_are_named() {
    let home = Home::new();
    write(&home.path("tree"), "file", "content");
    for number in 0..2000 {
        symlink(format!("/outside/{number}"), home.path("tree").join(format!("link{number}")))
            .expect("linked");
    }
    let refused = home.run(&["push", "app", "tree"]).failed(2, "2000 symbolic links lead outside the tree");
    assert!(refused.err.len() < 4000 && refused.err.contains("and 1980 more"), "{refused:?}");
}

#[test]
fn links_that_are_followed_in_a_circle_are_refused() {
    let home = Home::new();
    write(&home.path("outer/tree"), "file", "content");
    symlink("../..", home.path("outer/tree/up")).expect("linked");
    home.run(&["push", "app", "outer/tree", "--links", "follow"])
        .failed(2, "leads to a folder that contains it");
    // A link that leads nowhere is omitted and reported.
    fs::remove_file(home.path("outer/tree/up")).expect("removed");
    symlink("/nowhere/at/all", home.path("outer/tree/gone")).expect("linked");
    let pushed = home.run(&["push", "app", "outer/tree", "--links", "follow"]);
    assert!(pushed.err.contains("1 entry is skipped: links that lead outside: gone"), "{pushed:?}");
    pushed.good();
}

#[test]
fn a_tree_without_files_is_pushed_only_where_that_is_meant() {
    let home = Home::new();
    fs::create_dir_all(home.path("tree/d")).expect("created");
    home.run(&["push", "app", "tree"]).failed(2, "contains no file");
    write(&home.path("tree"), "d/file", "content");
    let refused = home.run(&["push", "app", "tree", "--exclude", "d*"]).failed(2, "`d*` excludes `d`");
    assert!(refused.err.contains("--allow-empty"), "{refused:?}");
    home.run(&["push", "app", "tree", "--exclude", "d*", "--allow-empty"]).good();
    home.run(&["pull", "app", "copy"]).good();
    assert!(names(&home.path("copy")).is_empty());
}

#[test]
fn what_the_push_itself_changes_is_no_part_of_it() {
    let home = Home::new();
    let tree = home.path("tree");
    write(&tree, "file", "content");
    let to = format!("dir:{}", tree.join("out").display());
    // Neither before it exists nor after; excluded, it may be there.
    home.run(&["push", "app", "tree", "--to", &to]).failed(2, "a destination of this push");
    home.run(&["push", "app", "tree", "--to", &to, "--exclude", "/out/"]).good();
    home.run(&["push", "app", "tree", "--to", &to]).failed(2, "a destination of this push");
    fs::remove_dir_all(tree.join("out")).expect("removed");
    write(&tree, ".whitignore", "out\n");
    home.run(&["push", "app", "tree", "--to", &to]).good();
    for _ in 0..2 {
        // The second time the folder exists.
        home.run(&["push", "app", "tree", "--data", "tree/data"]).failed(2, "the data folder of the proxy");
    }
    home.run(&["push", "app", "tree", "--to", "dir:tree/of-{app}", "--exclude", "out"])
        .failed(2, "a destination of this push");
    home.run(&["push", "app", "tree", "--to", "dir:tree/of-{app}", "--exclude", "of-app"]).good();
}

#[test]
fn hard_links_and_holes_are_there_again() {
    let home = Home::new();
    let tree = home.path("tree");
    write(&tree, "bin/git", noise(1, 100_000));
    for name in ["bin/git-add", "bin/git-log", "alias"] {
        fs::hard_link(tree.join("bin/git"), tree.join(name)).expect("linked");
    }
    write(&home.path("elsewhere"), "one", "one");
    fs::hard_link(home.path("elsewhere/one"), tree.join("single")).expect("linked");
    let image = OpenOptions::new().write(true).create_new(true).open(tree.join("image")).expect("created");
    image.write_all_at(&noise(2, 5000), 0).expect("written");
    image.write_all_at(&noise(3, 5000), 1_000_000_000).expect("written");
    image.set_len(1 << 30).expect("a length");
    let sparse = image.metadata().expect("there").blocks() < 1000;
    let to = format!("dir:{}", home.path("web").display());
    let report = home.run(&["push", "app", "tree", "--to", &to, "--json"]).json();
    assert_eq!(report["files"], 3, "further names are no further files");
    assert!(report["seconds"].as_f64().expect("seconds") < 30.0 || !sparse, "{report}");
    // The second time nothing is read, and the release is the same.
    assert_eq!(home.run(&["push", "app", "tree", "--json"]).json()["release"], report["release"]);
    assert_eq!(
        home.run(&["push", "app", "tree", "--checksum", "--json"]).json()["release"],
        report["release"]
    );
    home.run(&["pull", "app", "copy"]).good();
    fs::remove_file(tree.join("bin/git-log")).expect("removed");
    home.run(&["push", "app", "tree"]).good();
    home.run(&["pull", "app", "copy2"]).good();
    for copy in [home.path("web/current"), home.path("copy"), home.path("copy2")] {
        let inode = |name: &str| fs::metadata(copy.join(name)).expect("it is there").ino();
        assert_eq!([inode("alias"), inode("bin/git-add")], [inode("bin/git"); 2]);
        let image = fs::File::open(copy.join("image")).expect("opened");
        let mut found = vec![0; 5000];
        image.read_exact_at(&mut found, 1_000_000_000).expect("read");
        assert_eq!(found, noise(3, 5000));
        let room = image.metadata().expect("there").blocks() * 512;
        assert!(room < 1_000_000 || !sparse, "{room} B for 10 kB of data");
    }
    let diff =
        home.run(&["diff", &format!("app@{}", report["release"].as_str().expect("an id")), "app"]).good();
    assert!(diff.contains("removed") && diff.contains("bin/git-log"), "{diff}");
    assert_eq!(home.run(&["cat", "app", "bin/git-add"]).code, Some(0));
}

#[test]
fn what_a_release_does_not_keep_is_counted_by_kind() {
    let home = Home::new();
    let tree = home.path("tree");
    write(&tree, "file", "content");
    write(&tree, "shared/file", "content");
    fs::set_permissions(tree.join("shared"), Permissions::from_mode(0o1777)).expect("changed");
    let pipe = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("pipe"), pipe, mode, 0).expect("a FIFO");
    let name = "user.whit";
    let has_attributes =
        rustix::fs::setxattr(tree.join("file"), name, b"x", rustix::fs::XattrFlags::empty()).is_ok();
    let ran = home.run(&["push", "app", "tree", "--json"]);
    assert!(ran.err.contains("1 entry is without their set-id and sticky bits: shared"), "{ran:?}");
    let report = ran.json();
    let count = |what: &str| {
        let rows = report["dropped"].as_array().expect("rows").iter();
        rows.filter(|row| row["what"] == what).map(|row| row["count"].as_u64().expect("a count")).sum::<u64>()
    };
    assert_eq!((count("special-files"), count("special-bits")), (1, 1), "{report}");
    assert_eq!(count("attributes"), u64::from(has_attributes));
    fs::remove_file(tree.join("pipe")).expect("removed");
    fs::remove_dir_all(tree.join("shared")).expect("removed");
    fs::write(tree.join("plain"), "plain").expect("written");
    let plain = home.run(&["push", "app", "tree", "--exclude", "/file", "--json"]).json();
    assert!(plain.get("dropped").is_none(), "{plain}");
}

#[test]
fn names_that_a_terminal_would_obey_are_escaped_everywhere() {
    let home = Home::new();
    let tree = home.path("tree");
    fs::create_dir(&tree).expect("created");
    let odd: [&[u8]; 5] = [
        b"\x1b]0;pwned\x07red",
        b"two\nremoved  99 GB  fake",
        "\u{202e}txt.exe".as_bytes(),
        b"\xff\xc2\x9b2J",
        b"\xc2\x9b31m",
    ];
    let touch = |content: &str| {
        for name in odd {
            fs::write(tree.join(OsStr::from_bytes(name)), content).expect("written");
        }
    };
    touch("1");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.join(OsStr::from_bytes(b"\x1b[2Jpipe")),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a FIFO");
    let first = home.run(&["push", "app", "tree", "--json"]);
    let release = serde_json::from_str::<serde_json::Value>(&first.out).expect("JSON")["release"].clone();
    touch("22");
    let before = format!("app@{}", release.as_str().expect("an id"));
    let diff = [home.run(&["push", "app", "tree", "--explain"]), home.run(&["diff", &before, "app"])];
    assert_eq!(diff[1].out.lines().count(), 2 + odd.len(), "a row is a line: {:?}", diff[1]);
    let json = home.run(&["diff", &before, "app", "--json"]);
    let changes = serde_json::from_str::<serde_json::Value>(&json.out).expect("JSON");
    let paths: Vec<&str> =
        changes["changes"].as_array().expect("rows").iter().filter_map(|row| row["path"].as_str()).collect();
    assert!(paths.contains(&"two\nremoved  99 GB  fake") && paths.contains(&"\u{202e}txt.exe"), "{paths:?}");
    let hex: Vec<&str> = changes["changes"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["path_hex"].as_str())
        .collect();
    assert_eq!(hex, ["ffc29b324a"], "what is not UTF-8 can be had, too");
    for name in odd {
        symlink(OsStr::from_bytes(b"/\x1b[31m"), tree.join(OsStr::from_bytes(&[name, b"link"].concat())))
            .expect("linked");
    }
    let refused = home.run(&["push", "app", "tree"]).failed(2, "5 symbolic links lead outside");
    let nothing = home.run(&["push", "app", "tree/\u{1b}[31m nothing"]);
    let place = home.run(&["pull", "app", "\u{1b}[31mred"]);
    for ran in [&first, &diff[0], &diff[1], &json, &refused, &nothing, &place] {
        for text in [&ran.out, &ran.err] {
            let shown = text.chars().filter(|shown| shown.is_control() && *shown != '\n');
            assert_eq!(shown.count(), 0, "{ran:?}");
            assert!(!text.contains('\u{202e}') && !text.contains("\nremoved  99"), "{ran:?}");
        }
    }
}
