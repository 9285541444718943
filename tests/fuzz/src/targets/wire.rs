//! All messages between an agent and a proxy. The first byte selects the type that the others are read as.

use std::fmt::Debug;

use delta::compression::{Codec, Compressor, Decompressor, LEVEL_DEFAULT};
use format::current::{MovedBy, Standing};
use format::manifest::{NodeRef, Outline, Profile, SegmentIndex, SegmentName, Shape, Totals};
use format::record::{AppSummary, Cost, DeliveryEvent, DeliveryReport, DeliveryState, Progress, Record};
use format::target::{Assignment, StoredTarget, TargetReport, TargetState};
use ground::faults::Fault;
use ground::ids::{AppName, ChunkId, DeliveryId, ReleaseId, RolloutId, Selector, TargetName};
use ground::limits::{FRAME_PLAIN_MAX, PARCEL_PLAIN_MAX};
use ground::pattern::Pattern;
use protocol::token::{Action, Grant, Hop, TokenId};
use protocol::wire::{
    Answer, Basis, Batch, BlockSums, Change, ChangeKind, CheckStep, DeliveriesWanted, DeliveryPlan,
    DeliveryStatus, DestinationCheck, DestinationDropped, DestinationStatus, FromAgent, FromTarget,
    ListedTarget, LogEntry, ManifestForm, Marks, Moved, Open, Operation, Parcel, ProxyInfo, PullReply,
    PullRequest, PushReply, Refusal, Request, Section, SegmentBatch, SizeClass, Span, Statistics, Steering,
    TargetStatus, ToTarget, UserStatistics, Wanted, Watching, pack_names, pack_short_names, unpack_names,
    unpack_short_names,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// More marks than any list in one message has.
const MARKS_READ: usize = 1_000_000;

pub fn run(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 14 {
        0 => {
            if let Some(request) = message::<Request>(bytes) {
                drop(request.operation());
            }
        }
        1 => drop(message::<Operation>(bytes)),
        2 => {
            if let Some(open) = message::<Open>(bytes) {
                match &open.manifest {
                    ManifestForm::Short(bytes) => short_names(bytes),
                    ManifestForm::Full(bytes) => names(bytes),
                    ManifestForm::Growing => {}
                    ManifestForm::Base { outline, .. } => assert!(outline.apply(&[], usize::MAX).is_none()),
                }
            }
        }
        3 => match message::<FromAgent>(bytes) {
            Some(FromAgent::Names(bytes)) => names(&bytes),
            Some(FromAgent::Segments(batch)) => open_segments(&batch),
            Some(FromAgent::Chunks(batch)) => open(&batch),
            Some(FromAgent::Parcel(parcel)) => {
                if let Ok(bytes) = parcel.plain_bytes() {
                    assert!((1..=PARCEL_PLAIN_MAX).contains(&bytes) && parcel.payload_bytes > 0);
                }
            }
            Some(FromAgent::Sketches(sketches)) => {
                let places = sketches.open(1000).unwrap_or_default();
                assert!(places.is_sorted_by(|(one, _), (other, _)| one < other) && places.len() <= 1000);
            }
            Some(
                FromAgent::Grown(_)
                | FromAgent::RecordQuery(_)
                | FromAgent::Piece(_)
                | FromAgent::Proof(_)
                | FromAgent::Renew(_)
                | FromAgent::Commit
                | FromAgent::LinkSeen(_),
            )
            | None => {}
        },
        4 => {
            if let Some(PushReply::WantSegments(found) | PushReply::Missing(found)) =
                message::<PushReply>(bytes)
            {
                marks(&found);
            }
        }
        5 => match message::<PullRequest>(bytes) {
            Some(PullRequest::WantSegments(found) | PullRequest::WantChunks { marks: found, .. }) => {
                marks(&found);
            }
            Some(PullRequest::WantExecutables | PullRequest::Renew(_)) | None => {}
        },
        6 => match message::<PullReply>(bytes) {
            Some(PullReply::Names(bytes)) => names(&bytes),
            Some(PullReply::Segments(batch) | PullReply::Chunks(batch)) => open(&batch),
            _ => {}
        },
        7 => drop(message::<Answer>(bytes)),
        8 => {
            if let Some(found) = message::<Marks>(bytes) {
                marks(&found);
            }
        }
        9 => {
            if let Some(batch) = message::<Batch>(bytes) {
                open(&batch);
            }
        }
        10 => {
            names(bytes);
            short_names(bytes);
        }
        12 => {
            if let Some(FromTarget::Report(report)) = message::<FromTarget>(bytes) {
                assert!(report.is_alike(&report));
            }
        }
        13 => drop(message::<ToTarget>(bytes)),
        _ => {
            if let Some(grant) = message::<Grant>(bytes) {
                drop(grant.check());
            }
        }
    }
}

/// Reads a message as the link does; what was read survives being sent again.
fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let message: T = rmp_serde::from_slice(bytes).ok()?;
    let sent = encode(&message);
    assert_eq!(rmp_serde::from_slice::<T>(&sent).expect("what was written can be read"), message);
    assert!(sent.len() <= 16 * bytes.len() + 64, "{} B became {} B", bytes.len(), sent.len());
    Some(message)
}

fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    rmp_serde::to_vec(message).expect("a Vec takes every write")
}

fn names(bytes: &[u8]) {
    match unpack_names(bytes) {
        Ok(names) => assert_eq!(pack_names(names.into_iter()), bytes),
        Err(error) => drop(error.to_string()),
    }
}

fn short_names(bytes: &[u8]) {
    match unpack_short_names(bytes) {
        Ok(names) => {
            assert_eq!(pack_short_names(names.into_iter().map(|name| SegmentName::new(name.into()))), bytes);
        }
        Err(error) => drop(error.to_string()),
    }
}

fn open_segments(batch: &SegmentBatch) {
    match batch.open(b"what the other side has") {
        Ok(parts) => {
            assert!(parts.iter().map(Vec::len).sum::<usize>() <= FRAME_PLAIN_MAX);
            assert!(parts.iter().map(Vec::len).eq(batch.lengths.iter().map(|length| *length as usize)));
        }
        Err(error) => drop(error.to_string()),
    }
}

fn marks(marks: &Marks) {
    let read: Vec<bool> = marks.iter().take(MARKS_READ).collect();
    if marks.fits(read.len()) {
        assert_eq!(marks.marked(), read.iter().filter(|mark| **mark).count());
        assert_eq!(marks.marked(), marks.places().count());
        assert_eq!(read.into_iter().collect::<Marks>(), *marks, "marks have one form");
    }
}

fn open(batch: &Batch) {
    let mut plain = Vec::new();
    match batch.open(&mut Decompressor::new(), &mut plain) {
        Ok(parts) => {
            assert!(plain.len() <= FRAME_PLAIN_MAX);
            let end = parts.iter().fold(0, |end, part| {
                assert_eq!(part.start, end, "parts follow one another");
                part.end
            });
            assert_eq!(end, plain.len());
        }
        Err(error) => drop(error.to_string()),
    }
    assert!(plain.capacity() <= 2 * FRAME_PLAIN_MAX, "no more than was announced");
}

fn word<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("a word")
}

pub fn record() -> Record {
    Record {
        app: word("web"),
        release: ReleaseId::of(b"a root"),
        sequence: 3,
        created: 1_700_000_000,
        user: word("ada"),
        labels: vec![word("v1.2.3")],
        totals: Totals { files: 3, directories: 1, symlinks: 0, chunks: 9, bytes: 70_000, folder_mode: None },
        cost: Cost { unseen_chunks: 2, unseen_bytes: 30_000, sent_bytes: 9_000 },
        behalf: Vec::new(),
    }
}

pub fn grant() -> Grant {
    Grant {
        id: TokenId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]),
        user: word("ada"),
        space: word("shop"),
        actions: Action::ALL.to_vec(),
        applications: vec![word("web-*")],
        destinations: vec![Pattern::any()],
        issued: 1_700_000_000,
        expires: Some(1_800_000_000),
        on_behalf: false,
        then: Vec::new(),
        target: None,
    }
}

