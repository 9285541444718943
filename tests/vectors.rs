//! Holds docs/FORMAT.md, docs/PROTOCOL.md, docs/EXECUTABLES.md and docs/PATCHES.md to the code: each fenced block ```` ```hex name=… ```` there is
//! what the public API writes for the value here, and reading the block gives the value back.
//!
//! A block that differs is printed as it would have to be; a change of one is a change of the format.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use delta::compression::{Codec, Compressor, Decompressor, LEVEL_DEFAULT};
use delta::patch;
use delta::relink::{
    self, Encoded, Normalised, Payload, RecordIndex, RecordNames, Records as ExecutableRecords, normalise,
};
use delta::rsync::{Matcher, Signature};
use delta::similar::Sketch;
use format::cache_mark::CacheMark;
use format::current::{CurrentEntry, LabelMeaning, MovedBy, Standing};
use format::manifest::{
    Builder, EntryPath, Item, NodeRef, Outline, Profile, Root, Segment, SegmentIndex, Shape, Thin,
    decode_node, decode_segment, shorten,
};
use format::pack::{self, Footer, FooterView, Frame, FrameKind, FrameView, PackId};
use format::recipe::{ChunkRef, Container, ContentHasher, Recipe};
use format::record::{ActionReport, Cost, DeliveryEvent, DeliveryReport, DeliveryState, Progress, Record};
use format::release_manifests::ReleaseManifests;
use format::shown::{Shown, ShownEntry, ShownState};
use format::target::{Assignment, StoredTarget, TargetReport, TargetState};
use format::watched::{Step, Trying, WantedRelease, Watched};
use ground::faults::Fault;
use ground::ids::{
    AppName, ArtifactId, ChunkId, ContentId, DeliveryId, ReleaseId, RolloutId, Selector, TargetName,
};
use protocol::token::{Action, Grant, Hop, Issuer, TokenId, verify};
use protocol::wire::{
    Answer, ArchivesMet, Basis, Batch, BlockSums, Challenge, CheckStep, Cut, DeliveriesWanted, DeliveryPlan,
    DeliveryStatus, DestinationCheck, DestinationDropped, DestinationStatus, FromAgent, FromTarget, GroupApp,
    GroupHas, GroupMember, GroupStatus, Grown, LinkSeen, ListedTarget, LogEntry, ManifestForm, Marks,
    MemberName, Moved, Open, Operation, Parcel, Possession, Primed, ProxyInfo, PullReply, PullRequest,
    PushHint, PushReply, RecordAnswer, RecordQuery, Refusal, Request, RolloutMember, RolloutMemberState,
    RolloutState, RolloutStatus, RolloutSteering, RolloutWait, Section, SegmentBatch, Sketches, Span,
    Steering, TargetStatus, ToTarget, Wanted, Watching, pack_short_names,
};
use recode::archive::{Plan, decode_head, encode_head, rebuild};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteArray;
use whit::delivery::actions::{Changed, Event, Happened, Notice};
use whit::delivery::destination;
use whit::delivery::rollout::{
    GroupRelease, Machine, Member, OwnRelease, Rollout, Rules, Share, Sight, StoredMember,
};
use whit::delivery::{Deliveries, Delivery, DeliveryOptions, Ended, Executor, Failure, Task};
use whit::ledger::FileLedger;
use whit::restore::OutsideLinks;
use whit::store::Records;

use delta::relink::linked::{Program, link};

/// Bytes on one line of a block.
const LINE_BYTES: usize = 32;

/// The blocks of one document, by name.
struct Document {
    file: &'static str,
    blocks: HashMap<String, Vec<u8>>,
}

impl Document {
    fn open(file: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
        let text = fs::read_to_string(path).expect("the document is there");
        let mut blocks = HashMap::new();
        let mut open: Option<(String, String)> = None;
        for line in text.lines() {
            match &mut open {
                None => {
                    let name = line.strip_prefix("```hex name=");
                    open = name.map(|name| (name.trim().to_owned(), String::new()));
                }
                Some(_) if line.starts_with("```") => {
                    let (name, digits) = open.take().expect("a block is open");
                    assert!(blocks.insert(name.clone(), bytes(&digits)).is_none(), "{file}: {name} twice");
                }
                Some((_, digits)) => digits.push_str(line),
            }
        }
        Self { file, blocks }
    }

    /// Compares all blocks with `written`; each has to be there, and no other.
    fn check(&self, written: &BTreeMap<&'static str, Vec<u8>>) {
        let mut wrong = String::new();
        for (name, expected) in written {
            if self.blocks.get(*name) != Some(expected) {
                write!(wrong, "```hex name={name}\n{}```\n", lines(expected))
                    .expect("a String takes every write");
            }
        }
        assert!(wrong.is_empty(), "docs/{} must say:\n{wrong}", self.file);
        let unknown: Vec<&String> =
            self.blocks.keys().filter(|name| !written.contains_key(name.as_str())).collect();
        assert!(unknown.is_empty(), "docs/{}: blocks that nobody checks: {unknown:?}", self.file);
    }
}

/// The bytes behind digits that may be spaced.
fn bytes(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits are ASCII");
        u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("`{pair}` is no byte"))
    };
    digits.chunks(2).map(byte).collect()
}

fn lines(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(LINE_BYTES) {
        for byte in line {
            write!(text, "{byte:02x}").expect("a String takes every write");
        }
        text.push('\n');
    }
    text
}

fn name<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("a name")
}

const CONTENT: [&[u8]; 2] = [b"hello, whit\n", b"only the whit that changed\n"];

fn chunk(content: &[u8]) -> ChunkRef {
    ChunkRef { id: ChunkId::of(content), bytes: u32::try_from(content.len()).expect("short") }
}

fn path(text: &str) -> EntryPath {
    EntryPath::new(text).expect("a path")
}

/// The manifest of the documents: a directory, a file in it, a link.
fn items() -> Vec<Item> {
    let size = CONTENT.iter().map(|part| part.len() as u64).sum();
    vec![
        Item::Directory { path: path("bin"), mode: 0o755 },
        Item::File { path: path("bin/app"), mode: 0o755, size, recipe: Recipe::Chunks },
        Item::Chunk(chunk(CONTENT[0])),
        Item::Chunk(chunk(CONTENT[1])),
        Item::Symlink { path: path("run"), target: b"bin/app".to_vec() },
    ]
}

