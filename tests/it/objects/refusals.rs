//! Buckets that refuse, fail, hang, lie or are full, and names that they cannot hold.

use std::sync::atomic::{AtomicUsize, Ordering};

use ground::faults::Fault;

use super::servers::{SECRET_KEY, Server, Trouble, nginx, s3};
use super::{deliver, destination, fail, files, site};
use crate::trees::write;
use crate::world::{World, web, within};

const DENIED: &str =
    "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Ask\u{7} ada</Message></Error>";

fn world(server: &Server, more: &str) -> World {
    World::start_with(|options| {
        options.destinations.insert(web(), destination(server, &format!("timeout = 1\n{more}")));
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_refuses_or_is_full_says_why_and_what_can_be_done() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = s3(folder.path());
    within(async {
        for (status, body, fault, text) in [
            (401, "", Fault::Denied, "the service answered 401 Unauthorized"),
            (403, DENIED, Fault::Denied, "403 Forbidden (AccessDenied: Ask\\x07 ada)"),
            (400, "no page", Fault::Input, "the service answered 400 Bad Request"),
            (404, "<Error><Code>NoSuchBucket</Code></Error>", Fault::Input, "404 Not Found (NoSuchBucket)"),
            (507, "", Fault::Full, "507 Insufficient Storage"),
        ] {
            server.trouble(move |line, _| {
                line.starts_with("PUT ").then_some(Trouble::Answer(status, &[], body))
            });
            let world = world(&server, "");
            site(&world.path("tree"));
            let (found, reason) = fail(&world).await;
            assert_eq!(found, fault, "{reason}");
            assert!(reason.contains("PUT s3://site/web/") && reason.contains(text), "{reason}");
            assert!(!reason.contains('<') && !reason.contains(SECRET_KEY), "{reason}");
        }
        assert!(server.files().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_keeps_nothing_or_never_answers_fails_within_its_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = s3(folder.path());
    within(async {
        server.trouble(|line, _| {
            line.starts_with("PUT ").then_some(Trouble::Answer(200, &[("ETag", "\"another\"")], ""))
        });
        let lied_to = world(&server, "");
        site(&lied_to.path("tree"));
        let (fault, reason) = fail(&lied_to).await;
        assert!(fault == Fault::Retry && reason.contains("is not there as it was sent"), "{reason}");

        server.trouble(|line, _| line.starts_with("PUT ").then_some(Trouble::Hang));
        let waiting = world(&server, "parallel = 1\n");
        write(&waiting.path("tree"), "file", "small");
        let (fault, reason) = fail(&waiting).await;
        assert!(fault == Fault::Retry && reason.contains("PUT s3://site/web/file"), "{reason}");
        assert!(server.files().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_asks_to_wait_is_asked_again_then_and_only_the_rest_is_sent() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = s3(folder.path());
    within(async {
        let world = world(&server, "parallel = 1\n");
        for number in 0..20 {
            write(&world.path("tree"), &format!("f{number:02}"), number.to_string());
        }
        server.trouble(|line, number| {
            (line.starts_with("PUT ") && number == 10).then_some(Trouble::Answer(
                503,
                &[("Retry-After", "1")],
                "<Code>SlowDown</Code>",
            ))
        });
        deliver(&world).await;
        assert_eq!(server.files(), files(&world.path("tree")));
        let puts = server.requests().iter().filter(|line| line.starts_with("PUT ")).count();
        assert_eq!(puts, 21, "no request was repeated before the time");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_1024_bytes_is_written_and_one_more_is_refused_before_anything_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = s3(folder.path());
    // Four bytes are those of `web/`.
    let name =
        |bytes: usize| format!("{}{}", format!("{}/", "d".repeat(199)).repeat(5), "f".repeat(bytes - 1004));
    // The server keeps metadata in files whose names have the whole key: it cannot hold this one itself.
    let heads = AtomicUsize::new(0);
    server.trouble(move |line, _| match line.split(' ').next() {
        Some("HEAD") if heads.fetch_add(1, Ordering::Relaxed) == 0 => Some(Trouble::Answer(404, &[], "")),
        Some("HEAD") => Some(Trouble::Answer(
            200,
            &[
                ("ETag", "\"9dd4e461268c8034f5c8564e155c67a6\""),
                ("Content-Length", "1"),
                ("Last-Modified", "Fri, 31 Dec 1999 23:59:59 GMT"),
            ],
            "",
        )),
        Some("PUT") => Some(Trouble::Answer(200, &[("ETag", "\"9dd4e461268c8034f5c8564e155c67a6\"")], "")),
        _ => None,
    });
    within(async {
        let longest = world(&server, "");
        write(&longest.path("tree"), &name(1024), "x");
        deliver(&longest).await;
        let put = server.requests().into_iter().find(|line| line.starts_with("PUT ")).expect("one");
        assert_eq!(put.len(), "PUT /site/".len() + 1024, "{put}");
        let before = server.requests().len();
        let longer = world(&server, "");
        write(&longer.path("tree"), &name(1025), "x");
        write(&longer.path("tree"), "a", "x");
        let (fault, reason) = fail(&longer).await;
        assert!(fault == Fault::Input && reason.contains("a key of 1025 bytes"), "{reason}");
        assert_eq!(server.requests().len(), before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_in_names_reach_a_server_as_they_are_and_a_bucket_not_at_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let names = ["line\nfeed", "tab\tand\rreturn", "\u{1b}[31mred", "deleted\u{7f}"];
    within(async {
        for name in ["nginx", "s3"] {
            let below = folder.path().join(name);
            std::fs::create_dir(&below).expect("a folder");
            let server = if name == "nginx" { nginx(&below) } else { Some(s3(&below)) };
            let Some(server) = server else { continue };
            let world = World::start_with(|options| {
                options.destinations.insert(web(), destination(&server, ""));
            });
            for name in names {
                write(&world.path("tree"), name, name);
            }
            write(&world.path("tree"), "plain", "plain");
            if name == "nginx" {
                deliver(&world).await;
                assert_eq!(server.files(), files(&world.path("tree")));
            } else {
                let (fault, reason) = fail(&world).await;
                assert!(fault == Fault::Input && reason.contains("is not possible as a key"), "{reason}");
                assert!(!reason.contains(char::is_control), "{reason:?}");
                assert!(server.files().is_empty() && server.requests().is_empty());
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_others_with_impossible_names_hold_up_no_delivery() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = s3(folder.path());
    server.trouble(|line, _| {
        line.contains("list-type=2").then(|| {
            let page = "<ListBucketResult><Name>site</Name><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>\
                        <IsTruncated>false</IsTruncated><Contents><Key>web/a//b</Key>\
                        <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"1\"</ETag><Size>1</Size>\
                        </Contents></ListBucketResult>";
            Trouble::Answer(200, &[("Content-Type", "application/xml")], page)
        })
    });
    within(async {
        let world = world(&server, "");
        for number in 0..40 {
            write(&world.path("tree"), &number.to_string(), number.to_string());
        }
        deliver(&world).await;
        assert_eq!(server.files(), files(&world.path("tree")));
        assert!(server.requests().iter().any(|line| line.contains("list-type=2")));
    })
    .await;
}