#[expect(clippy::too_many_lines, reason = "one seed for each message")]
pub fn seeds() -> Vec<Vec<u8>> {
    let open = Open {
        app: word("web"),
        labels: vec![word("v1")],
        destinations: vec![word("edge")],
        release: ReleaseId::of(b"a root"),
        profile: Profile::DEFAULT,
        shape: Shape::Tree,
        totals: record().totals,
        segments: 2,
        manifest: ManifestForm::Short(pack_short_names([1, 2].map(SegmentName::new).into_iter())),
        dry_run: false,
        behalf: Vec::new(),
        then: Vec::new(),
        keeps_current: false,
        moves: false,
        cache_only: false,
        root: None,
    };
    let text = b"again and again and again and again and again and again ".repeat(3);
    let (codec, payload) = Compressor::new(LEVEL_DEFAULT).compress(&text);
    let small = Batch { codec, lengths: vec![100, 68], payload };
    let raw = Batch { codec: Codec::Raw, lengths: vec![3], payload: b"abc".to_vec() };
    let marks: Marks = (0..21).map(|n| n % 3 == 0).collect();
    let refusal =
        Refusal { fault: Fault::Full, text: "no room".to_owned(), hint: Some("make some".to_owned()) };
    let push = Operation::Push(open.clone());
    let node = |n: u8| NodeRef { id: ChunkId::of(&[n]), bytes: 9 };
    let outline = Outline::between(&[node(1), node(2)], &[node(1), node(3), node(2)]).expect("few steps");
    let based = ManifestForm::Base { root: ChunkId::of(b"base"), outline };
    let segments = SegmentBatch::new(&[b"a segment".to_vec(), vec![1; 50]], Some(b"segments"), marks.clone());
    let span = Span { segment: SegmentIndex::new(1), first: 2, count: 300 };
    let section = Section { whole: 1, region: 0, chunks: 1, delta: vec![0, 0, 0] };
    let parcel = |basis| Parcel { lengths: vec![9, 400], basis, codec: Codec::Zstd, payload_bytes: 70 };
    let signed = BlockSums { region: 0, first: 1, chunks: 1, rule: 0, signature: vec![64, 64, 20, 1, 2, 3] };
    let remove = Operation::Verify { repair: true, seconds_max: Some(9) };
    let event = |state| DeliveryEvent {
        destination: word("edge"),
        state,
        id: DeliveryId { proxy: [1; 4], number: 17 },
    };
    let report = DeliveryReport { place: "/srv".to_owned(), files: 1, ..DeliveryReport::default() };
    let summary = AppSummary { app: word("web"), releases: 1, latest: record() };
    let change = Change { kind: ChangeKind::Added, path: b"a/b".to_vec(), bytes: 9, unseen_bytes: 3 };
    let user =
        UserStatistics { user: word("ada"), pushes: 1, pushed_bytes: 2, saved_bytes: 1, cached_bytes: 3 };
    let statistics = Statistics {
        app: Some(word("web")),
        sizes: vec![SizeClass::default()],
        users: vec![user],
        ..Statistics::default()
    };
    let identity = ProxyInfo {
        whit: "0.1.0".to_owned(),
        user: word("ada"),
        space: word("shop"),
        expires: None,
        now: 1_700_000_000,
    };
    let select = |text| word::<Selector>(text);
    let root = super::manifest::seeds().pop().expect("a root");
    [
        (0, encode(&Request::new("whit1.a.b", &push))),
        (
            0,
            encode(&Request::new(
                "whit1.a.b",
                &Operation::Difference { from: select("web@v1"), to: select("web") },
            )),
        ),
        (1, encode(&push)),
        (1, encode(&remove)),
        (1, encode(&Operation::Pull { release: select("web@v1"), have: None, unpacked: false })),
        (2, encode(&open)),
        (
            2,
            encode(&Open {
                manifest: ManifestForm::Full(pack_names([1, 2].map(SegmentName::new).into_iter())),
                ..open.clone()
            }),
        ),
        (2, encode(&Open { manifest: based, ..open })),
        (3, encode(&FromAgent::Names(pack_names([1, 2].map(SegmentName::new).into_iter())))),
        (3, encode(&FromAgent::Segments(segments))),
        (3, encode(&FromAgent::Parcel(parcel(Basis::None)))),
        (3, encode(&FromAgent::Parcel(parcel(Basis::Prefix(vec![span]))))),
        (3, encode(&FromAgent::Parcel(parcel(Basis::BlockSums(vec![section]))))),
        (3, encode(&FromAgent::Piece(vec![7; 30]))),
        (4, encode(&PushReply::BlockSums(signed))),
        (4, encode(&PushReply::Mismatch)),
        (3, encode(&FromAgent::Chunks(raw.clone()))),
        (3, encode(&FromAgent::Commit)),
        (4, encode(&PushReply::WantSegments(marks.clone()))),
        (4, encode(&PushReply::Committed { record: record(), existing: true })),
        (4, encode(&PushReply::Delivery(event(DeliveryState::Delivered(report))))),
        (4, encode(&PushReply::Refused(refusal.clone()))),
        (5, encode(&PullRequest::WantChunks { first: SegmentIndex::new(0), count: 2, marks: marks.clone() })),
        (6, encode(&PullReply::Release { record: record(), root, segments: 2 })),
        (6, encode(&PullReply::Segments(small.clone()))),
        (7, encode(&Answer::Applications(vec![summary]))),
        (7, encode(&Answer::Releases(vec![record()]))),
        (7, encode(&Answer::Changes(vec![change]))),
        (7, encode(&Answer::Statistics(Box::new(statistics)))),
        (7, encode(&Answer::Identity(identity))),
        (7, encode(&Answer::Refused(refusal))),
        (8, encode(&marks)),
        (9, encode(&small)),
        (9, encode(&raw)),
        (10, pack_names([1, 2].map(SegmentName::new).into_iter())),
        (11, encode(&grant())),
    ]
    .into_iter()
    .chain(seeds_of_deliveries())
    .chain(seeds_of_the_current_release())
    .chain(seeds_of_targets())
    .map(|(which, bytes): (u8, Vec<u8>)| [&[which], bytes.as_slice()].concat())
    .collect()
}

