//! Fuzzes the target `patch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("patch").run)(bytes));
