#![no_main]
#[path = "../../../crates/wire/tests/common/fuzz.rs"]
mod harness;
libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::bus_messages(input));
