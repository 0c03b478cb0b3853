//! The tables of `docs/` against the code: every subject, key, code, configuration key and flag is there, and nothing else is.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;

use millrace_media::repair::{Repair, RepairClass};
use millrace_testkit::programs::millrace_command;
use millrace_wire::message::control::LifecycleKind;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new("..").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of a page's tables, without head and rule lines.
fn rows(page: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = page.lines().collect();
    let is_rule = |line: &str| line.starts_with("|---");
    let row = |line: &&str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    lines
        .iter()
        .enumerate()
        .filter(|(at, line)| {
            line.starts_with('|') && !is_rule(line) && !lines.get(at + 1).is_some_and(|next| is_rule(next))
        })
        .map(|(_, line)| row(line))
        .collect()
}

/// Returns the texts in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A pattern whose placeholders have no names: `media.{stream}` and `media.{id}` are the same.
fn bare(pattern: &str) -> String {
    let pattern = pattern.replace("{PREFIX}", "{ms}:").replace("{ms}", "ms").replace("{ROOT}", "live");
    let mut pieces = pattern.split('{');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + "{}" + piece.split_once('}').map_or("", |(_, rest)| rest))
}

/// String literals of a piece of code.
fn literals(code: &str) -> Vec<String> {
    let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    code.join("\n").split('"').skip(1).step_by(2).map(bare).collect()
}

/// The public functions that write a name, and the constants that are one: the item and its patterns.
fn names(source: &str) -> Vec<(String, Vec<String>)> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut items = Vec::new();
    for item in source.split("pub ").skip(1) {
        let (kind, rest) = item.split_once(' ').unwrap_or((item, ""));
        let name = rest.split(['(', ':']).next().unwrap_or_default();
        let code = match kind {
            "fn" => ["format!(", "Topic::fixed("]
                .iter()
                .find_map(|call| rest.split_once(call))
                .map(|(_, code)| code),
            "const" => rest.split_once('=').map(|(_, code)| code),
            _ => None,
        };
        if let Some(code) = code {
            items.push((name.to_owned(), literals(code)));
        }
    }
    items
}

/// Fails unless each item of the file stands with its pattern in a row of the page's `section`.
fn check_names(file: &str, section: &str, left_out: &[&str]) {
    let page = read("docs/names.md");
    let (_, section) = page.split_once(&format!("## {section}\n")).expect("the page has the section");
    let page = rows(section.split("\n## ").next().unwrap_or_default());
    let items = names(&read(file));
    assert!(items.len() > 5, "{file}: {items:?}");
    for (name, patterns) in items.iter().filter(|(name, _)| !left_out.contains(&name.as_str())) {
        let row = page.iter().find(|row| row.iter().any(|cell| quoted(cell).any(|text| text == name)));
        let row = row.unwrap_or_else(|| panic!("{file}: {name} is not in docs/names.md"));
        let written: BTreeSet<String> = row.iter().flat_map(|cell| quoted(cell)).map(bare).collect();
        for pattern in patterns {
            assert!(written.contains(pattern), "{file}: {name} is {pattern}, docs/names.md has {row:?}");
        }
    }
}

#[test]
fn every_subject_is_in_the_table() {
    check_names("crates/wire/src/topics.rs", "Subjects", &[]);
}

#[test]
fn every_state_key_is_in_the_table() {
    check_names("crates/wire/src/state_keys.rs", "State keys", &["PREFIX"]);
}

#[test]
fn every_object_is_in_the_table() {
    // What `tail` gives is looked for below; `key` and `url` put the rest before it.
    check_names("crates/wire/src/object_names.rs", "Objects and URLs", &["ROOT", "tail", "key", "url"]);
    let page = rows(&read("docs/names.md"));
    let (_, tails) = names(&read("crates/wire/src/object_names.rs"))
        .into_iter()
        .find(|(name, _)| name == "tail")
        .expect("objects have a tail");
    for tail in tails {
        let full = format!("live/{{}}/{{}}/{tail}");
        assert!(page.iter().any(|row| quoted(&row[0]).any(|path| bare(path) == full)), "{full} is missing");
    }
}

