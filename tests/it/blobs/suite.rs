//! Tests that every kind of blobs must pass: the contract of `store/blobs`, function by function.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use disk::files;
use format::pack::PackId;
use whit::store::blobs::Blobs;

use crate::trees::noise;

/// A kind without any blob, and a folder for the files to put.
pub struct Subject<'a> {
    pub blobs: &'a dyn Blobs,
    pub staging: &'a Path,
}

/// Returns the name drawn from `seed`.
pub fn name(seed: u64) -> PackId {
    PackId::from_bytes(noise(seed, 16).try_into().expect("16 bytes"))
}

/// Runs the whole suite.
pub fn run(subject: &Subject<'_>) {
    let checks = [
        ranges_are_read_at_every_edge,
        a_put_is_repeated,
        a_removed_blob_is_read_to_its_end,
        a_blob_that_was_set_aside_is_gone,
        errors_name_the_blob,
        the_list_is_right_after_every_step,
        a_thousand_blobs_are_kept,
        threads_work_beside_each_other,
    ];
    for check in checks {
        check(subject);
        for left in subject.blobs.list().expect("listed") {
            subject.blobs.remove(left).expect("removed");
        }
    }
}

impl Subject<'_> {
    pub fn put(&self, name: PackId, bytes: &[u8]) -> files::Result<()> {
        let file = self.staging.join(name.to_string());
        fs::write(&file, bytes).expect("written");
        let put = self.blobs.put(name, &file);
        assert!(put.is_err() || !file.exists(), "the file was taken over");
        put
    }

    pub fn content(&self, name: PackId) -> Vec<u8> {
        self.blobs.open(name).expect("opened").read(0, usize::MAX).expect("read").into_owned()
    }

    fn listed(&self) -> BTreeSet<PackId> {
        let names = self.blobs.list().expect("listed");
        let set: BTreeSet<PackId> = names.iter().copied().collect();
        assert_eq!(set.len(), names.len(), "each name once");
        set
    }

    fn assert_missing(&self, name: PackId) {
        let open = self.blobs.open(name).expect_err("it is gone");
        let bytes = self.blobs.bytes(name).expect_err("it is gone");
        for error in [open, bytes] {
            assert_eq!(error.source.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains(&name.to_string()), "{error}");
        }
        assert!(!self.listed().contains(&name));
    }
}

fn ranges_are_read_at_every_edge(subject: &Subject<'_>) {
    for (seed, length) in (0..).zip([0, 1, 4095, 4096, 4097, 300_000]) {
        let (name, bytes) = (name(seed), noise(seed, length));
        subject.put(name, &bytes).expect("put");
        assert_eq!(subject.blobs.bytes(name).expect("examined"), length as u64);
        let blob = subject.blobs.open(name).expect("opened");
        assert_eq!(blob.bytes(), length as u64);
        for begin in [0, 1, length / 2, length.saturating_sub(1), length] {
            for wanted in [0, 1, 4096, length, usize::MAX] {
                let begin = begin.min(length);
                let expected = &bytes[begin..length.min(begin.saturating_add(wanted))];
                assert_eq!(&*blob.read(begin as u64, wanted).expect("read"), expected);
            }
        }
        for beyond in [length as u64 + 1, u64::MAX] {
            assert!(blob.read(beyond, 10).expect("nothing").is_empty());
        }
        for (offset, released) in [(0, usize::MAX), (1, 1), (u64::MAX, 1)] {
            blob.release(offset, released);
        }
        assert_eq!(&*blob.read(0, length).expect("read again"), bytes);
    }
}

fn a_put_is_repeated(subject: &Subject<'_>) {
    let bytes = noise(1, 5000);
    subject.put(name(1), &bytes).expect("put");
    let open = subject.blobs.open(name(1)).expect("opened");
    subject.put(name(1), &bytes).expect("put again");
    assert_eq!(subject.content(name(1)), bytes);
    assert_eq!(&*open.read(0, usize::MAX).expect("read"), bytes);
    assert_eq!(subject.listed(), BTreeSet::from([name(1)]));
}

fn a_removed_blob_is_read_to_its_end(subject: &Subject<'_>) {
    let bytes = noise(1, 200_000);
    subject.put(name(1), &bytes).expect("put");
    let open = subject.blobs.open(name(1)).expect("opened");
    subject.blobs.remove(name(1)).expect("removed");
    assert_eq!(&*open.read(0, usize::MAX).expect("read"), bytes);
    subject.assert_missing(name(1));
    subject.blobs.remove(name(1)).expect("there is none");
}

fn a_blob_that_was_set_aside_is_gone(subject: &Subject<'_>) {
    subject.put(name(1), b"damaged").expect("put");
    subject.blobs.set_aside(name(1)).expect("set aside");
    subject.assert_missing(name(1));
    let error = subject.blobs.set_aside(name(1)).expect_err("there is none");
    assert_eq!(error.source.kind(), ErrorKind::NotFound, "{error}");
}

fn errors_name_the_blob(subject: &Subject<'_>) {
    subject.assert_missing(name(1));
    let nothing = subject.staging.join("nothing");
    let error = subject.blobs.put(name(1), &nothing).expect_err("there is no such file");
    assert!(error.to_string().contains(&name(1).to_string()), "{error}");
    subject.assert_missing(name(1));
}

fn the_list_is_right_after_every_step(subject: &Subject<'_>) {
    let mut there = BTreeSet::new();
    for step in 0..60 {
        let oldest = there.first().copied().filter(|_| step % 3 == 2);
        match oldest {
            Some(oldest) if step % 2 == 0 => subject.blobs.remove(oldest).expect("removed"),
            Some(oldest) => subject.blobs.set_aside(oldest).expect("set aside"),
            None => subject.put(name(step), &step.to_le_bytes()).expect("put"),
        }
        match oldest {
            Some(oldest) => there.remove(&oldest),
            None => there.insert(name(step)),
        };
        assert_eq!(subject.listed(), there, "step {step}");
    }
}

fn a_thousand_blobs_are_kept(subject: &Subject<'_>) {
    let names: BTreeSet<PackId> = (0..1000).map(name).collect();
    for (number, name) in names.iter().enumerate() {
        subject.put(*name, &number.to_le_bytes()).expect("put");
    }
    assert_eq!(subject.listed(), names);
    for (number, name) in names.iter().enumerate() {
        assert_eq!(subject.content(*name), number.to_le_bytes());
    }
}

fn threads_work_beside_each_other(subject: &Subject<'_>) {
    let (threads, each) = (4, 50);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (0..each).map(|number| thread * each + number) {
                    subject.put(name(seed), &noise(seed, 1000)).expect("put");
                    assert!(subject.listed().contains(&name(seed)));
                    assert_eq!(subject.content(name(seed)), noise(seed, 1000));
                    if seed % 2 == 1 {
                        subject.blobs.remove(name(seed)).expect("removed");
                    }
                }
            });
        }
    });
    assert_eq!(subject.listed(), (0..threads * each).filter(|seed| seed % 2 == 0).map(name).collect());
}
