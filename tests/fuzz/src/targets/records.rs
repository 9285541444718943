//! Small files that the proxy or a target wrote and reads again: records of releases, deliveries, the log of current releases, targets,
//! rollouts, what a target remembers.
//!
//! The first byte selects one, and says whether the checksum is corrected.

use std::fmt::Debug;

use format::cache_mark::CacheMark;
use format::current::{CurrentEntry, LabelMeaning, MovedBy};
use format::record::DeliveryState;
use format::shown::Shown;
use format::target::{Assignment, StoredTarget, TargetReport, TargetState};
use format::value::NoValue;
use format::watched::{Step, Trying, WantedRelease, Watched};
use ground::faults::Fault;
use ground::ids::{ReleaseId, RolloutId};
use ground::token_id::TokenId;
use protocol::wire::MemberName;
use whit::delivery::actions::{Changed, Event, Happened, Notice};
use whit::delivery::rollout::{GroupRelease, Machine, Member, Rollout, Rules, Sight, StoredMember};
use whit::delivery::{Delivery, Ended, LastFailure};
use whit::store::Records;

pub fn run(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    match mode % 13 {
        0 => record(bytes),
        1 => record(&whole(bytes)),
        2 => again(Delivery::decode, Delivery::encode, bytes),
        3 => again(Ended::decode, Ended::encode, bytes),
        4 => again(Notice::decode, Notice::encode, bytes),
        5 => again(Shown::decode, Shown::encode, bytes),
        6 => again(|bytes| CurrentEntry::decode(bytes).ok(), CurrentEntry::encode, &whole(bytes)),
        7 => again(|bytes| LabelMeaning::decode(bytes).ok(), LabelMeaning::encode, &whole(bytes)),
        8 => again(CacheMark::decode, CacheMark::encode, bytes),
        9 => again(StoredTarget::decode, StoredTarget::encode, bytes),
        10 => rollout(bytes),
        11 => again(GroupRelease::decode, GroupRelease::encode, bytes),
        _ => again(Watched::decode, Watched::encode, &whole(bytes)),
    }
}

/// What can be read is the same when it was written again.
fn again<T: PartialEq + Debug>(
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> Vec<u8>,
    bytes: &[u8],
) {
    if let Some(value) = decode(bytes) {
        assert_eq!(decode(&encode(&value)), Some(value));
    }
}

/// What goes on with a rollout that was read can be read again.
fn rollout(bytes: &[u8]) {
    let Some(mut rollout) = Rollout::decode(bytes) else { return };
    assert!(Rollout::decode(&rollout.encode()).is_some());
    if let Some(machine) = &mut rollout.machine {
        let sights = vec![Sight { reachable: true, ..Sight::default() }; machine.members().len()];
        for _ in 0..3 {
            machine.pass(1);
            machine.step(&sights);
        }
    }
    assert!(Rollout::decode(&rollout.encode()).is_some());
}

fn record(bytes: &[u8]) {
    match Records::decode(bytes) {
        Ok(record) => {
            let again = Records::decode(&Records::encode(&record));
            assert_eq!(again.expect("what was written can be read"), record);
        }
        Err(NoValue::Damaged | NoValue::Version(_)) => {}
    }
}

