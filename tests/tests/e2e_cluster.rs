//! The cluster, each node a process, real servers: the media that was pushed comes out byte for byte, in
//! order, once, at every edge, through the death of any node.
#![forbid(unsafe_code)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::programs::tail;
use millrace_tests::cluster::{Cluster, Node, Programs};
use millrace_tests::compare::same;
use millrace_tests::facts::Facts;
use millrace_tests::known_clip::{Clip, seconds};
use millrace_tests::publish::push;
use millrace_tests::viewer::{Recording, Track, Viewer};

/// A cluster takes both cores: these tests take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// The clip's duration and the time an encoder takes to end its session.
const CLIP_LIMIT: Duration = Duration::from_mins(1);

/// The disturbance of the cluster in mid-stream.
type Blow = for<'a> fn(&'a mut Cluster) -> std::pin::Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// The facts that JetStream must have kept at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Everything,
    /// A worker that dies between storing a segment and saying so may leave that unsaid.
    Events,
}

/// Pushes 20 s, strikes after 6, gives what viewers at both edges got.
async fn watch_through(
    programs: Programs,
    blow: Option<Blow>,
    kept: Kept,
) -> Result<(Clip, Recording, Recording)> {
    let mut cluster = Cluster::start_as(programs).await?;
    let clip = Clip::numbered(seconds(20)).await?;
    let api = cluster.api();
    let live = api.create("cluster").await?;
    let mut encoder = push(&clip, &live.push_url(), cluster.folder())?;
    let viewers = [1, 2].map(|edge| cluster.hls_url(edge, &live.playback_id));
    let one = Viewer::watch(&viewers[0]).await.with_context(|| cluster.tails())?;
    let two = Viewer::watch(&viewers[1]).await.with_context(|| cluster.tails())?;
    if let Some(blow) = blow {
        tokio::time::sleep(Duration::from_secs(6)).await;
        blow(&mut cluster).await?;
    }
    let status = encoder.wait(CLIP_LIMIT).await?;
    ensure!(status.success(), "the encoder failed\n{}\n{}", tail(&encoder), cluster.tails());
    api.stop_after_encoder(&live.id).await?;
    let one = one.finish().await.with_context(|| cluster.tails())?;
    let two = two.finish().await.with_context(|| cluster.tails())?;
    let facts = Facts::of(&cluster.nats.url(), &live.id).await?;
    facts.whole_life().await.with_context(|| cluster.tails())?;
    if kept == Kept::Everything {
        let of = |name: &'static str, track: &Track| {
            let numbers: Vec<u64> =
                track.segments.iter().filter(|(_, (_, b))| b.is_some()).map(|(n, _)| *n).collect();
            numbers.into_iter().map(move |number| (name.to_owned(), number))
        };
        let wanted = of("video", &one.video).chain(of("audio", &one.audio)).collect();
        facts.segments(wanted).await.with_context(|| cluster.tails())?;
    }
    Ok((clip, one, two))
}

fn whole(clip: &Clip, recording: &Recording) -> Result<()> {
    recording.video.check()?;
    recording.audio.check()?;
    same("access units", &clip.units.video, &recording.video.samples()?)?;
    same("audio frames", &clip.units.audio, &recording.audio.samples()?)?;
    ensure!(recording.video.discontinuities() == 0, "{} discontinuities", recording.video.discontinuities());
    Ok(())
}

/// Two edges behind one CDN: the same numbers, names and bytes.
fn agree(one: &Track, two: &Track) -> Result<()> {
    for (msn, (segment, bytes)) in &one.segments {
        if let Some((other, other_bytes)) = two.segments.get(msn) {
            ensure!(segment.uri == other.uri, "segment {msn} is {} and {}", segment.uri, other.uri);
            ensure!(bytes == other_bytes, "segment {msn} has two contents");
        }
    }
    Ok(())
}

/// Nodes that are struck run as commands of `millrace`, undisturbed ones each as its own program: it makes no difference.
async fn nothing_is_lost(blow: Option<Blow>) -> Result<()> {
    nothing_but(Kept::Everything, blow).await
}

async fn nothing_but(kept: Kept, blow: Option<Blow>) -> Result<()> {
    let _turn = TURN.lock().await;
    let programs = if blow.is_some() { Programs::One } else { Programs::Own };
    let (clip, one, two) = Box::pin(watch_through(programs, blow, kept)).await?;
    whole(&clip, &one)?;
    whole(&clip, &two)?;
    agree(&one.video, &two.video)?;
    agree(&one.audio, &two.audio)
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_serves_every_frame_once_at_both_edges() -> Result<()> {
    nothing_is_lost(None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_loses_no_frame() -> Result<()> {
    // Which of the two holds the job is the cluster's choice: the first is killed and comes back, then the second goes.
    let killed: Blow = |cluster| {
        Box::pin(async {
            cluster.kill(Node::Transcode(1))?;
            cluster.start_node(Node::Transcode(1)).await?;
            tokio::time::sleep(Duration::from_secs(6)).await;
            cluster.kill(Node::Transcode(2))
        })
    };
    nothing_but(Kept::Events, Some(killed)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_worker_hands_its_streams_over() -> Result<()> {
    // Drains as a roll-out does: one node after the other gets SIGTERM, ends in order, and comes back.
    nothing_is_lost(Some(|cluster| {
        Box::pin(async {
            for worker in [Node::Transcode(1), Node::Transcode(2)] {
                cluster.drain(worker).await?;
                cluster.start_node(worker).await?;
            }
            Ok(())
        })
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_edge_serves_the_same_bytes() -> Result<()> {
    nothing_is_lost(Some(|cluster| {
        Box::pin(async {
            cluster.kill(Node::Edge(1))?;
            cluster.start_node(Node::Edge(1)).await
        })
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_control_stops_no_stream() -> Result<()> {
    nothing_is_lost(Some(|cluster| {
        Box::pin(async {
            cluster.kill(Node::Control)?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            cluster.start_node(Node::Control).await
        })
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_object_store_loses_no_frame() -> Result<()> {
    nothing_is_lost(Some(|cluster| {
        Box::pin(async {
            cluster.minio.process().kill();
            tokio::time::sleep(Duration::from_secs(4)).await;
            cluster.minio.restart().await;
            Ok(())
        })
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_redis_stops_no_stream() -> Result<()> {
    nothing_is_lost(Some(|cluster| {
        Box::pin(async {
            cluster.redis.restart().await;
            Ok(())
        })
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_bus_loses_no_frame() -> Result<()> {
    nothing_is_lost(Some(|cluster| {
        Box::pin(async {
            cluster.nats.restart().await;
            Ok(())
        })
    }))
    .await
}
