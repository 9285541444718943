//! Archives are recognized, and any bytes that were decoded are rebuilt bit for bit.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use recode::archive::{
    KnownStream, Limits, Memory, Part, Piece, Plan, Planner, StreamName, encode_head, rebuild, unpack,
};
use recode::deflate::{Encoder, Maker, Method};

/// Returns a length as zip and gzip write it.
fn number(length: usize) -> u32 {
    u32::try_from(length).expect("a small file")
}

fn pack(plain: &[u8], method: &Method) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::new(method), Vec::new());
    encoder.write(plain, &mut out);
    encoder.finish(&mut out);
    out
}

fn text(length: usize, seed: usize) -> Vec<u8> {
    let line = |at: usize| format!("line {} of {seed} says {}\n", at, (at * 7919 + seed) % 1000);
    let mut text: Vec<u8> = (0..=length / 16).flat_map(|at| line(at).into_bytes()).collect();
    text.truncate(length);
    text
}

fn gzip(plain: &[u8], level: u8) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 8, 1, 2, 3, 4, 0, 3, b'n', 0];
    file.extend(pack(plain, &Method::new(level, Maker::Zlib)));
    file.extend([0xaa; 8]);
    file
}

/// Writes members with method 8 if `deflate` is set, with data descriptors.
fn zip(members: &[(&str, Vec<u8>, bool)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, plain, deflate) in members {
        let packed = if *deflate { pack(plain, &Method::STOCK) } else { plain.clone() };
        let method = if *deflate { 8u16 } else { 0 };
        let at = number(file.len());
        let length = u16::try_from(name.len()).expect("a short name");
        file.extend(b"PK\x03\x04\x14\0\x08\0");
        file.extend(method.to_le_bytes());
        file.extend([0; 16]);
        file.extend(length.to_le_bytes());
        file.extend([0; 2]);
        file.extend(name.as_bytes());
        file.extend(&packed);
        file.extend(b"PK\x07\x08");
        file.extend([1; 12]);
        directory.extend(b"PK\x01\x02\x14\0\x14\0\x08\0");
        directory.extend(method.to_le_bytes());
        directory.extend([0; 8]);
        directory.extend(number(packed.len()).to_le_bytes());
        directory.extend(number(plain.len()).to_le_bytes());
        directory.extend(length.to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, size) = (number(file.len()), number(directory.len()));
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([u16::try_from(members.len()).expect("few"); 2].map(u16::to_le_bytes).concat());
    file.extend(size.to_le_bytes());
    file.extend(at.to_le_bytes());
    file.extend([0; 2]);
    file
}

fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for (name, content) in members {
        let mut header = vec![0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        file.extend(header);
        file.extend(content);
        file.resize(file.len().next_multiple_of(512), 0);
    }
    file.resize(file.len() + 1024, 0);
    file
}

fn ar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut file = b"!<arch>\n".to_vec();
    for (name, content) in members {
        file.extend(format!("{name:16}{:12}{:6}{:6}{:8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
        file.extend(content);
        file.resize(file.len().next_multiple_of(2), b'\n');
    }
    file
}

/// Plans, decodes, rebuilds, compares; returns the plan.
fn there_and_back(archive: &[u8]) -> Plan {
    let plan = there_and_back_within(archive, &Limits::default());
    plan_again(archive, &plan);
    plan
}

fn there_and_back_within(archive: &[u8], limits: &Limits) -> Plan {
    let plan = Planner::default().plan(archive, limits, &mut Memory, None);
    plan.check().expect("an own plan is in bounds");
    assert_eq!(plan.bytes(), archive.len() as u64);
    let (mut framing, mut content, mut lengths, mut begun) = (Vec::new(), Vec::new(), Vec::new(), 0);
    unpack(&plan, archive, &|_| false, &mut |part| {
        match part {
            Part::Framing(bytes) => framing.extend_from_slice(bytes),
            Part::Content(bytes) => content.extend_from_slice(bytes),
            Part::Known(_) => unreachable!("no stream is known"),
            Part::End => {
                lengths.push(content.len() as u64 - begun);
                begun = content.len() as u64;
            }
        }
        Ok(())
    })
    .expect("the plan is of this archive");
    assert_eq!(lengths, plan.contents());
    assert_eq!(framing.len() as u64, plan.framing_bytes());
    let mut out = Vec::new();
    rebuild(&plan, &mut &framing[..], &mut &content[..], &mut out).expect("slices can be read");
    assert!(out == archive, "the rebuilt archive differs");
    plan
}

/// Plans the archive with what is known of its streams, and unpacks no stream that is known: nothing differs.
fn plan_again(archive: &[u8], plan: &Plan) {
    let again = |known: &HashMap<StreamName, KnownStream>| {
        let again = Planner::default().plan(archive, &Limits::default(), &mut Memory, Some(known));
        assert_eq!(encode_head(&again), encode_head(plan));
        assert_eq!((again.bytes(), again.contents()), (plan.bytes(), plan.contents()));
        again.named_streams()
    };
    let named = again(&HashMap::new());
    let mut known: HashMap<StreamName, KnownStream> = named.iter().copied().collect();
    assert_eq!(again(&known), named);
    // As somebody tells it who did not decode the stream, and of half of the streams.
    for stream in known.values_mut() {
        (stream.plain, stream.is_leaf) = (None, false);
    }
    assert_eq!(again(&known), named);
    known.retain(|name, _| name.as_bytes()[0] < 128);
    assert_eq!(again(&known), named);
}

fn streams(plan: &Plan) -> usize {
    let count = |piece: &Piece| if let Piece::Packed { plain, .. } = piece { 1 + streams(plain) } else { 0 };
    plan.pieces().iter().map(count).sum()
}

fn samples() -> Vec<Vec<u8>> {
    let jar = zip(&[("A.class", text(3000, 1), true), ("B.class", text(4000, 2), true)]);
    let war = zip(&[("WEB-INF/lib/a.jar", jar.clone(), false), ("index.html", text(2000, 3), true)]);
    let tree = tar(&[
        ("a", text(20_000, 4)),
        ("b", text(700, 5)),
        ("c.jar", [war.clone(), vec![0; 20_000]].concat()),
    ]);
    vec![
        gzip(&text(5000, 6), 9),
        [gzip(&text(5000, 6), 6), gzip(&text(900, 7), 1)].concat(),
        gzip(&tree, 6),
        ar(&[("debian-binary", b"2.0\n".to_vec()), ("data.tar.gz", gzip(&tree, 9))]),
        zip(&[("deep.war", war.clone(), true), ("../../etc/passwd", text(500, 8), true)]),
        jar,
        tree,
        war,
    ]
}

#[test]
fn archives_are_seen_through() {
    let found: Vec<usize> = samples().iter().map(|archive| streams(&there_and_back(archive))).collect();
    // The jar in the war in the tar in the gzip in the deb is one level too deep.
    assert_eq!(found, [1, 2, 4, 2, 5, 2, 3, 3]);
}

#[test]
fn a_member_packed_by_node_is_found_too() {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 0xff];
    file.extend(pack(&text(300_000, 1), &Method::new(9, Maker::Chromium)));
    file.extend([0; 8]);
    assert_eq!(streams(&there_and_back(&file)), 1);
}

#[test]
fn streams_that_are_known_are_not_decoded() {
    for archive in samples() {
        let plan = Planner::default().plan(&archive, &Limits::default(), &mut Memory, Some(&HashMap::new()));
        let contents = |is_known: &dyn Fn(&StreamName) -> bool| {
            let (mut lengths, mut length, mut passed_over) = (Vec::new(), 0, 0);
            unpack(&plan, &archive, is_known, &mut |part| {
                match part {
                    Part::Framing(_) => {}
                    Part::Content(bytes) => length += bytes.len() as u64,
                    Part::Known(bytes) => (length, passed_over) = (length + bytes, passed_over + 1),
                    Part::End => lengths.push(std::mem::take(&mut length)),
                }
                Ok(())
            })
            .expect("the plan is of this archive");
            assert_eq!(lengths, plan.contents());
            passed_over
        };
        let leaves = plan.named_streams().iter().filter(|(_, known)| known.is_leaf).count();
        assert!(contents(&|_| true) >= leaves && contents(&|_| false) == 0);
    }
}

#[test]
fn a_lie_about_a_stream_makes_a_plan_that_does_not_rebuild_the_archive() {
    let archive = zip(&[("a", text(5000, 1), true), ("b", text(6000, 2), true)]);
    let plan = |known: &HashMap<StreamName, KnownStream>| {
        Planner::default().plan(&archive, &Limits::default(), &mut Memory, Some(known))
    };
    let streams = plan(&HashMap::new()).named_streams();
    let lies: HashMap<StreamName, KnownStream> = streams
        .into_iter()
        .map(|(name, known)| (name, KnownStream { plain: known.plain.map(|plain| plain + 1), ..known }))
        .collect();
    assert!(unpack(&plan(&lies), &archive, &|_| false, &mut |_| Ok(())).is_err());
}

#[test]
fn depth_is_bounded() {
    let mut archive = text(40_000, 1);
    for _ in 0..40 {
        archive = zip(&[("next", archive, true)]);
    }
    let limits = Limits { depth_max: 3, ..Limits::default() };
    assert_eq!(streams(&there_and_back_within(&archive, &limits)), 3);
    assert_eq!(streams(&there_and_back_within(&archive, &Limits { depth_max: 0, ..limits })), 0);
}

#[test]
fn a_bomb_stays_as_it_is() {
    let bomb = gzip(&vec![0; 50_000_000], 9);
    assert!(there_and_back(&bomb).is_plain());
    let nested = zip(&[("bomb", vec![0; 20_000_000], true), ("text", text(5000, 1), true)]);
    assert_eq!(streams(&there_and_back(&nested)), 1);
}

#[test]
fn members_that_overlap_or_lie_are_framing() {
    let archive = zip(&[("a", text(5000, 1), true), ("b", text(6000, 2), true)]);
    let at = archive.len() - 22;
    let directory = u32::from_le_bytes(archive[at + 16..at + 20].try_into().expect("four")) as usize;
    // The second entry points to the first member.
    let mut overlapping = archive.clone();
    overlapping[directory + 47 + 42..directory + 47 + 46].fill(0);
    assert_eq!(streams(&there_and_back(&overlapping)), 1);
    // Enormous sizes.
    let mut lying = archive.clone();
    lying[directory + 20..directory + 24].fill(0xfe);
    assert_eq!(streams(&there_and_back(&lying)), 1);
    // A directory that begins before the file.
    let mut early = archive;
    early[at + 12..at + 16].fill(0xff);
    assert!(there_and_back(&early).is_plain());
}

#[test]
fn any_truncation_is_survived() {
    let archive = zip(&[("a", text(900, 1), true), ("b.gz", gzip(&text(600, 2), 6), false)]);
    for length in 0..archive.len() {
        there_and_back(&archive[..length]);
    }
    let archive = gzip(&text(900, 1), 6);
    for length in 0..archive.len() {
        there_and_back(&archive[..length]);
    }
}

#[test]
fn any_flipped_byte_is_survived() {
    for archive in samples() {
        let step = archive.len() / 97 + 1;
        for at in (0..archive.len()).step_by(step).chain(archive.len().saturating_sub(120)..archive.len()) {
            let mut flipped = archive.clone();
            flipped[at] ^= 0x55;
            there_and_back_within(&flipped, &Limits::default());
        }
    }
}

#[test]
fn a_planner_that_is_stopped_plans_nothing() {
    let archive = gzip(&text(50_000, 1), 6);
    for stopping in [false, true] {
        let mut planner = Planner::default().stopped_by(&Arc::new(stopping.into()));
        let plan = planner.plan(&archive, &Limits::default(), &mut Memory, None);
        assert_eq!(plan.is_plain(), stopping);
    }
}

#[test]
fn a_plan_of_another_archive_is_an_error() {
    let (one, other) = (gzip(&text(5000, 1), 6), gzip(&text(5000, 2), 6));
    let plan = Planner::default().plan(&one, &Limits::default(), &mut Memory, None);
    assert!(unpack(&plan, &other, &|_| false, &mut |_| Ok(())).is_err());
    assert!(unpack(&plan, &one[..one.len() - 1], &|_| false, &mut |_| Ok(())).is_err());
    let short = &mut &b"short"[..];
    assert!(rebuild(&plan, &mut std::io::empty(), short, &mut std::io::sink()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        there_and_back(&bytes);
    }

    #[test]
    fn any_mixture_of_archives_comes_back(
        picks in proptest::collection::vec((0usize..8, 0usize..4000, 0usize..40_000), 1..4),
        zeros in 0usize..600,
    ) {
        let samples = samples();
        let mut bytes = Vec::new();
        for (sample, begin, end) in picks {
            let sample = &samples[sample];
            let end = end.min(sample.len());
            bytes.extend_from_slice(&sample[begin.min(end)..end]);
        }
        bytes.resize(bytes.len() + zeros, 0);
        there_and_back(&bytes);
    }
}
