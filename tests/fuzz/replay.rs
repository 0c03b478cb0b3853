//! The inputs the fuzzers kept, replayed on stable by the crates' tests.

use std::path::Path;

/// Runs `target` on each of its seeds; called from the folder of a crate.
pub fn replay(target: &str, run: fn(&[u8])) {
    let root = Path::new("../../tests/fuzz/seeds").join(target);
    let files: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "no seeds in {}", root.display());
    for file in files {
        eprintln!("{}", file.display());
        run(&std::fs::read(&file).unwrap());
    }
}
