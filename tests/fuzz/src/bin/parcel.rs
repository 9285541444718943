//! Fuzzes the target `parcel`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (whit_fuzz::targets::target("parcel").run)(bytes));
