//! Fuzzes the target `exclude`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("exclude").run)(bytes));