const ARCHIVE: &[u8] = b"0123456789";

/// The stream of the documents: one piece of content.
fn archive_stream() -> Vec<u8> {
    [encode_head(&Plan::plain(10)).as_slice(), ARCHIVE].concat()
}

fn archive_items(content: Option<ContentId>) -> [Item; 2] {
    let stream = archive_stream();
    let container =
        Container { stream_bytes: stream.len() as u64, artifact: ArtifactId::of(ARCHIVE), content };
    let recipe = Recipe::Container(container);
    [Item::File { path: path("a"), mode: 0o644, size: 10, recipe }, Item::Chunk(chunk(&stream))]
}

/// The same archive as it is.
fn packed_items() -> [Item; 2] {
    let file = Item::File { path: path("a"), mode: 0o644, size: 10, recipe: Recipe::Packed };
    [file, Item::Chunk(chunk(ARCHIVE))]
}

fn segment_of(items: &[Item]) -> Vec<u8> {
    built(items).0.bytes
}

fn root_of(items: &[Item]) -> Root {
    built(items).1
}

fn built(items: &[Item]) -> (Segment, Root) {
    let mut builder = Builder::new(Profile::DEFAULT);
    for item in items {
        assert_eq!(builder.push(item), None, "so few items are one segment");
    }
    let (segment, root, _) = builder.finish(Shape::Tree).expect("a small manifest");
    (segment.expect("one segment"), root)
}

/// The manifests of that archive's release.
fn manifests() -> ReleaseManifests {
    let unpacked = root_of(&archive_items(Some(ContentHasher::of(&[chunk(ARCHIVE)]))));
    let packed = root_of(&packed_items());
    assert_eq!(packed.release(), unpacked.release(), "one release");
    ReleaseManifests { packed: Some(packed.id()), unpacked: Some(unpacked.id()) }
}

fn manifest() -> (Segment, Root) {
    built(&items())
}

fn record() -> Record {
    let (_, root) = manifest();
    Record {
        app: name("web"),
        release: root.release(),
        sequence: 1,
        created: 1_750_000_000,
        user: name("ada"),
        labels: vec![name("v1.2.3")],
        totals: root.totals,
        cost: Cost { unseen_chunks: 2, unseen_bytes: 39, sent_bytes: 39 },
        behalf: Vec::new(),
    }
}

fn target(release: ReleaseId) -> StoredTarget {
    let rollout = RolloutId { proxy: [0x54, 0x99, 0x22, 0x0e], number: 3 };
    let state = TargetState::Failed { reason: "no room".to_owned(), fault: Fault::Full };
    StoredTarget {
        report: TargetReport {
            shown: Some(ReleaseId::of(b"the one before")),
            previous: None,
            about: Some(release),
            rollout: Some(rollout),
            state,
            fetched_bytes: 1000,
            saved_bytes: 2000,
            output: "tar: no room\n".to_owned(),
            held_up: None,
        },
        since: 1_750_000_000,
        seen: 1_750_000_010,
        version: "1.2.3".to_owned(),
        follows: Some(name("stable")),
        assigned: Some(Assignment { release, rollout, group: name("web") }),
    }
}

fn shown(release: ReleaseId) -> Shown {
    let entry = |delivery, state| ShownEntry {
        release,
        since: 1_750_000_000,
        delivery,
        rules: ByteArray::new([0; 32]),
        state,
    };
    let partial = ShownState::Partial { started: 3, done: 1 };
    Shown { entries: vec![entry(2, partial), entry(1, ShownState::Complete)] }
}

/// One that goes back from its second release.
fn watched(release: ReleaseId) -> Watched {
    let mut watched = Watched::new(7, "4f2a 12 1750000000".to_owned(), name("web"));
    let wanted = WantedRelease { release, rollout: Some(rollout_id()) };
    let (good, reason) = (ReleaseId::of(b"the one before"), "the check ended with status 1");
    let mut trying = Trying::new(wanted, &[name("v1.2.3")], Some(good), 1_750_000_000);
    trying.step = Step::GoingBack { reason: reason.to_owned(), output: "503\n".to_owned() };
    watched.add_bad(release, 1_750_000_010, reason.to_owned());
    let report = TargetReport {
        shown: Some(release),
        previous: Some(good),
        about: Some(release),
        rollout: wanted.rollout,
        state: TargetState::Confirming,
        ..TargetReport::default()
    };
    Watched { good: Some(good), trying: Some(trying), report, ..watched }
}

/// One that is under way: the first of three members has failed, the second has the release.
fn rollout(release: ReleaseId) -> Rollout {
    let rules = Rules { max_failures: Share::Percent(50), ..Rules::default() };
    let strayed = Member { strayed: true, ..Member::default() };
    let mut machine = Machine::new(rules, vec![Member::default(), Member::default(), strayed]);
    let refused = Some("/health answered 500".to_owned());
    let refuses = Sight { reachable: true, refused, ..Sight::default() };
    machine.step(&[Sight::default(), Sight::default(), Sight::default()]);
    machine.pass(7);
    machine.step(&[refuses, Sight::default(), Sight::default()]);
    let member = |name, delivery, own| StoredMember { name, delivery, return_delivery: None, own };
    Rollout {
        space: name("shop"),
        app: name("web"),
        group: name("production"),
        release,
        previous: Some(ReleaseId::of(b"an older root")),
        user: name("ada"),
        token: TokenId::from_bytes([7; 8]),
        because: Some("v1.2.4 is slow".to_owned()),
        then: vec![name("restart")],
        asked: 1_750_000_000,
        moves_current: true,
        members: vec![
            member(MemberName::Target(name("a-1")), None, None),
            member(MemberName::Destination(name("edge")), Some(17), Some(0)),
            member(MemberName::Target(name("web-2")), None, None),
        ],
        machine: Some(machine),
        ended: None,
        own: vec![OwnRelease { release: ReleaseId::of(b"what edge shows"), group: name("production") }],
        current_stays: None,
        takes_back: None,
    }
}