fn whole(body: &[u8]) -> Vec<u8> {
    [body, &blake3::hash(body).as_bytes()[..16]].concat()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let record = Records::encode(&super::wire::record());
    let delivery = Delivery {
        user: Some("ada".parse().expect("a name")),
        asked: 1_800_000_000,
        tries: 1,
        failure: Some(LastFailure::new("refused".to_owned(), Fault::Retry)),
        ..Delivery::new(
            "shop".parse().expect("a name"),
            "web".parse().expect("a name"),
            ReleaseId::of(b"a root"),
            "edge".parse().expect("a name"),
        )
    };
    let release = ReleaseId::of(b"a root");
    let user = || "ada".parse().expect("a name");
    let mut shown = Shown::default();
    shown.begin(release, 1, [0; 32], 10);
    shown.complete_first(&[release], 11);
    shown.begin(ReleaseId::of(b"another"), 2, [0; 32], 12);
    let current = CurrentEntry {
        release: Some(release),
        from: None,
        record: Some(1),
        by: MovedBy::Push,
        user: user(),
        token: String::new(),
        time: 10,
        because: Some("good".to_owned()),
        back: vec![ReleaseId::of(b"before")],
        bad: vec![ReleaseId::of(b"bad")],
    };
    let label = LabelMeaning { release: Some(release), after: 1, user: user(), time: 10 };
    let cached = CacheMark { user: user(), until: 20, bytes: 9, sent_bytes: 3 };
    let happened = Happened {
        event: Event::RolledBack,
        time: 10,
        id: "01010101-17".to_owned(),
        space: "shop".parse().expect("a name"),
        app: "web".parse().expect("a name"),
        release,
        labels: vec!["v1".parse().expect("a word")],
        previous: None,
        destination: None,
        place: None,
        user: Some(user()),
        reason: Some("slow".to_owned()),
        changed: Changed::default(),
    };
    let notice = Notice { action: "chat".parse().expect("a name"), happened, entry: Some(3) };
    let state = DeliveryState::Failed { reason: "no room".to_owned(), fault: Fault::Full };
    let ended = Ended { delivery: delivery.clone(), started: 1, ended: 2, state };
    let target = StoredTarget {
        report: report(release),
        assigned: Some(Assignment { release, rollout: rollout_id(), group: "web".parse().expect("a name") }),
        ..StoredTarget::default()
    };
    let group = GroupRelease { release, rollout: rollout_id() };
    let body = |sealed: Vec<u8>| sealed[..sealed.len() - 16].to_vec();
    [
        (0, record.clone()),
        (1, body(record)),
        (2, delivery.encode()),
        (3, ended.encode()),
        (4, notice.encode()),
        (5, shown.encode()),
        (6, body(current.encode())),
        (7, body(label.encode())),
        (8, cached.encode()),
        (9, target.encode()),
        (10, a_rollout(release).encode()),
        (11, group.encode()),
        (12, body(watched(release).encode())),
    ]
    .map(|(which, bytes): (u8, Vec<u8>)| [&[which], bytes.as_slice()].concat())
    .to_vec()
}

fn rollout_id() -> RolloutId {
    RolloutId { proxy: [1; 4], number: 3 }
}

fn report(release: ReleaseId) -> TargetReport {
    TargetReport {
        shown: Some(release),
        rollout: Some(rollout_id()),
        state: TargetState::Failed { reason: "no room".to_owned(), fault: Fault::Full },
        held_up: Some("the proxy is stopping".to_owned()),
        ..TargetReport::default()
    }
}

/// Returns a rollout whose first member has confirmed nothing yet.
fn a_rollout(release: ReleaseId) -> Rollout {
    let mut machine = Machine::new(Rules::default(), vec![Member::default(); 2]);
    machine.step(&[Sight::default(), Sight::default()]);
    let member = |name: &str| StoredMember {
        name: MemberName::Target(name.parse().expect("a name")),
        delivery: None,
        return_delivery: None,
        own: None,
    };
    Rollout {
        space: "shop".parse().expect("a name"),
        app: "web".parse().expect("a name"),
        group: "production".parse().expect("a name"),
        release,
        previous: None,
        user: "ada".parse().expect("a name"),
        token: TokenId::from_bytes([7; 8]),
        because: None,
        then: Vec::new(),
        asked: 10,
        moves_current: true,
        members: vec![member("web-1"), member("web-2")],
        machine: Some(machine),
        ended: None,
        own: Vec::new(),
        current_stays: None,
        takes_back: None,
    }
}

/// Returns what a target remembers that goes back.
fn watched(release: ReleaseId) -> Watched {
    let mut watched = Watched::new(7, "here".to_owned(), "web".parse().expect("a name"));
    let wanted = WantedRelease { release, rollout: Some(rollout_id()) };
    let mut trying = Trying::new(wanted, &["v1".parse().expect("a word")], None, 10);
    trying.step = Step::GoingBack { reason: "not healthy".to_owned(), output: "503".to_owned() };
    watched.add_bad(release, 11, "not healthy".to_owned());
    watched.miss(wanted);
    Watched { trying: Some(trying), report: report(release), ..watched }
}
