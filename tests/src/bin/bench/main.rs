//! `bench [SCENARIO…]`: measures Millrace beside its peers in one run, writes `target/bench/*.json` and the table of
//! `docs/PERFORMANCE.md`. `make bench` builds what it needs in release.
#![forbid(unsafe_code)]

mod ladder;
mod latency;
mod publishers;
mod report;
mod subject;
mod usage;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;

/// The scenarios, in the order of the table.
const SCENARIOS: &[&str] = &["publishers", "ingest", "growth", "latency", "start", "failover", "ladder"];

#[derive(Parser)]
struct Arguments {
    /// Which to run; all when none is named.
    scenarios: Vec<String>,
    /// The folder of the JSON reports.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The page that holds the table.
    #[arg(long, default_value = "docs/PERFORMANCE.md")]
    page: PathBuf,
    /// The number of publishers of the comparison.
    #[arg(long, default_value_t = 40)]
    publishers: usize,
    /// The duration of each measurement in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let all: Vec<String> = SCENARIOS.iter().map(ToString::to_string).collect();
    let chosen = if arguments.scenarios.is_empty() { all } else { arguments.scenarios.clone() };
    for name in &chosen {
        eprintln!("==> {name}");
        let report = match name.as_str() {
            "publishers" => publishers::against_peers(arguments.publishers, arguments.seconds).await?,
            "ingest" => publishers::ingest(arguments.publishers, arguments.seconds).await?,
            "growth" => publishers::growth(arguments.seconds).await?,
            "latency" => latency::frame_to_part(arguments.publishers, arguments.seconds).await?,
            "start" => latency::first_playlist().await?,
            "failover" => latency::failover().await?,
            "ladder" => ladder::against_ffmpeg().await?,
            _ => bail!("no scenario {name}; there are {}", SCENARIOS.join(", ")),
        };
        report.write(&arguments.out)?;
    }
    report::render(&arguments.out, &arguments.page)
}