/// The value of version 1 of a rollout that has ended.
fn older_rollout() -> Vec<u8> {
    let text = "\
        019ea473686f70a3776562aa70726f64756374696f6ec420bb044ca0baa1992b66097747b17aefc31b08b67dbf07bc72\
        742e0a7722188c89c420f6807b7b58974a9f693fb90a9a538cfb2f6ec417156150888c3d9fb75abfbec7a3616461c408\
        0707070707070707ae76312e322e3420697320736c6f7791a772657374617274ce684ee180c3939381a6746172676574\
        a3612d31c0c09381ab64657374696e6174696f6ea46564676511c09381a6746172676574a57765622d32c0c099990001\
        00c0a3353025cd025800a8726f6c6c6261636ba9737570657273656465939281a64661696c656491b42f6865616c7468\
        20616e73776572656420353030c29281a5476976656e9107c292a757616974696e67c3a7466f7277617264c3c0000207\
        c092a9537563636565646564ce684ee1ff";
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("digits")).collect()
}

#[test]
fn a_rollout_of_version_1_is_read() {
    let rollout = Rollout::decode(&older_rollout()).expect("it is known");
    assert!(matches!(&rollout.ended, Some((RolloutState::Succeeded, _))), "{rollout:?}");
    assert!(rollout.members.iter().all(|member| rollout.before(member).map(|it| it.0) == rollout.previous));
}

fn rollout_id() -> RolloutId {
    RolloutId { proxy: [0x54, 0x99, 0x22, 0x0e], number: 3 }
}

fn group_release(release: ReleaseId) -> GroupRelease {
    GroupRelease { release, rollout: rollout_id() }
}

fn group_status(release: ReleaseId) -> GroupStatus {
    let web = MemberName::Target(name("web-1"));
    GroupStatus {
        name: name("production"),
        targets: vec![name("web-*")],
        destinations: Vec::new(),
        rules: [("batch".to_owned(), "25%".to_owned())].into(),
        apps: vec![GroupApp {
            app: name("web"),
            release: Some(release),
            rollout: Some(rollout_id()),
            members: vec![GroupMember { name: web, away: true }],
        }],
    }
}

fn rollout_status(release: ReleaseId) -> RolloutStatus {
    let member =
        |name, state| RolloutMember { name, delivery: None, state, before: None, away: false, until: None };
    RolloutStatus {
        id: rollout_id(),
        group: name("production"),
        app: name("web"),
        release,
        previous: Some(ReleaseId::of(b"an older root")),
        user: name("ada"),
        because: None,
        asked: 1_750_000_000,
        ended: None,
        state: RolloutState::Held { reason: "held by ada".to_owned() },
        batch: 1,
        batches: 2,
        members: vec![
            RolloutMember {
                before: Some(RolloutMemberState::Failed { reason: "no answer".to_owned() }),
                away: true,
                until: Some(1_750_000_600),
                ..member(MemberName::Target(name("web-1")), RolloutMemberState::Returning)
            },
            member(MemberName::Destination(name("edge")), RolloutMemberState::Waiting),
        ],
        canaries: 1,
        waits: Some(RolloutWait::Bakes { until: 1_750_000_120 }),
        current_stays: None,
    }
}

fn notice(release: ReleaseId) -> Notice {
    let happened = Happened {
        event: Event::Delivered,
        time: 1_750_000_020,
        id: "5499220e-17".to_owned(),
        space: name("shop"),
        app: name("web"),
        release,
        labels: vec![name("v1.2.3")],
        previous: Some(ReleaseId::of(b"before")),
        destination: Some(name("edge")),
        place: Some("an edge".to_owned()),
        user: Some(name("ada")),
        reason: None,
        changed: Changed { paths: vec!["index.html".to_owned()], truncated: false },
    };
    Notice { action: name("cdn"), happened, entry: None }
}

fn ended(release: ReleaseId) -> Ended {
    let state = DeliveryState::Failed { reason: "no room".to_owned(), fault: Fault::Full };
    Ended { delivery: delivery(release), started: 1_750_000_010, ended: 1_750_000_020, state }
}

/// The log's entry of a push after another.
fn current(release: ReleaseId) -> CurrentEntry {
    let before = ReleaseId::of(b"the release before");
    let entry = CurrentEntry {
        release: Some(release),
        from: Some(before),
        record: Some(2),
        by: MovedBy::Push,
        user: name("ada"),
        token: "0102030405060708".to_owned(),
        time: 1_750_000_000,
        because: None,
        back: vec![before],
        bad: Vec::new(),
    };
    assert_eq!(CurrentEntry::decode(&entry.encode()).as_ref(), Ok(&entry));
    entry
}

/// The log's entry of a first push, to a group.
fn without_current() -> CurrentEntry {
    let release = ReleaseId::of(b"the release before");
    CurrentEntry { release: None, from: None, record: Some(1), back: Vec::new(), ..current(release) }
}

/// A label that was given after the second push.
fn labelled(release: ReleaseId) -> LabelMeaning {
    let meaning = LabelMeaning { release: Some(release), after: 2, user: name("ada"), time: 1_750_000_000 };
    assert_eq!(LabelMeaning::decode(&meaning.encode()).as_ref(), Ok(&meaning));
    meaning
}

/// What fills the cache for a day.
fn cached() -> CacheMark {
    let mark = CacheMark { user: name("ada"), until: 1_750_086_400, bytes: 39, sent_bytes: 27 };
    assert_eq!(CacheMark::decode(&mark.encode()).as_ref(), Some(&mark));
    mark
}

fn delivery(release: ReleaseId) -> Delivery {
    let (space, app, destination) = (name("shop"), name("web"), name("edge"));
    Delivery {
        user: Some(name("ada")),
        asked: 1_750_000_000,
        token: Some(TokenId::from_bytes([7; 8])),
        tries: 2,
        not_before: 1_750_000_002,
        then: vec![name("restart")],
        behalf: vec![Hop {
            proxy: [0x54, 0x99, 0x22, 0x0e],
            user: name("eve"),
            token: Some(TokenId::from_bytes([8; 8])),
            sequence: 3,
            delivery: Some(4),
        }],
        ..Delivery::new(space, app, release, destination)
    }
}

