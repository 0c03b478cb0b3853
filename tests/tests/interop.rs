//! Real encoders and players: OBS and GStreamer push, and what comes out decodes without an error; GStreamer and ffmpeg join a
//! stream in its first seconds, and play.
#![forbid(unsafe_code)]

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_media::hls::MediaPlaylist;
use millrace_testkit::Process;
use millrace_testkit::ffmpeg::decode_cleanly;
use millrace_testkit::programs::{spawn, tail};
use millrace_tests::api::Livestream;
use millrace_tests::ladder::rules::in_step;
use millrace_tests::ladder::{COPY, LadderWatch, gaps};
use millrace_tests::standalone::Standalone;
use millrace_tests::viewer::Viewer;
use serde_json::json;

/// Pushes for some seconds with `encoder`, then plays everything that was served.
async fn push_and_decode(name: &str, encoder: impl FnOnce(&str, &str) -> Command) -> Result<()> {
    let server = Standalone::start().await?;
    let api = server.api();
    let live = api.create(name).await?;
    let mut pushing =
        spawn(name, server.folder(), encoder(live.rtmp_url.trim_end_matches('/'), &live.stream_key))?;
    let viewer = Viewer::watch(&live.hls_url).await.with_context(|| tail(&pushing))?;
    pushing.wait(Duration::from_mins(1)).await?;
    api.stop_after_encoder(&live.id).await?;
    let recording = viewer.finish().await?;
    recording.video.check()?;
    recording.audio.check()?;
    let frames = recording.video.samples()?.len();
    ensure!(frames > 150, "{name}: {frames} frames in ten seconds\n{}", tail(&pushing));
    decode_cleanly(&live.hls_url).await
}

#[tokio::test(flavor = "multi_thread")]
async fn obs_publishes_and_its_stream_plays() -> Result<()> {
    let script = std::env::current_dir()?.join("interop/obs-push");
    push_and_decode("obs", |server, key| {
        let mut command = Command::new(script);
        command.args([server, key, "12"]);
        command
    })
    .await
}

/// OBS, its software GL and the ladder share the cores of this machine: a rung that it is too slow for must be shed in words.
#[tokio::test(flavor = "multi_thread")]
async fn obs_publishes_into_the_standard_ladder_and_every_rung_plays_or_is_said_to_be_shed() -> Result<()> {
    let server = Standalone::start().await?;
    let api = server.api();
    let live = api.create_with(json!({ "title": "obs", "ladder": "standard" })).await?;
    let mut command = Command::new(std::env::current_dir()?.join("interop/obs-push"));
    command.args([live.rtmp_url.trim_end_matches('/'), &live.stream_key, "25", "1280", "720", "2500"]);
    let mut pushing = spawn("obs", server.folder(), command)?;
    let rungs = ["720p", "480p", "360p"];
    let watch = LadderWatch::begin(&live.hls_url, &rungs).await.with_context(|| tail(&pushing))?;
    let status = async { serde_json::Value::to_string(&api.status(&live.id).await.unwrap_or_default()) };
    let (words, _) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            status.await
        },
        async { pushing.wait(Duration::from_mins(1)).await },
    );
    api.stop_after_encoder(&live.id).await?;
    let ladder = watch.finish().await?;
    ladder.playable()?;
    let copy = ladder.track(COPY)?;
    for name in rungs {
        let rung = ladder.track(name)?;
        let (compared, gaps) = (in_step(copy, rung, 1)?, gaps(copy, rung));
        println!("{name}: {compared} segments, GAPs {gaps:?}");
        ensure!(
            gaps.is_empty() || words.contains("shed"),
            "{name}: GAPs {gaps:?}, and the status says {words}"
        );
    }
    decode_cleanly(&live.hls_url).await
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_publishes_and_its_stream_plays() -> Result<()> {
    push_and_decode("gstreamer", |server, key| {
        let mut command = Command::new("gst-launch-1.0");
        command.args(
            "-e videotestsrc is-live=true num-buffers=300 ! video/x-raw,width=640,height=360,framerate=30/1"
                .split(' '),
        );
        command.args(
            "! x264enc tune=zerolatency key-int-max=60 bitrate=800 ! h264parse ! queue ! mux.".split(' '),
        );
        command
            .args("audiotestsrc is-live=true num-buffers=470 ! audio/x-raw,rate=48000,channels=2".split(' '));
        command.args("! avenc_aac ! aacparse ! queue ! mux. flvmux name=mux streamable=true".split(' '));
        command.arg("!").arg("rtmp2sink").arg(format!("location={server}/{key}"));
        command
    })
    .await
}

