//! Packed streams that an agent remembers are neither decoded nor encoded again; what is pushed is the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use format::chunking::Profile;
use format::manifest::SegmentIndex;
use format::recipe::ChunkRef;
use ground::monitor::Silent;
use recode::archive::{Limits, Memory, Planner};
use whit::agent::memory::{
    Key, KnownMember, RememberedStreams, StreamMemory, UnpackedStream, Use, WriteOptions,
};
use whit::agent::push::PushOptions;
use whit::agent::scan::{Archives, Holder, Reader, Scan, Selection};

use crate::archives::{packages, raw, tree, unpacking, zip};
use crate::damage::{damage_content, verify};
use crate::program::Home;
use crate::store::only;
use crate::trees::{assert_same, noise, text, write};
use crate::world::{World, web, within};

/// Scans a tree; archives are unpacked with what the memory knows.
fn scan(path: &Path, scratch: &Path, memory: Option<&Arc<RememberedStreams>>) -> Scan {
    let mut archives = Archives::new(scratch.to_owned());
    if let Some(memory) = memory {
        archives = archives.knowing(Arc::<RememberedStreams>::clone(memory));
    }
    let reader = Reader {
        selection: &Selection::default(),
        profile: Profile::DEFAULT,
        threads: 2,
        memory: None,
        archives: Some(&archives),
        on_segment: None,
        monitor: &Silent,
    };
    reader.scan(path).expect("a scan")
}

/// Returns the bytes of a scan, and those of them that it did not read.
fn unread(scan: &Scan) -> (u64, u64) {
    let indices = SegmentIndex::range(0..scan.segments.len());
    let located = indices.flat_map(|index| scan.spool.chunks(index).expect("a segment"));
    located.fold((0, 0), |(all, unread), located| {
        let bytes = u64::from(located.chunk.bytes);
        let is_unread = matches!(located.holder, Holder::Member { .. });
        (all + bytes, unread + if is_unread { bytes } else { 0 })
    })
}

fn key(app: &str) -> Key {
    let fingerprint = protocol::address::Fingerprint::of_key(b"a key");
    Key::new(&fingerprint, "a token", &app.parse().expect("a name"))
}

fn remembered(state: &Path, used: Use) -> Arc<RememberedStreams> {
    Arc::new(RememberedStreams::new(state, &key("app"), Profile::DEFAULT, used))
}

#[test]
fn a_scan_that_remembers_streams_makes_the_same_manifest_and_reads_what_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, state) = (folder.path().join("tree"), folder.path().join("state"));
    for build in 0..3 {
        tree(&source, build);
        packages(&source, build.min(1));
        // Beside a member, an archive of streams that no two encoders make differently.
        write(&source, "small.zip", zip(&[("a", text(build, 200)), ("b", noise(7, 30_000))], true));
        let plainly = scan(&source, folder.path(), None);
        for used in [Use::Methods, Use::Chunks] {
            let memory = remembered(&state, used);
            let scanned = scan(&source, folder.path(), Some(&memory));
            assert_eq!(
                (scanned.root, scanned.segments.len()),
                (plainly.root.clone(), plainly.segments.len())
            );
            assert_eq!(scanned.unpacked, plainly.unpacked);
        }
        let memory = remembered(&state, Use::Chunks);
        let (all, unread) = unread(&scan(&source, folder.path(), Some(&memory)));
        memory.write(&WriteOptions::default()).expect("written");
        if build == 0 {
            assert_eq!(unread, 0);
        } else {
            // The members that did not change, of archives that have any: core.js, the page, the noise of the small one.
            assert!(unread > 3 * 300_000 && unread < all, "{unread} of {all}");
        }
    }
    // The same again: every packed member is known.
    let memory = remembered(&state, Use::Chunks);
    let scanned = scan(&source.join("app-1.0.whl"), folder.path(), Some(&memory));
    let (all, unread) = unread(&scanned);
    assert!(all - unread < 1_000, "{unread} of {all}");
}

