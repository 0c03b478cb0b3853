//! Real encoders: OBS and GStreamer push, and what comes out decodes without an error.
#![forbid(unsafe_code)]

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::ffmpeg::decode_cleanly;
use millrace_testkit::programs::{spawn, tail};
use millrace_tests::standalone::Standalone;
use millrace_tests::viewer::Viewer;

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
