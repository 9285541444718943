//! Executables normalised and rebuilt: a small one made by hand, and random changes of it.

use delta::relink::{
    Answer, Encoded, Error, Normalised, Payload, RecordIndex, RecordNames, Records, normalise, rebuild,
};
use proptest::prelude::*;

use delta::relink::linked::{Program, link};

const OLD: Program = Program { functions: 40, changed: None, shift: 0 };
const NEW: Program = Program { functions: 40, changed: Some(11), shift: 100 };

/// Returns the function records of a file.
fn functions(parts: &Normalised) -> Vec<&[u8]> {
    let starts = std::iter::once(0).chain(parts.function_ends.iter().copied());
    starts.zip(&parts.function_ends).map(|(start, end)| &parts.stream()[start..*end]).collect()
}

/// Simulates a push without the older file: the offer, the answer and the payload as they are sent.
fn fresh(old: &Normalised, new: &Normalised) -> (Vec<Vec<u8>>, Result<Vec<u8>, Error>) {
    let (old_records, new_records) = (Records::new(old), Records::new(new));
    let index = RecordIndex::new(old.clone(), old_records);
    let offer = RecordNames::new(new_records.hashes()).encode();
    let (answer, claimed) = index.answer(&RecordNames::decode(&offer).expect("an offer"));
    let answer = answer.encode();
    let agreed =
        Answer::decode(&answer).expect("an answer").agreed(new_records.hashes()).expect("the same offer");
    let payload = Payload::new(new.clone(), &new_records, &agreed, 3).encode();
    let rebuilt = rebuild(index, &claimed, &Payload::decode(&payload).expect("a payload"), 1 << 20);
    (vec![offer, answer, payload], rebuilt)
}

#[test]
fn a_program_comes_back_bit_for_bit() {
    for program in [OLD, NEW, Program { functions: 2, changed: None, shift: 5 }] {
        let file = link(&program);
        let parts = normalise(&file).expect("an executable");
        assert_eq!(parts.function_ends.len(), program.functions);
        assert_eq!(parts.restore(), Ok(file));
    }
}

#[test]
fn all_that_depends_on_places_is_taken_out() {
    let parts = normalise(link(&OLD)).expect("an executable");
    let targets = &parts.targets;
    let steps: usize = (0..40).map(|function| 3 + function % 5).sum();
    // Conditional jumps back to the start of their own function stay as they are.
    assert!(targets.branches.len() > 2 * steps - 20 && targets.branches.len() <= 2 * steps);
    // The last LSDA has no known end, and stays plain.
    assert_eq!((targets.data.len(), targets.types.len(), targets.relocations.len()), (40, 39, 40));
    assert!(targets.branches.iter().all(|target| parts.addresses.contains(target)));
    assert_eq!(targets.relocations, parts.addresses);
}

#[test]
fn unchanged_functions_are_unchanged_records_after_a_relink() {
    let (old, new) = (link(&OLD), link(&NEW));
    let (old, new) = (normalise(&old).expect("an executable"), normalise(&new).expect("an executable"));
    let differing: Vec<usize> = functions(&old)
        .iter()
        .zip(functions(&new))
        .enumerate()
        .filter(|(_, (old, new))| *old != new)
        .map(|(number, _)| number)
        .collect();
    assert_eq!(differing, [11]);
}

#[test]
fn a_sender_without_the_older_file_sends_what_changed() {
    let (old, new) = (link(&OLD), link(&NEW));
    let (travelled, rebuilt) =
        fresh(&normalise(&old).expect("an executable"), &normalise(&new).expect("an executable"));
    assert_eq!(rebuilt.expect("the parts agree"), new);
    let bytes: usize = travelled.iter().map(Vec::len).sum();
    assert!(bytes * 5 < new.len(), "{bytes} of {}", new.len());
}

#[test]
fn a_sender_with_the_older_file_sends_less() {
    let (old, new) = (link(&OLD), link(&NEW));
    let (old, new_parts) = (normalise(&old).expect("an executable"), normalise(&new).expect("an executable"));
    let kept = Encoded::new(&old, &new_parts, 3).encode();
    let rebuilt = Encoded::decode(&kept).expect("a description").rebuild(old.clone(), 1 << 20);
    assert_eq!(rebuilt.expect("the parts agree"), new);
    assert!(kept.len() * 10 < new.len(), "{} of {}", kept.len(), new.len());
}

#[test]
fn no_more_is_rebuilt_than_allowed() {
    let (old, new) = (link(&OLD), link(&NEW));
    let (old, parts) = (normalise(&old).expect("an executable"), normalise(&new).expect("an executable"));
    let kept = Encoded::new(&old, &parts, 3);
    assert_eq!(kept.rebuild(old.clone(), new.len() - 1), Err(Error::Bytes(new.len())));
    assert_eq!(kept.rebuild(old.clone(), 100).map_err(|error| matches!(error, Error::Bytes(_))), Err(true));
}

