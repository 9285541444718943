//! xz streams and zstd frames are rebuilt bit for bit, as the programs wrote them, or are stored as they are.

use std::io::Write;
use std::process::{Command, Stdio};

use recode::archive::{Limits, Memory, Part, Piece, Plan, Planner, rebuild, unpack};
use recode::codec::{Check, Decoder, EXTREME, Encoder, Format, Frame, Guesser, Method, Xz};
use recode::deflate::Progress;

use crate::trees::{noise, text};

pub fn pack(plain: &[u8], method: Method) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    encoder.begin(&method).expect("there is memory");
    plain.chunks(50_000).for_each(|piece| encoder.write(piece, &mut out).expect("there is memory"));
    encoder.finish(&mut out).expect("all was written");
    out
}

fn xz(preset: u8) -> Method {
    Method::Xz(Xz::threaded(preset, Check::Crc64))
}

fn zstd(level: u8, jobs: bool, plain_bytes: Option<u64>) -> Method {
    Method::Zstd(Frame { level, checked: true, jobs, plain_bytes })
}

/// Returns text, noise, zeros and text again: copies near and far, and incompressible parts.
fn mixed(length: usize) -> Vec<u8> {
    let part = length / 8;
    let ends = [text(5, part * 3), noise(9, part), vec![0; part], text(5, part * 2), noise(9, part)].concat();
    ends[..length.min(ends.len())].to_vec()
}

#[test]
fn the_output_of_the_libraries_never_changes() {
    // A change here would make every stored archive of that method impossible to rebuild: the versions must stay pinned.
    let (short, long) = (mixed(300_000), mixed(3_500_000));
    let mut found = Vec::new();
    let mut note = |method: Method, plain: &[u8]| {
        let digest = blake3::hash(&pack(plain, method)).to_hex();
        found.push(format!("{method}: {} {}", plain.len(), &digest[..16]));
    };
    for preset in 0..=6 {
        for extreme in [0, EXTREME] {
            note(Method::Xz(Xz::single(preset | extreme, Check::Crc32)), &short);
            note(xz(preset | extreme), &short);
        }
    }
    note(xz(0), &long);
    note(Method::Xz(Xz::single(1, Check::Sha256)), &long);
    for level in 1..=19 {
        note(zstd(level, false, None), &short);
        note(zstd(level, false, Some(short.len() as u64)), &short);
        note(zstd(level, true, None), &short);
    }
    for level in [1, 3, 9] {
        note(zstd(level, true, None), &long);
        note(zstd(level, true, Some(long.len() as u64)), &long);
        note(zstd(level, false, None), &long);
    }
    let golden: Vec<&str> = include_str!("codec.golden").lines().collect();
    assert_eq!(found, golden, "found:\n{}", found.join("\n"));
}

#[test]
fn what_is_made_is_decoded_and_found_out() {
    for plain in [text(1, 200), mixed(200_000), vec![0; 200_000], noise(1, 200_000)] {
        let bytes = Some(plain.len() as u64);
        let methods = [xz(6), xz(EXTREME), xz(2), Method::Xz(Xz::single(5, Check::None))];
        for method in methods.into_iter().chain([zstd(3, false, None), zstd(12, false, bytes)]) {
            let packed = pack(&plain, method);
            let mut decoded = Vec::new();
            let ended = Decoder::new(method.format()).push(&packed, |piece| {
                decoded.extend_from_slice(piece);
                Ok::<_, std::convert::Infallible>(())
            });
            assert!(matches!(ended, Ok(Progress::End(end)) if end == packed.len()) && decoded == plain);
            let followed = [&packed[..], b"and more"].concat();
            let stream =
                Guesser::default().stream(method.format(), &followed, 200_000, None).expect("a stream");
            assert_eq!((stream.packed, stream.plain), (packed.len() as u64, plain.len() as u64));
            let Some(found) = stream.method else { panic!("nothing makes what {method} made") };
            assert!(pack(&plain, found) == packed, "{found} for {method}");
        }
    }
}