#[test]
fn streams_of_archives_that_are_not_looked_at_stay_and_a_damaged_file_counts_as_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let file = |number: u64| folder.path().join(format!("{number}.zip"));
    for number in 0..2 {
        fs::write(file(number), zip(&[("a", noise(number, 50_000))], true)).expect("written");
        let memory = remembered(&state, Use::Chunks);
        scan(&file(number), folder.path(), Some(&memory));
        memory.write(&WriteOptions::default()).expect("written");
    }
    let known = |number: u64| {
        let memory = remembered(&state, Use::Chunks);
        unread(&scan(&file(number), folder.path(), Some(&memory))).1 > 0
    };
    assert!(known(0) && known(1));
    let streams = only(&state.join("memory"), "streams");
    let whole = fs::read(&streams).expect("readable");
    for damaged in [whole[..whole.len() - 1].to_vec(), [&whole[..], &[0]].concat(), Vec::new()] {
        fs::write(&streams, damaged).expect("written");
        assert!(!known(0) && !known(1));
    }
    fs::write(&streams, whole).expect("written");
    assert!(known(0));
    // Another application's is another file.
    let other = RememberedStreams::new(&state, &key("other"), Profile::DEFAULT, Use::Chunks);
    assert_eq!(unread(&scan(&file(0), folder.path(), Some(&Arc::new(other)))).1, 0);
}

/// `WHIT_ARCHIVES`, separated by colons, names files or folders, each a later version of the one before.
#[test]
#[ignore = "for archives of this machine, named by WHIT_ARCHIVES: minutes"]
fn scans_of_archives_of_this_machine_do_not_differ_by_what_is_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    for path in std::env::var("WHIT_ARCHIVES").expect("it names archives").split(':').map(Path::new) {
        let plainly = scan(path, folder.path(), None);
        let memory = remembered(&state, Use::Chunks);
        let begin = std::time::Instant::now();
        let scanned = scan(path, folder.path(), Some(&memory));
        assert_eq!((&scanned.root, scanned.unpacked), (&plainly.root, plainly.unpacked));
        let ((all, unread), seconds) = (unread(&scanned), begin.elapsed().as_secs_f64());
        println!("{}: {unread} of {all} B not unpacked, {seconds:.1} s", path.display());
        memory.write(&WriteOptions::default()).expect("written");
    }
}

fn remembering(world: &World, source: &Path) -> PushOptions {
    PushOptions { state: Some(world.path("state")), destinations: vec![web()], ..unpacking("app", source) }
}

