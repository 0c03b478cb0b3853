//! The words of `docs/encoders.md` against the code: every code is one, and every quoted text is said somewhere.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use millrace_media::repair::Repair;
use millrace_wire::close_reason::CloseReason;

/// Returns the last cells of the table rows of a page.
fn last_cells(page: &str) -> Vec<&str> {
    let rows = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    rows.filter_map(|line| line.trim_matches('|').rsplit(" | ").next()).collect()
}

/// Returns every second piece between two separators: the texts in them.
fn between(cell: &str, separator: char) -> impl Iterator<Item = &str> {
    cell.split(separator).skip(1).step_by(2)
}

/// Every source file of the crates and nodes, joined; a literal that is broken into lines is one text.
fn sources() -> String {
    let mut folders: Vec<PathBuf> =
        ["crates", "ingest-node", "transcode-node", "edge-node/src", "control/src"]
            .map(|name| Path::new("..").join(name))
            .into();
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("a folder's entry is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(&path).expect("a source is UTF-8"));
            }
        }
    }
    text.split("\\\n").map(str::trim_start).collect::<Vec<_>>().concat()
}

#[test]
fn encoders_page_quotes_words_and_codes_that_exist() {
    let page = std::fs::read_to_string("../docs/encoders.md").expect("docs/encoders.md");
    let repairs = Repair::ALL.iter().map(|repair| repair.code());
    let codes: BTreeSet<&str> = repairs.chain(CloseReason::ALL.iter().map(|reason| reason.code())).collect();
    let sources = sources();
    let (_, tables) = page.split_once("\n## Video").expect("the page has its tables");
    let (mut words, mut named) = (0, 0);
    for cell in last_cells(tables) {
        for code in between(cell, '`') {
            assert!(codes.contains(code), "docs/encoders.md names {code}, which is no code");
            named += 1;
        }
        // Three dots stand for the name of a codec and the like.
        let pieces = between(cell, '"').flat_map(|text| text.split('…')).map(str::trim);
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            assert!(sources.contains(piece), "docs/encoders.md quotes {piece:?}, which the code never says");
            words += 1;
        }
    }
    assert!(named > 15 && words > 4, "docs/encoders.md names {named} codes and quotes {words} texts");
}