/// Publishes a test picture with sound until it is dropped.
fn push_test_picture(server: &Standalone, live: &Livestream) -> Result<Process> {
    let mut command = Command::new("ffmpeg");
    command.args("-nostdin -loglevel error -re -f lavfi -i testsrc2=s=640x360:r=30".split(' '));
    command.args(
        "-f lavfi -i sine=440:r=48000 -c:v libx264 -preset ultrafast -tune zerolatency -g 60".split(' '),
    );
    command.args("-b:v 800k -c:a aac -f flv".split(' '));
    command.arg(live.push_url());
    Ok(spawn("ffmpeg-push", server.folder(), command)?)
}

/// Waits until the video playlist lists at least `wanted` of media.
async fn until_listed(live: &Livestream, wanted: Duration) -> Result<()> {
    let video = live.hls_url.replace("index.m3u8", "video/index.m3u8");
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        if let Ok(answer) = reqwest::get(&video).await?.error_for_status() {
            let playlist = MediaPlaylist::parse(&answer.text().await?)?;
            let open = playlist.open.iter().flat_map(|open| &open.parts).map(|part| part.duration);
            let complete =
                playlist.segments.iter().filter(|segment| !segment.gap).map(|segment| segment.duration);
            if open.chain(complete).sum::<Duration>() >= wanted {
                return Ok(());
            }
        }
        ensure!(tokio::time::Instant::now() < deadline, "the stream does not come to {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the number of requests that the edge has answered.
async fn requests(server: &Standalone) -> Result<u64> {
    let metrics = reqwest::get(format!("{}/metrics", server.ready().edge)).await?.text().await?;
    let counted = metrics.lines().filter(|line| line.starts_with("millrace_edge_http_requests_total{"));
    Ok(counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

/// Joins a stream that has shown four seconds with `player`, which logs a line with `mark` for each frame it shows. It shows
/// three seconds of frames, and asks no more than a player that reloads ten times a second after its first requests.
async fn join_early(name: &str, mark: &str, player: impl FnOnce(&str) -> Command) -> Result<()> {
    let server = Standalone::start().await?;
    let live = server.api().create(name).await?;
    let mut pushing = push_test_picture(&server, &live)?;
    until_listed(&live, Duration::from_secs(4)).await.with_context(|| tail(&pushing))?;
    let (before, started) = (requests(&server).await?, tokio::time::Instant::now());
    let mut playing = spawn(name, server.folder(), player(&live.hls_url))?;
    let shown = || playing.output().matches(mark).count();
    while shown() < 90 {
        ensure!(started.elapsed() < Duration::from_secs(40), "{} frames\n{}", shown(), tail(&playing));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (asked, took) = (requests(&server).await? - before, started.elapsed());
    playing.kill();
    pushing.kill();
    ensure!(asked < 30 + 10 * took.as_secs(), "{asked} requests in {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_joins_in_the_first_seconds_and_plays_without_a_storm_of_requests() -> Result<()> {
    join_early("gstreamer-join", "last-message = chain", |url| {
        let mut command = Command::new("gst-launch-1.0");
        command.args(["-v", "playbin3", &format!("uri={url}")]);
        command.args(["video-sink=fakesink silent=false sync=true", "audio-sink=fakesink"]);
        command
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_joins_in_the_first_seconds_and_plays_without_a_storm_of_requests() -> Result<()> {
    join_early("ffmpeg-join", "pts_time:", |url| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-hide_banner", "-i", url, "-an", "-vf", "showinfo", "-f", "null", "-"]);
        command
    })
    .await
}