#[test]
fn what_is_no_executable_stays_raw() {
    assert_eq!(normalise(b""), None);
    assert_eq!(normalise(b"\x7fELF\x02\x01\x01"), None);
    assert_eq!(normalise(&[0; 5000]), None);
}

/// Passes on every byte flipped in one bit, and every length.
fn mutations(good: &[u8], mut check: impl FnMut(&[u8])) {
    for at in 0..good.len() {
        check(&good[..at]);
        let mut bytes = good.to_vec();
        bytes[at] ^= 1 << (at % 8);
        check(&bytes);
    }
}

#[test]
fn a_changed_message_is_refused_or_makes_some_file_within_the_bound() {
    let small = Program { functions: 12, ..OLD };
    let (old, new) = (link(&small), link(&Program { functions: 13, changed: Some(3), shift: 9 }));
    let (old, new) = (normalise(&old).expect("an executable"), normalise(&new).expect("an executable"));
    mutations(&Encoded::new(&old, &new, 3).encode(), |bytes| {
        let rebuilt = Encoded::decode(bytes).and_then(|kept| kept.rebuild(old.clone(), 1 << 16).ok());
        assert!(rebuilt.is_none_or(|file| file.len() <= 1 << 16));
    });
    let records = Records::new(&new);
    let offer = RecordNames::new(records.hashes()).encode();
    mutations(&offer, |bytes| {
        if let Some(other) = RecordNames::decode(bytes) {
            assert_eq!(other.encode(), bytes, "an offer has one form");
        }
    });
    let old_records = Records::new(&old);
    let index = RecordIndex::new(old.clone(), old_records);
    let (answer, claimed) = index.answer(&RecordNames::new(records.hashes()));
    mutations(&answer.encode(), |bytes| {
        if let Some(other) = Answer::decode(bytes)
            && let Some(agreed) = other.agreed(records.hashes())
        {
            assert_eq!(agreed.known.len(), records.hashes().len());
        }
    });
    let agreed = answer.agreed(records.hashes()).expect("the same offer");
    mutations(&Payload::new(new.clone(), &records, &agreed, 3).encode(), |bytes| {
        let payload = Payload::decode(bytes);
        let rebuilt = payload.and_then(|payload| rebuild(index.clone(), &claimed, &payload, 1 << 16).ok());
        assert!(rebuilt.is_none_or(|file| file.len() <= 1 << 16));
    });
}

#[test]
fn a_claim_that_is_wrong_by_chance_is_taken_back() {
    let (old, new) = (link(&OLD), link(&NEW));
    let (old, new) = (normalise(&old).expect("an executable"), normalise(&new).expect("an executable"));
    let (old, new) = (Records::new(&old), Records::new(&new));
    // An answer about other hashes: as if all names were the same by chance.
    let basis = normalise(link(&OLD)).expect("an executable");
    let index = RecordIndex::new(basis, old.clone());
    let (answer, _) = index.answer(&RecordNames::new(old.hashes()));
    let count = old.hashes().len();
    let agreed = answer.agreed(old.hashes()).expect("the same offer");
    assert!(agreed.known.iter().all(|known| *known));
    let wrong: Vec<_> = new.hashes().iter().cycle().skip(3).take(count).copied().collect();
    let agreed = answer.agreed(&wrong).expect("as many");
    assert!(agreed.known.iter().all(|known| !*known));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_program_comes_back_or_stays_raw(
        functions in 1usize..30,
        shift in 0usize..300,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        header_flips in prop::collection::vec((0usize..288, any::<u8>()), 0..3),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let mut file = link(&Program { functions, changed: None, shift });
        for (at, value) in flips {
            let at = at.index(file.len());
            file[at] = value;
        }
        for (at, value) in header_flips {
            file[at] = value;
        }
        if is_cut {
            file.truncate(cut.index(file.len()));
        }
        if let Some(parts) = normalise(&file) {
            prop_assert!(parts.restore().expect("it was proven") == file);
            let basis = normalise(link(&OLD)).expect("an executable");
            prop_assert!(fresh(&basis, &parts).1.expect("the parts agree") == file);
            let kept = Encoded::new(&basis, &parts, 1);
            prop_assert!(kept.rebuild(basis.clone(), 1 << 20).expect("the parts agree") == file);
            let back = Encoded::new(&parts, &basis, 1);
            prop_assert!(back.rebuild(parts.clone(), 1 << 20).expect("the parts agree") == link(&OLD));
        }
    }
}
