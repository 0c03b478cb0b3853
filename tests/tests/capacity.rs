//! A stream that finds no worker waits, reports it in its status, and starts by itself; its media is then
//! what was sent.
#![forbid(unsafe_code)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_codec::H264Decoder;
use millrace_media::container::flv::FlvVideo;
use millrace_media::container::flv::file::{Reader, TagKind};
use millrace_testkit::clip::read_number;
use millrace_testkit::wait;
use millrace_tests::cluster::{Cluster, Node};
use millrace_tests::compare::same;
use millrace_tests::known_clip::{Clip, seconds};
use millrace_tests::publish::push;
use millrace_tests::viewer::Viewer;

/// The session waits 300 ms for bids and reports to control with its next renewal.
const DEGRADED_LIMIT: Duration = Duration::from_secs(10);
/// The clip's duration and the time an encoder takes to end its session.
const CLIP_LIMIT: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn stream_without_a_worker_waits_and_loses_no_frame() -> Result<()> {
    let mut cluster = Cluster::start_with(&[Node::Control, Node::Ingest, Node::Edge(1)]).await?;
    let clip = Clip::numbered(seconds(16)).await?;
    let api = cluster.api();
    let live = api.create("no worker yet").await?;
    let mut encoder = push(&clip, &live.push_url(), cluster.folder())?;
    let health = || async { Some(api.status(&live.id).await.ok()?["health"].clone()) };
    wait::value("the status to say `degraded: no capacity`", DEGRADED_LIMIT, || async {
        (health().await?["message"] == "degraded: no capacity").then_some(())
    })
    .await
    .with_context(|| cluster.tails())?;

    cluster.start_node(Node::Transcode(1)).await?;
    let viewer =
        Viewer::watch(&cluster.hls_url(1, &live.playback_id)).await.with_context(|| cluster.tails())?;
    wait::value("the status to be well again", DEGRADED_LIMIT, || async {
        (health().await?["state"] == "ok").then_some(())
    })
    .await?;
    ensure!(encoder.wait(CLIP_LIMIT).await?.success(), "the encoder failed");
    api.stop_after_encoder(&live.id).await?;
    let recording = viewer.finish().await.with_context(|| cluster.tails())?;
    recording.video.check()?;
    same("access units", &clip.units.video, &recording.video.samples()?)?;
    same("audio frames", &clip.units.audio, &recording.audio.samples()?)?;
    shows_every_number(&clip, &recording.video.samples()?)
}

/// Decodes what came out and reads the number that each picture carries.
fn shows_every_number(clip: &Clip, access_units: &[bytes::Bytes]) -> Result<()> {
    let file = std::fs::read(&clip.path)?;
    let avcc = Reader::new(file.into())?
        .filter_map(Result::ok)
        .filter(|tag| tag.kind == TagKind::Video)
        .find_map(|tag| match FlvVideo::parse(tag.body) {
            Ok(Some(FlvVideo::SequenceHeader(avcc))) => Some(avcc),
            _ => None,
        })
        .context("no sequence header in the clip")?;
    let mut decoder = H264Decoder::new(&avcc)?;
    let mut pictures = Vec::new();
    for (at, unit) in access_units.iter().enumerate() {
        pictures.extend(decoder.decode(unit, at as i64)?);
    }
    pictures.extend(decoder.finish()?);
    let shown: Vec<Option<u16>> = pictures
        .iter()
        .map(|picture| read_number(&picture.luma, picture.width as usize, picture.height as usize))
        .collect();
    let sent: Vec<Option<u16>> = (0..access_units.len()).map(|number| Some(number as u16)).collect();
    ensure!(shown == sent, "the pictures show {shown:?}");
    Ok(())
}
