//! Releases in one request: what arrives unpacks to what was pushed, or nothing is there.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ground::faults::Fault;

use super::faulty::{Do, Faulty};
use super::servers::{Trouble, nginx, s3};
use super::{defined, deliver, fail};
use crate::trees::{assert_same, noise, some_tree, write};
use crate::world::{World, web, within};

const FORMATS: [&str; 4] = ["tar", "tar.gz", "tar.zst", "zip"];

/// A world whose destination `web` is defined so, and a tree of 9.6 MB that does not compress.
fn world(text: &str) -> World {
    let world = World::start_with(|options| {
        options.destinations.insert(web(), defined(text));
    });
    some_tree(&world.path("tree"), 1);
    write(&world.path("tree"), "large", noise(7, 8_500_000));
    world
}

fn unpack(format: &str, bytes: &[u8], into: &Path) {
    fs::create_dir(into).expect("a folder");
    if format == "zip" {
        return zip::ZipArchive::new(Cursor::new(bytes)).expect("a zip").extract(into).expect("unpacked");
    }
    let plain: Box<dyn std::io::Read + '_> = match format {
        "tar.gz" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "tar.zst" => Box::new(zstd::Decoder::new(bytes).expect("a stream")),
        _ => Box::new(bytes),
    };
    let mut archive = tar::Archive::new(plain);
    archive.set_preserve_permissions(true);
    archive.unpack(into).expect("unpacked");
}

/// Compares an archive with the world's tree; the modes of folders are the unpacker's.
fn assert_holds(world: &World, format: &str, bytes: &[u8]) {
    let into = world.path(&format!("unpacked-{format}"));
    unpack(format, bytes, &into);
    for folder in ["", "bin", "share", "var", "var/empty"] {
        for top in [&into, &world.path("tree")] {
            fs::set_permissions(top.join(folder), fs::Permissions::from_mode(0o755)).expect("changed");
        }
    }
    assert_same(&world.path("tree"), &into);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_at_a_server_or_in_a_bucket_unpacks_to_the_release() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    within(async {
        for format in FORMATS {
            for name in ["nginx", "s3"] {
                let below = folder.path().join(format!("{name}-{format}"));
                fs::create_dir(&below).expect("a folder");
                let server = if name == "nginx" { nginx(&below) } else { Some(s3(&below)) };
                let Some(server) = server else { continue };
                let text = match name {
                    "nginx" => {
                        format!("kind = 'http'\nurl = '{}/web/{{release}}.{format}'\n", server.address)
                    }
                    _ => format!("{}name = '{{release}}.{{format}}'\n", server.keys),
                };
                let world = world(&format!("{text}bundle = '{format}'\n"));
                let report = deliver(&world).await;
                let release = world.releases("web").await.expect("one")[0].release;
                let received = server.files();
                let bytes = &received[&format!("{release}.{format}")];
                assert_eq!((received.len(), report.sent_bytes), (1, bytes.len() as u64));
                assert_holds(&world, format, bytes);
                assert!(deliver(&world).await.already);
                if name == "s3" {
                    let parts = server.requests().iter().filter(|line| line.contains("partNumber=")).count();
                    assert_eq!(parts, 2, "parts of 8 MiB");
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_one_file_is_sent_as_it_is_by_put_and_post() {
    let server = Faulty::start(|_| Do::Serve);
    within(async {
        for (method, size) in [("PUT", 10_000_000), ("POST", 10_000_000), ("PUT", 10)] {
            let text = format!(
                "kind = 'http'\nurl = 'http://127.0.0.1:{}/{{app}}/{method}-{{label}}'\nbundle = 'file'\nmethod = '{method}'\n",
                server.port
            );
            let world = World::start_with(|options| {
                options.destinations.insert(web(), defined(&text));
            });
            let content = noise(3, size);
            fs::write(world.path("tree"), &content).expect("written");
            deliver(&world).await;
            let release = world.releases("web").await.expect("one")[0].release;
            assert!(server.shown()[&format!("{method}-{}", release.short())] == content, "{method} {size}");
        }
        assert_eq!((server.count("PUT"), server.count("POST")), (2, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_no_single_file_and_that_is_said_before_anything_is_sent() {
    let server = Faulty::start(|_| Do::Serve);
    let world =
        world(&format!("kind = 'http'\nurl = 'http://127.0.0.1:{}/it'\nbundle = 'file'\n", server.port));
    let (fault, reason) = within(fail(&world)).await;
    assert_eq!((fault, server.shown().len()), (Fault::Input, 0), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_was_cut_off_or_refused_in_the_middle_is_sent_again_whole() {
    for trouble in ["cut", "500"] {
        let server = Faulty::start(move |asked| match (asked.method.as_str(), asked.number, trouble) {
            ("PUT", 1, "cut") => Do::Cut,
            ("PUT", 1, _) => Do::Answer("500 Internal Server Error"),
            _ => Do::Serve,
        });
        let url = format!("http://127.0.0.1:{}/web/it", server.port);
        let world = world(&format!("kind = 'http'\nurl = '{url}'\nbundle = 'tar'\n"));
        within(deliver(&world)).await;
        assert_eq!(server.count("PUT"), 2, "{trouble}");
        assert_holds(&world, "tar", &server.shown()["it"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_that_fails_leaves_nothing_and_the_next_try_sends_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = s3(folder.path());
    let world = world(&format!("{}bundle = 'tar'\nname = 'it'\n", server.keys));
    within(async {
        server.trouble(|line, _| line.contains("partNumber=2").then_some(Trouble::Answer(400, &[], "")));
        let (fault, reason) = fail(&world).await;
        assert_eq!(fault, Fault::Input, "{reason}");
        assert!(server.files().is_empty());
        let is_abort = |line: &String| line.starts_with("DELETE ") && line.contains("uploadId=");
        assert!(
            server.requests().iter().any(is_abort),
            "its parts would cost money: {:?}",
            server.requests()
        );
        // The fifth in a row is beyond the tries of one request: the delivery is tried again.
        let failures = std::sync::atomic::AtomicUsize::new(0);
        server.trouble(move |line, _| {
            let is_failing = line.contains("partNumber=2")
                && failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 5;
            is_failing.then_some(Trouble::Answer(500, &[], ""))
        });
        deliver(&world).await;
        assert_holds(&world, "tar", &server.files()["it"]);
    })
    .await;
}