/// Starts a pack with one frame and gives its header, the frame, its footer with the trailer, and all of it.
fn pack_parts() -> [Vec<u8>; 4] {
    let id = PackId::from_bytes(*b"sixteen bytes id");
    let header = pack::header(id).to_vec();
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    let frame = Frame::compress(FrameKind::Content, CONTENT, &mut compressor);
    let mut encoded = Vec::new();
    frame.encode(&mut encoded);
    let mut footer = Footer::default();
    let length = u32::try_from(encoded.len()).expect("short");
    footer.add(header.len() as u64, length, frame.kind, frame.chunks.iter().copied());
    let end = footer.encode((header.len() + encoded.len()) as u64);
    let whole = [header.as_slice(), &encoded, &end].concat();

    assert_eq!(pack::read_header(&whole), Ok(id));
    let view = FrameView::parse(&whole[header.len()..], header.len() as u64).expect("a frame");
    assert!(view.is_whole());
    let mut plain = Vec::new();
    let decoded =
        Decompressor::new().decompress(view.codec(), view.payload(), view.plain_bytes(), &mut plain);
    decoded.expect("it was just made");
    assert_eq!(plain, CONTENT.concat());
    let found = FooterView::of_pack(&whole).expect("a sealed pack").find(&ChunkId::of(CONTENT[1]));
    assert_eq!(found.map(|found| found.plain_offset), Some(12));
    [header, encoded, end, whole]
}

/// Has a store's records write `record`, and gives the file.
fn record_file(record: &Record) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let records = || {
        let ledger = Arc::new(FileLedger::of_space(folder.path(), Instant::now));
        Records::open(ledger, "shop".parse().expect("a name"), folder.path().join("releases"))
    };
    let (records, again) = (records().expect("no records"), records);
    assert_eq!(records.add(record.clone()).expect("written"), *record);
    let again = again().expect("one record");
    assert_eq!(again.latest(&record.app).as_ref(), Some(record));
    fs::read(folder.path().join("releases/web/0000000001.record")).expect("it was written")
}

/// Reads the file of the delivery it is asked to make.
struct Spy {
    folder: PathBuf,
    seen: Mutex<Vec<(Delivery, Vec<u8>)>>,
}

impl Executor for Spy {
    fn deliver(&self, task: &Task<'_>) -> Result<DeliveryReport, Failure> {
        let file =
            fs::read(self.folder.join("deliveries/000000000001.delivery")).expect("it is written first");
        self.seen.lock().expect("no panic").push((task.delivery.clone(), file));
        Ok(DeliveryReport::default())
    }
}

/// Queues a delivery and gives its file.
fn delivery_file(delivery: &Delivery) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let spy = Arc::new(Spy { folder: folder.path().to_owned(), seen: Mutex::default() });
    let executor: Arc<dyn Executor> = spy.clone();
    let unused = destination::local("unused", OutsideLinks::Refuse);
    let destinations = BTreeMap::from([(delivery.destination.clone(), unused)]);
    let queue = Deliveries::start(
        Arc::new(FileLedger::of_space(folder.path(), Instant::now)),
        destinations,
        &executor,
        DeliveryOptions::default(),
    )
    .expect("started");
    let mut events = queue.add(vec![delivery.clone()]).expect("queued").remove(0);
    while events.blocking_recv().is_some() {}
    queue.stop();
    let (made, file) = spy.seen.lock().expect("no panic").pop().expect("it was made");
    assert_eq!(made, *delivery);
    file
}

fn links_items() -> [Item; 5] {
    let path = |text: &str| EntryPath::new(text).expect("a path");
    let content = b"hello, whit\n";
    [
        Item::File { path: path("a"), mode: 0o644, size: 12, recipe: Recipe::Chunks },
        Item::Chunk(ChunkRef { id: ChunkId::of(content), bytes: 12 }),
        Item::Linked,
        Item::HardLink { path: path("b"), target: path("a") },
        Item::OutsideLink { path: path("p"), target: b"/usr/bin/python3".to_vec() },
    ]
}

fn links_segment() -> Vec<u8> {
    let mut builder = Builder::new(Profile::DEFAULT);
    assert!(links_items().iter().all(|item| builder.push(item).is_none()), "it is short");
    builder.finish(Shape::Tree).expect("it is small").0.expect("there are items").bytes
}

fn grant() -> Grant {
    Grant {
        id: TokenId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]),
        user: name("ada"),
        space: name("shop"),
        actions: vec![Action::Push, Action::Read],
        applications: vec![name("web-*")],
        destinations: vec![name("*")],
        issued: 1_700_000_000,
        expires: Some(1_800_000_000),
        on_behalf: false,
        then: Vec::new(),
        target: None,
    }
}

/// A token by the key whose seed is 32 times 7.
fn token() -> String {
    // RFC 8410, section 10.3, with the public key as in RFC 5958.
    let mut key = bytes("3051020101300506032b657004220420");
    key.extend_from_slice(&[7; 32]);
    key.extend_from_slice(&[0x81, 0x21, 0]);
    key.extend_from_slice(&bytes("ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c"));
    let issuer = Issuer::from_pkcs8(&key).expect("a key");
    let text = issuer.sign(&grant()).expect("a small grant");
    assert_eq!(verify(&text, issuer.public_key(), 1_750_000_000), Ok(grant()));
    text
}

