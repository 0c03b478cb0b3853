//! Ladders of real streams: all renditions in step, through the death of workers and of the processes that encode, through
//! overload and trouble of the source.
#![forbid(unsafe_code)]

mod delivery;
mod failover;
mod isolation;
mod overload;
mod trouble;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millrace_testkit::Process;
use millrace_testkit::programs::tail;
use millrace_tests::api::{Api, Livestream};
use millrace_tests::cluster::{Cluster, Node};
use millrace_tests::ladder::children::encoders_of;
use serde_json::{Value, json};

/// These tests measure time, and each takes a core: they take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// Room for every ladder of a test: admission has a test of its own.
const ROOM: &str = "[transcode]\ncapacity = 5000\n";
/// The longest clip, and the time an encoder takes to end its session.
const CLIP_LIMIT: Duration = Duration::from_secs(100);

/// Creates a livestream with this ladder.
async fn create(api: &Api, title: &str, ladder: &Value) -> Result<Livestream> {
    api.create_with(json!({ "title": title, "ladder": ladder })).await
}

/// Waits for the encoder's end, and ends the livestream.
async fn finish(api: &Api, live: &Livestream, encoder: &mut Process) -> Result<()> {
    let status = encoder.wait(CLIP_LIMIT).await?;
    ensure!(status.success(), "the encoder failed: {status}\n{}", tail(encoder));
    api.stop_after_encoder(&live.id).await
}

/// Returns the worker that encodes.
fn holder(cluster: &mut Cluster) -> Result<Node> {
    for node in [Node::Transcode(1), Node::Transcode(2)] {
        if !encoders_of(cluster.node(node)?.pid()).is_empty() {
            return Ok(node);
        }
    }
    bail!("no worker encodes\n{}", cluster.tails())
}

/// Returns the URL of a rendition's media playlist.
fn playlist(hls_url: &str, rendition: &str) -> Result<String> {
    let folder = hls_url.rsplit_once('/').context("a URL")?.0;
    Ok(format!("{folder}/{rendition}/index.m3u8"))
}
