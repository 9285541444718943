//! Fuzzes the target `names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("names").run)(bytes));
