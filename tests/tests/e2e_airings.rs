//! A livestream that airs again: the same key and the same address, each time another broadcast whose playlists go on above the
//! last one's, and ended playlists that stay as they are, also after a `kill -9` of the one process.
#![forbid(unsafe_code)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::programs::tail;
use millrace_testkit::{Process, http, wait};
use millrace_tests::api::Livestream;
use millrace_tests::compare::same;
use millrace_tests::known_clip::{Clip, seconds};
use millrace_tests::playlist::{Media, Multivariant};
use millrace_tests::publish::push;
use millrace_tests::standalone::{Standalone, until_status};
use millrace_tests::viewer::{Recording, Viewer};
use reqwest::Method;
use serde_json::json;

/// The clip's 4 s, the reconnect window, and the time an encoder takes to end its session.
const AIRING_LIMIT: Duration = Duration::from_secs(30);
/// A refused encoder has left within this time.
const REFUSED_LIMIT: Duration = Duration::from_secs(2);

/// Starts an encoder, and another one for each that is refused because the last broadcast is still ending.
async fn go_live(server: &Standalone, clip: &Clip, live: &Livestream) -> Result<Process> {
    let api = server.api();
    for _ in 0..20 {
        let mut encoder = push(clip, &live.push_url(), server.folder())?;
        let is_live = until_status(&api, &live.id, "live", REFUSED_LIMIT).await.is_ok();
        if is_live && encoder.is_running() {
            return Ok(encoder);
        }
    }
    anyhow::bail!("the key was refused: {}", api.status(&live.id).await?)
}

/// Waits until the address of the livestream names the media playlists of this broadcast; returns the video's URL.
async fn video_of(live: &Livestream, file: &str) -> Result<String> {
    let reference = wait::value(&format!("a broadcast with {file}"), AIRING_LIMIT, || async {
        let main = Multivariant::parse(&http::get_text(&live.hls_url).await.ok()?).ok()?;
        let all = || main.variants.iter().chain(&main.audio);
        all().all(|uri| uri.ends_with(file)).then(|| main.variants.first().cloned())?
    })
    .await?;
    http::resolve(&live.hls_url, &reference)
}

/// Pushes the clip until it ends, while a viewer watches, and returns what the viewer got and its last video playlist.
async fn air(server: &Standalone, clip: &Clip, live: &Livestream, file: &str) -> Result<(Recording, String)> {
    let mut encoder = go_live(server, clip, live).await?;
    let url = video_of(live, file).await.context(tail(&encoder))?;
    let viewer = Viewer::watch(&live.hls_url).await?;
    let status = encoder.wait(AIRING_LIMIT).await?;
    ensure!(status.success(), "the encoder failed\n{}", tail(&encoder));
    let recording = viewer.finish().await?;
    recording.video.check()?;
    recording.audio.check()?;
    same("video", &clip.units.video, &recording.video.samples()?)?;
    same("audio", &clip.units.audio, &recording.audio.samples()?)?;
    let last = http::get_text(&url).await?;
    ensure!(Media::parse(&last)?.ended, "{last}");
    Ok((recording, url))
}

fn last_number(playlist: &Media) -> u64 {
    playlist.media_sequence + playlist.segments.len() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn reusable_livestream_airs_three_times_under_one_address_and_ended_playlists_stay() -> Result<()> {
    let mut server = Standalone::start().await?;
    let clip = Clip::numbered(seconds(4)).await?;
    let body = json!({ "title": "every evening", "reusable": true, "reconnect_window_s": 1 });
    let live = server.api().create_with(body).await?;

    let (_, first) = air(&server, &clip, &live, "/index.m3u8").await?;
    let ended = http::get_text(&first).await?;
    let (_, second) = air(&server, &clip, &live, "/index-1.m3u8").await?;
    ensure!(http::get_text(&first).await? == ended, "the playlist of the first broadcast has changed");
    let (before, after) = (Media::parse(&ended)?, Media::parse(&http::get_text(&second).await?)?);
    ensure!(after.media_sequence >= last_number(&before), "{before:?} {after:?}");
    ensure!(after.discontinuity_sequence > before.discontinuity_sequence, "{before:?} {after:?}");

    server.kill_and_restart().await?;
    let encoder = go_live(&server, &clip, &live).await?;
    let third = video_of(&live, "/index-2.m3u8").await.context(tail(&encoder))?;
    let newest = Media::parse(&http::get_text(&third).await?)?;
    ensure!(!newest.ended && newest.media_sequence >= last_number(&after), "{after:?} {newest:?}");
    for (url, before) in [(&first, &before), (&second, &after)] {
        let kept = Media::parse(&http::get_text(url).await.with_context(|| url.clone())?)?;
        ensure!(kept.ended && last_number(&kept) == last_number(before), "{url}: {kept:?}, was {before:?}");
    }

    // A stop is meant: the encoder that connects again by itself is refused until the livestream is reopened.
    server.api().stop(&live.id).await?;
    drop(encoder);
    let mut refused = push(&clip, &live.push_url(), server.folder())?;
    ensure!(!refused.wait(AIRING_LIMIT).await?.success(), "the key works after a stop");
    let (status, _) =
        server.api().call(Method::POST, &format!("/livestreams/{}/reopen", live.id), None).await?;
    ensure!(status.is_success(), "{status}");
    let (_, broadcasts) =
        server.api().call(Method::GET, &format!("/livestreams/{}/broadcasts", live.id), None).await?;
    let reasons: Vec<_> = broadcasts["broadcasts"]
        .as_array()
        .context("a list")?
        .iter()
        .map(|row| row["reason"].clone())
        .collect();
    ensure!(reasons == ["stopped", "publisher_left", "publisher_left"], "{broadcasts}");
    Ok(())
}
