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
fn bus_messages_corpus() {
    replay("bus_messages", fuzz::bus_messages);
}
