//! Every input the fuzzers kept, replayed on stable.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/fuzz.rs"]
#[allow(unreachable_pub)]
mod fuzz;
#[path = "../../../tests/fuzz/replay.rs"]
#[allow(unreachable_pub)]
mod replay;

use replay::replay;

#[test]
fn chunk_reader_corpus() {
    replay("chunk_reader", fuzz::chunk_reader);
}

#[test]
fn server_session_corpus() {
    replay("server_session", fuzz::server_session);
}
