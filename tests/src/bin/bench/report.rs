//! Results: JSON for machines, one page for people.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The results of one scenario.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    scenario: String,
    /// The command that repeats this measurement.
    command: String,
    machine: String,
    date: String,
    rows: Vec<Row>,
}

/// One number of a report.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    what: String,
    subject: String,
    value: f64,
    /// The most it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    bar: Option<f64>,
}

impl Row {
    /// A number without a bar.
    pub(crate) fn new(what: &str, subject: &str, value: f64) -> Self {
        Self { what: what.to_owned(), subject: subject.to_owned(), value, bar: None }
    }

    /// Adds an absolute bar to it.
    pub(crate) fn at_most(mut self, bar: f64) -> Self {
        self.bar = Some(bar);
        self
    }

    /// With a bar relative to a peer measured in the same run.
    pub(crate) fn against(self, peer: f64, ratio: f64) -> Self {
        self.at_most(peer * ratio)
    }
}

impl Report {
    /// An empty report that `make bench SCENARIOS=…` repeats.
    pub(crate) fn new(scenario: &str, argument: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let model = model.trim_start_matches([' ', '\t', ':']).trim();
        Self {
            scenario: scenario.to_owned(),
            command: format!("make bench SCENARIOS={argument}"),
            machine: format!("{cores} cores {model}").trim().to_owned(),
            date: today(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Writes the report to `{folder}/{scenario}.json`.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(format!("{}.json", self.scenario));
        std::fs::write(&path, serde_json::to_vec_pretty(self)?).with_context(|| path.display().to_string())
    }
}

fn today() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

const HEAD: &str = "# Performance

What `make bench` measured, beside peers in the same run. Bars are ratios to the peer where there is one, else absolute;
numbers from another machine differ, ratios should not.

| what | subject | measured | bar | | reproduce |
|---|---|---|---|---|---|
";

/// When and where, of a page's last line.
fn measured(line: &str) -> Option<impl Iterator<Item = &str>> {
    Some(line.strip_prefix("Measured ")?.strip_suffix('.')?.split("; "))
}

/// Renders every report of `folder` into `page`. The rows of scenarios without a report stay as they are, and so do the
/// sections after the table.
pub(crate) fn render(folder: &Path, page: &Path) -> Result<()> {
    let before = std::fs::read_to_string(page).unwrap_or_default();
    let mut text = HEAD.to_owned();
    let mut notes = std::collections::BTreeSet::new();
    for scenario in crate::SCENARIOS {
        let path = folder.join(format!("{scenario}.json"));
        let Ok(bytes) = std::fs::read(&path) else {
            let repeated = format!("SCENARIOS={scenario}` |");
            let kept = before.lines().filter(|line| line.ends_with(&repeated));
            kept.for_each(|line| text.extend([line, "\n"]));
            notes.extend(before.lines().filter_map(measured).flatten().map(ToOwned::to_owned));
            continue;
        };
        let report: Report = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
        for row in &report.rows {
            let bar = row.bar.map_or_else(String::new, |bar| format!("≤ {bar:.2}"));
            let verdict = row.bar.map_or("", |bar| if row.value <= bar { "met" } else { "**missed**" });
            writeln!(
                text,
                "| {} | {} | {:.2} | {bar} | {verdict} | `{}` |",
                row.what, row.subject, row.value, report.command
            )?;
        }
        notes.insert(format!("{} on {}", report.date, report.machine));
    }
    writeln!(text, "\nMeasured {}.", notes.into_iter().collect::<Vec<_>>().join("; "))?;
    text.push_str(before.find("\n## ").map_or("", |at| &before[at..]));
    std::fs::write(page, text).with_context(|| page.display().to_string())
}
