//! Every input the fuzzer kept, replayed on stable.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/fuzz.rs"]
#[allow(unreachable_pub)]
mod fuzz;

#[test]
fn bus_messages_corpus() {
    let root = "../../tests/fuzz/seeds/bus_messages";
    let files: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "no seeds in {root}");
    for file in files {
        eprintln!("{}", file.display());
        fuzz::bus_messages(&std::fs::read(&file).unwrap());
    }
}
