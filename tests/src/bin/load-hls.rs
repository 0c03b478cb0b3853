//! `load-hls --url http://host/live/ID/index.m3u8 --viewers N`: N low-latency viewers.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use millrace_tests::load::viewer::{Tally, follow, media_playlists};

#[derive(Parser)]
struct Arguments {
    /// The URL of the multivariant playlist.
    #[arg(long)]
    url: String,
    /// The number of viewers.
    #[arg(long, default_value_t = 1)]
    viewers: usize,
    /// The duration in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let tally = Arc::new(Tally::default());
    let playlists = media_playlists(&arguments.url).await?;
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..arguments.viewers {
        for url in playlists.clone() {
            let tally = tally.clone();
            running.spawn(async move { follow(&url, &tally, |_, _| {}).await });
        }
    }
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    tally.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let count = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
    let report = serde_json::json!({
        "viewers": arguments.viewers,
        "seconds": arguments.seconds,
        "playlists": count(&tally.playlists),
        "media": count(&tally.media),
        "bytes": count(&tally.bytes),
        "errors": count(&tally.errors),
        "stalls": count(&tally.stalls),
    });
    println!("{report}");
    ensure!(count(&tally.errors) == 0, "{} requests failed", count(&tally.errors));
    Ok(())
}
