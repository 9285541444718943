//! What follows deliveries: hooks, and webhooks as their receiver sees them.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use format::record::{ActionReport, DeliveryState};
use ground::faults::{Fault, Faulty as _};
use ground::pattern::Pattern;
use protocol::wire::{Answer, Operation};
use ring::hmac;
use whit::agent::push::PushOptions;
use whit::agent::{Access, Receipt};
use whit::delivery::actions::{Changed, Event, Happened, Notice};
use whit::ledger::{Change, Key, Ledger, Table};

use crate::exec::configure;
use crate::ledgers::memory::MemoryLedger;
use crate::objects::servers::start_nginx;
use crate::objects::tls::{Authority, shows};
use crate::trees::{some_tree, walk_files, write};
use crate::world::{World, ask_as, delivered, now, push_as, push_options, within};

fn may_then(world: &World) -> Access {
    world.access_with(|grant| grant.then = vec![Pattern::any()])
}

fn then(world: &World, actions: &[&str]) -> PushOptions {
    PushOptions {
        destinations: vec!["out".parse().expect("a name")],
        then: actions.iter().map(|name| name.parse().expect("a name")).collect(),
        ..push_options("app", &world.path("tree"))
    }
}

async fn push(world: &World, actions: &[&str]) -> Receipt {
    push_as(&may_then(world), &then(world, actions)).await.expect("pushed")
}

fn actions(receipt: &Receipt) -> &[ActionReport] {
    &delivered(&receipt.delivered).actions
}

/// A world with a directory `out` and more of a configuration, and a small tree.
fn world(text: &str) -> World {
    world_over(None, text)
}

fn world_over(ledger: Option<Arc<dyn Ledger>>, text: &str) -> World {
    let text = format!("[destinations.out]\nkind = \"dir\"\npath = \"OUT/dir\"\n{text}");
    let world = World::start_with(|options| {
        options.ledger = ledger;
        configure(options, &text);
    });
    some_tree(&world.path("tree"), 1);
    world
}

