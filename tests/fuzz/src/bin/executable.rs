//! Fuzzes the target `executable`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("executable").run)(bytes));
