//! Fuzzes the target `pack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("pack").run)(bytes));