fn seeds_of_deliveries() -> Vec<(u8, Vec<u8>)> {
    let id = DeliveryId { proxy: [1; 4], number: 17 };
    let (edge, release) = (|| word("edge"), || word::<Selector>("web@v1"));
    let token = Some(TokenId::from_bytes([7; 8]));
    let hop = Hop { proxy: [2; 4], user: word("eve"), token, sequence: 3, delivery: Some(4) };
    let retrying = DeliveryState::Retrying { reason: "down".to_owned(), seconds: 4, fault: Fault::Retry };
    let status = DeliveryStatus {
        id,
        destination: edge(),
        app: word("web"),
        release: ReleaseId::of(b"a root"),
        user: Some(word("ada")),
        token,
        behalf: vec![hop],
        then: vec![word("restart")],
        asked: 1_700_000_000,
        started: Some(1_700_000_001),
        ended: None,
        tries: 1,
        state: retrying,
    };
    let place = "/srv/{app}".to_owned();
    let listed = DestinationStatus { name: edge(), kind: "dir".to_owned(), place, waiting: 2, failing: 1 };
    let steps = vec![CheckStep { step: "write".to_owned(), failure: Some("full".to_owned()) }];
    let plan = DeliveryPlan {
        destination: edge(),
        files: [1, 1, 1],
        bytes: [9, 3],
        put: vec![("a".to_owned(), 9)],
        keep: vec![("b".to_owned(), 3)],
        delete: vec!["c".to_owned()],
    };
    let wanted = DeliveriesWanted { app: Some(word("web")), destination: Some(edge()), watch: true };
    let event = |state| Answer::Delivery(DeliveryEvent { destination: edge(), state, id });
    let (to, then) = (vec![edge()], vec![word("restart")]);
    vec![
        (1, encode(&Operation::Deliver { release: release(), destinations: to.clone(), then })),
        (1, encode(&Operation::Deliveries(wanted))),
        (1, encode(&Operation::Steer { delivery: id, how: Steering::Retry })),
        (1, encode(&Operation::CheckDestinations(Some(edge())))),
        (1, encode(&Operation::PlanDelivery { release: release(), destinations: to, all: true })),
        (1, encode(&Operation::Prime { app: word("web"), destination: edge() })),
        (1, encode(&Operation::DropDestination(edge()))),
        (7, encode(&Answer::Deliveries(vec![status]))),
        (7, encode(&event(DeliveryState::Running(Progress { bytes: 1, total: 2, files: 3 })))),
        (7, encode(&event(DeliveryState::Skipped { by: id }))),
        (7, encode(&event(DeliveryState::Cancelled { by: word("eve") }))),
        (7, encode(&event(DeliveryState::Stranded))),
        (7, encode(&Answer::Destinations(vec![listed]))),
        (7, encode(&Answer::Checked(DestinationCheck { name: edge(), steps }))),
        (7, encode(&Answer::Planned(Box::new(plan)))),
        (7, encode(&Answer::Dropped(DestinationDropped { name: edge(), deliveries: 2, releases: 1 }))),
    ]
}