#[test]
fn the_table_of_names_has_nothing_else() {
    let sources =
        ["topics", "object_names", "state_keys"].map(|file| read(&format!("crates/wire/src/{file}.rs")));
    let page = read("docs/names.md");
    let reasons = page.find("## Close reasons").expect("the page has close reasons");
    let subjects = page.find("## Subjects").expect("the page has subjects");
    for row in rows(&page[subjects..reasons]) {
        let name = quoted(&row[1]).next().unwrap_or_default();
        let known = sources.iter().any(|source| {
            let item = |kind: &str, end: &str| source.contains(&format!("{kind}{name}{end}"));
            item("pub fn ", "(") || item("pub const ", ":") || item("    ", "(")
        });
        assert!(known, "docs/names.md names {name}, which crates/wire has not");
    }
}

#[test]
fn every_close_reason_is_in_the_table() {
    let source = read("crates/wire/src/close_reason.rs");
    let page = read("docs/names.md");
    let table = rows(section(&page, "Close reasons"));
    let declared = source.lines().filter(|line| line.starts_with("    ") && line.contains(" = \""));
    let mut count = 0;
    for line in declared.filter(|line| line.ends_with("\";")) {
        let line = line.replace("\\\"", "'");
        let parts: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        let (code, status, text) = match parts[..] {
            [code, status, text] => (code, format!("`{status}`"), text),
            [code, text] => (code, "—".to_owned(), text),
            _ => panic!("{line}"),
        };
        count += 1;
        let row = table.iter().find(|row| row[0] == format!("`{code}`"));
        let row = row.unwrap_or_else(|| panic!("{code} is not in docs/names.md"));
        assert_eq!(row[2].replace('"', "'"), text, "text of {code}");
        // Another may come before it: to `connect` a drain answers otherwise.
        assert!(row[1] == status || row[1].ends_with(&format!(" {status}")), "status of {code}: {}", row[1]);
    }
    assert_eq!(count, table.len(), "rows of close reasons");
}

/// Returns a section of a page.
fn section<'a>(page: &'a str, name: &str) -> &'a str {
    let (_, section) = page.split_once(&format!("## {name}\n")).expect("the page has the section");
    section.split("\n## ").next().unwrap_or_default()
}

#[test]
fn every_repair_is_in_the_table() {
    let page = read("docs/names.md");
    let table = rows(section(&page, "Repairs"));
    let effect = |repair: &Repair| match repair.class() {
        RepairClass::Moved => "moved",
        RepairClass::Dropped => "dropped",
        RepairClass::Invented => "made up",
    };
    for repair in Repair::ALL {
        let row = [format!("`{}`", repair.code()), effect(repair).to_owned(), repair.text().to_owned()];
        assert!(table.contains(&row.to_vec()), "docs/names.md lacks the row | {} |", row.join(" | "));
    }
    assert_eq!(table.len(), Repair::ALL.len(), "rows of repairs");
}

#[test]
fn every_health_note_is_in_the_table() {
    let page = read("docs/names.md");
    let table = rows(section(&page, "Health notes"));
    let documented: BTreeSet<String> = table.iter().flat_map(|row| quoted(&row[0]).map(bare)).collect();
    let sources = [
        "ingest-node/src/session/health/mod.rs",
        "crates/protocol/src/session/lease.rs",
        "control/src/http/status.rs",
        "crates/wire/src/message/ladder_health.rs",
    ]
    .map(read);
    for code in &documented {
        assert!(sources.iter().any(|source| source.contains(&format!("\"{code}\""))), "{code} is no note");
    }
    for source in &sources {
        for call in source.split("HealthNote::new(\"").skip(1) {
            let code = call.split('"').next().unwrap_or_default();
            assert!(documented.contains(code), "{code} is not in docs/names.md");
        }
    }
}

#[test]
fn every_type_of_event_is_in_the_table_with_an_example() {
    let page = read("docs/events.md");
    let table = rows(section(&page, "Types"));
    let types: Vec<&str> = table.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(types, LifecycleKind::TYPES, "docs/events.md, Types");
    for row in &table {
        let example = quoted(row.last().expect("a row has cells")).next().expect("an example");
        let example: Result<serde_json::Value, _> = serde_json::from_str(example);
        assert!(example.is_ok_and(|example| example.is_object()), "example of {}", row[0]);
    }
}

