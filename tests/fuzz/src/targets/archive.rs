//! Any bytes as an archive: planned, decoded, rebuilt and compared, under small limits.

use recode::archive::{Limits, Memory, Part, Planner, rebuild, unpack};
use recode::codec::{Check, Encoder, Frame, Method, Xz};

pub fn run(bytes: &[u8]) {
    let limits = Limits {
        plain_bytes_max: 1 << 20,
        ratio_max: 50,
        depth_max: 3,
        nested_bytes_max: 1 << 18,
        heavy_bytes_max: 1 << 18,
        pieces_max: 200,
    };
    let plan = Planner::default().plan(bytes, &limits, &mut Memory, None);
    plan.check().expect("an own plan is in bounds");
    assert_eq!(plan.bytes(), bytes.len() as u64);
    assert!(plan.count() <= 3 * limits.pieces_max);
    let (mut framing, mut content, mut ended) = (Vec::new(), Vec::new(), 0);
    unpack(&plan, bytes, &|_| false, &mut |part| {
        match part {
            Part::Framing(part) => framing.extend_from_slice(part),
            Part::Content(part) => content.extend_from_slice(part),
            Part::Known(_) => unreachable!("no stream is known"),
            Part::End => ended += 1,
        }
        Ok(())
    })
    .expect("the plan is of these bytes");
    assert_eq!(ended, plan.contents().len());
    assert_eq!(content.len() as u64, plan.contents().iter().sum::<u64>());
    let mut out = Vec::new();
    rebuild(&plan, &mut &framing[..], &mut &content[..], &mut out).expect("slices can be read");
    assert!(out == bytes, "what was rebuilt differs");
}

pub fn seeds() -> Vec<Vec<u8>> {
    let gzip =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x4b\x4c\x4a\x06\x00\xc2\x41\x24\x35\x03\x00\x00\x00";
    let zip = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let ar = b"!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n";
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    tar[124..135].copy_from_slice(b"00000000000");
    tar[148..155].copy_from_slice(b"003020\0");
    let xz = [Xz::threaded(0, Check::Crc64), Xz::single(1, Check::Crc32)].map(Method::Xz);
    let frame = Method::Zstd(Frame { level: 3, checked: true, jobs: false, plain_bytes: None });
    let packed = xz.into_iter().chain([frame]).map(|method| {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        encoder.begin(&method).expect("there is memory");
        encoder.write(&tar, &mut out).expect("there is memory");
        encoder.finish(&mut out).expect("all was written");
        out
    });
    [gzip.to_vec(), zip.to_vec(), ar.to_vec(), tar.clone()].into_iter().chain(packed).collect()
}
