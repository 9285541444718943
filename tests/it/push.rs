//! Pushes over real QUIC: what is sent, and what the receipt says of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use ground::faults::{Fault, Faulty};
use protocol::wire::{Answer, Operation};
use whit::agent::push::PushOptions;
use whit::agent::scan::Selection;
use whit::agent::{Error, Receipt};

use crate::trees::{assert_same, change_byte, is_slow, noise, some_tree, text, write};
use crate::world::{World, ask_as, delivered, push_as, push_options, releases_as, web, within};

/// Asserts what every receipt of a real push must say.
fn assert_consistent(receipt: &Receipt) {
    let Receipt { bytes, chunks, wire, .. } = receipt;
    assert!(bytes.unseen <= bytes.logical, "{receipt:?}");
    assert!(bytes.sent <= bytes.unseen + chunks.unseen, "{receipt:?}");
    assert!(chunks.unseen <= chunks.total, "{receipt:?}");
    assert_eq!(bytes.unseen == 0, chunks.unseen == 0, "{receipt:?}");
    assert!((receipt.dry_run || wire.up > bytes.sent) && wire.down > 0, "{receipt:?}");
    assert!(receipt.seconds > 0.0 && receipt.round_trips >= 2, "{receipt:?}");
    assert_eq!(receipt.sequence.is_none(), receipt.dry_run, "{receipt:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_push_of_the_same_tree_costs_one_exchange_and_no_chunk() {
    within(async {
        let world = World::start();
        some_tree(&world.path("tree"), 1);
        let first = world.push("app", &world.path("tree")).await;
        assert_consistent(&first);
        assert_eq!((first.files, first.bytes.logical, first.sequence), (5, 1_100_008, Some(1)));
        assert_eq!((first.chunks.unseen, first.bytes.unseen), (first.chunks.total, first.bytes.logical));
        assert!(!first.unchanged && first.round_trips <= 4, "{first:?}");

        let second = world.push("app", &world.path("tree")).await;
        assert_consistent(&second);
        assert!(second.unchanged && second.release == first.release);
        // The handshake and one exchange.
        assert_eq!((second.chunks.unseen, second.bytes.sent, second.round_trips), (0, 0, 2));
        assert_eq!(second.sequence, Some(1), "nothing new was recorded");
        assert!(second.wire.up + second.wire.down < 8_000, "{second:?}");
        assert_eq!(world.releases("app").await.expect("a list").len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_sends_only_its_chunk() {
    within(async {
        let world = World::start();
        some_tree(&world.path("tree"), 1);
        world.push("app", &world.path("tree")).await;
        change_byte(&world.path("tree/bin/server"), 300_000);
        let receipt = world.push("app", &world.path("tree")).await;
        assert_consistent(&receipt);
        assert_eq!((receipt.chunks.unseen, receipt.sequence, receipt.unchanged), (1, Some(2), false));
        assert!(receipt.bytes.sent <= 65 * 1024, "{receipt:?}");
        let copy = world.path("copy");
        world.pull("app", &copy).await.expect("pulled");
        assert_same(&world.path("tree"), &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_of_a_known_release_for_another_application_sends_no_chunk() {
    within(async {
        let world = World::start();
        write(&world.path("tree"), "a", "one");
        world.push("app", &world.path("tree")).await;
        let others = ["other-1", "other-2", "other-3", "other-4", "other-5"];
        let mut round_trips = Vec::new();
        for app in others {
            let other = world.push(app, &world.path("tree")).await;
            assert_eq!((other.chunks.unseen, other.unchanged, other.sequence), (0, false, Some(1)));
            round_trips.push(other.round_trips);
        }
        // Where a busy machine reads the tree slowly, the push begins before all is read, for one more.
        assert_eq!(round_trips.iter().min(), Some(&2), "{round_trips:?}");
        assert!(round_trips.iter().all(|count| *count <= 3), "{round_trips:?}");
        let apps = ask_as(world.access(), &Operation::Applications).await.expect("an answer");
        let Answer::Applications(apps) = &apps[0] else { panic!("{apps:?}") };
        let names: Vec<&str> = apps.iter().map(|app| app.app.as_str()).collect();
        assert_eq!(names, ["app", "other-1", "other-2", "other-3", "other-4", "other-5"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn going_back_to_an_earlier_release_is_a_new_push_without_chunks() {
    within(async {
        let world = World::start();
        write(&world.path("tree"), "a", "one");
        let first = world.push("app", &world.path("tree")).await;
        write(&world.path("tree"), "a", "two");
        world.push("app", &world.path("tree")).await;
        write(&world.path("tree"), "a", "one");
        let third = world.push("app", &world.path("tree")).await;
        assert_eq!((third.release, third.sequence, third.chunks.unseen), (first.release, Some(3), 0));
        assert!(!third.unchanged);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_kept_and_a_new_label_makes_a_new_record() {
    within(async {
        let world = World::start();
        write(&world.path("tree"), "a", "one");
        let labelled = |label: &str| PushOptions {
            labels: vec![label.parse().expect("a label")],
            ..push_options("app", &world.path("tree"))
        };
        let first = world.push_with(&labelled("v1")).await;
        let same = world.push_with(&labelled("v1")).await;
        let other = world.push_with(&labelled("v2")).await;
        assert_eq!((first.sequence, same.sequence, other.sequence), (Some(1), Some(1), Some(2)));
        let records = world.releases("app").await.expect("a list");
        assert_eq!(records.iter().map(|record| record.labels[0].as_str()).collect::<Vec<_>>(), ["v2", "v1"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_tells_the_cost_and_stores_nothing() {
    within(async {
        let world = World::start();
        some_tree(&world.path("tree"), 1);
        let dry = PushOptions { dry_run: true, ..push_options("app", &world.path("tree")) };
        let told = world.push_with(&dry).await;
        assert_consistent(&told);
        assert_eq!(told.chunks.unseen, told.chunks.total);
        let error = world.releases("app").await.expect_err("nothing was pushed");
        assert_eq!(error.fault(), Fault::Missing);
        let real = world.push("app", &world.path("tree")).await;
        assert_eq!((real.chunks, real.bytes.unseen), (told.chunks, told.bytes.unseen));
        // The forecast of sent bytes is exact except for what the compressor varies.
        assert!(real.bytes.sent.abs_diff(told.bytes.sent) < 20_000, "{told:?} {real:?}");
        let again = world.push_with(&dry).await;
        assert_eq!((again.chunks.unseen, again.unchanged, again.sequence), (0, true, None));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_file_is_a_release() {
    within(async {
        let world = World::start();
        write(&world.path("in"), "server.bin", noise(3, 200_000));
        let receipt = world.push("app", &world.path("in/server.bin")).await;
        assert_eq!((receipt.files, receipt.bytes.logical), (1, 200_000));
        world.pull("app", &world.path("out")).await.expect("pulled");
        assert_same(&world.path("in"), &world.path("out"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_pushed_and_pulled_like_something() {
    within(async {
        let world = World::start();
        let (empty, folders, files) = (world.path("empty"), world.path("folders"), world.path("files"));
        fs::create_dir_all(&empty).expect("created");
        fs::create_dir_all(folders.join("a/b/c")).expect("created");
        write(&files, "a", "");
        write(&files, "b/c", "");
        write(&world.path("alone"), "empty", "");
        for (app, path, number) in [("empty", &empty, 0), ("folders", &folders, 0), ("files", &files, 2)] {
            let receipt = world.push(app, path).await;
            assert_eq!((receipt.files, receipt.bytes.logical, receipt.chunks.total), (number, 0, 0), "{app}");
            assert!(world.push(app, path).await.unchanged, "{app}");
            let copy = world.path(&format!("copy-{app}"));
            world.pull(app, &copy).await.expect("pulled");
            assert_same(path, &copy);
        }
        let receipt = world.push("alone", &world.path("alone/empty")).await;
        assert_eq!((receipt.files, receipt.bytes.logical), (1, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_need_not_be_text() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        fs::create_dir_all(tree.join(OsStr::from_bytes(b"\xff\xfe"))).expect("created");
        let names: [&[u8]; 4] = [b"\xff\xfe/\x80", b"new\nline", b"esc\x1b[2J", "gr\u{fc}n".as_bytes()];
        for name in names {
            fs::write(tree.join(OsStr::from_bytes(name)), name).expect("written");
        }
        std::os::unix::fs::symlink(OsStr::from_bytes(b"\xff\xfe/\x80"), tree.join("link")).expect("linked");
        assert_eq!(world.push("app", &tree).await.files, 4);
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ignored_or_excluded_stays_out() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        for name in
            ["keep", "drop.log", "sub/drop.log", "sub/important.log", "sub/keep", "cache/x", "sub/tmp/y"]
        {
            write(&tree, name, name);
        }
        write(&tree, ".whitignore", "*.log\n/cache/\n");
        write(&tree, "sub/.whitignore", "!important.log\n");
        // Git's patterns have no effect here.
        write(&tree, ".gitignore", "keep\n");
        let selection = Selection { exclude: vec!["tmp/".to_owned()], ..Selection::default() };
        world.push_with(&PushOptions { selection, ..push_options("app", &tree) }).await;
        world.pull("app", &world.path("copy")).await.expect("pulled");
        let found = crate::trees::snapshot(&world.path("copy"));
        let names: Vec<_> = found.keys().map(|name| name.to_str().expect("text")).collect();
        assert_eq!(names, [".gitignore", "keep", "sub", "sub/important.log", "sub/keep"]);
        let selection = Selection { exclude: vec!["a[".to_owned()], ..Selection::default() };
        let error = push_as(world.access(), &PushOptions { selection, ..push_options("app", &tree) }).await;
        assert_eq!(error.expect_err("no pattern").fault(), Fault::Input);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_very_many_files_is_pushed_and_its_change_is_small() {
    within(async {
        let files = if is_slow() { 100_000 } else { 20_000 };
        let world = World::start();
        let tree = world.path("tree");
        for file in 0..files {
            if file % 500 == 0 {
                fs::create_dir_all(tree.join((file / 500).to_string())).expect("created");
            }
            fs::write(tree.join(format!("{}/{file}", file / 500)), format!("this is file {file}"))
                .expect("written");
        }
        let first = world.push("app", &tree).await;
        assert_consistent(&first);
        assert_eq!((first.files, first.chunks.unseen), (files, files));
        let same = world.push("app", &tree).await;
        assert!(
            same.unchanged && same.round_trips == 2 && same.wire.up + same.wire.down < 12_000,
            "{same:?}"
        );
        write(&tree, "7/3777", "another");
        let changed = world.push("app", &tree).await;
        assert_eq!(changed.chunks.unseen, 1);
        assert!(changed.round_trips <= 5, "{changed:?}");
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_pushed_and_a_byte_of_it_again() {
    within(async {
        let (size, islands): (u64, u64) = if is_slow() { (2 << 30, 64) } else { (64 << 20, 16) };
        let world = World::start();
        fs::create_dir_all(world.path("tree")).expect("created");
        let path = world.path("tree/disk.img");
        let file = fs::File::create(&path).expect("created");
        file.set_len(size).expect("a sparse file");
        for island in 0..islands {
            let bytes = noise(island, 300_000);
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes, size / islands * island)
                .expect("written");
        }
        let first = world.push("app", &world.path("tree")).await;
        assert_consistent(&first);
        assert_eq!(first.bytes.logical, size);
        // The zeros are one chunk, named many times.
        assert!(first.bytes.unseen < islands * 500_000, "{first:?}");
        std::os::unix::fs::FileExt::write_all_at(&file, b"?", size / islands * 5 + 150_000).expect("written");
        let second = world.push("app", &world.path("tree")).await;
        assert_eq!(second.chunks.unseen, 1, "{second:?}");
        world.pull("app", &world.path("copy")).await.expect("pulled");
        let status = std::process::Command::new("cmp").arg(&path).arg(world.path("copy/disk.img")).status();
        assert!(status.expect("cmp runs").success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_inside_a_push_is_complete_and_later_ones_cost_no_agent_bytes() {
    within(async {
        let world = World::start();
        some_tree(&world.path("tree"), 1);
        let to_web = PushOptions { destinations: vec![web()], ..push_options("app", &world.path("tree")) };
        let first = world.push_with(&to_web).await;
        let report = delivered(&first.delivered);
        assert_eq!(
            (report.files, report.bytes, report.reused_bytes, report.already),
            (5, 1_100_008, 0, false)
        );
        assert_same(&world.path("tree"), &world.path("web/current"));
        let same = world.push_with(&to_web).await;
        assert!(same.unchanged && delivered(&same.delivered).already);

        write(&world.path("tree"), "README", "Read this.");
        let changed = world.push_with(&to_web).await;
        let report = delivered(&changed.delivered);
        assert_eq!(report.bytes - report.reused_bytes, 10);
        assert_same(&world.path("tree"), &world.path("web/current"));

        let back = Operation::Deliver {
            release: format!("app@{}", first.release.short()).parse().expect("a selector"),
            destinations: vec![web()],
            then: Vec::new(),
        };
        let session = whit::agent::Session::open(world.access(), &whit::net::link::Options::default()).await;
        let session = session.expect("a session");
        let mut last = None;
        session.ask(&back, |answer| last = Some(answer)).await.expect("delivered");
        let Some(Answer::Delivery(event)) = last else { panic!("{last:?}") };
        assert!(!delivered(&[event]).already);
        assert!(session.counters().sent_bytes < 6_000, "{:?}", session.counters());
        assert_eq!(fs::read(world.path("web/current/README")).expect("a file"), b"Read me.");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_nobody_defined_is_missing_and_nothing_is_stored() {
    within(async {
        let world = World::start();
        write(&world.path("tree"), "a", "one");
        let nowhere = PushOptions {
            destinations: vec!["nowhere".parse().expect("a name")],
            ..push_options("app", &world.path("tree"))
        };
        let error = push_as(world.access(), &nowhere).await.expect_err("there is none");
        assert_eq!(error.fault(), Fault::Missing);
        assert!(error.hint().is_some());
        assert!(world.releases("app").await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_that_push_the_same_content_at_once_both_succeed() {
    within(async {
        let world = World::start();
        for file in 0..40 {
            write(&world.path("tree"), &format!("{file}"), noise(file, 200_000));
        }
        write(&world.path("tree"), "text", text(1, 2_000_000));
        let (tree, access) = (world.path("tree"), world.access());
        let orders: Vec<PushOptions> =
            ["one", "two", "one", "three"].iter().map(|app| push_options(app, &tree)).collect();
        let (a, b, c, d) = tokio::join!(
            Box::pin(push_as(access, &orders[0])),
            Box::pin(push_as(access, &orders[1])),
            Box::pin(push_as(access, &orders[2])),
            Box::pin(push_as(access, &orders[3])),
        );
        for receipt in [a, b, c, d] {
            assert_consistent(&receipt.expect("pushed"));
        }
        for app in ["one", "two", "three"] {
            let copy = world.path(&format!("copy-{app}"));
            world.pull(app, &copy).await.expect("pulled");
            assert_same(&tree, &copy);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spaces_do_not_see_one_another() {
    within(async {
        let world = World::start();
        some_tree(&world.path("tree"), 1);
        let first = world.push("app", &world.path("tree")).await;
        let elsewhere = world.access_to("elsewhere");
        let dry = PushOptions { dry_run: true, ..push_options("app", &world.path("tree")) };
        let told = push_as(&elsewhere, &dry).await.expect("answered");
        assert_eq!((told.chunks.unseen, told.unchanged), (first.chunks.unseen, false));

        // Content of another space and content of no space get the same error text.
        let told = |error: Error| {
            (
                error.to_string().replace("none", "app"),
                error.fault(),
                error.hint().map(|hint| hint.replace("none", "app")),
            )
        };
        let there = releases_as(&elsewhere, "app").await.expect_err("another space's");
        let nowhere = releases_as(&elsewhere, "none").await.expect_err("nobody's");
        assert_eq!(told(there), told(nowhere));
        let selector = format!("app@{}", first.release);
        let there = crate::world::pull_as(&elsewhere, &selector[..20], &world.path("out"), false).await;
        let nowhere = crate::world::pull_as(
            &elsewhere,
            &selector[..20].replace("app", "none"),
            &world.path("out"),
            false,
        )
        .await;
        assert_eq!(told(there.expect_err("another space's")), told(nowhere.expect_err("nobody's")));
        assert!(
            ask_as(&elsewhere, &Operation::Applications)
                .await
                .expect("an answer")
                .iter()
                .all(|answer| matches!(answer, Answer::Applications(apps) if apps.is_empty()))
        );

        let again = push_as(&elsewhere, &push_options("app", &world.path("tree"))).await.expect("pushed");
        assert_eq!(again.chunks.unseen, first.chunks.unseen);
        assert_eq!(again.sequence, Some(1));
        let answers = ask_as(&elsewhere, &Operation::Statistics(None)).await.expect("an answer");
        let Answer::Statistics(statistics) = &answers[0] else { panic!("{answers:?}") };
        assert_eq!((statistics.releases, statistics.logical_bytes), (1, 1_100_008));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pushed_is_there_after_a_restart() {
    within(async {
        let mut world = World::start();
        some_tree(&world.path("tree"), 1);
        world.push("app", &world.path("tree")).await;
        world.stop().await;
        world.again();
        let again = world.push("app", &world.path("tree")).await;
        assert!(again.unchanged && again.round_trips == 2);
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&world.path("tree"), &world.path("copy"));
    })
    .await;
}