/// Plans, decodes, rebuilds and compares; returns the encoders of the streams.
fn there_and_back(archive: &[u8]) -> Vec<String> {
    let plan = Planner::default().plan(archive, &Limits::default(), &mut Memory, None);
    let (mut framing, mut content) = (Vec::new(), Vec::new());
    unpack(&plan, archive, &|_| false, &mut |part| {
        match part {
            Part::Framing(bytes) => framing.extend_from_slice(bytes),
            Part::Content(bytes) => content.extend_from_slice(bytes),
            Part::Known(_) | Part::End => {}
        }
        Ok(())
    })
    .expect("the plan is of this archive");
    let mut out = Vec::new();
    rebuild(&plan, &mut &framing[..], &mut &content[..], &mut out).expect("slices can be read");
    assert!(out == archive, "the rebuilt archive differs");
    methods(&plan)
}

fn methods(plan: &Plan) -> Vec<String> {
    let of = |piece: &Piece| match piece {
        Piece::Packed { method, plain, .. } => [vec![method.to_string()], methods(plain)].concat(),
        _ => Vec::new(),
    };
    plan.pieces().iter().flat_map(of).collect()
}

/// Returns a program's output for its input; `None` if it is missing, or does not know its arguments.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().expect("it ends");
        output.status.success().then_some(output.stdout)
    })
}

#[test]
fn what_xz_makes_is_made_again() {
    let plain = mixed(1_500_000);
    let cases: [(&[&str], Option<&str>); 12] = [
        (&["-T2"], Some("xz, preset 6, blocks of 24576 KiB")),
        (&["-T2", "-0"], Some("xz, preset 0, blocks of 1024 KiB")),
        (&["-T2", "-3e"], Some("xz, preset 3e, blocks of 12288 KiB")),
        (&["-T2", "--block-size=300000"], Some("xz, preset 6, blocks of 292 KiB")),
        (&["--threads=1", "-9", "--lzma2=preset=9,dict=1MiB"], Some("xz, preset 6, dictionary 1024 KiB")),
        (&["--threads=1", "--lzma2=preset=6,lc=0,pb=0"], Some("xz, preset 6, lc 0, lp 0, pb 0")),
        (&["--threads=1", "-5e", "-C", "sha256"], Some("xz, preset 5e")),
        (&["--threads=1", "-4", "-C", "none"], Some("xz, preset 4")),
        // A dictionary that is too large, a filter for programs, a setting of no preset, another format.
        (&["-T2", "-8"], None),
        (&["-T2", "--x86", "--lzma2=preset=6"], None),
        (&["-T2", "--lzma2=preset=6,nice=100"], None),
        (&["--format=lzma"], None),
    ];
    for (arguments, expected) in cases {
        let arguments = [&["-c"], arguments].concat();
        let Some(packed) = run("xz", &arguments, &plain) else {
            eprintln!("passed over: no xz {arguments:?}");
            continue;
        };
        let found = there_and_back(&packed);
        match expected {
            Some(method) => assert_eq!(found, [method], "{arguments:?}"),
            None => assert!(found.is_empty(), "{arguments:?}: {found:?}"),
        }
    }
}

#[test]
fn what_zstd_makes_is_made_again_where_it_is_the_same_version() {
    let Some(version) = run("zstd", &["--version"], &[]) else { return eprintln!("passed over: no zstd") };
    let same = String::from_utf8_lossy(&version).contains("v1.5.7");
    let plain = mixed(3_500_000);
    for arguments in [&["-3"][..], &["-1", "--single-thread"], &["-9", "--no-check"]] {
        let packed = run("zstd", &[&["-c"], arguments].concat(), &plain).expect("it is there");
        assert_eq!(there_and_back(&packed).len(), usize::from(same), "{arguments:?}");
    }
}

#[test]
fn streams_in_a_row_are_taken_apart_up_to_what_is_none() {
    let (one, other) = (pack(&text(1, 50_000), xz(1)), pack(&text(2, 60_000), xz(3)));
    assert_eq!(there_and_back(&[&one[..], &other, &[0; 8]].concat()).len(), 2);
    let frame = pack(&text(1, 50_000), zstd(3, false, None));
    assert_eq!(there_and_back(&[&frame[..], &frame, b"\x50\x2a\x4d\x18\0\0\0\0"].concat()).len(), 2);
    assert_eq!(there_and_back(&[&one[..], &frame].concat()).len(), 1);
}

