//! Bad input costs its sender only: each row of the table says what the peer gets (the RTMP status code, or nothing before its
//! connection is closed), and beside all of them a neighbour stream loses no frame.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used)]

mod bytes;
mod descriptors;
mod flood;
mod memory;
mod pause;
mod peer;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_testkit::Process;
use millrace_testkit::programs::tail;
use millrace_testkit::{http, wait};
use millrace_tests::api::{Api, Livestream};
use millrace_tests::compare::same;
use millrace_tests::known_clip::{Clip, seconds};
use millrace_tests::publish::push;
use millrace_tests::standalone::{Standalone, address};
use millrace_tests::viewer::Viewer;
use peer::{Peer, connect_from};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

/// The longest deadline a silent or slow peer is given before it is closed, with room for a busy machine.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// The number of peers that connect and send nothing.
const IDLE_PEERS: usize = 1000;
/// The most connections that one address may have open (`ingest.max_connections_per_address`).
const PER_ADDRESS: usize = 256;
/// Local addresses of the peers: limits and the growing delay of refusals are counted for each.
const HOME: [u8; 4] = [127, 0, 0, 1];
const CROWD: [u8; 4] = [127, 0, 0, 2];
const GUESSER: [u8; 4] = [127, 0, 0, 3];

/// FLV VIDEODATA: a keyframe of codec 2, Sorenson H.263.
const SORENSON_KEYFRAME: [u8; 6] = [0x12, 0, 0, 0, 0, 0];
/// FLV AUDIODATA: the configuration of AAC-LC in stereo at 48 kHz, and frames of silence.
const SOUND: [&[u8]; 4] = [&[0xaf, 0, 0x11, 0x90], SILENCE, SILENCE, SILENCE];
const SILENCE: &[u8] = &[0xaf, 1, 0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c];

const BAD_NAME: &str = "NetStream.Publish.BadName";
const DENIED: &str = "NetStream.Publish.Denied";
const INVALID_APP: &str = "NetConnection.Connect.InvalidApp";

/// A stream with real media next to the bad peers.
struct Neighbour {
    live: Livestream,
    clip: Clip,
    encoder: Process,
    viewer: Viewer,
}

impl Neighbour {
    /// On the air, and watched. A second publisher is refused.
    async fn start(server: &Standalone, length_s: u32) -> Result<Self> {
        let clip = Clip::numbered(seconds(length_s)).await?;
        let live = server.api().create_with(json!({"title": "neighbour", "takeover": "refuse"})).await?;
        let encoder = push(&clip, &live.push_url(), server.folder())?;
        let viewer = Viewer::watch(&live.hls_url).await.context(tail(&encoder))?;
        Ok(Self { live, clip, encoder, viewer })
    }

    /// Was there all the time, and every frame came out once.
    async fn lost_nothing(mut self, server: &mut Standalone) -> Result<()> {
        ensure!(self.encoder.is_running(), "the neighbour ended early\n{}", tail(&self.encoder));
        let status = self.encoder.wait(Duration::from_mins(1)).await?;
        ensure!(status.success(), "the neighbour's encoder failed\n{}", tail(&self.encoder));
        server.api().stop_after_encoder(&self.live.id).await?;
        let recording = self.viewer.finish().await?;
        recording.video.check()?;
        recording.audio.check()?;
        same("the neighbour's access units", &self.clip.units.video, &recording.video.samples()?)?;
        same("the neighbour's audio frames", &self.clip.units.audio, &recording.audio.samples()?)?;
        ensure!(recording.video.discontinuities() == 0, "the neighbour was interrupted");
        ensure!(server.process().is_running(), "the server ended");
        Ok(())
    }
}

/// Fails unless the peer receives exactly this status and is then closed.
async fn told(what: &str, peer: Peer, code: &str, words: &str) -> Result<()> {
    let got = peer.until_closed().await.with_context(|| what.to_owned())?;
    ensure!(got.code.as_deref() == Some(code) && got.words.contains(words), "{what}: {got:?}");
    Ok(())
}

/// Checks as [`told`] does, for a publisher that is refused before it may publish.
async fn refused(what: &str, url: &str, code: &str, words: &str) -> Result<()> {
    told(what, Peer::connect(HOME, url).await?, code, words).await
}

/// Keys and applications that do not, or no longer, open anything.
async fn wrong_names(api: Api, base: String, neighbour: String) -> Result<()> {
    let unknown = format!("{base}/00000000000000000000000000000000");
    refused("an unknown key", &unknown, BAD_NAME, "not known").await?;
    refused("a name that is no key", &format!("{base}/stream"), BAD_NAME, "not known").await?;
    let elsewhere = format!("{}/nowhere/{neighbour}", base.trim_end_matches("/live"));
    refused("a wrong application", &elsewhere, INVALID_APP, "\"live\"").await?;

    let rotated = api.create("rotated").await?;
    api.call(Method::POST, &format!("/livestreams/{}/rotate-key", rotated.id), None).await?;
    refused("a replaced key", &rotated.push_url(), BAD_NAME, "revoked").await?;
    let deleted = api.create("deleted").await?;
    api.call(Method::DELETE, &format!("/livestreams/{}", deleted.id), None).await?;
    refused("a deleted stream's key", &deleted.push_url(), BAD_NAME, "revoked").await
}

