//! Workers that die, drain and hang in the middle of a segment of a full ladder.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use millrace_testkit::programs::tail;
use millrace_testkit::wait;
use millrace_tests::api::Livestream;
use millrace_tests::cluster::{Cluster, Node};
use millrace_tests::compare::same;
use millrace_tests::facts::Facts;
use millrace_tests::known_clip::Clip;
use millrace_tests::ladder::children::encoders_of;
use millrace_tests::ladder::{
    COPY, Ladder, LadderWatch, RUNGS, longest_pause, outage, small_clip, small_rungs, until_mid_segment,
};
use millrace_tests::publish::push;

use crate::{TURN, create, finish, playlist};

/// Complete segments before the worker is struck in the middle of the next one.
const STRUCK: usize = 3;
/// Seconds of the clip.
const SECONDS: u32 = 18;
/// The requirements: the next part of the copied rendition, and every rendition back at the live edge.
const NEXT_PART_S: f64 = 2.0;
const BACK_S: f64 = 10.0;
/// A hand-over is shorter than the parts that players hold back, with what the viewer's own requests take.
const NO_STALL_S: f64 = 1.5;

/// The disturbance of the worker that has the job.
type Blow = for<'a> fn(&'a mut Cluster, Node) -> std::pin::Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A stream whose worker was struck.
struct Struck {
    ladder: Ladder,
    at: Instant,
}

/// Returns the worker that encodes.
fn holder(cluster: &mut Cluster) -> Result<Node> {
    for node in [Node::Transcode(1), Node::Transcode(2)] {
        if !encoders_of(cluster.node(node)?.pid()).is_empty() {
            return Ok(node);
        }
    }
    bail!("no worker encodes\n{}", cluster.tails())
}

/// Pushes a clip, strikes the worker in the middle of a segment, and checks that nothing is missing in any rendition.
async fn strike(blow: Blow) -> Result<Struck> {
    let mut cluster = Cluster::start().await?;
    let clip = Clip::numbered(small_clip(SECONDS)).await?;
    let api = cluster.api();
    let live = create(&api, "failover", &small_rungs()).await?;
    let mut encoder = push(&clip, &live.push_url(), cluster.folder())?;
    let hls_url = cluster.hls_url(1, &live.playback_id);
    let watch = LadderWatch::begin(&hls_url, &RUNGS).await.with_context(|| cluster.tails())?;
    until_mid_segment(&playlist(&hls_url, COPY)?, STRUCK, Duration::from_secs(30)).await?;
    let node = holder(&mut cluster)?;
    let at = Instant::now();
    blow(&mut cluster, node).await?;
    finish(&api, &live, &mut encoder).await.with_context(|| tail(&encoder))?;
    let ladder = watch.finish().await.with_context(|| cluster.tails())?;
    nothing_missing(&cluster, &live, &clip, &ladder).await.with_context(|| cluster.tails())?;
    Ok(Struck { ladder, at })
}

/// The same on the heap: the future is large.
fn struck(blow: Blow) -> std::pin::Pin<Box<impl Future<Output = Result<Struck>>>> {
    Box::pin(strike(blow))
}

async fn nothing_missing(cluster: &Cluster, live: &Livestream, clip: &Clip, ladder: &Ladder) -> Result<()> {
    ladder.playable()?;
    ladder.uninterrupted()?;
    same("access units", &clip.units.video, &ladder.track(COPY)?.samples()?)?;
    same("audio frames", &clip.units.audio, &ladder.track("audio")?.samples()?)?;
    ladder.complete(&RUNGS, clip.units.video.len()).await?;
    Facts::of(&cluster.nats.url(), &live.id).await?.whole_life().await?;
    ladder.stored(&cluster.store(), &live.playback_id).await
}

impl Struck {
    /// Fails unless every rendition is back at the live edge in time, and prints the measured times.
    fn came_back(&self) -> Result<()> {
        for (name, track) in &self.ladder.tracks {
            let outage = outage(track, self.at)?;
            println!(
                "{name}: paused for {:.2} s, at the live edge after {:.2} s",
                outage.pause, outage.back_at_edge
            );
            ensure!(name != COPY || outage.pause <= NEXT_PART_S, "{name}: {outage:?}");
            ensure!(outage.back_at_edge <= BACK_S, "{name}: {outage:?}");
        }
        Ok(())
    }

    /// Fails if a rendition paused for so long that players stall.
    fn did_not_stall(&self) -> Result<()> {
        for (name, track) in &self.ladder.tracks {
            let pause = longest_pause(track, self.at);
            println!("{name}: longest pause {pause:.2} s");
            ensure!(pause <= NO_STALL_S, "{name}: a pause of {pause:.2} s");
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_of_a_ladder_loses_no_frame_of_any_rung() -> Result<()> {
    let _turn = TURN.lock().await;
    let struck = struck(|cluster, node| {
        Box::pin(async move {
            let pid = cluster.node(node)?.pid();
            let children = encoders_of(pid);
            cluster.kill(node)?;
            wait::value("the encoders to die with their worker", Duration::from_secs(5), || async {
                children.iter().all(|id| !std::path::Path::new(&format!("/proc/{id}")).exists()).then_some(())
            })
            .await
        })
    })
    .await?;
    struck.came_back()
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_worker_of_a_ladder_hands_over_at_a_boundary_without_a_stall() -> Result<()> {
    let _turn = TURN.lock().await;
    struck(|cluster, node| Box::pin(cluster.drain(node))).await?.did_not_stall()
}

/// The first worker stops for as long as it takes the second to get its job, and goes on as if nothing had been: two workers
/// have one job.
#[tokio::test(flavor = "multi_thread")]
async fn readers_see_one_of_two_workers_that_have_one_job() -> Result<()> {
    let _turn = TURN.lock().await;
    let struck = struck(|cluster, node| {
        Box::pin(async move {
            let other = if node == Node::Transcode(1) { Node::Transcode(2) } else { Node::Transcode(1) };
            let other = cluster.node(other)?.pid();
            let first = cluster.node(node)?;
            first.pause();
            wait::value("the second worker to encode", Duration::from_secs(10), || async {
                (!encoders_of(other).is_empty()).then_some(())
            })
            .await?;
            first.resume();
            Ok(())
        })
    })
    .await?;
    struck.came_back()
}
