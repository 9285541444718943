//! Fuzzes the target `push_proxy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("push_proxy").run)(bytes));
