//! Fuzzes the target `wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("wire").run)(bytes));
