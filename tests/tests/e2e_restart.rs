//! `kill -9` of the one process, and a start on the same data: the stream, its key and its numbers are still there.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millrace_testkit::programs::tail;
use millrace_testkit::{http, wait};
use millrace_tests::api::Livestream;
use millrace_tests::compare::{beginning, same};
use millrace_tests::known_clip::{Clip, seconds};
use millrace_tests::playlist::{Media, Multivariant};
use millrace_tests::publish::push;
use millrace_tests::standalone::Standalone;
use millrace_tests::viewer::{Recording, Viewer};

/// Segments on disk before the server dies.
const BEFORE: usize = 3;
/// Parts shown of the segment that dies with it.
const OPEN_PARTS: usize = 3;
/// The clip's 12 s and the time an encoder takes to end its session.
const CLIP_LIMIT: Duration = Duration::from_secs(30);

/// Sessions get time to renew their leases before control believes them gone, and then it looks for an author.
const RETURN_LIMIT: Duration = Duration::from_secs(40);

/// The media that was served before the kill.
struct Served {
    /// The bytes by absolute URL.
    bytes: BTreeMap<String, Bytes>,
    /// The media sequence numbers listed as complete.
    complete: BTreeSet<u64>,
    /// The number whose parts were listed beyond them.
    open: u64,
}

/// Waits until a segment is open and some are complete, and fetches everything the playlists list.
async fn serve_some(hls_url: &str) -> Result<Served> {
    let main = Multivariant::parse(&http::get_text(hls_url).await?)?;
    let video = http::resolve(hls_url, main.variants.first().context("no variant")?)?;
    let audio = http::resolve(hls_url, main.audio.first().context("no audio")?)?;
    wait::value("an open segment with some parts", CLIP_LIMIT, || async {
        let playlist = Media::parse(&http::get_text(&video).await.ok()?).ok()?;
        let complete = playlist.segments.iter().filter(|segment| !segment.gap).count();
        (complete >= BEFORE && playlist.open_parts >= OPEN_PARTS).then_some(())
    })
    .await?;
    let mut served = Served { bytes: BTreeMap::new(), complete: BTreeSet::new(), open: 0 };
    for url in [video, audio] {
        let playlist = Media::parse(&http::get_text(&url).await?)?;
        let media = playlist.segments.iter().filter(|segment| !segment.gap);
        let named = media.clone().flat_map(|segment| [segment.uri.as_str(), segment.init.as_str()]);
        let parts = playlist.parts.iter().map(String::as_str).filter(|part| !is_nobodys(part));
        for reference in named.chain(parts) {
            let url = http::resolve(&url, reference)?;
            let bytes = http::get_ok(&url).await.with_context(|| url.clone())?;
            served.bytes.insert(url, bytes);
        }
        served.complete.extend(media.map(|segment| segment.msn));
        served.open = served.open.max(playlist.media_sequence + playlist.segments.len() as u64);
    }
    Ok(served)
}

/// Parts of gaps are named by generation 0.
fn is_nobodys(part: &str) -> bool {
    part.rsplit('/').next().is_some_and(|file| file.split('.').nth(1) == Some("0"))
}

impl Served {
    /// Checks that stored media is served again with the same bytes, and the open segment not at all or with
    /// the same bytes.
    async fn check(&self) -> Result<()> {
        let open = format!("/{}.", self.open);
        for (url, bytes) in &self.bytes {
            match http::get_ok(url).await {
                Ok(now) => ensure!(now == bytes, "{url}: other bytes than before"),
                Err(error) => ensure!(url.contains(&open), "{url}: {error:#}"),
            }
        }
        Ok(())
    }

    /// At most the segment that was open is missing, and what came before it is what was sent.
    fn kept(&self, clip: &Clip, recording: &Recording, epoch: u64) -> Result<()> {
        for (what, track, sent) in
            [("video", &recording.video, &clip.units.video), ("audio", &recording.audio, &clip.units.audio)]
        {
            let before = track.samples_where(|segment| segment.discontinuity_sequence < epoch)?;
            beginning(what, sent, &before, sent.len() / 3)?;
            for msn in &self.complete {
                let held = track.segments.get(msn).is_some_and(|(_, bytes)| bytes.is_some());
                ensure!(held, "{what}: segment {msn} was lost");
            }
        }
        Ok(())
    }
}

/// A server that was killed and started again while a stream was pushed and watched.
struct Restarted {
    server: Standalone,
    clip: Clip,
    live: Livestream,
    viewer: Viewer,
    served: Served,
}

impl Restarted {
    async fn while_watched() -> Result<Self> {
        let mut server = Standalone::start().await?;
        let clip = Clip::numbered(seconds(12)).await?;
        let live = server.api().create("restart").await?;
        let first = push(&clip, &live.push_url(), server.folder())?;
        let viewer = Viewer::watch(&live.hls_url).await.context(tail(&first))?;
        let served = serve_some(&live.hls_url).await.context(tail(&first))?;
        server.kill_and_restart().await?;
        drop(first);
        Ok(Self { server, clip, live, viewer, served })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_standalone_keeps_streams_keys_and_sequence_numbers() -> Result<()> {
    let Restarted { server, clip, live, viewer, served } = Restarted::while_watched().await?;

    let mut second = push(&clip, &live.push_url(), server.folder())?;
    let status = second.wait(CLIP_LIMIT).await?;
    ensure!(status.success(), "the encoder failed\n{}", tail(&second));
    served.check().await?;
    server.api().stop_after_encoder(&live.id).await?;
    let recording = viewer.finish().await?;
    let last = recording.video.segments.values().map(|(segment, _)| segment.discontinuity_sequence).max();
    let epoch = last.context("no segment")?;
    for (what, track, sent) in
        [("video", &recording.video, &clip.units.video), ("audio", &recording.audio, &clip.units.audio)]
    {
        track.check()?;
        let after = track.samples_where(|segment| segment.discontinuity_sequence == epoch)?;
        same(&format!("{what} after the restart"), sent, &after)?;
    }
    served.kept(&clip, &recording, epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_standalone_without_a_publisher_continues_and_ends_the_playlist() -> Result<()> {
    let Restarted { server, clip, live, viewer, served } = Restarted::while_watched().await?;

    // Nothing is shown until control has closed the log above everything that was.
    wait::value("a playlist after the restart", RETURN_LIMIT, || async {
        http::get_text(&live.hls_url).await.ok()
    })
    .await?;
    served.check().await?;
    server.api().stop(&live.id).await?;
    let recording = viewer.finish().await?;
    for (what, track, sent) in
        [("video", &recording.video, &clip.units.video), ("audio", &recording.audio, &clip.units.audio)]
    {
        track.check()?;
        beginning(what, sent, &track.samples()?, sent.len() / 3)?;
        ensure!(
            track.segments.values().any(|(segment, _)| segment.gap),
            "{what}: the open segment is missing"
        );
    }
    Ok(())
}