/// Section, file and struct of each part of the configuration.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("log", "crates/runtime/src/logging.rs", "LogConfig"),
    ("node", "crates/node/src/process.rs", "NodeConfig"),
    ("bus", "crates/node/src/backends.rs", "BusConfig"),
    ("state", "crates/node/src/backends.rs", "StateConfig"),
    ("store", "crates/node/src/backends.rs", "StoreConfig"),
    ("ingest", "ingest-node/src/config.rs", "Config"),
    ("transcode", "transcode-node/src/config.rs", "Config"),
    ("edge", "edge-node/src/config.rs", "Config"),
    ("control", "control/src/config.rs", "Config"),
];

/// The keys of a section as its struct has them; secrets are marked as on the page.
fn keys_in_code(file: &str, name: &str) -> Vec<String> {
    let source = read(file);
    let body = |start: &str, end: &str| {
        let (_, rest) = source.split_once(start).unwrap_or_else(|| panic!("{file}: no {start}"));
        rest.split_once(end).map_or(rest, |(body, _)| body).to_owned()
    };
    let section = body(&format!("impl Section for {name} {{"), "\n}");
    let secrets = section.split_once("SECRETS").map_or("", |(_, rest)| rest.split(';').next().unwrap_or(""));
    let fields = body(&format!("struct {name} {{"), "\n}");
    let field = |line: &str| {
        let line = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        let (key, _) = line.split_once(": ").filter(|_| !line.starts_with(['/', '#']))?;
        let mark = if secrets.contains(&format!("\"{key}\"")) { " ✱" } else { "" };
        Some(format!("`{key}`{mark}"))
    };
    fields.lines().filter_map(field).collect()
}

fn documented(page: &str, section: &str) -> Vec<Vec<String>> {
    let heading = format!("## `[{section}]`");
    let (_, rest) = page.split_once(&heading).unwrap_or_else(|| panic!("no {heading}"));
    rows(rest.split("\n## ").next().unwrap_or_default())
}

#[test]
fn every_configuration_key_is_in_its_table() {
    let page = read("docs/configuration.md");
    for (section, file, name) in SECTIONS {
        let written: Vec<String> = documented(&page, section).into_iter().map(|row| row[0].clone()).collect();
        assert_eq!(written, keys_in_code(file, name), "[{section}] of docs/configuration.md and {file}");
    }
    let runtime = read("crates/runtime/src/config/mod.rs");
    let (_, all) = runtime.split_once("SECTIONS: &[&str] =").expect("the runtime lists the sections");
    for section in literals(all.split(';').next().unwrap_or_default()) {
        assert!(page.contains(&format!("`[{section}]`")), "[{section}] is missing");
    }
}

#[test]
fn every_documented_default_is_accepted() {
    let page = read("docs/configuration.md");
    let mut command = millrace_command().expect("a built binary");
    command.arg("check-config");
    for (section, ..) in SECTIONS {
        for row in documented(&page, section) {
            let key = quoted(&row[0]).next().expect("a key");
            // Where the cell begins with words there is no value to give; lists are not for flags.
            let Some(value) = row[1].strip_prefix('`').filter(|value| !value.starts_with('[')) else {
                continue;
            };
            let value = value.split('`').next().unwrap_or_default();
            if key != "metrics_listen" {
                command.arg("--set").arg(format!("{section}.{key}={value}"));
            }
        }
    }
    let output = command.output().expect("millrace runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_command_and_flag_is_documented() {
    let page = read("docs/configuration.md");
    let help = |arguments: &[&str]| {
        let output = millrace_command().expect("a built binary").args(arguments).output().expect("it runs");
        String::from_utf8(output.stdout).expect("help is text")
    };
    let general = help(&["--help"]);
    let (_, commands) = general.split_once("Commands:\n").expect("help lists commands");
    for line in commands.lines().take_while(|line| !line.trim().is_empty()) {
        let command = line.split_whitespace().next().expect("a command");
        assert!(page.contains(&format!("`millrace {command}")), "{command} is not documented");
    }
    let flags = help(&["standalone", "--help"]);
    let flags: Vec<&str> = flags.lines().map(str::trim).filter(|line| line.starts_with("--")).collect();
    assert!(flags.len() > 5, "{flags:?}");
    for line in flags {
        let flag = line.split_whitespace().next().expect("a flag");
        assert!(page.contains(&format!("| `{flag}")), "{flag} is not documented");
    }
}

/// Every source file of the workspace's crates, joined.
fn all_sources() -> String {
    fn collect(folder: &Path, into: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.expect("a folder's entry is readable").path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&std::fs::read_to_string(&path).expect("a source is UTF-8"));
            }
        }
    }
    let mut text = String::new();
    for node in ["ingest-node/src", "transcode-node/src", "edge-node/src", "control/src"] {
        collect(&Path::new("..").join(node), &mut text);
    }
    for entry in std::fs::read_dir("../crates").expect("the workspace has crates") {
        collect(&entry.expect("a folder's entry is readable").path().join("src"), &mut text);
    }
    text
}

