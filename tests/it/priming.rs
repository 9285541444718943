//! The cache: content that is pushed, or taken from a destination, without a release, for a push that follows.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use format::cache_mark::CacheMark;
use format::maintenance::Collected;
use ground::faults::{Fault, Faulty};
use protocol::token::Action;
use protocol::wire::{Answer, Operation, Primed};
use whit::agent;
use whit::agent::Access;
use whit::agent::push::PushOptions;

use crate::trees::{assert_same, noise, some_tree, walk_files, write};
use crate::world::{World, ask_as, push_as, push_options, web, within};

/// Bytes of the file that changes after the old copy.
const CHANGED: usize = 50_000;

fn cached(options: PushOptions) -> PushOptions {
    PushOptions { cache_only: true, ..options }
}

async fn prime_as(access: &Access, app: &str) -> agent::Result<Primed> {
    let prime = Operation::Prime { app: app.parse().expect("a name"), destination: web() };
    match ask_as(access, &prime).await?.as_slice() {
        [Answer::Primed(primed)] => Ok(*primed),
        other => panic!("{other:?}"),
    }
}

async fn collected(world: &World) -> Collected {
    let collect = Operation::Collect { dry_run: false };
    match ask_as(world.access(), &collect).await.expect("collected").as_slice() {
        [Answer::Collected(collected)] => *collected,
        other => panic!("{other:?}"),
    }
}

/// Returns the bytes that the space's users have in the cache.
async fn cached_bytes(world: &World) -> Vec<u64> {
    match ask_as(world.access(), &Operation::Statistics(None)).await.expect("counted").as_slice() {
        [Answer::Statistics(counted)] => counted.users.iter().map(|user| user.cached_bytes).collect(),
        other => panic!("{other:?}"),
    }
}

