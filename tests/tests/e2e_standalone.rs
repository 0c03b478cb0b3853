//! One process, the whole path: what an encoder pushed comes out of the HLS byte for byte, in order, once.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::Process;
use millrace_testkit::http;
use millrace_testkit::programs::tail;
use millrace_testkit::wait;
use millrace_tests::api::Livestream;
use millrace_tests::compare::{beginning, same};
use millrace_tests::known_clip::{Clip, ClipSpec, seconds};
use millrace_tests::publish::push;
use millrace_tests::standalone::Standalone;
use millrace_tests::viewer::{Recording, Viewer};
use reqwest::{Method, StatusCode};

/// The clip's 12 s and the time an encoder takes to end its session.
const CLIP_LIMIT: Duration = Duration::from_secs(30);

/// Pushes a clip to its end, ends the livestream, gives what a viewer got.
async fn push_and_watch(server: &Standalone, clip: &Clip) -> Result<Recording> {
    let live = server.api().create("e2e").await?;
    push_to(server, clip, &live).await
}

async fn push_to(server: &Standalone, clip: &Clip, live: &Livestream) -> Result<Recording> {
    let api = server.api();
    let mut encoder = push(clip, &live.push_url(), server.folder())?;
    let viewer = Viewer::watch(&live.hls_url).await.context(tail(&encoder))?;
    ended_well(&mut encoder).await?;
    api.stop_after_encoder(&live.id).await?;
    viewer.finish().await
}

async fn ended_well(encoder: &mut Process) -> Result<()> {
    let status = encoder.wait(CLIP_LIMIT).await?;
    ensure!(status.success(), "the encoder failed: {status}\n{}", tail(encoder));
    Ok(())
}