#[test]
fn glossary_names_items_that_exist_and_fits_two_pages() {
    // Two printed pages of this project's tables.
    const MAX_LINES: usize = 90;
    const MAX_WORDS: usize = 1_200;
    let page = read("docs/glossary.md");
    assert!(page.lines().count() <= MAX_LINES, "docs/glossary.md has {} lines", page.lines().count());
    assert!(page.split_whitespace().count() <= MAX_WORDS, "docs/glossary.md is longer than two pages");
    let sources = all_sources();
    let table = rows(&page);
    assert!(table.len() > 30, "docs/glossary.md has {} rows", table.len());
    // The name of an item, of an enum's variant, or of a type that a macro of `crates/wire` declares.
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    let declares = |line: &str, item: &str| {
        let variant = line.strip_prefix("    ").and_then(|line| line.strip_prefix(item));
        let kinds = ["struct ", "enum ", "trait ", "type ", "mod ", "fn "];
        let mut named = kinds.iter().filter_map(|kind| line.split_once(kind)?.1.strip_prefix(item));
        variant.is_some_and(ends) || named.any(ends)
    };
    for row in &table {
        for item in quoted(&row[2]) {
            let is_item = sources.lines().any(|line| declares(line, item));
            assert!(is_item, "docs/glossary.md names {item} for \"{}\", which the code has not", row[0]);
        }
    }
}

/// Every Rust file below these folders, joined.
fn sources_below(folders: &[&str]) -> String {
    let mut text = String::new();
    let mut folders: Vec<_> = folders.iter().map(|folder| Path::new("..").join(folder)).collect();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(&path).expect("a source is UTF-8"));
            }
        }
    }
    text
}

/// The number that a constant's expression stands for, times in milliseconds; `None` for other expressions.
fn value_of(expression: &str) -> Option<u64> {
    let scales =
        [("Duration::from_millis(", 1), ("Duration::from_secs(", 1_000), ("Duration::from_mins(", 60_000)];
    for (call, scale) in scales {
        if let Some(rest) = expression.strip_prefix(call) {
            return Some(value_of(rest.strip_suffix(')')?)? * scale);
        }
    }
    if let Some((left, right)) = expression.split_once("<<") {
        return Some(value_of(left.trim())? << value_of(right.trim())?);
    }
    expression.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>().ok()).product()
}

/// The constants that a page quotes as ``5 s (`NAME`)``: the name and its value, times in milliseconds.
fn quoted_values(page: &str) -> Vec<(&str, u64)> {
    let is_constant = |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let mut values = Vec::new();
    for (at, _) in page.match_indices("(`") {
        let Some((name, _)) = page[at + 2..].split_once("`)") else { continue };
        if !is_constant(name) {
            continue;
        }
        let mut words = page[..at].trim_end().rsplit(' ').peekable();
        let units = [("ms", 1), ("s", 1_000), ("KiB", 1 << 10), ("MiB", 1 << 20)];
        let unit = words.peek().and_then(|word| units.iter().find(|(unit, _)| unit == word));
        let scale = unit.map_or(1, |(_, scale)| *scale);
        let numbers = words.skip(usize::from(unit.is_some()));
        let is_number = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        let mut digits: Vec<&str> = numbers.take_while(is_number).collect();
        digits.reverse();
        let number: u64 = digits.concat().parse().unwrap_or_else(|_| panic!("{name} has no value before it"));
        values.push((name, number * scale));
    }
    values
}