fn seeds_of_targets() -> Vec<(u8, Vec<u8>)> {
    let release = ReleaseId::of(b"a root");
    let rollout = RolloutId { proxy: [1; 4], number: 3 };
    let assigned = Some(Assignment { release, rollout, group: word("web") });
    let state = TargetState::RolledBack { reason: "not healthy".to_owned() };
    let report = TargetReport {
        shown: Some(release),
        rollout: Some(rollout),
        state,
        output: "503".to_owned(),
        ..TargetReport::default()
    };
    let known =
        StoredTarget { report: report.clone(), assigned: assigned.clone(), ..StoredTarget::default() };
    let (app, target) = (word::<AppName>("web"), word::<TargetName>("web-1"));
    let (version, at) = ("1.2.3".to_owned(), Some(word("stable")));
    let watching = Watching { app: app.clone(), at, version, instance: 7, report: TargetReport::default() };
    let wanted = Wanted { record: record(), assigned };
    let status = TargetStatus { target: target.clone(), app: app.clone(), reachable: true, known };
    let listed = ListedTarget { status, labels: vec![word("v1")], wants: Some(release) };
    vec![
        (1, encode(&Operation::Watch(Box::new(watching)))),
        (1, encode(&Operation::Targets { app: Some(app.clone()), watch: true })),
        (1, encode(&Operation::ForgetTarget { target, app: Some(app) })),
        (7, encode(&Answer::Targets(vec![listed]))),
        (12, encode(&FromTarget::Report(Box::new(report)))),
        (12, encode(&FromTarget::Alive)),
        (13, encode(&ToTarget::Wanted(Box::new(wanted)))),
        (13, encode(&ToTarget::Alive)),
    ]
}

fn seeds_of_the_current_release() -> Vec<(u8, Vec<u8>)> {
    let (app, release) = (|| word("web"), || word::<Selector>("web@v1"));
    let (destinations, because) = (|| vec![word("edge")], || Some("slow".to_owned()));
    let (labels, then) = (|| vec![word("stable")], || vec![word("restart")]);
    let [one, two] = [1_u8, 2].map(|number| ReleaseId::of(&[number]));
    let standing = Standing { current: Some(one), previous: Some(two), bad: vec![two] };
    let moved =
        Moved { record: record(), from: Some(two), number: Some(3), rolled_back: true, groups: Vec::new() };
    let entry = LogEntry {
        number: 3,
        release: one,
        from: Some(two),
        by: MovedBy::Rollback,
        user: word("ada"),
        token: String::new(),
        time: 1_700_000_000,
        because: because(),
    };
    let promote = Operation::Promote {
        release: release(),
        destinations: destinations(),
        because: because(),
        then: then(),
    };
    let rollback =
        Operation::Rollback { app: app(), destinations: destinations(), because: because(), then: then() };
    vec![
        (1, encode(&promote)),
        (1, encode(&rollback)),
        (1, encode(&Operation::Current { app: app(), log: true })),
        (1, encode(&Operation::Label { release: release(), labels: labels(), moves: true })),
        (1, encode(&Operation::Unlabel { app: app(), labels: labels() })),
        (7, encode(&Answer::Standing(standing))),
        (7, encode(&Answer::Moved(Box::new(moved)))),
        (7, encode(&Answer::Log(vec![entry]))),
        (7, encode(&Answer::Unlabelled(labels()))),
    ]
}
