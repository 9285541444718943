//! Fuzzes the target `token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("token").run)(bytes));