#[test]
fn every_limit_of_connections_has_the_value_of_its_constant() {
    let page = read("docs/limits.md");
    let sources = all_sources();
    let quoted = quoted_values(&page);
    assert!(quoted.len() > 30, "{quoted:?}");
    for (name, value) in quoted {
        let declaration = format!("const {name}: ");
        let declared = sources.match_indices(&declaration).filter_map(|(at, _)| {
            let (_, expression) = sources[at..].split_once(" = ")?;
            value_of(expression.split_once(';')?.0)
        });
        let declared: Vec<u64> = declared.collect();
        assert!(declared.contains(&value), "docs/limits.md has {value} for {name}, the code {declared:?}");
    }
    for file in [
        "crates/rtmp/src/limits.rs",
        "crates/runtime/src/http/server.rs",
        "crates/runtime/src/http/progress.rs",
    ] {
        for item in read(file).split("const ").skip(1) {
            let name = item.split(':').next().unwrap_or_default();
            let is_deadline = ["_DEADLINE", "_TIMEOUT"].iter().any(|end| name.ends_with(end));
            assert!(!is_deadline || page.contains(name), "{file}: {name} is not in docs/limits.md");
        }
    }
}

#[test]
fn every_limit_of_connections_names_settings_and_tests_that_exist() {
    let page = read("docs/limits.md");
    let settings = read("docs/configuration.md");
    let tests = sources_below(&["crates", "ingest-node", "edge-node", "control", "tests/tests"]);
    let rows = rows(&page);
    assert!(rows.len() > 15, "docs/limits.md has {} rows", rows.len());
    for row in &rows {
        let shown = row.last().map_or("", String::as_str).trim_end_matches('|');
        assert!(quoted(shown).next().is_some(), "no test shows {row:?}");
        for test in quoted(shown) {
            assert!(tests.contains(&format!("fn {test}(")), "docs/limits.md names {test}, which is no test");
        }
    }
    for text in quoted(&page) {
        let section =
            ["ingest", "edge", "control"].iter().find_map(|name| text.strip_prefix(name)?.strip_prefix('.'));
        if let Some(key) = section {
            assert!(settings.contains(&format!("| `{key}`")), "{text} is not in docs/configuration.md");
        }
    }
}

#[test]
fn every_row_of_the_contracts_has_a_state_and_names_tests_that_exist() {
    const ROWS: [(&str, usize); 3] = [("AL", 52), ("KS", 34), ("VS", 33)];
    let table = rows(&read("docs/contracts.md"));
    let folders = ["crates", "ingest-node", "transcode-node", "edge-node", "control", "tests"];
    let tests = sources_below(&folders);
    let expected: Vec<String> =
        ROWS.iter().flat_map(|(name, count)| (1..=*count).map(move |row| format!("{name}-{row}"))).collect();
    let found: Vec<&String> = table.iter().map(|row| &row[0]).collect();
    assert_eq!(found, expected.iter().collect::<Vec<_>>(), "rows of docs/contracts.md");
    for row in &table {
        let [id, asks, state, shown, lacking] = &row[..] else { panic!("{row:?}") };
        assert!(!asks.is_empty(), "{id}");
        let names: Vec<&str> = quoted(shown).collect();
        let lacks = lacking.as_str() != "–";
        match state.as_str() {
            "done" => assert!(!names.is_empty() && !lacks, "{id}: a test shows it, and nothing is lacking"),
            "part" => assert!(!names.is_empty() && lacks, "{id}: a test shows a part, and the rest is named"),
            "open" => assert!(names.is_empty(), "{id}: no test"),
            other => panic!("{id}: {other} is no state"),
        }
        for name in names {
            assert!(
                tests.contains(&format!("fn {name}(")),
                "docs/contracts.md names {name}, which is no test"
            );
        }
    }
}
