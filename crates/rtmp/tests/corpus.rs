//! Replays every input of the fuzzers' corpora on the stable toolchain.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/fuzz.rs"]
#[allow(unreachable_pub)]
mod fuzz;
#[path = "../../../tests/fuzz/replay.rs"]
#[allow(unreachable_pub)]
mod replay;

use replay::replay;

#[test]
fn chunk_reader_survives_the_corpus() {
    replay("chunk_reader", fuzz::chunk_reader);
}

#[test]
fn server_session_survives_the_corpus() {
    replay("server_session", fuzz::server_session);
}