fn whole(recording: &Recording, clip: &Clip) -> Result<()> {
    recording.video.check()?;
    recording.audio.check()?;
    same("access units", &clip.units.video, &recording.video.samples()?)?;
    same("audio frames", &clip.units.audio, &recording.audio.samples()?)?;
    ensure!(recording.video.discontinuities() == 0, "{:#?}", recording.video.playlists.last());
    recording.check_bandwidth()
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_serves_every_frame_once_and_in_order() -> Result<()> {
    let server = Standalone::start().await?;
    let clip = Clip::numbered(seconds(12)).await?;
    let live = server.api().create("e2e").await?;
    let recording = push_to(&server, &clip, &live).await?;
    whole(&recording, &clip)?;
    has_picture(&live).await
}

/// Fails unless the stream, of which nothing was encoded, has a picture of its own.
async fn has_picture(live: &Livestream) -> Result<()> {
    let url = live.hls_url.replace("index.m3u8", "thumbnail.jpg");
    let picture = wait::value("a picture of the stream", CLIP_LIMIT, || async {
        let answer = http::shared_client().get(&url).send().await.ok()?.error_for_status().ok()?;
        answer.bytes().await.ok()
    })
    .await?;
    ensure!(picture.starts_with(&[0xff, 0xd8]), "{url} is no JPEG file of {} bytes", picture.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_serves_every_frame_of_long_gops_without_b_frames() -> Result<()> {
    let server = Standalone::start().await?;
    let clip = Clip::numbered(ClipSpec { b_frames: 0, gop: 250, ..seconds(12) }).await?;
    let recording = push_and_watch(&server, &clip).await?;
    whole(&recording, &clip)
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_serves_every_frame_of_video_alone() -> Result<()> {
    let server = Standalone::start().await?;
    let clip = Clip::numbered(ClipSpec { audio: false, ..seconds(12) }).await?;
    let recording = push_and_watch(&server, &clip).await?;
    recording.video.check()?;
    same("access units", &clip.units.video, &recording.video.samples()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_serves_every_frame_of_audio_alone() -> Result<()> {
    let server = Standalone::start().await?;
    let clip = Clip::tone(12).await?;
    let recording = push_and_watch(&server, &clip).await?;
    // The only variant is the audio.
    recording.video.check()?;
    same("audio frames", &clip.units.audio, &recording.video.samples()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn publisher_reconnect_within_the_window_adds_one_discontinuity() -> Result<()> {
    let server = Standalone::start().await?;
    let api = server.api();
    let clip = Clip::numbered(seconds(12)).await?;
    let live = api.create("reconnect").await?;
    let mut first = push(&clip, &live.push_url(), server.folder())?;
    let viewer = Viewer::watch(&live.hls_url).await.context(tail(&first))?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    first.kill();
    let mut second = push(&clip, &live.push_url(), server.folder())?;
    ended_well(&mut second).await?;
    api.stop_after_encoder(&live.id).await?;
    let recording = viewer.finish().await?;

    for (what, track, sent) in
        [("video", &recording.video, &clip.units.video), ("audio", &recording.audio, &clip.units.audio)]
    {
        track.check()?;
        ensure!(track.discontinuities() == 1, "{what}: {} discontinuities", track.discontinuities());
        let first = track.segments.values().next().context("no segment")?.0.discontinuity_sequence;
        let before = track.samples_where(|segment| segment.discontinuity_sequence == first)?;
        let after = track.samples_where(|segment| segment.discontinuity_sequence > first)?;
        beginning(what, sent, &before, sent.len() / 6)?;
        same(what, sent, &after)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_answers_with_cache_range_and_etag_headers() -> Result<()> {
    let server = Standalone::start().await?;
    let clip = Clip::numbered(seconds(12)).await?;
    let live = server.api().create("http").await?;
    let _encoder = push(&clip, &live.push_url(), server.folder())?;
    let url = first_segment(&live.hls_url).await?;

    let whole = http::shared_client().get(&url).header("Origin", "http://elsewhere.example").send().await?;
    ensure!(whole.status() == StatusCode::OK, "{}", whole.status());
    let header =
        |name: &str| whole.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ensure!(header("cache-control").contains("immutable"), "cache-control: {}", header("cache-control"));
    ensure!(header("access-control-allow-origin") == "*", "{:?}", whole.headers());
    ensure!(!header("etag").is_empty(), "no ETag");
    let length = header("content-length").to_owned();
    let body = whole.bytes().await?;
    ensure!(length == body.len().to_string(), "content-length {length} of {} bytes", body.len());

    let head = http::shared_client().head(&url).send().await?;
    ensure!(head.status() == StatusCode::OK, "HEAD: {}", head.status());
    let range = http::shared_client().get(&url).header("Range", "bytes=10-19").send().await?;
    ensure!(range.status() == StatusCode::PARTIAL_CONTENT, "Range: {}", range.status());
    ensure!(range.bytes().await? == body[10..20], "other bytes by range");
    let missing = http::shared_client().get(url.replace(".m4s", "9.m4s")).send().await?;
    ensure!(missing.status() == StatusCode::NOT_FOUND, "a missing segment: {}", missing.status());
    Ok(())
}

async fn first_segment(hls_url: &str) -> Result<String> {
    use millrace_tests::playlist::{Media, Multivariant};
    let what = format!("a segment of {hls_url}");
    millrace_testkit::wait::value(&what, Duration::from_secs(20), || async {
        let main = Multivariant::parse(&http::get_text(hls_url).await.ok()?).ok()?;
        let url = http::resolve(hls_url, main.variants.first()?).ok()?;
        let media = Media::parse(&http::get_text(&url).await.ok()?).ok()?;
        let segment = media.segments.iter().find(|segment| !segment.gap)?;
        http::resolve(&url, &segment.uri).ok()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn control_api_refuses_and_ends_publishers_as_documented() -> Result<()> {
    let server = Standalone::start().await?;
    let api = server.api();
    let live = api.create("api").await?;
    ensure!(
        live.stream_key.len() == 32 && live.stream_key.chars().all(|c| c.is_ascii_hexdigit()),
        "{live:?}"
    );
    ensure!(!live.hls_url.contains(&live.stream_key), "the key is in a viewer's URL");

    let path = format!("/livestreams/{}", live.id);
    let (status, shown) = api.call(Method::GET, &path, None).await?;
    ensure!(status == StatusCode::OK, "{status}: {shown}");
    ensure!(!shown.to_string().contains(&live.stream_key), "the key is shown twice");
    let (status, list) = api.call(Method::GET, "/livestreams", None).await?;
    ensure!(status == StatusCode::OK && list.to_string().contains(&live.id), "{status}: {list}");

    let (status, rotated) = api.call(Method::POST, &format!("{path}/rotate-key"), None).await?;
    ensure!(status.is_success(), "{status}: {rotated}");
    ensure!(rotated["stream_key"].as_str().is_some_and(|key| key != live.stream_key), "{rotated}");

    let (status, problem) = api.call(Method::GET, "/livestreams/nothing-of-the-kind", None).await?;
    ensure!(status == StatusCode::NOT_FOUND && problem["title"].is_string(), "{status}: {problem}");
    let stranger = millrace_tests::api::Api::new(&server.ready().control, "not-the-token");
    let (status, _) = stranger.call(Method::GET, "/livestreams", None).await?;
    ensure!(status == StatusCode::UNAUTHORIZED, "{status}");
    let (status, _) = api.call(Method::DELETE, &path, None).await?;
    ensure!(status.is_success(), "DELETE: {status}");
    Ok(())
}
