//! Reading rights of tokens, their expiry, and the release that an id selects: over real QUIC, with agents that lie.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use format::chunking::Profile;
use format::manifest::{NodeRef, Outline, Root, SegmentIndex, Totals, segment_chunks, shorten};
use format::record::{Cost, Record};
use ground::faults::{Fault, Faulty};
use ground::ids::{ChunkId, Label, ReleaseId};
use ground::monitor::{Monitor, Silent};
use ground::pattern::Pattern;
use protocol::token::{Action, Grant};
use protocol::wire::{
    Answer, ArchivesMet, FromAgent, Grown, LinkSeen, ManifestForm, Open, Operation, PullReply, PullRequest,
    PushHint, PushReply, Refusal, Request, pack_names, pack_short_names,
};
use serde_bytes::ByteArray;
use whit::agent::push::{PushOptions, push};
use whit::agent::scan::{Scan, Selection, scan};
use whit::agent::{Access, Session};
use whit::net::link::{self, Connection, Receiver, Sender};

use crate::trees::{assert_same, noise, text, write};
use crate::walker::{raw, raw_segments};
use crate::world::{
    World, ask_as, now, pull_as, push_as, push_options, records, releases_as, token, web, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_push_measured_is_told_to_the_same_user_alone() {
    within(async {
        let world = World::start();
        let hint = async |access: &Access, app: &str| {
            let question = Operation::HintPush(app.parse().expect("a name"));
            let answers = ask_as(access, &question).await?;
            let [Answer::PushHint(hint)] = answers[..] else { panic!("{answers:?}") };
            Ok::<_, whit::agent::Error>(hint)
        };
        let (ada, eve) = (
            world.access_with(|grant| grant.user = "ada".parse().expect("a name")),
            world.access_with(|grant| {
                grant.user = "eve".parse().expect("a name");
                grant.applications = vec!["mine".parse().expect("a pattern")];
            }),
        );
        let tree = world.path("tree");
        write(&tree, "a", text(1, 1000));
        let scan = scanned(&tree);
        let open = opening(
            "web",
            &scan,
            ManifestForm::Short(pack_short_names(scan.segments.iter().map(NodeRef::name))),
        );
        let mut talk = Talk::begin(&ada, &Operation::Push(open)).await;
        assert_eq!(
            hint(&ada, "web").await.expect("answered"),
            PushHint { link: None, archives: ArchivesMet::Nothing }
        );
        let seen = LinkSeen { rate: 625, round_trip: 100_000 };
        talk.say(FromAgent::LinkSeen(seen)).await;
        talk.say(FromAgent::Segments(raw_segments(&parts(&scan)))).await;
        let chunks = vec![text(1, 1000)];
        talk.say(FromAgent::Chunks(raw(&chunks))).await;
        talk.say(FromAgent::Commit).await;
        talk.outcome().await.expect("committed");
        let known = PushHint { link: Some(seen), archives: ArchivesMet::Lasting };
        assert_eq!(hint(&ada, "web").await.expect("answered"), known);
        assert_eq!(
            hint(&eve, "mine").await.expect("answered"),
            PushHint { link: None, archives: ArchivesMet::Nothing }
        );
        let refused = hint(&eve, "web").await.expect_err("not hers");
        assert_eq!(refused.fault(), Fault::Denied);
    })
    .await;
}

/// A push driven message by message.
struct Talk {
    _connection: Connection,
    sender: Sender,
    receiver: Receiver,
}

impl Talk {
    async fn begin(access: &Access, operation: &Operation) -> Self {
        let connection = link::connect(&access.url, &link::Options::default()).await.expect("a connection");
        let (mut sender, receiver) = connection.open().await.expect("a stream");
        sender.send(&Request::new(&access.token, operation)).await.expect("sent");
        Self { _connection: connection, sender, receiver }
    }

    async fn say(&mut self, message: FromAgent) {
        drop(self.sender.send(&message).await);
    }

    async fn hear(&mut self) -> PushReply {
        self.receiver.receive().await.expect("a reply").expect("the stream goes on")
    }

    /// Returns the proxy's replies until it refuses or commits, without `Stored`.
    async fn outcome(&mut self) -> Result<Record, Refusal> {
        loop {
            match self.hear().await {
                PushReply::Refused(refusal) => return Err(refusal),
                PushReply::Committed { record, .. } => return Ok(record),
                _ => {}
            }
        }
    }
}

fn scanned(tree: &Path) -> Scan {
    scan(tree, &Selection::default(), Profile::DEFAULT, 2, &Silent).expect("a scan")
}

fn opening(app: &str, scan: &Scan, manifest: ManifestForm) -> Open {
    Open {
        app: app.parse().expect("a name"),
        labels: Vec::new(),
        destinations: Vec::new(),
        release: scan.root.release(),
        profile: scan.root.profile,
        shape: scan.root.shape,
        totals: scan.root.totals,
        segments: u32::try_from(scan.segments.len()).expect("few"),
        manifest,
        dry_run: false,
        behalf: Vec::new(),
        then: Vec::new(),
        keeps_current: false,
        moves: false,
        cache_only: false,
        root: None,
    }
}

/// Lists all segments by name, in full.
fn full(scan: &Scan) -> ManifestForm {
    ManifestForm::Full(pack_names(scan.segments.iter().map(NodeRef::name)))
}

fn parts(scan: &Scan) -> Vec<Vec<u8>> {
    SegmentIndex::range(0..scan.segments.len())
        .map(|index| scan.spool.segment(index).expect("a segment"))
        .collect()
}

/// Restricts a token to one application.
fn only(app: &str) -> impl FnOnce(&mut Grant) {
    let pattern: Pattern = app.parse().expect("a pattern");
    move |grant| (grant.user, grant.applications) = ("eve".parse().expect("a name"), vec![pattern])
}

/// Writes texts that resemble each other from seed to seed.
fn some_files(tree: &Path, seed: u64) {
    for file in 0..6 {
        write(tree, &format!("{file}"), noise(seed * 100 + file, 70_000));
    }
    write(tree, "config", format!("database password: hunter{seed}"));
    write(tree, "words", text(seed, 100_000));
}

/// Returns a world in which another user pushed a release of `secret`; its tree, and Eve's access to `mine` alone.
async fn with_secret() -> (World, Scan, Access) {
    let world = World::start();
    let tree = world.path("secret");
    some_files(&tree, 1);
    let labels = vec!["internal".parse().expect("a label")];
    world.push_with(&PushOptions { labels, ..push_options("secret", &tree) }).await;
    let eve = world.access_with(only("mine"));
    (world, scanned(&tree), eve)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_of_another_application_is_as_unknown_as_one_that_is_not_there() {
    within(async {
        let (world, secret, eve) = with_secret().await;
        let other = world.path("other");
        some_files(&other, 2);
        let other = scanned(&other);
        let short =
            |scan: &Scan| ManifestForm::Short(pack_short_names(scan.segments.iter().map(NodeRef::name)));
        let based = |scan: &Scan| {
            let outline = Outline::between(&scan.segments, &scan.segments).expect("an outline");
            ManifestForm::Base { root: scan.root.id(), outline }
        };
        for dry_run in [false, true] {
            for told in [short, full, based] {
                let mut said = Vec::new();
                for scan in [&secret, &other] {
                    let open = Open { dry_run, ..opening("mine", scan, told(scan)) };
                    let mut talk = Talk::begin(&eve, &Operation::Push(open)).await;
                    said.push(talk.hear().await);
                }
                assert_eq!(said[0], said[1], "what is there and what is not");
                assert!(matches!(said[0], PushReply::WantSegments(_) | PushReply::WantNames), "{said:?}");
            }
        }
        // A manifest still being read: its end names the release.
        let nothing = Root::above(Profile::DEFAULT, secret.root.shape, Totals::default(), Vec::new(), |_| {});
        let nothing = nothing.expect("nothing");
        let open = Open {
            release: nothing.release(),
            totals: nothing.totals,
            segments: 0,
            ..opening("mine", &secret, ManifestForm::Growing)
        };
        let mut talk = Talk::begin(&eve, &Operation::Push(open)).await;
        assert!(matches!(talk.hear().await, PushReply::WantSegments(_)));
        let (release, totals) = (secret.root.release(), secret.root.totals);
        let segments = u32::try_from(secret.segments.len()).expect("few");
        talk.say(FromAgent::Grown(Grown { release, totals, segments, root: None })).await;
        talk.say(FromAgent::Commit).await;
        talk.sender.finish().expect("the end");
        let refusal = loop {
            match talk.receiver.receive().await.expect("a reply").expect("one") {
                PushReply::Refused(refusal) => break refusal,
                reply => assert!(!matches!(reply, PushReply::Committed { .. }), "{reply:?}"),
            }
        };
        assert_ne!(refusal.fault, Fault::Retry, "{refusal:?}");
        assert!(releases_as(&eve, "mine").await.is_err(), "nothing was recorded");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_of_another_application_is_given_to_nobody_who_cannot_prove_that_he_has_it() {
    within(async {
        let (world, secret, eve) = with_secret().await;
        // An agent that knows all names and no bytes, in full and thin.
        for is_full in [true, false] {
            let told = if is_full { full(&secret) } else { ManifestForm::Short(Vec::new()) };
            let mut talk = Talk::begin(&eve, &Operation::Push(opening("mine", &secret, told))).await;
            let mut bytes = parts(&secret);
            if !is_full {
                assert!(matches!(talk.hear().await, PushReply::WantNames));
                let names = secret.segments.iter().map(NodeRef::name);
                talk.say(FromAgent::Names(pack_short_names(names))).await;
                bytes = bytes.iter().map(|bytes| shorten(bytes).expect("a segment")).collect();
            }
            assert!(
                matches!(talk.hear().await, PushReply::WantSegments(marks) if marks.marked() == bytes.len())
            );
            talk.say(FromAgent::Segments(raw_segments(&bytes))).await;
            let PushReply::Prove(challenge) = talk.hear().await else { panic!("nothing to prove") };
            assert_eq!(challenge.marks.marked() as u64, secret.root.totals.chunks);
            assert!(matches!(talk.hear().await, PushReply::Missing(marks) if marks.marked() == 0));
            // Nothing is committed without a proof, nor with a wrong one.
            talk.say(FromAgent::Commit).await;
            talk.say(FromAgent::Proof(challenge.nonce)).await;
            match talk.hear().await {
                PushReply::Refused(refusal) if is_full => assert_eq!(refusal.fault, Fault::Denied),
                PushReply::Mismatch if !is_full => {}
                reply => panic!("{reply:?}"),
            }
        }
        assert!(releases_as(&eve, "mine").await.is_err(), "nothing was recorded");
        // One unreadable chunk among chunks of her own.
        let mine = world.path("mine");
        write(&mine, "own", noise(77, 50_000));
        fs::copy(world.path("secret/config"), mine.join("config")).expect("copied");
        let scan = scanned(&mine);
        let mut talk = Talk::begin(&eve, &Operation::Push(opening("mine", &scan, full(&scan)))).await;
        let own: Vec<Vec<u8>> = {
            let located = SegmentIndex::range(0..scan.segments.len())
                .flat_map(|index| scan.spool.chunks(index).expect("chunks"));
            let own = located.filter(|located| located.path.ends_with("own"));
            let bytes = fs::read(mine.join("own")).expect("a file");
            own.map(|located| {
                let begin = usize::try_from(located.offset).expect("small");
                bytes[begin..begin + located.chunk.bytes as usize].to_vec()
            })
            .collect()
        };
        talk.say(FromAgent::Segments(raw_segments(&parts(&scan)))).await;
        talk.say(FromAgent::Chunks(raw(&own))).await;
        talk.say(FromAgent::Commit).await;
        talk.say(FromAgent::Proof(ByteArray::default())).await;
        assert_eq!(talk.outcome().await.expect_err("no proof").fault, Fault::Denied);
        // A proof that was not requested.
        talk = Talk::begin(world.access(), &Operation::Push(opening("mine", &scan, full(&scan)))).await;
        talk.say(FromAgent::Proof(ByteArray::default())).await;
        assert_eq!(talk.outcome().await.expect_err("out of turn").fault, Fault::Bug);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_content_proves_it_and_none_of_it_crosses() {
    within(async {
        let (world, secret, eve) = with_secret().await;
        let tree = world.path("mine");
        some_files(&tree, 1);
        write(&tree, "own", noise(5, 30_000));
        let receipt = push_as(&eve, &push_options("mine", &tree)).await.expect("pushed");
        assert_eq!(receipt.bytes.unseen, 30_000, "{receipt:?}");
        assert!(receipt.wire.up < 60_000, "{receipt:?}");
        let copy = world.path("copy");
        pull_as(&eve, "mine", &copy, false).await.expect("pulled");
        assert_same(&tree, &copy);
        // Content of her own releases needs no proof, listed by name or against a base; a dry run counts the rest as
        // missing.
        for state in [None, Some(world.path("state")), Some(world.path("state"))] {
            write(&tree, "own", noise(6, 30_000));
            let options = PushOptions { state, ..push_options("mine", &tree) };
            let dry = push_as(&eve, &PushOptions { dry_run: true, ..options.clone() }).await.expect("tried");
            assert_eq!(dry.bytes.unseen % 30_000, 0, "{dry:?}");
            push_as(&eve, &options).await.expect("pushed");
        }
        let elsewhere = world.path("elsewhere");
        some_files(&elsewhere, 1);
        let stranger = world.access_with(only("third"));
        let dry =
            push_as(&stranger, &PushOptions { dry_run: true, ..push_options("third", &elsewhere) }).await;
        assert_eq!(dry.expect("tried").bytes.unseen, secret.root.totals.bytes);
        // A token for all applications needs no proof, and the push costs what it did.
        let all = world.access_with(|grant| grant.user = "all".parse().expect("a name"));
        let receipt = push_as(&all, &push_options("fourth", &elsewhere)).await.expect("pushed");
        assert!(receipt.bytes.unseen == 0 && receipt.round_trips <= 3, "{receipt:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_interrupted_push_has_sent_is_proven_and_not_sent_again() {
    within(async {
        let world = World::start();
        let eve = world.access_with(only("mine"));
        let tree = world.path("tree");
        some_files(&tree, 3);
        let scan = scanned(&tree);
        let mut talk = Talk::begin(&eve, &Operation::Push(opening("mine", &scan, full(&scan)))).await;
        talk.say(FromAgent::Segments(raw_segments(&parts(&scan)))).await;
        let config = fs::read(tree.join("config")).expect("a file");
        talk.say(FromAgent::Chunks(raw(std::slice::from_ref(&config)))).await;
        while !matches!(talk.hear().await, PushReply::Missing(_)) {}
        talk.sender.finish().expect("the end");
        while let Ok(Some(_)) = talk.receiver.receive::<PushReply>().await {}
        let receipt = push_as(&eve, &push_options("mine", &tree)).await.expect("pushed");
        assert_eq!(receipt.bytes.unseen, receipt.bytes.logical - config.len() as u64, "{receipt:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_question_tells_of_another_application() {
    within(async {
        let (world, secret, eve) = with_secret().await;
        let mine = world.path("mine");
        write(&mine, "a", "mine");
        push_as(&eve, &push_options("mine", &mine)).await.expect("pushed");
        let selector = |text: &str| text.parse().expect("a selector");
        let questions = |app: &str, at: &str| {
            let named = format!("{app}@{at}");
            vec![
                Operation::Releases(app.parse().expect("a name")),
                Operation::Statistics(Some(app.parse().expect("a name"))),
                Operation::Difference { from: selector("mine"), to: selector(&named) },
                Operation::Difference { from: selector(&named), to: selector("mine") },
                Operation::Deliver { release: selector(&named), destinations: vec![web()], then: Vec::new() },
                Operation::Pull { release: selector(&named), have: None, unpacked: false },
                Operation::Pin { release: selector(&named), pinned: true },
                Operation::Remove { release: selector(&named), all_labels: true, force: true },
                Operation::Promote {
                    release: selector(&named),
                    destinations: Vec::new(),
                    because: None,
                    then: Vec::new(),
                },
                Operation::Rollback {
                    app: app.parse().expect("a name"),
                    destinations: Vec::new(),
                    because: None,
                    then: Vec::new(),
                },
                Operation::Current { app: app.parse().expect("a name"), log: true },
                Operation::Label { release: selector(&named), labels: Vec::new(), moves: true },
                Operation::Unlabel { app: app.parse().expect("a name"), labels: Vec::new() },
            ]
        };
        let told = async |operation: &Operation, app: &str| {
            let error = ask_as(&eve, operation).await.expect_err("it is not hers");
            (error.fault(), error.to_string().replace(app, "APP"), error.hint())
        };
        let release = secret.root.release().to_string();
        for at in ["internal", &release[..12], &release] {
            for (there, not) in questions("secret", at).iter().zip(questions("nothere", at)) {
                assert_eq!(told(there, "secret").await, told(&not, "nothere").await, "{there:?}");
            }
            // The release is not found under her own application either.
            let error = pull_as(&eve, &format!("mine@{at}"), &world.path("no"), false).await.expect_err("no");
            assert_eq!(error.fault(), Fault::Missing);
        }
        let Answer::Applications(apps) = &ask_as(&eve, &Operation::Applications).await.expect("listed")[0]
        else {
            panic!("no list");
        };
        assert!(apps.len() == 1 && apps[0].app.as_str() == "mine", "{apps:?}");
        // Questions about the whole space need a token that may read all of it; refusals name no application.
        for question in [
            Operation::Statistics(None),
            Operation::Collect { dry_run: true },
            Operation::Verify { repair: false, seconds_max: None },
        ] {
            let error = ask_as(&eve, &question).await.expect_err("not for her");
            assert!(error.fault() == Fault::Denied && !error.to_string().contains("secret"), "{error}");
        }
        // A directory that contains a release she may not read is treated like one with an unknown release.
        let mut said = Vec::new();
        for have in [secret.root.id(), ChunkId::of(b"nothing")] {
            let pull = Operation::Pull { release: selector("mine"), have: Some(have), unpacked: false };
            let mut talk = Talk::begin(&eve, &pull).await;
            let mut replies = Vec::new();
            for _ in 0..2 {
                replies.push(talk.receiver.receive::<PullReply>().await.expect("a reply"));
            }
            said.push(replies);
        }
        assert_eq!(said[0], said[1]);
        assert!(matches!(said[0][1], Some(PullReply::Names(_))), "{said:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_that_reads_as_an_id_is_refused_on_both_sides() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        write(&tree, "a", "a");
        let scan = scanned(&tree);
        for label in ["abcdef", "20261130", &scan.root.release().to_string()] {
            let label: Label = label.parse().expect("a word");
            let labelled = PushOptions { labels: vec![label.clone()], ..push_options("app", &tree) };
            let error = push_as(world.access(), &labelled).await.expect_err("it reads as an id");
            assert_eq!(error.fault(), Fault::Input);
            let open = Open { labels: vec![label.clone()], ..opening("app", &scan, full(&scan)) };
            let mut talk = Talk::begin(world.access(), &Operation::Push(open)).await;
            let refusal = talk.outcome().await.expect_err("the proxy looks too");
            assert_eq!((refusal.fault, refusal.text), (Fault::Input, error.to_string()));
            assert!(refusal.hint.expect("a hint").contains(&format!("v-{label}")));
        }
        assert!(world.releases("app").await.is_err(), "nothing was recorded");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_means_its_release_in_a_store_whose_labels_say_otherwise() {
    within(async {
        let mut world = World::start();
        let (good, evil) = (world.path("good"), world.path("evil"));
        write(&good, "f", "good");
        write(&evil, "f", "evil");
        let id = world.push("app", &good).await.release.to_string();
        let bad = world.push("app", &evil).await.release;
        // As recorded by a version that allowed any label.
        world.stop().await;
        let store = world.store();
        let record = store.records().latest(&"app".parse().expect("a name")).expect("a record");
        assert_eq!(record.release, bad);
        let labels = [&id, &id[..12], "20261130"].map(|label| label.parse().expect("a word"));
        store.records().add(Record { labels: labels.to_vec(), ..record }).expect("recorded");
        drop(store);
        world.again();
        for at in [id.clone(), id.to_uppercase(), id[..12].to_owned(), id[..6].to_owned()] {
            let copy = world.path(&format!("copy-{at}"));
            world.pull(&format!("app@{at}"), &copy).await.expect("pulled");
            assert_same(&good, &copy);
        }
        let deliver = Operation::Deliver {
            release: format!("app@{}", &id[..12]).parse().expect("a selector"),
            destinations: vec![web()],
            then: Vec::new(),
        };
        ask_as(world.access(), &deliver).await.expect("delivered");
        assert_same(&good, &world.path("web/current").canonicalize().expect("a copy"));
        // A label that is no prefix of an id is still found.
        world.pull("app@20261130", &world.path("labelled")).await.expect("pulled");
        assert_same(&evil, &world.path("labelled"));
        let nothing = ChunkId::of(b"nothing");
        let error = world.pull(&format!("app@{nothing}"), &world.path("none")).await.expect_err("none");
        assert_eq!(error.fault(), Fault::Missing);
    })
    .await;
}

#[test]
fn digits_that_several_releases_share_are_an_error_that_lists_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let records = records(folder.path());
    let release = |last: u8| {
        let mut bytes = [0xab; 32];
        bytes[31] = last;
        bytes[8] = last;
        ReleaseId::from_bytes(bytes)
    };
    for last in [1, 2] {
        let add = Record {
            app: "app".parse().expect("a name"),
            release: release(last),
            sequence: 0,
            created: 0,
            user: "ada".parse().expect("a name"),
            // The id comes first: the label does not decide.
            labels: vec!["abababab".parse().expect("a word")],
            totals: Totals::default(),
            cost: Cost::default(),
            behalf: Vec::new(),
        };
        records.add(add).expect("recorded");
    }
    let select = |at: &str| records.select(&format!("app@{at}").parse().expect("a selector"));
    let error = select("abababab").expect_err("two begin so");
    assert_eq!(error.fault(), Fault::Input);
    for last in [1, 2] {
        assert!(error.to_string().contains(&release(last).to_string()[..24]), "{error}");
        assert_eq!(select(&release(last).to_string()[..18]).expect("one").release, release(last));
    }
}

/// Begins a push of noise that waits for its only chunk; also returns that chunk.
async fn nearly_done(access: &Access, tree: &Path, seed: u64) -> (Talk, Vec<u8>) {
    write(tree, "a", noise(seed, 1_000));
    let scan = scanned(tree);
    let mut talk = Talk::begin(access, &Operation::Push(opening("app", &scan, full(&scan)))).await;
    talk.say(FromAgent::Segments(raw_segments(&parts(&scan)))).await;
    while !matches!(talk.hear().await, PushReply::Missing(_)) {}
    assert_eq!(segment_chunks(&parts(&scan)[0]).expect("a segment").len(), 1);
    (talk, noise(seed, 1_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_revoked_token_has_under_way_ends_and_nothing_is_recorded() {
    within(async {
        let world = World::start();
        let mut id = None;
        let access = world.access_with(|grant| id = Some(grant.id));
        let tree = world.path("tree");
        // One push that waits, and one that continues at once.
        let (mut waits, _) = nearly_done(&access, &tree, 1).await;
        let (mut goes_on, rest) = nearly_done(&access, &tree, 2).await;
        let pulled = world.path("pulled");
        write(&pulled, "b", "b");
        world.push("other", &pulled).await;
        let pull =
            Operation::Pull { release: "other".parse().expect("a selector"), have: None, unpacked: false };
        let mut pulls = Talk::begin(&access, &pull).await;
        assert!(matches!(pulls.receiver.receive().await, Ok(Some(PullReply::Release { .. }))));
        world.identity().revoke(id.expect("made")).expect("revoked");
        goes_on.say(FromAgent::Chunks(raw(&[rest]))).await;
        goes_on.say(FromAgent::Commit).await;
        for talk in [&mut goes_on, &mut waits] {
            let refusal = talk.outcome().await.expect_err("revoked");
            assert_eq!(refusal.fault, Fault::Denied, "{refusal:?}");
            assert!(refusal.hint.expect("a hint").contains("new token"));
        }
        let refusal = loop {
            let reply = pulls.receiver.receive::<PullReply>().await.expect("a reply").expect("one");
            if let PullReply::Refused(refusal) = reply {
                break refusal;
            }
        };
        assert_eq!(refusal.fault, Fault::Denied);
        assert!(world.releases("app").await.is_err(), "nothing was recorded");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_goes_on_with_a_newer_token_of_the_same_user() {
    within(async {
        let world = World::start();
        let soon = |grant: &mut Grant| grant.expires = Some(now() + 5);
        let access = world.access_with(soon);
        let (mut talk, rest) = nearly_done(&access, &world.path("tree"), 1).await;
        talk.say(FromAgent::Renew(token(world.identity(), |_| {}))).await;
        // By the time the second push hears that its token has expired, the first push's old token has expired too.
        let (mut ends, _) = nearly_done(&world.access_with(soon), &world.path("tree"), 2).await;
        assert_eq!(ends.outcome().await.expect_err("over").fault, Fault::Denied);
        talk.say(FromAgent::Chunks(raw(&[rest]))).await;
        talk.say(FromAgent::Commit).await;
        talk.outcome().await.expect("committed");
        for change in [
            &(|grant: &mut Grant| grant.user = "eve".parse().expect("a name")) as &dyn Fn(&mut Grant),
            &|grant| grant.space = "elsewhere".parse().expect("a name"),
            &|grant| grant.actions = vec![Action::Read],
            &|grant| grant.expires = Some(1),
        ] {
            let lesser = token(world.identity(), change);
            let (mut talk, _) = nearly_done(world.access(), &world.path("tree"), 3).await;
            talk.say(FromAgent::Renew(lesser.clone())).await;
            assert_eq!(talk.outcome().await.expect_err("refused").fault, Fault::Denied);
            let pull =
                Operation::Pull { release: "app".parse().expect("a selector"), have: None, unpacked: false };
            let mut talk = Talk::begin(world.access(), &pull).await;
            talk.sender.send(&PullRequest::Renew(lesser)).await.expect("sent");
            let refusal = loop {
                let reply = talk.receiver.receive::<PullReply>().await.expect("a reply").expect("one");
                if let PullReply::Refused(refusal) = reply {
                    break refusal;
                }
            };
            assert_eq!(refusal.fault, Fault::Denied);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_goes_on_with_the_token_that_its_file_holds_by_then() {
    within(async {
        let world = World::start();
        let (tree, file) = (world.path("tree"), world.path("token"));
        write(&tree, "a", noise(4, 500_000));
        let access = world.access_with(|grant| grant.expires = Some(now() + 6));
        fs::write(&file, &access.token).expect("written");
        // Takes some ten seconds, longer than the first token is valid.
        let options = PushOptions { upload_rate_max: Some(50_000.0), ..push_options("app", &tree) };
        let session = Session::open(&access, &link::Options::default()).await.expect("a session");
        let session = session.with_token_file(file.clone());
        // A half-written token, somebody else's, and then the right one.
        fs::write(&file, &access.token[..20]).expect("written");
        let eves = token(world.identity(), |grant| grant.user = "eve".parse().expect("a name"));
        fs::write(&file, eves).expect("written");
        let newer = token(world.identity(), |_| {});
        let renew = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            fs::write(&file, format!("{newer}\n")).expect("written");
        };
        let monitor: Arc<dyn Monitor> = Arc::new(Silent);
        let (pushed, ()) = tokio::join!(Box::pin(push(&session, &options, &monitor)), renew);
        pushed.expect("pushed");
        session.finish().await;
        // Without the file the push ends.
        write(&tree, "a", noise(5, 500_000));
        let access = world.access_with(|grant| grant.expires = Some(now() + 3));
        let error = push_as(&access, &options).await.expect_err("over");
        assert_eq!(error.fault(), Fault::Denied, "{error}");
        assert_eq!(world.releases("app").await.expect("listed").len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_labels_mean_is_not_removed_unasked() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        for (content, label) in [("one", "v1"), ("two", "v2"), ("two", "prod")] {
            write(&tree, "a", content);
            let labels = vec![label.parse().expect("a label")];
            world.push_with(&PushOptions { labels, ..push_options("app", &tree) }).await;
        }
        let remove = async |at: &str, all_labels| {
            let release = format!("app@{at}").parse().expect("a selector");
            let answers =
                ask_as(world.access(), &Operation::Remove { release, all_labels, force: true }).await;
            match answers.expect("answered").into_iter().next() {
                Some(Answer::Removed(removal)) => *removal,
                other => panic!("{other:?}"),
            }
        };
        let refused = remove("v2", false).await;
        assert!(!refused.removed && refused.pushes == 2);
        let others: Vec<&str> =
            refused.labels.iter().filter(|fate| !fate.named).map(|fate| fate.label.as_str()).collect();
        assert_eq!(others, ["prod"]);
        assert_eq!(world.releases("app").await.expect("listed").len(), 3, "nothing went");
        assert!(remove("v1", false).await.removed, "only what was named goes");
        assert!(remove("prod", true).await.removed);
        assert!(world.releases("app").await.is_err(), "nothing is left");
    })
    .await;
}