#[test]
fn the_format_is_as_its_document_says() {
    let document = Document::open("FORMAT.md");
    let (segment, root) = manifest();
    let nodes = vec![segment.node, NodeRef { id: ChunkId::of(b"another segment"), bytes: 2048 }];
    let mut node = vec![0x12];
    node.extend(rmp_serde::to_vec(&nodes).expect("a Vec takes every write"));
    let [header, frame, end, _] = pack_parts();
    document.check(&BTreeMap::from([
        ("segment-1", segment.bytes.clone()),
        ("node-1", node),
        ("root-1", root.encode()),
        ("archive-1", segment_of(&archive_items(None))),
        ("archive-packed-1", segment_of(&packed_items())),
        ("archive-unpacked-1", segment_of(&archive_items(Some(ContentHasher::of(&[chunk(ARCHIVE)]))))),
        ("root-release-1", root_of(&packed_items()).encode()),
        ("manifests-1", manifests().encode()),
        ("links-1", links_segment()),
        ("stream-1", archive_stream()),
        ("pack-header-1", header),
        ("frame-1", frame),
        ("footer-1", end),
        ("record-1", record_file(&record())),
        ("current-1", current(root.release()).encode()),
        ("current-2", without_current().encode()),
        ("label-1", labelled(root.release()).encode()),
        ("cached-1", cached().encode()),
        ("delivery-1", delivery_file(&delivery(root.release()))),
        ("ended-1", ended(root.release()).encode()),
        ("shown-1", shown(root.release()).encode()),
        ("notice-1", notice(root.release()).encode()),
        ("target-1", target(root.release()).encode()),
        ("rollout-1", rollout(root.release()).encode()),
        ("watched-1", watched(root.release()).encode()),
        ("group-1", group_release(root.release()).encode()),
        ("token-1", token().into_bytes()),
        ("grant-1", rmp_serde::to_vec(&grant()).expect("a Vec takes every write")),
    ]));
    let block = |name: &str| document.blocks[name].as_slice();
    assert_eq!(decode_segment(block("segment-1")), Ok(items()));
    // Whatever is read here is also what the code writes: the decoder refuses every other form.
    assert_eq!(decode_node(block("node-1")), Ok(nodes));
    assert_eq!(Root::decode(block("root-1")).as_ref(), Ok(&root));
    assert_eq!(decode_segment(block("archive-1")), Ok(archive_items(None).to_vec()));
    assert_eq!(decode_segment(block("archive-packed-1")), Ok(packed_items().to_vec()));
    assert_eq!(Root::decode(block("root-release-1")), Ok(root_of(&packed_items())));
    assert_eq!(ReleaseManifests::decode(block("manifests-1")), Ok(manifests()));
    assert_eq!(Watched::decode(block("watched-1")), Some(watched(root.release())));
    assert_eq!(StoredTarget::decode(block("target-1")), Some(target(root.release())));
    assert_eq!(Rollout::decode(block("rollout-1")), Some(rollout(root.release())));
    assert_eq!(decode_segment(block("links-1")), Ok(links_items().to_vec()));
    let thin = Thin::decode(&shorten(block("links-1")).expect("a segment")).expect("just made");
    let Item::Chunk(chunk) = &links_items()[1] else { panic!("the file's") };
    assert_eq!(thin.fill([*chunk]), Ok(links_segment()), "its version comes back, too");
    let head = &block("stream-1")[..8];
    assert_eq!(decode_head(head), Ok((Plan::plain(10), 0, 10)));
    let mut archive = Vec::new();
    let mut content = &block("stream-1")[8..];
    rebuild(&Plan::plain(10), &mut std::io::empty(), &mut content, &mut archive)
        .expect("a slice can be read");
    assert_eq!(archive, ARCHIVE);
}

/// Writes a message, and proves that it can be read again.
fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Vec<u8> {
    let bytes = rmp_serde::to_vec(value).expect("a Vec takes every write");
    assert_eq!(&rmp_serde::from_slice::<T>(&bytes).expect("it was just written"), value);
    bytes
}

const LINK_SEEN: LinkSeen = LinkSeen { rate: 625, round_trip: 100_000 };

fn grown() -> Grown {
    let Open { release, totals, segments, .. } = open();
    Grown { release, totals, segments, root: None }
}

fn open() -> Open {
    let (segment, root) = manifest();
    Open {
        app: name("web"),
        labels: vec![name("v1.2.3")],
        destinations: vec![name("edge")],
        release: root.release(),
        profile: root.profile,
        shape: root.shape,
        totals: root.totals,
        segments: 1,
        manifest: ManifestForm::Short(pack_short_names([segment.node.name()].into_iter())),
        dry_run: false,
        behalf: Vec::new(),
        then: Vec::new(),
        keeps_current: false,
        moves: false,
        cache_only: false,
        root: None,
    }
}

fn hop() -> Hop {
    let token = Some(TokenId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]));
    Hop { proxy: [0x54, 0x99, 0x22, 0x0e], user: name("ada"), token, sequence: 17, delivery: Some(9) }
}

fn batch(parts: &[&[u8]]) -> Batch {
    let lengths = parts.iter().map(|part| u32::try_from(part.len()).expect("short")).collect();
    let batch = Batch { codec: Codec::Raw, lengths, payload: parts.concat() };
    let mut plain = Vec::new();
    let places = batch.open(&mut Decompressor::new(), &mut plain).expect("within its bounds");
    assert_eq!(places.len(), parts.len());
    batch
}

fn told_by_base() -> ManifestForm {
    ManifestForm::Base { root: ChunkId::of(b"the release before"), outline: outline() }
}

/// What stays of a release before, of one segment more.
fn outline() -> Outline {
    let (segment, _) = manifest();
    let gone = NodeRef { id: ChunkId::of(b"another segment"), bytes: 2048 };
    let new = [gone, segment.node];
    let outline = Outline::between(&[segment.node], &new).expect("few steps");
    assert_eq!(outline.apply(&[segment.node], 2), Some(vec![None, Some(segment.node)]));
    outline
}

/// A region of 200 bytes in blocks of 64, and chunks that are the same but for one byte.
fn delta_of_a_region() -> (Section, BlockSums) {
    let old: Vec<u8> = (0..200).collect();
    let mut new = old.clone();
    new[70] = 0;
    let signature = Signature::new([old.as_slice()], 64, 22).expect("in bounds");
    let (mut literals, mut delta, mut signed) = (Vec::new(), Vec::new(), Vec::new());
    Matcher::new(&signature).delta(&new, &mut literals).encode(&mut delta);
    assert_eq!(literals, new[64..128]);
    signature.encode(&mut signed);
    let section = Section { whole: 1, region: 0, chunks: 1, delta };
    (section, BlockSums { region: 0, first: 1, chunks: 1, rule: 0, signature: signed })
}

#[test]
fn patches_are_as_their_document_says() {
    let words = "one two three four five six seven eight nine ten, ";
    let basis = words.repeat(16);
    let new = basis.replacen("three", "3333", 8).replacen("ten", "ten; and something new", 1);
    let patch = patch::compress(new.as_bytes(), basis.as_bytes()).expect("short enough");
    assert_eq!(patch::decompress(&patch, basis.as_bytes(), new.len()).as_deref(), Ok(new.as_bytes()));
    Document::open("PATCHES.md").check(&BTreeMap::from([("patch-1", patch)]));
}

/// The older program of EXECUTABLES 5, and the one that is linked after it.
fn programs() -> [Vec<u8>; 2] {
    let old = Program { functions: 3, changed: None, shift: 0 };
    [link(&old), link(&Program { functions: 3, changed: Some(1), shift: 5 })]
}

fn apart(file: &[u8]) -> Normalised {
    normalise(file).expect("an executable")
}

