//! Tests of the index.

use super::*;

fn id(number: u32) -> ChunkId {
    ChunkId::of(&number.to_le_bytes())
}

fn place(pack: u32) -> Place {
    Place { pack, frame_offset: 32, plain_offset: 7, bytes: 9 }
}

/// Takes in a pack of that number that has these chunks.
fn take_in(index: &Index, number: u32, chunks: impl Iterator<Item = u32>) {
    let mut entries: Vec<_> = chunks.map(|chunk| (id(chunk), place(number))).collect();
    entries.sort_unstable_by_key(|(id, _)| *id);
    let count = u32::try_from(entries.len()).expect("few");
    let run = index.write(entries.into_iter(), count.into()).expect("written");
    let pack = PackId::from_bytes(u128::from(number).to_be_bytes());
    index.add(run, &[(number, pack, count)]).expect("taken in");
}

fn found(index: &Index, chunk: u32) -> Option<u32> {
    let id = id(chunk);
    let place = index.find(&id).expect("readable");
    let with_id = place.map(|place| (id, place));
    assert_eq!(index.find_name(id.into()).expect("readable"), with_id);
    assert_eq!(index.find_short(ShortId::from(id)).expect("readable"), with_id);
    place.map(|place| place.pack)
}

#[test]
fn what_was_taken_in_is_found_again_after_reopening() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let index = Index::open(folder.path(), Durability::Synced).expect("a new index");
    take_in(&index, 3, 0..100);
    drop(index);
    let index = Index::open(folder.path(), Durability::Synced).expect("an old index");
    assert_eq!([0, 99, 100].map(|chunk| found(&index, chunk)), [Some(3), Some(3), None]);
    let packs = index.packs();
    assert_eq!(packs.iter().map(|(number, _, chunks)| (*number, *chunks)).collect::<Vec<_>>(), [(3, 100)]);
    assert_eq!(index.next_number(), 4);
    // Without its run it is no index.
    drop(index);
    fs::remove_file(folder.path().join("00000000.run")).expect("removed");
    assert!(matches!(Index::open(folder.path(), Durability::Synced), Err(Error::Run(_))));
}

#[test]
fn copies_in_several_runs_answer_for_each_other_before_and_after_a_merge() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut index = Index::open(folder.path(), Durability::Synced).expect("a new index");
    // Each pack has a chunk of its own, one that the next has too, and one that all have.
    let packs = 0..u32::try_from(INDEX_RUNS_MAX).expect("few") + 1;
    for pack in packs.clone() {
        take_in(&index, pack, [10 * pack, 10 * pack + 1, 10 * pack + 11, 9999].into_iter());
    }
    let check = |index: &Index, gone: &[u32]| {
        let newest = packs.clone().rev().find(|pack| !gone.contains(pack));
        assert_eq!(found(index, 9999), newest);
        for pack in packs.clone() {
            let is_there = !gone.contains(&pack);
            assert_eq!(found(index, 10 * pack), is_there.then_some(pack), "pack {pack}");
            let shared =
                [pack + 1, pack].into_iter().find(|pack| packs.contains(pack) && !gone.contains(pack));
            assert_eq!(found(index, 10 * pack + 11), shared, "pack {pack}");
        }
        assert_eq!(found(index, 5555), None);
    };
    check(&index, &[]);
    index.take_out(&[packs.end - 1]).expect("taken out");
    check(&index, &[packs.end - 1]);
    assert!(index.is_merge_due());
    index.merge(&AtomicBool::new(false)).expect("merged");
    assert!(!index.is_merge_due());
    let files =
        || fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let runs = || files().filter(|path| path.extension().is_some_and(|end| end == "run")).count();
    assert_eq!(runs(), 1);
    check(&index, &[packs.end - 1]);
    index.take_out(&[2]).expect("taken out");
    check(&index, &[packs.end - 1, 2]);
    // What a merge that was cut short left is removed.
    drop(index);
    fs::write(folder.path().join("00000099.run"), "half").expect("written");
    fs::write(folder.path().join("00000098.part"), "half").expect("written");
    index = Index::open(folder.path(), Durability::Synced).expect("an old index");
    check(&index, &[packs.end - 1, 2]);
    assert!(runs() == 1 && files().all(|path| path.extension().is_none_or(|end| end != "part")));
}

#[test]
fn an_index_of_an_earlier_whit_is_no_index() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let db = sled::open(folder.path()).expect("a database");
    drop((db.open_tree("chunks").expect("a tree"), db));
    assert!(matches!(Index::open(folder.path(), Durability::Synced), Err(Error::Older)));
}

#[test]
fn a_damaged_index_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let index = Index::open(folder.path(), Durability::Synced).expect("a new index");
    let run = index.write(std::iter::empty(), 0).expect("written");
    let packs: Vec<_> =
        (0..500).map(|pack| (pack, PackId::from_bytes(u128::from(pack).to_be_bytes()), 0)).collect();
    index.add(run, &packs).expect("taken in");
    drop(index);
    let file = folder.path().join("db");
    let mut bytes = fs::read(&file).expect("the index's file");
    for at in (0..bytes.len()).step_by(97) {
        bytes[at] ^= 0x10;
    }
    fs::write(&file, bytes).expect("damaged");
    if let Ok(index) = Index::open(folder.path(), Durability::Synced) {
        let packs = index.packs().len();
        assert!(packs < 500, "the damage went unnoticed");
    }
}
