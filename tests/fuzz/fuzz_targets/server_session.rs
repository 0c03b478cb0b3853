#![no_main]
#[allow(dead_code)]
#[path = "../../../crates/rtmp/tests/common/fuzz.rs"]
mod harness;
libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::server_session(input));
