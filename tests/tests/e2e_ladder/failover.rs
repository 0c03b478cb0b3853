//! Workers that die, drain and hang in the middle of a segment of a full ladder.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_testkit::programs::tail;
use millrace_testkit::{ClipSpec, tone, wait};
use millrace_tests::api::Livestream;
use millrace_tests::cluster::{Cluster, Node};
use millrace_tests::compare::same;
use millrace_tests::facts::Facts;
use millrace_tests::known_clip::Clip;
use millrace_tests::ladder::children::encoders_of;
use millrace_tests::ladder::rules::sound_in_step;
use millrace_tests::ladder::{
    COPY, Ladder, LadderWatch, RUNGS, held, longest_pause, outage, small_clip, small_rungs, until_mid_segment,
};
use millrace_tests::publish::push;
use millrace_tests::tape::Tape;
use millrace_tests::viewer::Track;

use crate::{TURN, create, finish, holder, playlist};

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

/// The tone of the sound that is encoded, in Hz.
const TONE: f64 = 997.0;
/// The rendition of sound that is encoded, and its rate.
const ENCODED_SOUND: &str = "aac";
const SOUND_RATE: f64 = 48_000.0;
/// The renditions that are encoded of a source with such sound.
const RUNGS_AND_SOUND: [&str; 3] = [RUNGS[0], RUNGS[1], ENCODED_SOUND];
/// Samples at the beginning and at the end of a clip in which its own encoder ramps up and down.
const RAMPS: (usize, usize) = (16 * 1024, 8 * 1024);
/// The loudest sound beside a tone, as a share of it: two encoders at these rates leave less than half of it, a click several times it.
const NO_CLICK: f64 = 0.15;

/// The publish that is struck.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Keyframes every 2 s, and sound that is copied.
    Plain,
    /// Keyframes every 10 s, so that most segments begin without one, and a tone in mono of 44.1 kHz, which is encoded.
    Sparse,
}

impl Source {
    const fn renditions(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &RUNGS,
            Self::Sparse => &RUNGS_AND_SOUND,
        }
    }

    async fn clip(self, folder: &Path) -> Result<Clip> {
        if matches!(self, Self::Plain) {
            return Clip::numbered(small_clip(SECONDS)).await;
        }
        let spec = ClipSpec { gop: 300, audio: false, ..small_clip(SECONDS) };
        let sound = format!("-f lavfi -i sine=f={TONE}:r=44100:d={SECONDS} -c:a aac -ac 1 -b:a 96k");
        let sound = Tape::made(&format!("tone-{TONE}-mono-{SECONDS}"), &sound).await?;
        let path = folder.join("sparse.flv");
        Tape::of(spec).await?.video_alone().with_sound_of(sound).write(&path)?;
        Clip::open(&path)
    }
}

/// Fails if the sound of a rendition holds anything but the tone.
async fn no_click(track: &Track) -> Result<()> {
    let segments = track.segments.values().filter_map(|(_, bytes)| bytes.as_ref());
    let file: Vec<_> = track.inits.values().take(1).chain(segments).cloned().collect();
    let samples = tone::samples(&file.concat()).await?;
    let heard = samples.get(RAMPS.0..samples.len().saturating_sub(RAMPS.1)).context("sound")?;
    let rests = tone::rests(heard, TONE, SOUND_RATE);
    let loudest = rests.iter().enumerate().max_by(|left, right| left.1.total_cmp(right.1));
    let (window, share) = loudest.context("sound")?;
    let at = (RAMPS.0 + tone::start_of(window)) as f64 / SOUND_RATE;
    println!("{ENCODED_SOUND}: the loudest beside the tone is {share:.4} of it, at {at:.2} s");
    ensure!(*share < NO_CLICK, "a click of {share:.3} at {at:.2} s");
    Ok(())
}

/// Pushes a clip, strikes the worker in the middle of a segment, and checks that nothing is missing in any rendition.
async fn strike(source: Source, blow: Blow) -> Result<Struck> {
    let mut cluster = Cluster::start().await?;
    let clip = source.clip(cluster.folder()).await?;
    let api = cluster.api();
    let live = create(&api, "failover", &small_rungs()).await?;
    let mut encoder = push(&clip, &live.push_url(), cluster.folder())?;
    let hls_url = cluster.hls_url(1, &live.playback_id);
    let watch = LadderWatch::begin(&hls_url, source.renditions()).await.with_context(|| cluster.tails())?;
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
fn struck(source: Source, blow: Blow) -> std::pin::Pin<Box<impl Future<Output = Result<Struck>>>> {
    Box::pin(strike(source, blow))
}

async fn nothing_missing(cluster: &Cluster, live: &Livestream, clip: &Clip, ladder: &Ladder) -> Result<()> {
    ladder.playable()?;
    ladder.uninterrupted()?;
    same("access units", &clip.units.video, &ladder.track(COPY)?.samples()?)?;
    match ladder.tracks.get(ENCODED_SOUND) {
        Some(encoded) => {
            let copy = ladder.track(COPY)?;
            ensure!(sound_in_step(copy, encoded)? + 1 >= held(copy), "segments without sound");
            no_click(encoded).await?;
        }
        None => same("audio frames", &clip.units.audio, &ladder.track("audio")?.samples()?)?,
    }
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
    let struck = struck(Source::Plain, |cluster, node| {
        Box::pin(async move {
            let pid = cluster.node(node)?.pid();
            let children = encoders_of(pid);
            cluster.kill(node)?;
            wait::value("the encoders to die with their worker", Duration::from_secs(5), || async {
                children.iter().all(|id| !Path::new(&format!("/proc/{id}")).exists()).then_some(())
            })
            .await
        })
    })
    .await?;
    struck.came_back()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_leaves_no_click_and_no_hole_where_segments_begin_without_keyframes() -> Result<()> {
    let _turn = TURN.lock().await;
    let blow: Blow = |cluster, node| Box::pin(async move { cluster.kill(node) });
    struck(Source::Sparse, blow).await?.came_back()
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_worker_of_a_ladder_hands_over_at_a_boundary_without_a_stall() -> Result<()> {
    let _turn = TURN.lock().await;
    struck(Source::Sparse, |cluster, node| Box::pin(cluster.drain(node))).await?.did_not_stall()
}

/// The first worker stops for as long as it takes the second to get its job, and goes on as if nothing had been: two workers
/// have one job.
#[tokio::test(flavor = "multi_thread")]
async fn readers_see_one_of_two_workers_that_have_one_job() -> Result<()> {
    let _turn = TURN.lock().await;
    let struck = struck(Source::Plain, |cluster, node| {
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
