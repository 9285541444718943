//! Fuzzes the target `memory`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("memory").run)(bytes));
