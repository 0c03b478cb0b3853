//! Real encoders that are refused: the livestream stays as it was, and its status says why.
#![forbid(unsafe_code)]

use std::time::Duration;

use anyhow::{Result, ensure};
use millrace_testkit::programs::{spawn, tail};
use millrace_testkit::{Process, ffmpeg, wait};
use millrace_tests::api::Livestream;
use millrace_tests::known_clip::{Clip, seconds};
use millrace_tests::publish::push;
use millrace_tests::standalone::{Standalone, until_status};

/// An encoder that starts, is refused and ends.
const LIMIT: Duration = Duration::from_secs(30);

/// An encoder with a video codec of FLV that is not taken (Sorenson H.263).
fn push_flv1(server: &Standalone, live: &Livestream) -> Result<Process> {
    let mut command = ffmpeg::ffmpeg();
    command.args(["-re", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=30", "-t", "20"]);
    command.args(["-c:v", "flv1", "-f", "flv", &live.push_url()]);
    spawn("ffmpeg-flv1", server.folder(), command)
}

#[tokio::test(flavor = "multi_thread")]
async fn push_with_a_refused_codec_leaves_the_livestream_scheduled_and_its_key_valid() -> Result<()> {
    let server = Standalone::start().await?;
    let api = server.api();
    let live = api.create("refused").await?;
    for _ in 0..2 {
        let mut encoder = push_flv1(&server, &live)?;
        let status = encoder.wait(LIMIT).await?;
        ensure!(!status.success(), "the encoder was not refused\n{}", tail(&encoder));
        wait::value("the reason in the status", LIMIT, || async {
            let status = api.status(&live.id).await.ok()?;
            let last = &status["last_disconnect"];
            let text = last["text"].as_str()?;
            (last["code"] == "codec_not_accepted" && text.contains("H.263")).then_some(())
        })
        .await?;
        let status = api.status(&live.id).await?;
        ensure!(status["status"] == "scheduled" && status["started_at"].is_null(), "{status}");
        ensure!(status["health"]["state"] == "waiting_for_publisher", "{status}");
    }
    let clip = Clip::numbered(seconds(8)).await?;
    let mut encoder = push(&clip, &live.push_url(), server.folder())?;
    until_status(&api, &live.id, "live", LIMIT).await?;
    let status = encoder.wait(LIMIT).await?;
    ensure!(status.success(), "the encoder failed: {status}\n{}", tail(&encoder));
    Ok(())
}