/// The names of the new program's records, and the answer of a proxy that has the old one.
fn offer_and_answer() -> (Vec<u8>, Vec<u8>) {
    let [old, new] = programs().map(|file| apart(&file));
    let (old_records, new_records) = (ExecutableRecords::new(&old), ExecutableRecords::new(&new));
    let offer = RecordNames::new(new_records.hashes());
    let (answer, _) = RecordIndex::new(old.clone(), old_records).answer(&offer);
    let (offered, answered) = (offer.encode(), answer.encode());
    assert_eq!(RecordNames::decode(&offered), Some(offer));
    assert_eq!(relink::Answer::decode(&answered), Some(answer));
    (offered, answered)
}

#[test]
fn executables_are_told_as_their_document_says() {
    let document = Document::open("EXECUTABLES.md");
    let [old_file, new_file] = programs();
    let (old, new) = (apart(&old_file), apart(&new_file));
    let (old_records, new_records) = (ExecutableRecords::new(&old), ExecutableRecords::new(&new));
    let (names, answer) = offer_and_answer();
    let mut layout = Vec::new();
    old.layout.encode(&mut layout);
    // What zstd makes may change with zstd; that the document's makes the new program may not.
    let block = |name: &str| document.blocks.get(name).cloned();
    let index = RecordIndex::new(old.clone(), old_records);
    let (known, places) = index.answer(&RecordNames::decode(&names).expect("an offer"));
    let reads_kept = |bytes: &Vec<u8>| Encoded::decode(bytes)?.rebuild(old.clone(), 1 << 20).ok();
    let reads_payload =
        |bytes: &Vec<u8>| relink::rebuild(index.clone(), &places, &Payload::decode(bytes)?, 1 << 20).ok();
    let agreed = known.agreed(new_records.hashes()).expect("the same offer");
    let kept = block("kept-1").filter(|bytes| reads_kept(bytes).as_ref() == Some(&new_file));
    let payload = block("payload-1").filter(|bytes| reads_payload(bytes).as_ref() == Some(&new_file));
    document.check(&BTreeMap::from([
        ("program-1", old_file),
        ("stream-1", old.stream().to_vec()),
        ("layout-1", layout),
        ("names-1", names),
        ("answer-1", answer),
        ("program-2-hash", blake3::hash(&new_file).as_bytes().to_vec()),
        ("kept-1", kept.unwrap_or_else(|| Encoded::new(&old, &new, 3).encode())),
        (
            "payload-1",
            payload.unwrap_or_else(|| Payload::new(new.clone(), &new_records, &agreed, 3).encode()),
        ),
    ]));
    assert_eq!(apart(&block("program-1").expect("checked")).restore().expect("it is whole"), programs()[0]);
}

fn event(state: DeliveryState) -> DeliveryEvent {
    let id = DeliveryId { proxy: [0x54, 0x99, 0x22, 0x0e], number: 17 };
    DeliveryEvent { destination: name("edge"), state, id }
}

