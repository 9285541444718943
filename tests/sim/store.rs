//! A store against its model, and proof that the model notices mistakes.

use whit::store::FaultInjection;

use crate::history::{run, steps};
use crate::random::seeds;

#[test]
#[ignore = "minutes: cargo test --release --test sim -- --ignored"]
fn a_store_holds_what_its_model_holds_through_any_history() {
    for seed in seeds(1..4) {
        match run(seed, steps(300), None) {
            Ok(counts) => println!("seed {seed}: {counts:?}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Runs histories with a mistake until one of them fails.
fn is_caught(mistake: FaultInjection) {
    for seed in seeds(1..31) {
        if let Err(error) = run(seed, steps(400), Some(mistake)) {
            println!("seed {seed} found it: {}", error.lines().next().unwrap_or_default());
            return;
        }
    }
    panic!("no history noticed {mistake:?}");
}

#[test]
fn a_collector_that_waits_for_nobody_is_caught() {
    is_caught(FaultInjection::NoLeaseWait);
}

#[test]
fn condemned_chunks_that_pushes_may_count_on_are_caught() {
    is_caught(FaultInjection::CondemnedShown);
}

#[test]
fn a_record_written_before_its_chunks_are_durable_is_caught() {
    is_caught(FaultInjection::NoSync);
}

#[test]
#[ignore = "minutes: cargo test --release --test sim -- --ignored"]
fn a_condemned_chunk_that_is_brought_again_and_swept_is_caught() {
    is_caught(FaultInjection::BroughtAgainInVain);
}
