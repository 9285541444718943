//! Fuzzes the target `plan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("plan").run)(bytes));