/// That of 64 KiB: the hashes of 0 to 2,047, four bytes each, one after another.
fn sketch() -> Sketch {
    let bytes: Vec<u8> = (0..2048u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
    Sketch::of(&bytes).expect("it is long")
}

fn primed(release: ReleaseId) -> Primed {
    Primed { release, files: 2, bytes: 39, unseen_bytes: 27, until: 1_750_086_400 }
}

fn proxy_info() -> ProxyInfo {
    ProxyInfo {
        whit: "0.1.0".to_owned(),
        user: name("ada"),
        space: name("shop"),
        expires: None,
        now: 1_750_000_000,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one message after another")]
fn the_protocol_is_as_its_document_says() {
    let (segment, root) = manifest();
    let short = pack_short_names([segment.node.name()].into_iter());
    let marks = |marks: &[bool]| marks.iter().copied().collect::<Marks>();
    let nine = marks(&[true, false, false, false, false, false, false, false, true]);
    let refusal = Refusal {
        fault: Fault::Missing,
        text: "there is no application `web` here".to_owned(),
        hint: Some("`whit apps` lists what there is".to_owned()),
    };
    let action = ActionReport {
        action: "restart".parse().expect("a name"),
        millis: 30,
        failure: None,
        output: "done".to_owned(),
    };
    let report = DeliveryReport {
        place: "/srv/web/releases/1".to_owned(),
        files: 1,
        bytes: 39,
        reused_bytes: 12,
        already: false,
        millis: 120,
        sent_bytes: 27,
        requests: 2,
        answer: Some("201".to_owned()),
        actions: vec![action],
        notes: Vec::new(),
    };
    let chunks = batch(&CONTENT);
    let request = Request::new("whit1.x.y", &Operation::Identify);
    assert_eq!(request.operation(), Ok(Operation::Identify));
    let (second, selector) = (marks(&[false, true]), "web@v1.2.3".parse::<Selector>());
    let release = PullReply::Release { record: record(), root: root.encode(), segments: 1 };
    let thin = shorten(&segment.bytes).expect("a segment");
    let read = Thin::decode(&thin).expect("just made");
    assert_eq!(read.fill(CONTENT.map(chunk)).as_ref(), Ok(&segment.bytes), "it becomes what it was");
    let span = Span { segment: SegmentIndex::new(0), first: 1, count: 1 };
    let (section, signed) = delta_of_a_region();
    let payload_bytes = u32::try_from(CONTENT.concat().len()).expect("short");
    let cuts = vec![Cut { skipped: 100, chunks: 1 }, Cut { skipped: 0, chunks: 1 }];
    let (names, answer) = offer_and_answer();
    let offer =
        RecordQuery { file: 0, segment: SegmentIndex::new(0), first: 1, chunks: 2, names, complete: true };
    let parcel = |basis| Parcel { lengths: vec![12, 27], basis, codec: Codec::Raw, payload_bytes };
    let mut messages = BTreeMap::from([
        ("request-identify", message(&request)),
        ("open-1", message(&open())),
        ("operation-push", message(&Operation::Push(open()))),
        (
            "operation-pull",
            message(&Operation::Pull {
                release: selector.expect("a selector"),
                have: Some(root.id()),
                unpacked: false,
            }),
        ),
        ("marks-9", message(&nine)),
        ("batch-raw", message(&chunks)),
        ("open-behalf", message(&Open { behalf: vec![hop()], ..open() })),
        ("open-base", message(&Open { manifest: told_by_base(), ..open() })),
        ("open-growing", message(&Open { manifest: ManifestForm::Growing, ..open() })),
        ("from-agent-grown", message(&FromAgent::Grown(grown()))),
        ("from-agent-link-seen", message(&FromAgent::LinkSeen(LINK_SEEN))),
        (
            "answer-push-hint",
            message(&Answer::PushHint(PushHint { link: Some(LINK_SEEN), archives: ArchivesMet::Packed })),
        ),
        ("thin-1", thin.clone()),
        ("from-agent-names", message(&FromAgent::Names(short))),
        (
            "from-agent-segments",
            message(&FromAgent::Segments(SegmentBatch::new(
                std::slice::from_ref(&thin),
                None,
                second.clone(),
            ))),
        ),
        ("parcel-plain", message(&FromAgent::Parcel(parcel(Basis::None)))),
        ("parcel-prefix", message(&FromAgent::Parcel(parcel(Basis::Prefix(vec![span]))))),
        ("parcel-signed", message(&FromAgent::Parcel(parcel(Basis::BlockSums(vec![section]))))),
        (
            "parcel-executable",
            message(&FromAgent::Parcel(parcel(Basis::Executable(vec![span], cuts.clone())))),
        ),
        ("parcel-records", message(&FromAgent::Parcel(parcel(Basis::Records(0, cuts))))),
        ("from-agent-offer", message(&FromAgent::RecordQuery(offer))),
        ("push-reply-want-sketches", message(&PushReply::WantSketches)),
        ("from-agent-sketches", message(&FromAgent::Sketches(Sketches::new(&[None, Some(sketch())])))),
        ("push-reply-alike", message(&PushReply::Alike)),
        ("push-reply-want-offers", message(&PushReply::WantRecordQueries)),
        ("push-reply-answer", message(&PushReply::RecordAnswer(RecordAnswer { file: 0, answer }))),
        ("from-agent-piece", message(&FromAgent::Piece(CONTENT.concat()))),
        ("push-reply-signature", message(&PushReply::BlockSums(signed))),
        ("push-reply-mismatch", message(&PushReply::Mismatch)),
        ("from-agent-chunks", message(&FromAgent::Chunks(chunks.clone()))),
        ("from-agent-commit", message(&FromAgent::Commit)),
        ("push-reply-want-names", message(&PushReply::WantNames)),
        ("push-reply-want-segments", message(&PushReply::WantSegments(marks(&[true])))),
        ("push-reply-missing", message(&PushReply::Missing(marks(&[true, true])))),
        ("push-reply-stored", message(&PushReply::Stored(1))),
        ("push-reply-committed", message(&PushReply::Committed { record: record(), existing: false })),
        ("push-reply-delivery-queued", message(&PushReply::Delivery(event(DeliveryState::Queued)))),
        ("push-reply-delivered", message(&PushReply::Delivery(event(DeliveryState::Delivered(report))))),
        ("push-reply-cached", message(&PushReply::Cached(1_750_086_400))),
        ("push-reply-done", message(&PushReply::Done)),
        ("push-reply-refused", message(&PushReply::Refused(refusal))),
        ("pull-want-segments", message(&PullRequest::WantSegments(marks(&[true])))),
        (
            "pull-want-chunks",
            message(&PullRequest::WantChunks { first: SegmentIndex::new(0), count: 1, marks: second }),
        ),
        ("pull-reply-release", message(&release)),
        ("pull-want-executables", message(&PullRequest::WantExecutables)),
        ("pull-reply-executables", message(&PullReply::Executables(1))),
        ("pull-reply-outline", message(&PullReply::Outline(outline()))),
        ("pull-reply-thin", message(&PullReply::Thin(SegmentBatch::new(&[thin], None, Marks::default())))),
        ("pull-reply-chunks", message(&PullReply::Chunks(chunks))),
        ("answer-identity", message(&Answer::Identity(proxy_info()))),
        ("answer-primed", message(&Answer::Primed(primed(root.release())))),
    ]);
    messages.extend(of_access());
    messages.extend(of_rollouts(manifest().1.release()));
    messages.extend(questions_of_deliveries());
    messages.extend(answers_of_deliveries());
    messages.extend(of_the_current_release());
    messages.extend(of_targets());
    Document::open("PROTOCOL.md").check(&messages);
}

/// What is said of tokens, and of what they open.
fn of_access() -> [(&'static str, Vec<u8>); 4] {
    let mut possession = Possession::new(&[7; 32]);
    for chunk in CONTENT {
        possession.add(chunk);
    }
    let both = [true, true].into_iter().collect();
    [
        ("push-reply-prove", message(&PushReply::Prove(Challenge::new([7; 32], both)))),
        ("from-agent-proof", message(&FromAgent::Proof(possession.proof()))),
        ("from-agent-renew", message(&FromAgent::Renew("whit1.x.y".to_owned()))),
        ("answer-meant", message(&Answer::Meant(record()))),
    ]
}

/// What is said of rollouts.
fn of_rollouts(release: ReleaseId) -> [(&'static str, Vec<u8>); 7] {
    let (id, how) = (rollout_id(), RolloutSteering::Hold);
    [
        ("operation-rollouts", message(&Operation::Rollouts { app: Some(name("web")), watch: true })),
        ("operation-steer-rollout", message(&Operation::SteerRollout { rollout: id, how })),
        ("answer-rolls-out", message(&Answer::RollsOut(id))),
        ("push-reply-rolls-out", message(&PushReply::RollsOut(id))),
        ("answer-rollouts", message(&Answer::Rollouts(vec![rollout_status(release)]))),
        ("operation-groups", message(&Operation::Groups(Some(name("web"))))),
        ("answer-groups", message(&Answer::Groups(vec![group_status(release)]))),
    ]
}

/// What is asked about deliveries and destinations.
fn questions_of_deliveries() -> [(&'static str, Vec<u8>); 8] {
    let delivery = DeliveryId { proxy: [0x54, 0x99, 0x22, 0x0e], number: 17 };
    let (edge, selector) = (|| name("edge"), || name::<Selector>("web@v1.2.3"));
    let wanted = DeliveriesWanted { app: Some(name("web")), destination: Some(edge()), watch: true };
    let plan = Operation::PlanDelivery { release: selector(), destinations: vec![edge()], all: true };
    let then = vec![name("restart")];
    [
        (
            "operation-deliver",
            message(&Operation::Deliver { release: selector(), destinations: vec![edge()], then }),
        ),
        ("operation-deliveries", message(&Operation::Deliveries(wanted))),
        ("operation-steer", message(&Operation::Steer { delivery, how: Steering::Cancel })),
        ("operation-destinations", message(&Operation::Destinations)),
        ("operation-check-destinations", message(&Operation::CheckDestinations(Some(edge())))),
        ("operation-plan-delivery", message(&plan)),
        ("operation-prime", message(&Operation::Prime { app: name("web"), destination: edge() })),
        ("operation-drop-destination", message(&Operation::DropDestination(edge()))),
    ]
}

/// The status of a delivery that came through another proxy.
fn status(state: DeliveryState) -> DeliveryStatus {
    let DeliveryEvent { id, destination, state } = event(state);
    DeliveryStatus {
        id,
        destination,
        app: name("web"),
        release: manifest().1.release(),
        user: Some(name("ada")),
        token: Some(TokenId::from_bytes([7; 8])),
        behalf: vec![hop()],
        then: vec![name("restart")],
        asked: 1_750_000_000,
        started: Some(1_750_000_001),
        ended: state.is_last().then_some(1_750_000_002),
        tries: 1,
        state,
    }
}

/// What is answered about deliveries and destinations.
fn answers_of_deliveries() -> [(&'static str, Vec<u8>); 9] {
    let retrying = DeliveryState::Retrying { reason: "refused".to_owned(), seconds: 4, fault: Fault::Retry };
    let later = DeliveryId { proxy: [0x54, 0x99, 0x22, 0x0e], number: 18 };
    let place = "https://edge.example/{app}/".to_owned();
    let destination =
        DestinationStatus { name: name("edge"), kind: "http".to_owned(), place, waiting: 2, failing: 1 };
    let step = |step: &str, failure: Option<&str>| CheckStep {
        step: step.to_owned(),
        failure: failure.map(str::to_owned),
    };
    let steps = vec![step("write", None), step("find", Some("404"))];
    let plan = DeliveryPlan {
        destination: name("edge"),
        files: [1, 1, 1],
        bytes: [39, 12],
        put: vec![("bin/app".to_owned(), 39)],
        keep: vec![("index.html".to_owned(), 12)],
        delete: vec!["old".to_owned()],
    };
    let delivery = |state| message(&Answer::Delivery(event(state)));
    [
        ("answer-deliveries", message(&Answer::Deliveries(vec![status(retrying)]))),
        (
            "answer-delivery-running",
            delivery(DeliveryState::Running(Progress { bytes: 12, total: 39, files: 1 })),
        ),
        ("answer-delivery-skipped", delivery(DeliveryState::Skipped { by: later })),
        ("answer-delivery-cancelled", delivery(DeliveryState::Cancelled { by: name("eve") })),
        ("answer-delivery-stranded", delivery(DeliveryState::Stranded)),
        ("answer-destinations", message(&Answer::Destinations(vec![destination]))),
        ("answer-checked", message(&Answer::Checked(DestinationCheck { name: name("edge"), steps }))),
        ("answer-planned", message(&Answer::Planned(Box::new(plan)))),
        (
            "answer-dropped",
            message(&Answer::Dropped(DestinationDropped { name: name("edge"), deliveries: 2, releases: 1 })),
        ),
    ]
}

/// What targets say and hear, and what is asked and answered about them.
fn of_targets() -> [(&'static str, Vec<u8>); 8] {
    let known = target(manifest().1.release());
    let target: TargetName = name("web-1");
    let (app, report, assigned) = (name::<AppName>("web"), known.report.clone(), known.assigned.clone());
    let watching = Watching {
        app: app.clone(),
        at: known.follows.clone(),
        version: known.version.clone(),
        instance: 7,
        report: TargetReport::default(),
    };
    let status = TargetStatus { target: target.clone(), app: app.clone(), reachable: true, known };
    let wants = Some(manifest().1.release());
    [
        ("operation-watch", message(&Operation::Watch(Box::new(watching)))),
        ("from-target-report", message(&FromTarget::Report(Box::new(report)))),
        ("to-target-wanted", message(&ToTarget::Wanted(Box::new(Wanted { record: record(), assigned })))),
        ("to-target-alive", message(&ToTarget::Alive)),
        ("operation-targets", message(&Operation::Targets { app: Some(app.clone()), watch: true })),
        (
            "operation-forget-target",
            message(&Operation::ForgetTarget { target: target.clone(), app: Some(app.clone()) }),
        ),
        ("operation-unassign-target", message(&Operation::UnassignTarget { target, app: Some(app) })),
        (
            "answer-targets",
            message(&Answer::Targets(vec![ListedTarget { status, labels: vec![name("v1.2.3")], wants }])),
        ),
    ]
}

/// What is asked and answered about the current release and labels.
fn of_the_current_release() -> [(&'static str, Vec<u8>); 9] {
    let (app, release) = (|| name("web"), || name::<Selector>("web@v1.2.3"));
    let (to, because) = (|| vec![name("edge")], || Some("slow".to_owned()));
    let labels = || vec![name("stable")];
    let current = manifest().1.release();
    let before = ReleaseId::of(b"the release before");
    let promote =
        Operation::Promote { release: release(), destinations: to(), because: because(), then: Vec::new() };
    let rollback = Operation::Rollback {
        app: app(),
        destinations: to(),
        because: because(),
        then: vec![name("restart")],
    };
    let standing = Standing { current: Some(current), previous: Some(before), bad: Vec::new() };
    let groups = vec![GroupHas { group: name("production"), release: before }];
    let moved = Moved { record: record(), from: Some(before), number: Some(3), rolled_back: true, groups };
    let entry = LogEntry {
        number: 3,
        release: current,
        from: Some(before),
        by: MovedBy::Rollback,
        user: name("ada"),
        token: "0102030405060708".to_owned(),
        time: 1_750_000_000,
        because: because(),
    };
    [
        ("operation-promote", message(&promote)),
        ("operation-rollback", message(&rollback)),
        ("operation-current", message(&Operation::Current { app: app(), log: true })),
        ("operation-label", message(&Operation::Label { release: release(), labels: labels(), moves: true })),
        ("operation-unlabel", message(&Operation::Unlabel { app: app(), labels: labels() })),
        ("answer-standing", message(&Answer::Standing(standing))),
        ("answer-moved", message(&Answer::Moved(Box::new(moved)))),
        ("answer-log", message(&Answer::Log(vec![entry]))),
        ("answer-unlabelled", message(&Answer::Unlabelled(labels()))),
    ]
}
