#![no_main]
#[path = "../../../crates/media/tests/common/fuzz.rs"]
mod harness;
libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::media_bodies(input));
