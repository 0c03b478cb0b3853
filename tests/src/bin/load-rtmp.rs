//! `load-rtmp --url rtmp://host/live --key-file keys --publishers N`: N publishers loop a clip in real time.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use millrace_tests::known_clip::Clip;
use millrace_tests::load::publisher::{Reel, Tally, publish};

#[derive(Parser)]
struct Arguments {
    /// The RTMP URL without the key.
    #[arg(long)]
    url: String,
    /// A file with one stream key a line, one per publisher; without it, the names are 0, 1, 2, …
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// The number of publishers.
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// An FLV file; without it, a 2.5 Mb/s 720p one is made.
    #[arg(long)]
    clip: Option<PathBuf>,
    /// The clip's length in seconds; it is looped at this.
    #[arg(long, default_value_t = 10)]
    clip_seconds: u32,
    /// The duration in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let path = match arguments.clip {
        Some(path) => path,
        None => Clip::load(arguments.clip_seconds).await?.path,
    };
    let reel = Arc::new(Reel::open(&path, arguments.clip_seconds)?);
    let keys: Vec<String> = match &arguments.key_file {
        None => (0..arguments.publishers).map(|number| number.to_string()).collect(),
        Some(file) => {
            std::fs::read_to_string(file).context("the key file")?.lines().map(str::to_owned).collect()
        }
    };
    ensure!(
        keys.len() >= arguments.publishers,
        "{} keys for {} publishers",
        keys.len(),
        arguments.publishers
    );
    let tally = Arc::new(Tally::default());
    let mut running = tokio::task::JoinSet::new();
    for (number, key) in keys.into_iter().take(arguments.publishers).enumerate() {
        let url = format!("{}/{key}", arguments.url.trim_end_matches('/'));
        // Spread over a second: real publishers do not send their frames in step.
        let offset = Duration::from_millis(1000 * number as u64 / arguments.publishers as u64);
        running.spawn(publish(url, reel.clone(), offset, tally.clone(), |_| {}));
    }
    let stopper = tally.clone();
    let seconds = arguments.seconds;
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stopper.stop.store(true, Ordering::Relaxed);
    });
    let mut failures = 0;
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended? {
            eprintln!("{error:#}");
            failures += 1;
        }
    }
    let report = serde_json::json!({
        "publishers": arguments.publishers,
        "seconds": seconds,
        "messages": tally.messages.load(Ordering::Relaxed),
        "bytes": tally.bytes.load(Ordering::Relaxed),
        "worst_delay_ms": tally.late_ms.load(Ordering::Relaxed),
        "failures": failures,
    });
    println!("{report}");
    ensure!(failures == 0, "{failures} publishers failed");
    Ok(())
}