/// Returns the files of the application's marks.
fn marks(world: &World) -> Vec<PathBuf> {
    let folder = world.space().join("releases/app/cached");
    if folder.exists() { walk_files(&folder) } else { Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fills_the_cache_makes_no_release_and_the_next_push_sends_none_of_it() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        for number in 0..3_000 {
            write(&tree, &format!("{}/{number}", number % 40), noise(number, 200));
        }
        let options = push_options("app", &tree);
        let filled = world.push_with(&cached(options.clone())).await;
        assert_eq!((filled.sequence, filled.chunks.unseen, filled.files), (None, 3_000, 3_000));
        let until = filled.cached_until.expect("kept for a time");
        let day = 24 * 3600;
        assert!((crate::world::now() + day - 100..=crate::world::now() + day).contains(&until));

        assert_eq!(world.releases("app").await.expect_err("none").fault(), Fault::Missing);
        let selector = format!("app@{}", filled.release);
        let pulled = world.pull(&selector, &world.path("pulled")).await;
        assert_eq!(pulled.expect_err("no release").fault(), Fault::Missing);
        assert_eq!(cached_bytes(&world).await, [600_000]);
        assert_eq!((collected(&world).await.removed_chunks, marks(&world).len()), (0, 1));

        let again = world.push_with(&cached(options.clone())).await;
        assert_eq!((again.chunks.unseen, again.bytes.sent, marks(&world).len()), (0, 0, 1));
        let pushed = world.push_with(&options).await;
        assert_eq!((pushed.release, pushed.sequence), (filled.release, Some(1)));
        assert_eq!((pushed.chunks.unseen, pushed.bytes.sent, pushed.cached_until), (0, 0, None));
        assert!(pushed.wire.up < 8_000, "{} B: no segment, either", pushed.wire.up);
        assert_eq!(world.releases("app").await.expect("one")[0].cost.sent_bytes, 0);
        assert_eq!((cached_bytes(&world).await, marks(&world)), (vec![0], Vec::new()), "the record keeps it");
        world.pull("app", &world.path("pulled")).await.expect("pulled");
        assert_same(&tree, &world.path("pulled"));
        world.stop().await;
        let audit = fs::read_to_string(world.path("data/audit.log")).expect("the audit");
        assert_eq!(audit.matches(r#""action":"cache","user":"ada""#).count(), 2, "{audit}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_remembers_an_older_push_does_not_send_what_is_cached_again() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        some_tree(&tree, 1);
        let options = PushOptions { state: Some(world.path("state")), ..push_options("app", &tree) };
        world.push_with(&options).await;
        write(&tree, "bin/tool", noise(77, 300_000));
        let filled = world.push_with(&cached(options.clone())).await;
        assert!(filled.bytes.unseen >= 300_000 && filled.sequence.is_none());
        let pushed = world.push_with(&options).await;
        assert_eq!((pushed.sequence, pushed.bytes.unseen, pushed.bytes.sent), (Some(2), 0, 0));
        write(&tree, "bin/tool", noise(78, 100));
        assert_eq!(world.push_with(&options).await.bytes.unseen, 100, "and goes on as ever");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_push_after_an_older_copy_was_cached_sends_what_changed() {
    within(async {
        for from_destination in [false, true] {
            let world = World::start();
            let (old, new) = (world.path("web"), world.path("new"));
            for tree in [&old, &new] {
                some_tree(tree, 1);
            }
            write(&old, "data", noise(10, CHANGED));
            write(&new, "data", noise(11, CHANGED));
            std::os::unix::fs::symlink("/etc/hosts", old.join("outside")).expect("a link");
            if from_destination {
                let primed = prime_as(world.access(), "app").await.expect("primed");
                assert!(primed.files >= 4 && primed.unseen_bytes > 1_000_000, "{primed:?}");
                assert_eq!(prime_as(world.access(), "app").await.expect("primed").unseen_bytes, 0);
                assert_eq!(marks(&world).len(), 1);
            } else {
                fs::remove_file(old.join("outside")).expect("removed");
                world.push_with(&cached(push_options("app", &old))).await;
            }
            assert_eq!(collected(&world).await.removed_chunks, 0);
            let pushed = world.push("app", &new).await;
            assert_eq!((pushed.sequence, pushed.bytes.unseen), (Some(1), CHANGED as u64));
            world.pull("app", &world.path("pulled")).await.expect("pulled");
            assert_same(&new, &world.path("pulled"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_is_read_where_its_readers_look_and_nowhere_else() {
    within(async {
        let world = World::start();
        let place = world.path("web");
        let missing = prime_as(world.access(), "app").await.expect_err("there is nothing");
        assert_eq!(missing.fault(), Fault::Missing, "{missing}");
        assert!(missing.to_string().contains("`web` holds nothing of `app`"), "{missing}");
        write(&place, "releases/7/index.html", noise(1, 40_000));
        write(&place, "releases/6/index.html", noise(2, 40_000));
        std::os::unix::fs::symlink("releases/7", place.join("current")).expect("a link");
        let primed = prime_as(world.access(), "app").await.expect("primed");
        assert_eq!((primed.files, primed.bytes), (1, 40_000));

        write(&world.path("secret"), "key", noise(3, 1_000));
        fs::remove_file(place.join("current")).expect("removed");
        std::os::unix::fs::symlink("../secret", place.join("current")).expect("a link");
        let error = prime_as(world.access(), "app").await.expect_err("it leads out");
        assert!(error.to_string().contains("current"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cached_goes_once_its_time_is_over() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        some_tree(&tree, 1);
        let filled = world.push_with(&cached(push_options("app", &tree))).await;
        let kept = collected(&world).await;
        assert_eq!(kept.removed_chunks, 0);
        assert!(kept.live_chunks > filled.chunks.total);
        world.stop().await;
        let [path] = &marks(&world)[..] else { panic!("one mark") };
        let mark = CacheMark::decode(&fs::read(path).expect("read")).expect("a mark");
        assert_eq!((mark.bytes, mark.sent_bytes), (filled.bytes.logical, filled.bytes.sent));
        fs::write(path, CacheMark { until: crate::world::now(), ..mark }.encode()).expect("written");
        world.again();
        let gone = collected(&world).await;
        assert_eq!((gone.live_chunks, marks(&world)), (0, Vec::new()));
        assert!(gone.removed_chunks >= filled.chunks.total, "{gone:?}");
        let pushed = world.push("app", &tree).await;
        assert_eq!(pushed.bytes.unseen, filled.bytes.unseen, "it is sent again");
        world.pull("app", &world.path("pulled")).await.expect("pulled");
        assert_same(&tree, &world.path("pulled"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_another_application_learns_nothing_of_it() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        some_tree(&tree, 1);
        let filled = world.push_with(&cached(push_options("app", &tree))).await;
        let other = world.access_with(|grant| {
            grant.applications = vec!["other".parse().expect("a pattern")];
        });
        for question in [
            Operation::Prime { app: "app".parse().expect("a name"), destination: web() },
            Operation::Statistics(Some("app".parse().expect("a name"))),
            Operation::Releases("app".parse().expect("a name")),
        ] {
            let refused = ask_as(&other, &question).await.expect_err("not allowed");
            assert_eq!(refused.fault(), Fault::Denied, "{question:?}");
        }
        let refused = push_as(&other, &cached(push_options("app", &tree))).await.expect_err("not allowed");
        assert_eq!(refused.fault(), Fault::Denied);
        // It has the content, and proves it; it names segments that only the cache knows in vain.
        let pushed = push_as(&other, &push_options("other", &tree)).await.expect("pushed");
        assert_eq!((pushed.release, pushed.bytes.sent), (filled.release, 0));
        let elsewhere = world.access_with(|grant| grant.destinations = Vec::new());
        assert_eq!(prime_as(&elsewhere, "app").await.expect_err("not allowed").fault(), Fault::Denied);
        let reader = world.access_with(|grant| grant.actions = vec![Action::Read]);
        assert_eq!(prime_as(&reader, "app").await.expect_err("not allowed").fault(), Fault::Denied);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_has_what_the_cache_has_not() {
    within(async {
        let world = World::start_with(|options| options.store.cached_for = Duration::ZERO);
        let tree = world.path("tree");
        write(&tree, "file", noise(1, 1_000));
        write(&world.path("web"), "file", noise(1, 1_000));
        let options = cached(push_options("app", &tree));
        let labelled = PushOptions { labels: vec!["v1".parse().expect("a label")], ..options.clone() };
        let delivered = PushOptions { destinations: vec![web()], ..options.clone() };
        for options in [options, labelled, delivered] {
            let refused = push_as(world.access(), &options).await.expect_err("refused");
            assert_eq!(refused.fault(), Fault::Input, "{refused}");
        }
        assert_eq!(prime_as(world.access(), "app").await.expect_err("refused").fault(), Fault::Input);
        assert_eq!(marks(&world), Vec::<PathBuf>::new());
    })
    .await;
}
