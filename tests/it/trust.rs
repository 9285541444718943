//! Which agents a proxy serves, and with which fault it refuses the others.

use ground::faults::{Fault, Faulty};
use protocol::address::{Fingerprint, ProxyUrl};
use protocol::token::{Action, TokenId};
use protocol::wire::{Answer, Operation, Request};
use whit::agent::push::PushOptions;
use whit::agent::{Access, Error, Session};
use whit::net::identity::Identity;
use whit::net::link;

use crate::trees::write;
use crate::world::{World, ask_as, now, pull_as, push_as, push_options, releases_as, token, web, within};

async fn identify(access: &Access) -> Result<Vec<Answer>, Error> {
    ask_as(access, &Operation::Identify).await
}

fn assert_denied(error: &Error, words: &str) {
    assert_eq!(error.fault(), Fault::Denied, "{error}");
    assert!(error.to_string().contains(words), "`{error}` does not say `{words}`");
    assert!(error.hint().is_some(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_with_another_key_is_not_talked_to() {
    within(async {
        let world = World::start();
        let Access { url, token } = world.access().clone();
        let wrong =
            ProxyUrl::new(url.host(), url.port(), Fingerprint::of_key(b"another")).expect("an address");
        let error = identify(&Access { url: wrong, token }).await.expect_err("another key");
        assert_denied(&error, "another key");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_good_is_denied_and_says_why() {
    within(async {
        let world = World::start();
        let with = |token: &str| Access { token: token.to_owned(), ..world.access().clone() };
        let good = &world.access().token;
        assert!(identify(world.access()).await.is_ok());

        let expired = world.access_with(|grant| grant.expires = Some(now() - 1));
        assert_denied(&identify(&expired).await.expect_err("expired"), "expired");

        let elsewhere = tempfile::tempdir().expect("a temporary folder");
        let (foreign, _) = Identity::open_or_create(elsewhere.path()).expect("an identity");
        let foreign = token(&foreign, |_| {});
        assert_denied(&identify(&with(&foreign)).await.expect_err("foreign"), "another proxy");

        let (payload, _) = good.rsplit_once('.').expect("three parts");
        let (_, signature) = foreign.rsplit_once('.').expect("three parts");
        let forged = format!("{payload}.{signature}");
        assert_denied(&identify(&with(&forged)).await.expect_err("forged"), "signature");

        for nonsense in ["", "whit1", "whit1..", &good[..good.len() / 2], &"x".repeat(500_000)] {
            let error = identify(&with(nonsense)).await.expect_err("nonsense");
            assert_eq!(error.fault(), Fault::Denied, "{error}");
        }
        let newer = good.replacen("whit1", "whit2", 1);
        assert_eq!(identify(&with(&newer)).await.expect_err("newer").fault(), Fault::Version);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_revoked_is_refused_at_the_next_request_of_an_open_session() {
    within(async {
        let world = World::start();
        let mut id = TokenId::from_bytes([0; 8]);
        let access = world.access_with(|grant| id = grant.id);
        let session = Session::open(&access, &link::Options::default()).await.expect("a session");
        session.ask(&Operation::Identify, |_| {}).await.expect("a good token");
        world.identity().revoke(id).expect("revoked");
        let error = session.ask(&Operation::Identify, |_| {}).await.expect_err("revoked");
        assert_denied(&error, "revoked");
        assert!(identify(world.access()).await.is_ok(), "the other token is as good as before");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_allows_what_it_names_and_nothing_else() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        write(&tree, "a", "one");
        world.push("web-1", &tree).await;
        world.push("api", &tree).await;
        let narrow = world.access_with(|grant| {
            grant.actions = vec![Action::Push, Action::Read];
            grant.applications = vec!["web-*".parse().expect("a pattern")];
            grant.destinations = vec!["edge-*".parse().expect("a pattern")];
        });
        push_as(&narrow, &push_options("web-1", &tree)).await.expect("allowed");
        let error = push_as(&narrow, &push_options("api", &tree)).await.expect_err("another application");
        assert_denied(&error, "`api`");
        let to_web = PushOptions { destinations: vec![web()], ..push_options("web-1", &tree) };
        assert_denied(&push_as(&narrow, &to_web).await.expect_err("another destination"), "`web`");
        let out = world.path("out");
        assert_denied(&pull_as(&narrow, "web-1", &out, false).await.expect_err("no pull"), "pull");
        assert_denied(&releases_as(&narrow, "api").await.expect_err("another application"), "`api`");
        let deliver = Operation::Deliver {
            release: "web-1".parse().expect("a selector"),
            destinations: vec!["edge-1".parse().expect("a name")],
            then: Vec::new(),
        };
        assert_denied(&ask_as(&narrow, &deliver).await.expect_err("no deliveries"), "deliver");
        let answers = ask_as(&narrow, &Operation::Applications).await.expect("allowed");
        let Answer::Applications(apps) = &answers[0] else { panic!("{answers:?}") };
        assert_eq!(apps.iter().map(|app| app.app.as_str()).collect::<Vec<_>>(), ["web-1"]);
        for allowed in ["web-1", "web-2"] {
            // A token may learn whether an application exists only if it allows it.
            let fault = releases_as(&narrow, allowed).await.err().map(|error| error.fault());
            assert_eq!(fault, (allowed == "web-2").then_some(Fault::Missing));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_of_the_messages_is_told_as_such() {
    within(async {
        let world = World::start();
        let Access { url, token } = world.access();
        let connection = link::connect(url, &link::Options::default()).await.expect("a connection");
        let known = Request::new(token, &Operation::Identify);
        let newer = Request { version: 2, operation: b"what nobody knows yet".to_vec(), ..known.clone() };
        let unknown = Request { operation: rmp_serde::to_vec("Dance").expect("a word"), ..known };
        for request in [newer, unknown] {
            let (mut sender, mut receiver) = connection.open().await.expect("a stream");
            sender.send(&request).await.expect("sent");
            match receiver.receive::<Answer>().await.expect("an answer") {
                Some(Answer::Refused(refusal)) => assert_eq!(refusal.fault, Fault::Version, "{refusal}"),
                other => panic!("{other:?}"),
            }
        }
        connection.finish().await;
    })
    .await;
}
