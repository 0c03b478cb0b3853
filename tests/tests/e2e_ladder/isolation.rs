//! Processes that encode and die, hang or run out of memory: the copied rendition and other streams lose nothing, and the rungs
//! only what was announced of the open segment and does not fit what follows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_testkit::Process;
use millrace_testkit::programs::tail;
use millrace_testkit::wait;
use millrace_tests::api::Livestream;
use millrace_tests::compare::same;
use millrace_tests::known_clip::Clip;
use millrace_tests::ladder::children::{encoders_of, new_encoder_of, signal};
use millrace_tests::ladder::rules::in_step;
use millrace_tests::ladder::{
    COPY, Ladder, LadderWatch, RUNGS, gaps, longest_pause, pictures, small_clip, small_rungs,
    until_mid_segment,
};
use millrace_tests::publish::push;
use millrace_tests::standalone::Standalone;

use crate::{ROOM, TURN, create, finish, playlist};

/// Complete segments before a process is struck in the middle of the next one.
const STRUCK: usize = 3;
/// The longest pause of a rung whose process hung: players three target durations behind the source see nothing of it.
const HELD_BACK_S: f64 = 6.0;
/// Deaths after which the rungs are left out for longer.
const DEATHS: usize = 3;

/// A stream, and the process that encodes it.
struct Publish {
    live: Livestream,
    encoder: Process,
    watch: LadderWatch,
    child: u32,
}

impl Publish {
    async fn begin(server: &mut Standalone, clip: &Clip, title: &str) -> Result<Self> {
        let parent = server.process().pid();
        let known = encoders_of(parent);
        let live = create(&server.api(), title, &small_rungs()).await?;
        let encoder = push(clip, &live.push_url(), server.folder())?;
        let child = new_encoder_of(parent, &known).await.with_context(|| tail(server.process()))?;
        let watch =
            LadderWatch::begin(&live.hls_url, &RUNGS).await.with_context(|| tail(server.process()))?;
        Ok(Self { live, encoder, watch, child })
    }

    async fn mid_segment(&self, complete: usize) -> Result<u64> {
        until_mid_segment(&playlist(&self.live.hls_url, COPY)?, complete, Duration::from_secs(30)).await
    }

    /// Waits for the end. The copied rendition must be whole, and the rungs in step where they are not GAP.
    async fn finish(mut self, server: &mut Standalone, clip: &Clip) -> Result<Ladder> {
        finish(&server.api(), &self.live, &mut self.encoder).await?;
        let ladder = self.watch.finish().await?;
        ladder.playable()?;
        let copy = ladder.track(COPY)?;
        same("access units", &clip.units.video, &copy.samples()?)?;
        same("audio frames", &clip.units.audio, &ladder.track("audio")?.samples()?)?;
        for name in RUNGS {
            let rung = ladder.track(name)?;
            in_step(copy, rung, 1)?;
            ensure!(rung.inits.len() == 1 && rung.discontinuities() == 0, "{name}: {:?}", rung.inits.keys());
            pictures::same_pictures(copy, rung, 1).await?;
        }
        Ok(ladder)
    }
}

/// Fails unless the rungs lack the segment `struck` at most, and no more than `most` segments.
fn lacks(ladder: &Ladder, struck: u64, most: usize) -> Result<()> {
    for name in RUNGS {
        let gaps = gaps(ladder.track(COPY)?, ladder.track(name)?);
        println!("{name}: GAPs {gaps:?} after {struck} was struck");
        ensure!(gaps.len() <= most, "{name}: GAPs {gaps:?}, struck in {struck}");
        let are_near = gaps.iter().all(|msn| (struck.saturating_sub(1)..=struck + most as u64).contains(msn));
        ensure!(are_near, "{name}: GAPs {gaps:?}, struck in {struck}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_hung_encoders_cost_no_rendition_a_segment() -> Result<()> {
    let _turn = TURN.lock().await;
    let mut server = Standalone::start_with(ROOM).await?;
    let clip = Clip::numbered(small_clip(24)).await?;
    let killed = Publish::begin(&mut server, &clip, "killed").await?;
    let hung = Publish::begin(&mut server, &clip, "hung").await?;
    let neighbour = Publish::begin(&mut server, &clip, "neighbour").await?;

    let struck = killed.mid_segment(STRUCK).await?;
    signal(killed.child, "KILL")?;
    let stopped = hung.mid_segment(STRUCK).await?;
    signal(hung.child, "STOP")?;
    let at = Instant::now();

    let ladder = killed.finish(&mut server, &clip).await.context("killed")?;
    lacks(&ladder, struck, 0)?;
    let ladder = hung.finish(&mut server, &clip).await.context("hung")?;
    lacks(&ladder, stopped, 0)?;
    for name in RUNGS {
        let pause = longest_pause(ladder.track(name)?, at);
        println!("{name}: longest pause {pause:.2} s after a hang");
        ensure!(pause < HELD_BACK_S, "{name}: a pause of {pause:.2} s");
    }
    let ladder = neighbour.finish(&mut server, &clip).await.context("neighbour")?;
    ladder.uninterrupted()?;
    ladder.complete(&RUNGS, clip.units.video.len()).await?;
    let log = server.process().output();
    ensure!(
        log.contains("SIGKILL"),
        "the log does not tell of the killed process\n{}",
        tail(server.process())
    );
    ensure!(
        log.contains("made nothing for"),
        "the log does not tell of the hung process\n{}",
        tail(server.process())
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn encoder_that_dies_again_and_again_degrades_the_stream_which_recovers() -> Result<()> {
    let _turn = TURN.lock().await;
    let mut server = Standalone::start_with(ROOM).await?;
    let clip = Clip::numbered(small_clip(24)).await?;
    let stream = Publish::begin(&mut server, &clip, "dying").await?;
    let first = stream.mid_segment(2).await?;
    let parent = server.process().pid();
    let (mut known, mut child) = (vec![stream.child], stream.child);
    for death in 1..=DEATHS {
        signal(child, "KILL")?;
        if death < DEATHS {
            child = new_encoder_of(parent, &known).await?;
            known.push(child);
        }
    }
    let api = server.api();
    let state = wait::value("a degraded stream", Duration::from_secs(10), || async {
        let status = api.status(&stream.live.id).await.ok()?;
        (status["health"]["state"] == "degraded").then_some(status)
    })
    .await?;
    ensure!(state["health"]["message"].as_str().is_some_and(|text| text.contains("encode")), "{state}");
    let after = new_encoder_of(parent, &known).await.context("the next trial")?;
    wait::value("a stream that has recovered", Duration::from_secs(20), || async {
        (api.status(&stream.live.id).await.ok()?["health"]["state"] == "ok").then_some(())
    })
    .await?;
    ensure!(encoders_of(parent).contains(&after), "the process that followed has ended");
    let ladder = stream.finish(&mut server, &clip).await?;
    for name in RUNGS {
        let gaps = gaps(ladder.track(COPY)?, ladder.track(name)?);
        println!("{name}: GAPs {gaps:?} after {DEATHS} deaths from segment {first} on");
        ensure!((1..=3).contains(&gaps.len()), "{name}: GAPs {gaps:?}");
    }
    Ok(())
}