/// A second publisher on a live key. Default: the newer one takes over.
async fn publish_twice(api: Api, refusing: String) -> Result<()> {
    refused("a second publisher, takeover=refuse", &refusing, BAD_NAME, "already has a publisher").await?;

    let live = api.create("taken over").await?;
    let first = Peer::publish(HOME, &live.push_url()).await.context("the first publisher")?;
    let mut useless =
        Peer::publish(HOME, &live.push_url()).await.context("a publisher of a codec of the past")?;
    useless.video(&SORENSON_KEYFRAME)?;
    told("a second publisher whose codec is refused", useless, DENIED, "H.263").await?;
    let mut second = Peer::publish(HOME, &live.push_url()).await.context("the second publisher")?;
    second.audio(&SOUND).await?;
    told("the publisher taken over from", first, BAD_NAME, "Another publisher took over").await?;
    // Three frames of sound begin no segment, so the livestream is still scheduled: it can be cancelled, not stopped.
    api.call(Method::POST, &format!("/livestreams/{}/cancel", live.id), None).await?;
    told("a publisher whose stream is cancelled", second, BAD_NAME, "has ended").await?;
    refused("its reconnect", &live.push_url(), BAD_NAME, "has ended").await
}

/// Publishers that are let in and then send nothing, or nothing usable.
async fn bad_media(api: Api) -> Result<()> {
    let live = api.create("bad media").await?;
    let mut flash = Peer::publish(HOME, &live.push_url()).await?;
    flash.video(&SORENSON_KEYFRAME)?;
    told("a codec of the past", flash, DENIED, "codec").await?;
    // The claim of the one before may not have been released yet.
    let live = api.create("no media").await?;
    let silent = Peer::publish(HOME, &live.push_url()).await?;
    told("a publisher without media", silent, DENIED, "timed out waiting for media").await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_peers_get_their_status_and_a_neighbour_loses_no_frame() -> Result<()> {
    let mut server = Standalone::start().await?;
    let neighbour = Neighbour::start(&server, 30).await?;
    let (api, base) = (server.api(), server.ready().rtmp.clone());
    let rtmp = address(&base)?;

    let mut peers = JoinSet::new();
    for row in bytes::table() {
        peers.spawn(row.run(rtmp.clone()));
    }
    peers.spawn(bytes::a_byte_at_a_time(rtmp));
    peers.spawn(wrong_names(api.clone(), base, neighbour.live.stream_key.clone()));
    peers.spawn(publish_twice(api.clone(), neighbour.live.push_url()));
    peers.spawn(bad_media(api));
    while let Some(peer) = peers.join_next().await {
        peer.context("a peer's task")??;
    }
    neighbour.lost_nothing(&mut server).await
}

/// A counter of the server, all labels that match together.
async fn counter(server: &Standalone, name: &str, label: &str) -> Result<usize> {
    let text = http::get_text(&format!("{}/metrics", server.ready().edge)).await?;
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum::<f64>() as usize)
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_use_up_the_limit_of_their_own_address_only() -> Result<()> {
    let mut server = Standalone::start().await?;
    let neighbour = Neighbour::start(&server, 20).await?;
    let rtmp = address(&server.ready().rtmp)?;
    let mut idle = JoinSet::new();
    for _ in 0..IDLE_PEERS {
        let mut socket = connect_from(CROWD, &rtmp).await?;
        idle.spawn(async move { bytes::until_closed(&mut socket).await });
    }
    // Meanwhile another address comes in.
    let other = server.api().create("another").await?;
    let peer = Peer::publish(HOME, &other.push_url()).await.context("beside the silent ones")?;
    drop(peer);

    while let Some(got) = idle.join_next().await {
        ensure!(got.context("a silent peer")?? == 0, "a silent peer was answered");
    }
    let turned_away = "millrace_ingest_turned_away_connections_total";
    let refused = counter(&server, turned_away, "limit=\"connections_per_address\"").await?;
    ensure!(refused == IDLE_PEERS - PER_ADDRESS, "{refused} of {IDLE_PEERS} were turned away");
    ensure!(counter(&server, turned_away, "").await? == refused, "another limit was reached too");
    // Counted once each has been closed, which its peer may see first.
    wait::value("the accepted ones to be closed for their silence", CLOSE_LIMIT, || async {
        let closed = counter(&server, "millrace_ingest_closed_total", "reason=\"timeout\"").await.ok()?;
        (closed == PER_ADDRESS).then_some(())
    })
    .await?;
    neighbour.lost_nothing(&mut server).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_delays_each_further_wrong_key_longer() -> Result<()> {
    let server = Standalone::start().await?;
    let url = format!("{}/00000000000000000000000000000000", server.ready().rtmp);
    // The server's first delay, doubled with each further refusal of the address.
    for delay_ms in [250, 500, 1000] {
        let began = Instant::now();
        told("a guessed key", Peer::connect(GUESSER, &url).await?, BAD_NAME, "not known").await?;
        let waited = began.elapsed();
        ensure!(waited >= Duration::from_millis(delay_ms), "refused after {waited:?}, not {delay_ms} ms");
    }
    Ok(())
}
