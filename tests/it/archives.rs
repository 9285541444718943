//! Archives are pushed as their contents, and are rebuilt bit for bit.

use std::fs;
use std::path::Path;

use recode::codec::{self, Check, Frame, Xz};
use recode::deflate::{Encoder, Maker, Method};
use whit::agent::push::PushOptions;
use whit::agent::{Effort, Receipt};
use whit::config::Config;
use whit::store::FaultInjection;

use crate::program::Home;
use crate::trees::{assert_same, noise, text, write};
use crate::world::{World, push_options, web, within};

fn pack(plain: &[u8], method: &Method) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::new(method), Vec::new());
    encoder.write(plain, &mut out);
    encoder.finish(&mut out);
    out
}

/// Returns a zip archive of deflated members, or of stored ones.
pub fn zip(members: &[(&str, Vec<u8>)], deflate: bool) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    let number = |value: usize| u32::try_from(value).expect("small").to_le_bytes();
    for (name, plain) in members {
        let packed = if deflate { pack(plain, &Method::STOCK) } else { plain.clone() };
        let method = if deflate { [8, 0] } else { [0, 0] };
        let at = number(file.len());
        let length = &number(name.len())[..2];
        let sizes = [[0; 4], number(packed.len()), number(plain.len())].concat();
        file.extend([b"PK\x03\x04\x14\0\0\0", &method[..], &[0; 4], &sizes, length, &[0; 2]].concat());
        file.extend([name.as_bytes(), &packed].concat());
        directory.extend([b"PK\x01\x02\x14\0\x14\0\0\0", &method[..], &[0; 4], &sizes, length].concat());
        directory.extend([&[0; 12][..], &at, name.as_bytes()].concat());
    }
    let (at, size) = (number(file.len()), number(directory.len()));
    let count = &number(members.len())[..2];
    file.extend(directory);
    file.extend([b"PK\x05\x06\0\0\0\0", count, count, &size, &at, &[0; 2]].concat());
    file
}

/// Returns a tar archive.
fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_slice()).expect("a Vec takes every write");
    }
    tar.into_inner().expect("a Vec takes every write")
}

/// Returns a tar archive in gzip, as npm creates it.
fn tgz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let tar = tar(members);
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    file.extend(pack(&tar, &Method::new(6, Maker::Chromium)));
    file.extend([0; 8]);
    file
}

/// Returns the members of an archive of some build: few of their bytes depend on `build`.
fn members(build: u64) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("app/core.js", text(1, 300_000)),
        ("app/version.js", text(100 + build, 3_000)),
        ("app/data.bin", noise(2, 60_000)),
        ("app/view.js", [text(3, 150_000), text(100 + build, 500), text(4, 150_000)].concat()),
    ]
}

/// Writes a tree with archives of all kinds, one inside another.
pub fn tree(folder: &Path, build: u64) {
    let jar = zip(&members(build), true);
    write(folder, "lib/app.jar", &jar);
    write(folder, "lib/app.war", zip(&[("WEB-INF/lib/app.jar", jar), ("index.html", text(5, 40_000))], true));
    write(folder, "app-1.0.whl", zip(&members(build), true));
    write(folder, "app.tgz", tgz(&members(build)));
    write(folder, "stored.zip", zip(&members(build), false));
    write(folder, "README", "Read me.");
}

/// Writes a Debian package, whose archive is in xz, and an archive in zstd.
pub fn packages(folder: &Path, build: u64) {
    let tar = tar(&members(build));
    let data = crate::codec::pack(&tar, codec::Method::Xz(Xz::threaded(6, Check::Crc64)));
    let mut package = b"!<arch>\n".to_vec();
    for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("data.tar.xz", &data)] {
        let header = format!("{name:16}{:12}{:6}{:6}{:8}{:<10}`\n", 0, 0, 0, 100_644, content.len());
        package.extend([header.as_bytes(), content, &b"\n"[..content.len() % 2]].concat());
    }
    write(folder, "app.deb", package);
    write(folder, "app.tar.xz", data);
    let frame = Frame { level: 9, checked: true, jobs: false, plain_bytes: None };
    write(folder, "app.tar.zst", crate::codec::pack(&tar, codec::Method::Zstd(frame)));
}

/// Returns the options of a push that unpacks archives over every link.
pub fn unpacking(app: &str, path: &Path) -> PushOptions {
    PushOptions { effort: Effort::Bytes, ..push_options(app, path) }
}

