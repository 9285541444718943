//! Fuzzes the target `records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("records").run)(bytes));
