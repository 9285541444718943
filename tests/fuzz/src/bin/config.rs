//! Fuzzes the target `config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("config").run)(bytes));
