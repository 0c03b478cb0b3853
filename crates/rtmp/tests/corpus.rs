//! Every input the fuzzers kept, replayed on stable.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/fuzz.rs"]
#[allow(unreachable_pub)]
mod fuzz;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let root = Path::new("../../tests/fuzz/seeds").join(target);
    let files: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "no seeds in {}", root.display());
    for file in files {
        eprintln!("{}", file.display());
        run(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn chunk_reader_corpus() {
    replay("chunk_reader", fuzz::chunk_reader);
}

#[test]
fn server_session_corpus() {
    replay("server_session", fuzz::server_session);
}
