//! What the fuzzer began with or once found, run through its targets as plain tests (docs/FUZZING.md).

#[path = "fuzz/src/targets/mod.rs"]
mod targets;

use std::fs;
use std::path::Path;

#[test]
fn everything_in_the_corpora_keeps_its_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for target in &targets::TARGETS {
        let folder = corpus.join(target.name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("a corpus can be listed").path();
            println!("{}", path.display());
            (targets::target(target.name).run)(&fs::read(&path).expect("a file of the corpus"));
        }
    }
}

#[test]
fn no_prefix_of_a_seed_makes_a_target_panic() {
    for target in &targets::TARGETS {
        for seed in (target.seeds)() {
            (0..seed.len()).for_each(|length| (target.run)(&seed[..length]));
        }
    }
}

#[test]
#[ignore = "writes the corpora's first entries: run it after a format has changed"]
fn write_the_seeds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for target in &targets::TARGETS {
        let folder = corpus.join(target.name);
        fs::create_dir_all(&folder).expect("a folder for the corpus");
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:02}")), seed).expect("a seed is written");
        }
    }
}