const HOOKS: &str = r#"
[hooks.first]
command = ["/bin/sh", "-c", "echo first >> OUT/order; readlink OUT/dir/current; echo $WHIT_DESTINATION $WHIT_EVENT"]
[hooks.second]
command = ["/bin/sh", "-c", "echo second >> OUT/order; cat > OUT/body"]
[hooks.fails]
command = ["/bin/sh", "-c", "echo it broke >&2; exit 4"]
[hooks.slow]
command = ["/bin/sh", "-c", "sleep 1000"]
seconds = 1
[hooks.other]
command = ["/bin/true"]
apps = ["other-*"]
[hooks.elsewhere]
command = ["/bin/true"]
destinations = ["else*"]
[hooks.always]
command = ["/bin/sh", "-c", "echo always >> OUT/order; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end"]
always = true
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_run_in_the_order_asked_for_once_the_destination_shows_the_release() {
    within(async {
        let world = world(HOOKS);
        let receipt = push(&world, &["second", "first", "second"]).await;
        let [second, first, always] = actions(&receipt) else { panic!("{receipt:?}") };
        assert_eq!([&second.failure, &first.failure, &always.failure], [&None, &None, &None]);
        assert!(
            first.output.ends_with("out delivered") && first.output.starts_with("releases/"),
            "{first:?}"
        );
        assert!(always.output.ends_with("end") && always.output.len() < 2500);
        assert_eq!(fs::read_to_string(world.path("out/order")).expect("written"), "second\nfirst\nalways\n");
        let body = fs::read(world.path("out/body")).expect("written");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["type"], "delivery.delivered");
        assert_eq!(body["data"]["delivery"], receipt.delivered[0].id.to_string());
        let changed = body["data"]["changed"].as_array().expect("a list").len();
        assert!(changed >= walk_files(&world.path("tree")).len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_gets_all_labels_that_name_the_release_whichever_push_gave_them() {
    within(async {
        let world = world("[hooks.labels]\ncommand = ['/bin/sh', '-c', 'echo $WHIT_LABELS']\n");
        let push = async |labels: &[&str]| {
            let labels = labels.iter().map(|text| text.parse().expect("a label")).collect();
            let options = PushOptions { labels, moves: true, ..then(&world, &["labels"]) };
            let receipt = push_as(&may_then(&world), &options).await.expect("pushed");
            actions(&receipt)[0].output.clone()
        };
        assert_eq!(push(&["v1", "old"]).await, "v1 old");
        assert_eq!(push(&["stable"]).await, "stable v1 old");
        assert_eq!(push(&[]).await, "stable v1 old");
        write(&world.path("tree"), "index.html", "later");
        assert_eq!(push(&["stable"]).await, "stable");
        let selector = "app@v1".parse().expect("a selector");
        let destinations = vec!["out".parse().expect("a name")];
        let then = vec!["labels".parse().expect("a name")];
        let deliver = Operation::Deliver { release: selector, destinations, then };
        let answers = ask_as(&may_then(&world), &deliver).await.expect("delivered");
        let mut states = answers.into_iter().filter_map(|answer| match answer {
            Answer::Delivery(event) => Some(event.state),
            _ => None,
        });
        let Some(DeliveryState::Delivered(report)) = states.next_back() else { panic!("delivered") };
        assert_eq!(report.actions[0].output, "v1 old", "the other one has moved on");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_fails_or_hangs_is_said_and_the_copy_is_there() {
    within(async {
        let world = world(HOOKS);
        let receipt = push(&world, &["fails", "slow"]).await;
        let [fails, slow, _] = actions(&receipt) else { panic!("{receipt:?}") };
        assert_eq!(
            (fails.failure.as_deref(), fails.output.as_str()),
            (Some("it ended with status 4"), "it broke")
        );
        assert!(slow.failure.as_ref().is_some_and(|why| why.contains("took longer")), "{slow:?}");
        assert!(world.path("out/dir/current").exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_may_ask_for_is_refused_before_anything_is_sent() {
    within(async {
        let world = world(HOOKS);
        let some = world.access_with(|grant| grant.then = vec!["sec*".parse().expect("a pattern")]);
        let all = may_then(&world);
        for (access, action, fault) in [
            (world.access(), "second", Fault::Denied),
            (&some, "first", Fault::Denied),
            (&all, "unknown", Fault::Missing),
            (&all, "other", Fault::Denied),
            (&all, "elsewhere", Fault::Denied),
        ] {
            let error = push_as(access, &then(&world, &[action])).await.expect_err(action);
            assert_eq!(error.fault(), fault, "{action}: {error}");
            assert!(error.to_string().contains(&format!("`{action}`")), "{error}");
        }
        let nowhere = PushOptions { destinations: Vec::new(), ..then(&world, &["first"]) };
        assert_eq!(push_as(&all, &nowhere).await.expect_err("no delivery").fault(), Fault::Input);
        assert_eq!(world.releases("app").await.expect_err("nothing was pushed").fault(), Fault::Missing);
        push_as(&some, &then(&world, &["second"])).await.expect("allowed");
    })
    .await;
}

/// A message that a receiver heard.
#[derive(Debug, Clone)]
struct Message {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(found, _)| found == name);
        &found.unwrap_or_else(|| panic!("{name} in {:?}", self.headers)).1
    }

    /// Returns whether some signature of the message is by a secret, computed anew from what arrived.
    fn is_signed_by(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("base64");
        let mut signed =
            format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp")).into_bytes();
        signed.extend_from_slice(&self.body);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
        let expected = format!("v1,{}", STANDARD.encode(tag));
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}

/// An HTTP server that hears webhooks, and answers with the given heads, then with 200.
struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Message>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (heard, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let mut answers: VecDeque<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let (hears, ends) = (Arc::clone(&heard), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let Some(message) = read(&stream) else { continue };
                hears.lock().expect("no panic").push(message);
                let answer = answers.pop_front().unwrap_or_else(|| "200 OK".to_owned());
                let head = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                drop(stream.write_all(head.as_bytes()));
            }
        });
        Self { address, heard, ended, thread: Some(thread) }
    }

    fn heard(&self) -> Vec<Message> {
        self.heard.lock().expect("no panic").clone()
    }

    /// Waits until so many messages were heard.
    async fn hears(&self, count: usize) -> Vec<Message> {
        loop {
            let heard = self.heard();
            if heard.len() >= count {
                return heard;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

fn read(stream: &TcpStream) -> Option<Message> {
    let mut reader = BufReader::new(stream);
    let (mut headers, mut line) = (Vec::new(), String::new());
    reader.read_line(&mut line).ok()?;
    assert!(line.starts_with("POST /hook?key=hunter2 "), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let bytes = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; bytes];
    reader.read_exact(&mut body).ok()?;
    Some(Message { headers, body })
}

const OLD: &str = "whsec_b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQ=";
const NEW: &str = "whsec_bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXc=";

fn webhook(receiver: &Receiver, more: &str) -> String {
    let address = receiver.address;
    format!(
        "[webhooks.chat]\nurl = \"http://{address}/hook?key=hunter2\"\nsecret_files = [\"OUT/new\", \"OUT/old\"]\n{more}\n"
    )
}

fn with_secrets(text: &str) -> World {
    with_secrets_over(None, text)
}

fn with_secrets_over(ledger: Option<Arc<dyn Ledger>>, text: &str) -> World {
    let world = world_over(ledger, text);
    fs::write(world.path("out/new"), format!("{NEW}\n")).expect("written");
    fs::write(world.path("out/old"), OLD).expect("written");
    world
}

/// Panics if anything that a proxy wrote down, or said, has a secret.
fn shows_no_secret(world: &World, receipt: &Receipt) {
    let said = format!("{receipt:?}");
    for secret in ["hunter2", "b2xkIG9s", "bmV3IG5l"] {
        assert!(!said.contains(secret), "{said}");
        for path in walk_files(&world.path("data")) {
            let content = fs::read(&path).unwrap_or_default();
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_signed_by_each_secret_and_lists_what_changed() {
    within(async {
        let receiver = Receiver::start(&[]);
        let world = with_secrets(&webhook(&receiver, ""));
        let first = push(&world, &["chat"]).await;
        assert_eq!(actions(&first)[0].output, "200 OK");
        write(&world.path("tree"), "changed", "now");
        let second = push(&world, &["chat"]).await;
        let heard = receiver.hears(2).await;
        for message in &heard {
            assert!(message.is_signed_by(OLD) && message.is_signed_by(NEW));
            assert_eq!(message.header("content-type"), "application/json");
        }
        let id = format!("{}-delivered", second.delivered[0].id);
        assert_eq!(heard[1].header("webhook-id"), id);
        let body: serde_json::Value = serde_json::from_slice(&heard[1].body).expect("JSON");
        assert_eq!(body["data"]["changed"], serde_json::json!(["changed"]));
        assert_eq!(body["data"]["previous"], first.release.to_string());
        assert_eq!(body["data"]["user"], "ada");
        shows_no_secret(&world, &second);
        // Nobody asked: nobody is told.
        world.push_with(&PushOptions { then: Vec::new(), ..then(&world, &[]) }).await;
        assert_eq!(receiver.heard().len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_tried_again_until_it_is_received_also_by_another_run() {
    within(async {
        let receiver = Receiver::start(&["500 Broken", "503 Busy"]);
        let mut world = with_secrets(&webhook(&receiver, "always = true"));
        let receipt = push(&world, &[]).await;
        let [report] = actions(&receipt) else { panic!("{receipt:?}") };
        assert!(report.failure.is_none() && report.output.starts_with("pending: "), "{report:?}");
        assert!(report.output.contains("500"), "{report:?}");
        world.stop().await;
        assert_eq!(walk_files(&world.path("data/notices")).len(), 1);
        world.again();
        let heard = receiver.hears(3).await;
        for message in &heard {
            assert_eq!(message.header("webhook-id"), heard[0].header("webhook-id"));
            assert!(message.body == heard[0].body && message.is_signed_by(NEW));
        }
        while !walk_files(&world.path("data/notices")).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(receiver.heard().len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_and_a_receiver_that_is_gone_are_no_success_and_hold_up_nothing() {
    within(async {
        let elsewhere = Receiver::start(&[]);
        let to = format!("307 Moved\r\nLocation: http://{}/hook?key=hunter2", elsewhere.address);
        let receiver = Receiver::start(&[&to, &to, &to, &to]);
        let world = with_secrets(&webhook(&receiver, ""));
        let receipt = push(&world, &["chat"]).await;
        let [report] = actions(&receipt) else { panic!("{receipt:?}") };
        assert!(report.output.contains("redirects are not followed"), "{report:?}");
        assert!(elsewhere.heard().is_empty());
        shows_no_secret(&world, &receipt);
        drop(receiver);
        write(&world.path("tree"), "changed", "now");
        let receipt = push(&world, &["chat"]).await;
        let [report] = actions(&receipt) else { panic!("{receipt:?}") };
        assert!(report.failure.is_none() && report.output.starts_with("pending: "), "{report:?}");
        shows_no_secret(&world, &receipt);
        assert!(elsewhere.heard().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_told_once_and_a_secret_that_is_gone_is_not_worked_around() {
    within(async {
        let receiver = Receiver::start(&[]);
        let text = webhook(&receiver, "always = true\non = [\"failed\", \"given_up\", \"delivered\"]");
        let broken = "[destinations.broken]\nkind = \"exec\"\ncommand = [\"/bin/false\"]\ninput = \"none\"\n";
        let world = with_secrets(&format!("{text}{broken}"));
        let options =
            PushOptions { destinations: vec!["broken".parse().expect("a name")], ..then(&world, &[]) };
        let receipt = push_as(&may_then(&world), &options).await.expect("pushed");
        assert!(matches!(receipt.delivered[0].state, DeliveryState::Failed { .. }));
        let heard = receiver.hears(2).await;
        let types = heard.iter().map(|message| {
            let body: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
            assert!(
                body["data"]["reason"].as_str().is_some_and(|reason| reason.contains("status 1")),
                "{body}"
            );
            body["type"].clone()
        });
        assert_eq!(types.collect::<Vec<_>>(), ["delivery.failed", "delivery.given_up"]);
        fs::remove_file(world.path("out/new")).expect("removed");
        let receipt = push(&world, &[]).await;
        let [report] = actions(&receipt) else { panic!("{receipt:?}") };
        assert!(report.output.starts_with("pending: ") && report.output.contains("out/new"), "{report:?}");
        assert_eq!(receiver.heard().len(), 2, "one secret alone does not sign");
        fs::write(world.path("out/new"), NEW).expect("written");
        assert!(receiver.hears(3).await[2].is_signed_by(NEW));
    })
    .await;
}

fn rollback() -> Operation {
    Operation::Rollback {
        app: "app".parse().expect("a name"),
        destinations: Vec::new(),
        because: Some("it is slow".to_owned()),
        then: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_told_if_it_was_written_down_and_only_then() {
    within(async {
        let receiver = Receiver::start(&[]);
        let ledger = Arc::new(MemoryLedger::default());
        let text = webhook(&receiver, "always = true\non = [\"rolled_back\"]");
        let mut world = with_secrets_over(Some(Arc::<MemoryLedger>::clone(&ledger) as _), &text);
        let first = push(&world, &[]).await.release;
        write(&world.path("tree"), "changed", "now");
        push(&world, &[]).await;
        let notices = || ledger.list(&Table::Notices).expect("listed");
        // There is room for the message, and not for the log's entry.
        ledger.fill(Some(1));
        let full = ask_as(world.access(), &rollback()).await.expect_err("it cannot be written down");
        assert_eq!(full.fault(), Fault::Full, "{full}");
        assert!(notices().is_empty() && receiver.heard().is_empty());
        // There is room for both, and not for the delivery: the release is current, whoever asked hears of the failure.
        ledger.fill(Some(2));
        let destinations = vec!["out".parse().expect("a name")];
        let Operation::Rollback { app, because, then, .. } = rollback() else { unreachable!() };
        let to_out = Operation::Rollback { app, destinations, because, then };
        ask_as(world.access(), &to_out).await.expect_err("the delivery cannot be written down");
        ledger.fill(None);
        let message = receiver.hears(1).await.remove(0);
        let body: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
        assert_eq!(body["data"]["release"], first.to_string());
        world.stop().await;
        // Killed between the two: the entry of the message is not there.
        let (space, app) = ("default".parse().expect("a name"), "app".parse().expect("a name"));
        let happened = Happened {
            event: Event::RolledBack,
            time: now(),
            id: "5499220e-0".to_owned(),
            space,
            app,
            release: first,
            labels: Vec::new(),
            previous: None,
            destination: None,
            place: None,
            user: None,
            reason: None,
            changed: Changed::default(),
        };
        let put = |number, entry| {
            let action = "chat".parse().expect("a name");
            let notice = Notice { action, happened: happened.clone(), entry };
            Change::Put { key: Key::Notice { number }, value: notice.encode() }
        };
        ledger.apply(&[put(70, Some(1000)), put(71, None)]).expect("written");
        world.again();
        receiver.hears(2).await;
        while !notices().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(receiver.heard().len(), 2, "what never happened is not told");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_told_with_what_it_left_and_why() {
    within(async {
        let receiver = Receiver::start(&[]);
        let world = with_secrets(&webhook(&receiver, "always = true\non = [\"rolled_back\"]"));
        let first = push(&world, &[]).await;
        write(&world.path("tree"), "changed", "now");
        let second = push(&world, &[]).await;
        ask_as(world.access(), &rollback()).await.expect("rolled back");
        let message = receiver.hears(1).await.remove(0);
        assert!(message.is_signed_by(NEW));
        let id = message.header("webhook-id");
        assert!(id.ends_with("-rolled_back") && !id.contains('.'), "{id}");
        let body: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
        assert_eq!(body["type"], "application.rolled_back");
        let data = &body["data"];
        assert_eq!(data["release"], first.release.to_string());
        assert_eq!(data["previous"], second.release.to_string());
        assert_eq!((&data["reason"], &data["user"]), (&"it is slow".into(), &"ada".into()));
        assert!(data["destination"].is_null() && data["app"] == "app", "{body}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_whose_destination_is_gone_is_told_to_be_held() {
    within(async {
        let receiver = Receiver::start(&[]);
        let text = webhook(&receiver, "always = true\non = [\"held\"]");
        let away = "[destinations.away]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"exit 75\"]\ninput = \"none\"\n";
        let mut world = with_secrets(&format!("{text}{away}"));
        let to_away = vec!["away".parse().expect("a name")];
        let options = PushOptions { destinations: to_away, no_wait: true, ..then(&world, &[]) };
        let receipt = world.push_with(&options).await;
        world.stop().await;
        world.change(|options| options.destinations.retain(|name, _| name.as_str() != "away"));
        world.again();
        let message = receiver.hears(1).await.remove(0);
        assert_eq!(message.header("webhook-id"), format!("{}-held", receipt.delivered[0].id));
        let body: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
        assert_eq!((&body["type"], &body["data"]["destination"]), (&"delivery.held".into(), &"away".into()));
        let reason = body["data"]["reason"].as_str().expect("a reason");
        assert!(reason.contains("not configured any more"), "{reason}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_hangs_holds_up_the_first_delivery_alone() {
    within(async {
        // Connections are made, and nobody answers.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = silent.local_addr().expect("an address");
        let hook = format!(
            "[webhooks.chat]\nurl = \"http://{address}/\"\nsecret_files = [\"OUT/new\"]\ntimeout = 60\n"
        );
        let world = with_secrets(&hook);
        let mut waited = Vec::new();
        for change in 0..3 {
            write(&world.path("tree"), "changed", change.to_string());
            let receipt = push(&world, &["chat"]).await;
            let [report] = actions(&receipt) else { panic!("{receipt:?}") };
            assert!(report.failure.is_none() && report.output.starts_with("pending: "), "{report:?}");
            waited.push(report.millis >= 2000);
        }
        assert_eq!(waited, [true, false, false]);
        assert_eq!(walk_files(&world.path("data/notices")).len(), 3, "none is lost");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_behind_tls_needs_a_known_authority() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(authority) = Authority::create(folder.path(), "authority") else { return };
    authority.issue("server");
    let receiver = Receiver::start(&[]);
    let location = format!("proxy_pass http://{};", receiver.address);
    let started = start_nginx(folder.path(), "https", &shows(folder.path(), "server"), &location);
    let Some((_nginx, port)) = started else { return };
    let of = |more: &str| {
        let address = format!("http://{}", receiver.address);
        webhook(&receiver, more).replace(&address, &format!("https://127.0.0.1:{port}"))
    };
    within(async {
        let unknown = with_secrets(&of(""));
        let receipt = push(&unknown, &["chat"]).await;
        let [report] = actions(&receipt) else { panic!("{receipt:?}") };
        assert!(
            report.output.starts_with("pending: ") && report.output.contains("as `ca_file`"),
            "{report:?}"
        );
        shows_no_secret(&unknown, &receipt);
        assert!(receiver.heard().is_empty());
        let known = with_secrets(&of(&authority.trusted()));
        let receipt = push(&known, &["chat"]).await;
        let [report] = actions(&receipt) else { panic!("{receipt:?}") };
        assert_eq!((report.failure.as_deref(), report.output.as_str()), (None, "200 OK"));
        assert!(receiver.hears(1).await[0].is_signed_by(NEW));
    })
    .await;
}