#[test]
fn a_stream_that_is_cut_or_changed_anywhere_stays_as_it_is() {
    let plain = text(1, 3_000);
    for method in
        [xz(0), Method::Xz(Xz::single(6, Check::Crc32)), zstd(1, false, None), zstd(3, true, Some(3_000))]
    {
        let packed = pack(&plain, method);
        assert_eq!(there_and_back(&packed).len(), 1);
        for at in 0..packed.len() {
            assert!(there_and_back(&packed[..at]).is_empty(), "{method} cut at {at}");
            for bit in [0x01, 0x80] {
                let mut changed = packed.clone();
                changed[at] ^= bit;
                assert!(there_and_back(&changed).is_empty(), "{method} changed at {at}");
            }
        }
    }
}

#[test]
fn bombs_and_what_would_take_too_much_memory_stay_as_they_are() {
    let zeros = vec![0; 40_000_000];
    for method in [xz(1), zstd(3, false, None)] {
        let bomb = pack(&zeros, method);
        assert!(there_and_back(&bomb).is_empty(), "{method}: {} B", bomb.len());
    }
    let limits = Limits { heavy_bytes_max: 100_000, ..Limits::default() };
    let packed = pack(&mixed(100_008), xz(1));
    assert!(methods(&Planner::default().plan(&packed, &limits, &mut Memory, None)).is_empty());
    // A window of 16 MiB in an otherwise valid header.
    let mut frame = pack(&mixed(300_000), zstd(3, false, None));
    assert_eq!(frame[4..6], [0x04, 0x58]);
    frame[5] = 14 << 3;
    assert!(there_and_back(&frame).is_empty());
    // Nested: only the outer one is decoded.
    let inner = pack(&text(1, 50_000), xz(6));
    assert_eq!(there_and_back(&pack(&inner, zstd(3, false, None))).len(), 1);
}

#[test]
fn a_plan_that_packs_more_than_any_planner_plans_is_not_followed() {
    let plan = |bytes| {
        let mut plan = Plan::default();
        let method = zstd(1, false, None);
        plan.push(Piece::Packed { packed: 0, method, plain: Plan::plain(bytes), named: None });
        plan
    };
    let follow = |bytes: u64| {
        let mut content = std::io::Read::take(std::io::repeat(0), bytes);
        rebuild(&plan(bytes), &mut std::io::empty(), &mut content, &mut std::io::sink())
    };
    // FORMAT 2.5; a planner allows less.
    let most = 128 << 20;
    assert!(Limits::default().heavy_bytes_max <= most);
    follow(most).expect("as many as there may be");
    assert_eq!(follow(most + 1).expect_err("too many").kind(), std::io::ErrorKind::InvalidData);
    // A frame that does not have the bytes of its method.
    for wrong in [99, 101] {
        let mut plan = Plan::default();
        let method = zstd(1, false, Some(wrong));
        plan.push(Piece::Packed { packed: 0, method, plain: Plan::plain(100), named: None });
        let mut content = &[0; 100][..];
        assert!(rebuild(&plan, &mut std::io::empty(), &mut content, &mut std::io::sink()).is_err());
    }
}

#[test]
fn a_debian_package_is_seen_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = folder.path().join("package");
    crate::trees::write(
        &package,
        "DEBIAN/control",
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m\nDescription: d\n",
    );
    crate::trees::write(&package, "usr/share/p/text", text(1, 400_000));
    crate::trees::write(&package, "usr/bin/p", noise(1, 100_000));
    for (compression, expected) in [("xz", 2), ("gzip", 2)] {
        let file = folder.path().join(compression);
        let kind = format!("-Z{compression}");
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", &kind, "-b"]).arg(&package).arg(&file).stdout(Stdio::null());
        if !build.status().is_ok_and(|status| status.success()) {
            return eprintln!("passed over: no dpkg-deb");
        }
        let deb = std::fs::read(&file).expect("it was made");
        let plan = Planner::default().plan(&deb, &Limits::default(), &mut Memory, None);
        assert_eq!(there_and_back(&deb).len(), expected, "{compression}");
        // The members of the tar inside it are separate content.
        assert!(plan.contents().contains(&400_000) && plan.contents().contains(&100_000));
    }
}

#[test]
fn formats_are_known_by_their_first_bytes() {
    let streams = [pack(b"", xz(6)), pack(b"", zstd(3, false, None))];
    assert_eq!(streams.map(|stream| Format::of(&stream)), [Some(Format::Xz), Some(Format::Zstd)]);
    assert_eq!(Format::of(b"\x1f\x8b\x08"), None);
}