pub fn raw(options: PushOptions) -> PushOptions {
    PushOptions { raw: true, ..options }
}

/// Asserts that a push sent less than a small part of the archives' bytes.
fn assert_little(receipt: &Receipt) {
    assert!(receipt.bytes.sent * 20 < receipt.archives.bytes, "{receipt:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_come_out_bit_for_bit_and_a_second_build_sends_little() {
    within(async {
        let world = World::start();
        let (source, copy) = (world.path("tree"), world.path("copy"));
        for build in 0..3 {
            tree(&source, build);
            let to_web = PushOptions { destinations: vec![web()], ..unpacking("app", &source) };
            let receipt = world.push_with(&to_web).await;
            assert_eq!(receipt.archives.files, 4, "{receipt:?}");
            if build > 0 {
                assert_little(&receipt);
            }
            assert_same(&source, &world.path("web/current"));
            world.pull("app", &copy).await.expect("pulled");
            assert_same(&source, &copy);
        }
        // Nothing changed: nothing is fetched, not even the archives' contents.
        let again = world.pull("app", &copy).await.expect("pulled");
        assert_eq!(again.fetched_chunks, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_in_xz_and_zstd_come_out_bit_for_bit_and_a_third_build_sends_little() {
    within(async {
        let world = World::start();
        let state = Some(world.path("state"));
        let (source, copy) = (world.path("tree"), world.path("copy"));
        for build in 0..3 {
            packages(&source, build);
            let to_web =
                PushOptions { state: state.clone(), destinations: vec![web()], ..unpacking("app", &source) };
            let receipt = world.push_with(&to_web).await;
            // The first time they cross as they are, which takes fewer bytes. This proxy unpacks nothing by itself.
            assert_eq!(receipt.archives.files, if build == 0 { 0 } else { 3 }, "{receipt:?}");
            if build > 1 {
                assert_little(&receipt);
            }
            assert_same(&source, &world.path("web/current"));
            world.pull("app", &copy).await.expect("pulled");
            assert_same(&source, &copy);
        }
        packages(&source, 3);
        let as_they_are = world.push_with(&raw(unpacking("raw", &source))).await;
        assert!(as_they_are.bytes.sent > 200_000, "{as_they_are:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_an_archive_is_sent_once_whatever_it_is_packed_in() {
    within(async {
        let world = World::start();
        for (name, content) in members(0) {
            write(&world.path("expanded"), name, content);
        }
        world.push_with(&unpacking("expanded", &world.path("expanded"))).await;
        for (name, archive) in [("app.jar", zip(&members(0), true)), ("app.tgz", tgz(&members(0)))] {
            let file = world.path(name);
            fs::write(&file, &archive).expect("written");
            let receipt = world.push_with(&unpacking("packed", &file)).await;
            assert_eq!(receipt.archives.files, 1);
            assert_little(&receipt);
            let copy = world.path("copy");
            let session = crate::world::pull_as(world.access(), "packed", &copy, true).await;
            session.expect("pulled");
            assert!(fs::read(copy.join(name)).expect("pulled") == archive);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_is_rebuilt_once_for_all_deliveries_and_never_believed() {
    within(async {
        let world = World::start();
        let source = world.path("tree");
        let archive = zip(&[("noise", noise(1, 1_200_000)), ("text", text(2, 400_000))], true);
        write(&source, "lib/app.zip", &archive);
        let to_web = PushOptions { destinations: vec![web()], ..unpacking("app", &source) };
        world.push_with(&to_web).await;
        let kept = || {
            let entries = fs::read_dir(world.space().join("rebuilt")).expect("a folder");
            let mut paths = entries.map(|entry| entry.expect("an entry").path());
            let path = paths.next().expect("the proof's archive");
            assert_eq!(paths.next(), None);
            path
        };
        assert!(fs::read(kept()).expect("readable") == archive, "the proof keeps what it rebuilt");
        for damage in [false, true] {
            let mut bytes = archive.clone();
            bytes[1000] ^= u8::from(damage);
            fs::write(kept(), &bytes).expect("written");
            fs::remove_dir_all(world.path("web")).expect("removed");
            world.push_with(&to_web).await;
            assert_same(&source, &world.path("web/current"));
            assert!(fs::read(kept()).expect("readable") == archive);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_that_the_proxy_cannot_prove_are_pushed_as_they_are() {
    within(async {
        let world =
            World::start_with(|options| options.store.fault_injection = Some(FaultInjection::OtherArchives));
        let state = Some(world.path("state"));
        let source = world.path("tree");
        let options = PushOptions { state, destinations: vec![web()], ..unpacking("app", &source) };
        for build in 0..2 {
            tree(&source, build);
            let receipt = world.push_with(&options).await;
            assert_eq!(receipt.archives.files, 0, "{receipt:?}");
            assert_same(&source, &world.path("web/current"));
            assert_same(&source, &pulled(&world, &format!("build {build}")).await);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_archives_are_pushed_as_they_are_and_the_way_may_change() {
    within(async {
        let world = World::start();
        let state = Some(world.path("state"));
        let source = world.path("tree");
        tree(&source, 0);
        let plain = PushOptions { state: state.clone(), ..unpacking("app", &source) };
        let first = world.push_with(&raw(plain.clone())).await;
        assert_eq!(first.archives.files, 0);
        assert_same(&source, &pulled(&world, "raw").await);
        for (options, archives) in [(plain.clone(), 4), (raw(plain), 0)] {
            // A new modification time, so that each file is read.
            touch(&source);
            let receipt = world.push_with(&options).await;
            assert_eq!(receipt.archives.files, archives);
            assert_same(&source, &pulled(&world, &format!("by {archives}")).await);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_has_one_name_however_its_archives_are_stored() {
    within(async {
        let mut world = World::start();
        let (one, other) = (world.path("one"), world.path("other"));
        // A first release may cross while it is read, before it is known what it is.
        write(&one, "README", "Read me.");
        for app in ["unpacked", "packed", "first"] {
            world.push_with(&unpacking(app, &one)).await;
        }
        for build in 0..2 {
            tree(&one, build);
            tree(&other, build);
            // Each way in an application of its own, and once with a memory of the other way.
            let unpacked = world.push_with(&unpacking("unpacked", &one)).await;
            let packed = world.push_with(&raw(unpacking("packed", &other))).await;
            assert_eq!((unpacked.archives.files, packed.archives.files), (4, 0));
            assert_eq!(unpacked.release, packed.release);
            assert!(packed.bytes.sent == 0, "it is known: {packed:?}");
            let place = world.path(&format!("copy {build}"));
            world.pull(&format!("packed@{}", packed.release), &place).await.expect("pulled");
            assert_same(&one, &place);
        }
        // Where the first push leaves archives as they are, a second that unpacks them is the same release too.
        let first = world.push_with(&raw(unpacking("first", &one))).await;
        tree(&one, 7);
        let second = world.push_with(&raw(unpacking("first", &one))).await;
        assert_ne!(first.release, second.release);
        let again = world.push_with(&unpacking("first", &one)).await;
        assert!(again.unchanged && again.release == second.release && again.bytes.sent == 0, "{again:?}");
        // A build on a release that is stored otherwise: its manifest is no base, and the push goes on without.
        let state = Some(world.path("state"));
        tree(&one, 8);
        world.push_with(&PushOptions { state: state.clone(), ..raw(unpacking("first", &one)) }).await;
        tree(&one, 9);
        let on_it = PushOptions { state, ..unpacking("first", &one) };
        let built = world.push_with(&on_it).await;
        assert_eq!(built.archives.files, 4);
        world.stop().await;
        world.again();
        assert_same(&one, &pulled_of(&world, "first", "after a restart").await);
        tree(&one, 7);
        assert_same(&one, &pulled_of(&world, &format!("first@{}", second.release), "packed").await);
    })
    .await;
}

async fn pulled_of(world: &World, selector: &str, name: &str) -> std::path::PathBuf {
    let copy = world.path(name);
    world.pull(selector, &copy).await.expect("pulled");
    copy
}

async fn pulled(world: &World, name: &str) -> std::path::PathBuf {
    let copy = world.path(name);
    world.pull("app", &copy).await.expect("pulled");
    copy
}

/// Sets the modification time of each file of a tree to a different time, some hours ago.
fn touch(folder: &Path) {
    let now = std::time::SystemTime::now();
    let hours = std::time::Duration::from_secs(3600);
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            touch(&path);
        } else {
            let file = fs::File::options().write(true).open(&path).expect("a file");
            let before = file.metadata().and_then(|stat| stat.modified()).expect("a time");
            file.set_modified(before.min(now) - hours).expect("set");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_archive_is_read_again_where_its_content_is_gone() {
    within(async {
        let mut world = World::start();
        let state = Some(world.path("state"));
        let source = world.path("tree");
        tree(&source, 0);
        // A file that was changed just now is read again, even if it looks unchanged.
        tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
        let options = PushOptions { state, ..unpacking("app", &source) };
        world.push_with(&options).await;
        let remembered = world.push_with(&options).await;
        assert_eq!((remembered.files_remembered, remembered.archives.files), (6, 4));
        // A proxy with the same key that has lost everything.
        world.stop().await;
        fs::remove_dir_all(world.space()).expect("removed");
        world.again();
        let receipt = world.push_with(&options).await;
        assert_eq!((receipt.files_remembered, receipt.archives.files), (0, 4));
        assert_same(&source, &pulled(&world, "copy").await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_archives_and_bombs_are_files_like_others() {
    within(async {
        let world = World::start();
        let source = world.path("tree");
        let jar = zip(&members(0), true);
        let mut flipped = jar.clone();
        // Inside the first stream, which then no longer inflates, or inflates to something that packs differently.
        flipped[2000..2100].iter_mut().for_each(|byte| *byte ^= 0x55);
        write(&source, "flipped.jar", &flipped);
        write(&source, "cut.jar", &jar[..jar.len() - 100_000]);
        write(&source, "cut.tgz", &tgz(&members(0))[..50_000]);
        let bomb = pack(&vec![0; 64 << 20], &Method::new(9, Maker::Zlib));
        write(&source, "bomb.gz", [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &bomb, &[0; 8]].concat());
        write(&source, "names.zip", zip(&[("../../../etc/passwd", text(9, 400_000))], true));
        let to_web = PushOptions { destinations: vec![web()], ..unpacking("app", &source) };
        let receipt = world.push_with(&to_web).await;
        // The other members of the flipped archive are still streams; and member names do not matter.
        assert_eq!(receipt.archives.files, 2, "{receipt:?}");
        assert_same(&source, &world.path("web/current"));
        assert_same(&source, &pulled(&world, "copy").await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_did_not_change_is_taken_over_unless_it_was_touched() {
    within(async {
        let world = World::start();
        let source = world.path("tree");
        tree(&source, 0);
        let to_web = PushOptions { destinations: vec![web()], ..unpacking("app", &source) };
        world.push_with(&to_web).await;
        // Somebody changes a delivered archive; the next delivery does not reuse it.
        let place = fs::canonicalize(world.path("web/current")).expect("delivered");
        crate::trees::change_byte(&place.join("lib/app.jar"), 5_000);
        write(&source, "README", "Read this.");
        let receipt = world.push_with(&to_web).await;
        assert_same(&source, &world.path("web/current"));
        let Some(format::record::DeliveryState::Delivered(report)) =
            receipt.delivered.first().map(|event| &event.state)
        else {
            panic!("{receipt:?}")
        };
        let untouched = ["lib/app.war", "app-1.0.whl", "app.tgz"];
        let bytes = |name: &str| fs::metadata(source.join(name)).expect("it is there").len();
        let least: u64 = untouched.iter().map(|name| bytes(name)).sum();
        assert!(report.reused_bytes >= least, "{report:?}");
    })
    .await;
}

/// Returns a gzip member of stored deflate blocks, which no encoder makes of text.
fn stored_gzip(plain: &[u8]) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut blocks = plain.chunks(10_000).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("short");
        member.push(u8::from(blocks.peek().is_none()));
        member.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        member.extend(block);
    }
    member.extend([0; 8]);
    member
}

#[test]
fn the_program_says_what_stays_packed_in_an_archive() {
    let home = Home::new();
    let mut archive = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    archive.extend(pack(&text(1, 80_000), &Method::STOCK));
    archive.extend([0; 8]);
    archive.extend(stored_gzip(&text(2, 30_000)));
    write(&home.path("tree"), "two.gz", archive);
    let receipt = home.run(&["push", "app", "tree", "--effort", "bytes", "--json"]).json();
    assert_eq!(
        (&receipt["archives"]["files"], &receipt["archives"]["packed_streams"]),
        (&1.into(), &1.into())
    );
    assert!(receipt["archives"]["packed_bytes"].as_u64().is_some_and(|bytes| bytes > 30_000), "{receipt}");
    let told = home.run(&["push", "other", "tree", "--effort", "bytes", "--checksum"]).good();
    assert!(told.contains("in 1 streams that cannot be reproduced"), "{told}");
}

#[test]
fn the_program_says_what_it_took_apart() {
    let home = Home::new();
    tree(&home.path("tree"), 0);
    let receipt = home.run(&["push", "app", "tree", "--effort", "bytes", "--json"]).json();
    assert_eq!(receipt["archives"]["files"], 4);
    tree(&home.path("tree"), 1);
    let told = home.run(&["push", "app", "tree", "--effort", "bytes", "--explain"]).good();
    assert!(told.contains("in 4 files, unpacked"), "{told}");
    let mut advised = told.lines().filter(|line| line.contains("push its content"));
    assert!(advised.all(|line| line.contains("stored.zip")), "{told}");
    let told = home.run(&["push", "app", "tree", "--effort", "bytes", "--raw"]).good();
    assert!(!told.contains("unpacked"), "{told}");
    let jar = home.path("tree/lib/app.jar");
    home.run(&["push", "app", "tree", "--effort", "bytes"]).good();
    let written = home.path("jar");
    let mut command = home.command(&["cat", "app", "lib/app.jar"]);
    command.stdout(fs::File::create(&written).expect("created"));
    assert!(command.status().expect("it runs").success());
    assert!(fs::read(&written).expect("written") == fs::read(&jar).expect("made"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_go_to_directories_that_link() {
    within(async {
        let world = World::start_with(|options| {
            let path = options.data.with_file_name("web");
            let text =
                format!("[destinations.web]\nkind = 'dir'\npath = '{}'\nreuse = 'hardlink'", path.display());
            let config = Config::parse(text.as_bytes(), &path).expect("a configuration");
            options.destinations = config.destinations();
        });
        let source = world.path("tree");
        for build in [0, 0, 1] {
            tree(&source, build);
            write(
                &source,
                "number",
                build.to_string() + &world.releases("app").await.map_or(0, |all| all.len()).to_string(),
            );
            let to_web = PushOptions { destinations: vec![web()], ..unpacking("app", &source) };
            world.push_with(&to_web).await;
            assert_same(&source, &world.path("web/current"));
        }
    })
    .await;
}

#[test]
fn stats_tell_what_makes_archives_again() {
    let home = Home::new();
    tree(&home.path("tree"), 0);
    home.run(&["push", "app", "tree", "--effort", "bytes"]).good();
    let statistics = home.run(&["stats", "app", "--json"]).json();
    let archives = &statistics["archives"];
    assert_eq!(archives["files"], 3, "the wheel is the jar: {statistics}");
    let methods = archives["methods"].as_array().expect("a list");
    let streams = |name: &str| {
        let of = methods.iter().find(|method| method["method"] == name);
        of.and_then(|method| method["streams"].as_u64())
    };
    // Four in the jar, four in the jar inside the war, and two besides these.
    assert_eq!(streams("zlib, level 6"), Some(10), "{archives}");
    assert_eq!(streams("Chromium's zlib of 2023, level 6"), Some(1), "{archives}");
    assert!(home.run(&["stats", "app"]).good().contains("zlib, level 6"));
    assert_eq!(home.run(&["stats", "--json"]).json()["archives"], serde_json::Value::Null);
}

#[test]
fn over_a_fast_link_archives_are_sent_as_they_are_and_the_program_says_why() {
    let home = Home::new();
    tree(&home.path("tree"), 0);
    let receipt = home.run(&["push", "app", "tree", "--json"]).json();
    assert_eq!(receipt["archives"]["files"], 0);
    let choice = &receipt["choices"][0];
    assert_eq!((&choice["method"], &choice["used"]), (&"archives".into(), &false.into()), "{receipt}");
    let seconds = |of: &str| choice["seconds"][of].as_f64().expect("seconds");
    assert!(seconds("plainly") < seconds("by_method"), "{receipt}");
    tree(&home.path("tree"), 1);
    let told = home.run(&["push", "app", "tree"]).good();
    assert!(told.contains("as they are, which is quicker on this link"), "{told}");
    tree(&home.path("tree"), 3);
    let told = home.run(&["push", "app", "tree", "--explain"]).good();
    assert!(told.contains("archives sent as they are") && told.contains(" instead of "), "{told}");
    assert!(told.contains("processor") && told.contains(" times the usual seconds"), "{told}");
    // Over a slow link they are unpacked.
    tree(&home.path("tree"), 2);
    let told = home.run(&["push", "app", "tree", "--explain", "--link", "5mbit"]).good();
    assert!(told.contains("chosen     archives unpacked") && told.contains("5 Mbit/s, "), "{told}");
    home.run(&["pull", "app", "copy"]).good();
    assert_same(&home.path("tree"), &home.path("copy"));
}
