//! Fuzzes the target `deflate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("deflate").run)(bytes));
