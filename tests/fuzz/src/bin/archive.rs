//! Fuzzes the target `archive`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("archive").run)(bytes));