async fn assert_arrives(world: &World, source: &Path, name: &str) {
    assert_same(source, &world.path("web/current"));
    let copy: PathBuf = world.path(name);
    world.pull("app", &copy).await.expect("pulled");
    assert_same(source, &copy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_that_remember_streams_send_no_more_and_arrive_bit_for_bit() {
    within(async {
        let world = World::start();
        let source = world.path("tree");
        let options = remembering(&world, &source);
        let forgetting = PushOptions { state: Some(world.path("other")), ..unpacking("app", &source) };
        for build in 0..4 {
            tree(&source, build);
            let receipt = world.push_with(&options).await;
            assert_eq!(receipt.archives.files, 4, "{receipt:?}");
            assert_arrives(&world, &source, &format!("copy {build}")).await;
            // In a space of its own, by an agent that remembers all but streams.
            let access = world.access_to("other");
            let plainly = crate::world::push_as(&access, &forgetting).await.expect("pushed");
            for file in fs::read_dir(world.path("other/memory")).expect("a folder").flatten() {
                if file.path().extension().is_some_and(|end| end == "streams") {
                    fs::remove_file(file.path()).expect("removed");
                }
            }
            assert_eq!((receipt.release, receipt.chunks), (plainly.release, plainly.chunks));
            // A first push is sent in the pieces in which it is read.
            let (sent, plainly) = (receipt.bytes.sent, plainly.bytes.sent);
            assert!(build == 0 || sent <= plainly + plainly / 50, "build {build}: {sent}, {plainly}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_was_not_unpacked_is_read_where_the_proxy_lacks_it() {
    within(async {
        let mut world = World::start();
        let source = world.path("tree");
        let options = remembering(&world, &source);
        for build in 0..2 {
            tree(&source, build);
            world.push_with(&options).await;
        }
        // A proxy with the same key that has lost everything.
        world.stop().await;
        fs::remove_dir_all(world.space()).expect("removed");
        world.again();
        tree(&source, 2);
        let receipt = world.push_with(&options).await;
        assert_eq!((receipt.files_remembered, receipt.archives.files), (0, 4));
        assert_arrives(&world, &source, "lost").await;
        // One that has lost some of it.
        damage_content(&only(&world.space().join("packs/open"), "part"), 1);
        assert!(verify(&world, false).await.damaged[0].chunks > 0);
        tree(&source, 3);
        let receipt = world.push_with(&options).await;
        assert_eq!(receipt.archives.files, 4);
        assert_arrives(&world, &source, "damaged").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_cache_is_filled_again_although_streams_are_remembered() {
    within(async {
        let world = World::start();
        let source = world.path("tree");
        let options = remembering(&world, &source);
        let mut sent = Vec::new();
        for build in 0..4 {
            tree(&source, build);
            if build == 2 {
                fs::remove_dir_all(world.path("state/kept")).expect("removed");
            }
            sent.push(world.push_with(&options).await.bytes.sent);
        }
        assert_arrives(&world, &source, "copy").await;
        // The last push has all of the one before to build on.
        assert!(sent[3] <= sent[1] + sent[1] / 4, "{sent:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_remembered_wrong_is_not_proven_and_forgotten() {
    within(async {
        let world = World::start();
        let source = world.path("tree");
        let options = remembering(&world, &source);
        tree(&source, 0);
        world.push_with(&options).await;
        let app = "app".parse().expect("a name");
        let key = Key::new(&world.access().url.fingerprint(), &world.access().token, &app);
        let of_this = |used| RememberedStreams::new(&world.path("state"), &key, Profile::DEFAULT, used);
        let streams = only(&world.path("state/memory"), "streams");
        let remember = |lie: UnpackedStream| {
            fs::remove_file(&streams).expect("removed");
            let lies = of_this(Use::Nothing);
            lies.remember(vec![lie]);
            lies.write(&WriteOptions::default()).expect("written");
        };
        let truth = of_this(Use::Chunks);
        // The first member of the wheel, of many chunks.
        let wheel = fs::read(source.join("app-1.0.whl")).expect("a file");
        let plan = Planner::default().plan(&wheel, &Limits::default(), &mut Memory, Some(&truth));
        let (name, known) = plan.named_streams()[0];
        let chunks = truth.member(&name).expect("remembered").chunks;
        // Chunks that are nowhere: the proxy lacks them, and the agent reads all.
        let nowhere =
            |chunk: &ChunkRef| ChunkRef { bytes: chunk.bytes, ..ChunkRef::of(&chunk.bytes.to_le_bytes()) };
        let made_up = chunks.iter().map(nowhere).collect();
        remember(UnpackedStream {
            name,
            known,
            member: Some(KnownMember { chunks: made_up, is_elf: false }),
        });
        tree(&source, 1);
        let receipt = world.push_with(&options).await;
        assert_eq!(receipt.archives.files, 4, "{receipt:?}");
        assert_arrives(&world, &source, "nowhere").await;
        assert_eq!(
            of_this(Use::Chunks).member(&name).map(|member| member.chunks),
            Some(chunks.clone()),
            "the truth is remembered"
        );
        // Chunks that the proxy has, in another order: no archive comes of them.
        let turned: Vec<ChunkRef> = chunks.iter().rev().copied().collect();
        assert_ne!(turned, chunks);
        remember(UnpackedStream { name, known, member: Some(KnownMember { chunks: turned, is_elf: false }) });
        tree(&source, 2);
        let receipt = world.push_with(&options).await;
        assert_eq!(receipt.archives.files, 0, "{receipt:?}");
        assert!(!streams.exists(), "it is forgotten");
        assert_arrives(&world, &source, "turned").await;
        tree(&source, 3);
        assert_eq!(world.push_with(&options).await.archives.files, 4);
        assert_arrives(&world, &source, "forgotten").await;
        // Nothing is remembered of a push that unpacks nothing.
        fs::remove_file(&streams).expect("removed");
        tree(&source, 4);
        world.push_with(&raw(options)).await;
        assert!(!streams.exists());
    })
    .await;
}

#[test]
fn the_program_explains_pushes_that_remember_streams() {
    let home = Home::new();
    for build in 0..3 {
        tree(&home.path("tree"), build);
        let told = home.run(&["push", "app", "tree", "--effort", "bytes", "--explain"]).good();
        assert!(told.contains("in 4 files, unpacked"), "{told}");
    }
    home.run(&["pull", "app", "copy"]).good();
    assert_same(&home.path("tree"), &home.path("copy"));
    // A second look at the same content, without any memory.
    let told = home.run(&["push", "app", "tree", "--effort", "bytes", "--no-memory"]).good();
    assert!(told.contains("in 4 files, unpacked"), "{told}");
}
