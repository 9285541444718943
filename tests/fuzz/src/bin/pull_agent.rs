//! Fuzzes the target `pull_agent`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("pull_agent").run)(bytes));
