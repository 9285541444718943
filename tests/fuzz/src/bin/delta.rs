//! Fuzzes the target `delta`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("delta").run)(bytes));
