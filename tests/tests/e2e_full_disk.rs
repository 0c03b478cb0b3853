//! A server whose disk is full or read-only: viewers go on, the operator is told, and all is stored once there is room.
#![forbid(unsafe_code)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::disk::ReadOnly;
use millrace_testkit::programs::tail;
use millrace_testkit::{http, wait};
use millrace_tests::api::Livestream;
use millrace_tests::compare::same;
use millrace_tests::known_clip::{Clip, seconds};
use millrace_tests::playlist::{Media, Multivariant};
use millrace_tests::publish::push;
use millrace_tests::standalone::{Standalone, until_status};
use millrace_tests::viewer::Viewer;
use serde_json::Value;

/// Room for the state file with its reserve, and for some seconds of media.
const DISK_KIB: u32 = 24 << 10;
/// A worker tells of a store that has taken nothing for three seconds; a segment comes every two, and machines are busy.
const TOLD_LIMIT: Duration = Duration::from_secs(20);
/// An encoder's whole clip.
const CLIP_LIMIT: Duration = Duration::from_mins(2);

/// The parts of the process that `/readyz` reports as degraded.
async fn degraded(server: &Standalone) -> Result<Vec<String>> {
    let report: Value =
        serde_json::from_str(&http::get_text(&format!("{}/readyz", server.ready().edge)).await?)?;
    ensure!(report["ready"] == true, "{report}");
    let parts = report["degraded"].as_array().context("a list")?;
    Ok(parts.iter().map(|part| format!("{} {}", part["name"], part["reason"])).collect())
}

async fn metric(server: &Standalone, name: &str) -> Result<u64> {
    let text = http::get_text(&format!("{}/metrics", server.ready().edge)).await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.context(name.to_owned())?.parse::<f64>()? as u64)
}

/// Waits until readiness, metrics and the livestream's health tell of a store that takes nothing because of `cause`.
async fn until_told(server: &Standalone, live: &Livestream, cause: &str) -> Result<()> {
    wait::value(&format!("degraded: {cause}"), TOLD_LIMIT, || async {
        let parts = degraded(server).await.ok()?;
        let status = server.api().status(&live.id).await.ok()?;
        let notes = status["health"]["notes"].as_array()?;
        let told = parts.iter().any(|part| part.contains("degraded: storage") && part.contains(cause))
            && notes.iter().any(|note| note["code"] == "storage")
            && status["health"]["state"] == "degraded"
            && metric(server, "millrace_transcode_storage_failing").await.ok()? == 1;
        told.then_some(())
    })
    .await
}

/// Waits until nothing tells of trouble any more, and all that waited is stored.
async fn until_well(server: &Standalone, live: &Livestream) -> Result<()> {
    wait::value("everything stored", TOLD_LIMIT, || async {
        let status = server.api().status(&live.id).await.ok()?;
        let well = degraded(server).await.ok()?.is_empty()
            && status["health"]["state"] == "ok"
            && metric(server, "millrace_transcode_storage_failing").await.ok()? == 0
            && metric(server, "millrace_transcode_uploads_given_up_total").await.ok()? == 0;
        well.then_some(())
    })
    .await
}

/// A viewer who comes now gets the newest segment.
async fn newest_segment(hls_url: &str) -> Result<usize> {
    let main = Multivariant::parse(&http::get_text(hls_url).await?)?;
    let url = http::resolve(hls_url, main.variants.first().context("a variant")?)?;
    let playlist = Media::parse(&http::get_text(&url).await?)?;
    let newest = playlist.segments.iter().rfind(|segment| !segment.gap).context("a segment")?;
    Ok(http::get_ok(&http::resolve(&url, &newest.uri)?).await?.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_lose_nothing_while_the_disk_is_full_or_read_only_and_the_operator_is_told() -> Result<()> {
    let (mut server, disk) = Standalone::start_on_small_disk(DISK_KIB, &[]).await?;
    let clip = Clip::numbered(seconds(50)).await?;
    let live = server.api().create("full disk").await?;
    let mut encoder = push(&clip, &live.push_url(), server.folder())?;
    let viewer = Viewer::watch(&live.hls_url).await.context(tail(&encoder))?;
    until_status(&server.api(), &live.id, "live", TOLD_LIMIT).await?;

    disk.fill();
    until_told(&server, &live, "No space left on device").await?;
    // The state has its reserve: livestreams are created and published, and their viewers get them from memory.
    let other = server.api().create("on a full disk").await?;
    let mut second = push(&clip, &other.push_url(), server.folder())?;
    wait::value("a segment of a livestream that began on the full disk", TOLD_LIMIT, || async {
        newest_segment(&other.hls_url).await.ok()
    })
    .await?;
    second.kill();
    ensure!(newest_segment(&live.hls_url).await? > 0);
    disk.make_room();
    until_well(&server, &live).await?;

    let read_only = ReadOnly::over(&disk.path().join("media"));
    until_told(&server, &live, "Read-only file system").await?;
    ensure!(newest_segment(&live.hls_url).await? > 0);
    drop(read_only);
    until_well(&server, &live).await?;
    let log = server.process().output();
    ensure!(log.matches("objects cannot be stored").count() == 1, "one line a minute\n{log}");
    ensure!(log.contains("objects are stored again") && !log.contains("panicked"), "{log}");

    let status = encoder.wait(CLIP_LIMIT).await?;
    ensure!(status.success(), "the encoder failed\n{}", tail(&encoder));
    server.api().stop_after_encoder(&live.id).await?;
    let recording = viewer.finish().await?;
    recording.video.check()?;
    recording.audio.check()?;
    same("access units", &clip.units.video, &recording.video.samples()?)?;
    same("audio frames", &clip.units.audio, &recording.audio.samples()?)?;
    ensure!(recording.video.discontinuities() == 0, "the livestream was interrupted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_given_up_on_a_full_disk_are_named_and_live_goes_on() -> Result<()> {
    // A segment of the clip is larger than half of it, so that the queue overflows at the second one.
    let variables = [("MILLRACE_TRANSCODE_SPILL_BYTES", "65536")];
    let (mut server, disk) = Standalone::start_on_small_disk(DISK_KIB, &variables).await?;
    let clip = Clip::numbered(seconds(30)).await?;
    let live = server.api().create("full disk").await?;
    let mut encoder = push(&clip, &live.push_url(), server.folder())?;
    wait::value("a segment", TOLD_LIMIT, || async { newest_segment(&live.hls_url).await.ok() }).await?;
    disk.fill();
    let prefix = format!("live/{}/", live.playback_id);
    let mut log = String::new();
    let began = std::time::Instant::now();
    while !log.lines().any(|line| line.contains("objects were given up") && line.contains(&prefix)) {
        ensure!(began.elapsed() < TOLD_LIMIT, "no line names the objects\n{log}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        log = server.process().output();
    }
    ensure!(metric(&server, "millrace_transcode_uploads_given_up_total").await? > 0);
    ensure!(newest_segment(&live.hls_url).await? > 0, "viewers at the live edge go on");
    ensure!(server.process().is_running() && !log.contains("panicked"), "{log}");
    encoder.kill();
    Ok(())
}
