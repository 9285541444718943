//! Signatures, deltas, thin segments and outlines. The first byte selects one.

use delta::rsync::{Delta, Geometry, Matcher, Signature};
use format::manifest::{NodeRef, Outline, SegmentIndex, Thin, decode_segment, shorten};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use protocol::likeness::SegmentsReplaced;

use super::script::Script;

/// 64 KiB: the largest basis.
const BASIS_BYTES_MAX: u64 = 64 * 1024;

pub fn run(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 4 {
        0 => signature(bytes),
        1 => delta(bytes),
        2 => thin(bytes),
        _ => outline(bytes),
    }
}

fn signature(bytes: &[u8]) {
    let mut rest = bytes;
    match Signature::decode(&mut rest, BASIS_BYTES_MAX) {
        Ok(signature) => {
            assert!(signature.geometry().reference_bytes() <= BASIS_BYTES_MAX);
            let mut again = Vec::new();
            signature.encode(&mut again);
            assert_eq!(again, bytes[..bytes.len() - rest.len()], "a signature has one form");
            // Whatever the signature says, the delta makes new bytes of the right length.
            let mut literals = Vec::new();
            let delta = Matcher::new(&signature).delta(rest, &mut literals);
            assert_eq!(delta.new_bytes(), rest.len() as u64);
            assert_eq!(delta.insert_bytes(), literals.len() as u64);
            assert!(delta.copies().all(|(_, basis)| basis.end <= signature.geometry().reference_bytes()));
        }
        Err(error) => drop(error.to_string()),
    }
}

fn delta(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let basis: Vec<u8> = script.run().to_vec();
    let block_bytes = 16 + u32::from(script.byte());
    let geometry = Geometry::new(basis.len() as u64, block_bytes).expect("in bounds");
    let new_bytes = u64::from(script.byte()) * 64 + u64::from(script.byte());
    let bytes = script.run();
    let mut rest = bytes;
    match Delta::decode(&mut rest, geometry, new_bytes) {
        Ok(delta) => {
            assert_eq!(delta.new_bytes(), new_bytes);
            let mut again = Vec::new();
            delta.encode(&mut again);
            assert_eq!(Delta::decode(&mut again.as_slice(), geometry, new_bytes), Ok(delta.clone()));
            let literals = vec![7; usize::try_from(delta.insert_bytes()).expect("small")];
            let (mut literals, mut made) = (literals.as_slice(), Vec::new());
            let read = |range: std::ops::Range<u64>, out: &mut Vec<u8>| {
                let at = |offset: u64| usize::try_from(offset).expect("small");
                out.extend_from_slice(&basis[at(range.start)..at(range.end)]);
                Ok::<(), std::convert::Infallible>(())
            };
            delta.apply(&mut literals, read, &mut made).expect("its literals are there");
            assert!(made.len() as u64 == new_bytes && literals.is_empty());
        }
        Err(error) => drop(error.to_string()),
    }
}

fn thin(bytes: &[u8]) {
    match Thin::decode(bytes) {
        Ok(thin) => {
            let count = thin.references().count();
            let chunk = |n: usize| ChunkRef {
                id: ChunkId::of(&n.to_le_bytes()),
                bytes: 1 + u32::try_from(n).expect("few"),
            };
            if let Ok(segment) = thin.fill((0..count).map(chunk)) {
                decode_segment(&segment).expect("what is made is a segment");
                let short = shorten(&segment).expect("a segment");
                let again = Thin::decode(&short).expect("just made");
                assert!(
                    again
                        .references()
                        .map(|reference| reference.short())
                        .eq((0..count).map(|n| chunk(n).id.into()))
                );
                assert_eq!(again.fill((0..count).map(chunk)), Ok(segment));
            }
        }
        Err(error) => drop(error.to_string()),
    }
}

fn outline(bytes: &[u8]) {
    let Ok((outline, base_count, count)) = rmp_serde::from_slice::<(Outline, u8, u16)>(bytes) else { return };
    let node = |n: u8| NodeRef { id: ChunkId::of(&[n]), bytes: 1 };
    let base: Vec<NodeRef> = (0..base_count).map(node).collect();
    let Some(applied) = outline.apply(&base, usize::from(count)) else { return };
    assert_eq!(applied.len(), usize::from(count));
    assert!(applied.iter().flatten().all(|node| base.contains(node)));
    let gaps = outline.gaps(base.len());
    let new = SegmentIndex::enumerate(&applied).filter(|(_, node)| node.is_none());
    let new: Vec<SegmentIndex> = new.map(|(index, _)| index).collect();
    assert!(gaps.iter().flat_map(|gap| gap.new.clone()).eq(new.iter().map(|index| usize::from(*index))));
    assert!(SegmentsReplaced::new(gaps).by(&new).iter().all(|index| usize::from(*index) < base.len()));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let basis: Vec<u8> = (0..=255).collect();
    let mut new = basis.clone();
    new[40] = 0;
    let signature = Signature::new([basis.as_slice()], 32, 20).expect("in bounds");
    let mut signed = vec![0];
    signature.encode(&mut signed);
    let mut delta = Vec::new();
    Matcher::new(&signature).delta(&new, &mut Vec::new()).encode(&mut delta);
    let length = u8::try_from(delta.len()).expect("small");
    let scripted = [&[1, 0, 1], basis.as_slice(), &[16, 4, 0, length, 0], &delta].concat();
    signed.extend(new);
    let segment = super::manifest::seeds().remove(0);
    let thin = shorten(&segment[1..]).or_else(|_| shorten(&segment)).unwrap_or_else(|_| vec![0x14]);
    let node = |n: u8| NodeRef { id: ChunkId::of(&[n]), bytes: 1 };
    let (old, new): (Vec<NodeRef>, Vec<NodeRef>) =
        ((0..9).map(node).collect(), [0, 1, 99, 3, 4, 98, 97, 8].map(node).to_vec());
    let outline = Outline::between(&old, &new).expect("few steps");
    let outline = rmp_serde::to_vec(&(outline, 9u8, 8u16)).expect("a Vec takes every write");
    vec![signed, scripted, [vec![2], thin].concat(), [vec![3], outline].concat()]
}
