//! A worker that is too slow for its ladder: rungs are shed from the top, in words, and taken back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::wait;
use millrace_tests::cluster::Cluster;
use millrace_tests::compare::same;
use millrace_tests::facts::Facts;
use millrace_tests::known_clip::Clip;
use millrace_tests::ladder::children::{Slowed, encoders_of};
use millrace_tests::ladder::rules::in_step;
use millrace_tests::ladder::{COPY, LadderWatch, RUNGS, gaps, pictures, small_clip, small_rungs};
use millrace_tests::publish::push;
use millrace_tests::standalone::Standalone;
use millrace_wire::message::control::LifecycleKind;

use crate::{TURN, create, finish, holder};

/// The share of its time that the slow process gets, in percent: less than one rung needs.
const SLOW_PERCENT: u32 = 2;
/// Two seconds of lag, three samples, and the time in which a change shows.
const SHED_LIMIT: Duration = Duration::from_secs(25);
/// Twenty seconds of calm, and the lag that must go first.
const BACK_LIMIT: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread")]
async fn slow_worker_sheds_the_highest_rung_in_words_and_takes_it_back() -> Result<()> {
    // It waits for calm most of the time, so it takes no turn.
    let mut cluster = Cluster::start().await?;
    let api = cluster.api();
    let clip = Clip::numbered(small_clip(80)).await?;
    let live = create(&api, "slow", &small_rungs()).await?;
    let mut encoder = push(&clip, &live.push_url(), cluster.folder())?;
    let hls_url = cluster.hls_url(1, &live.playback_id);
    let watch = LadderWatch::begin(&hls_url, &RUNGS).await.with_context(|| cluster.tails())?;
    let worker = holder(&mut cluster)?;
    let children = encoders_of(cluster.node(worker)?.pid());
    let slowed = Slowed::down_to(*children.first().context("no process encodes")?, SLOW_PERCENT);
    let status = wait::value("a shed rung", SHED_LIMIT, || async {
        let status = api.status(&live.id).await.ok()?;
        (status["health"]["state"] == "degraded").then_some(status)
    })
    .await
    .with_context(|| cluster.tails())?;
    let words = status["health"].to_string();
    ensure!(words.contains("rung"), "{status}");
    let metrics = cluster.metrics(worker).await?;
    let shed = metrics.lines().find_map(|line| line.strip_prefix("millrace_transcode_rungs_shed "));
    let shed: usize = shed.context("no metric of shed rungs")?.trim().parse()?;
    ensure!((1..=RUNGS.len()).contains(&shed), "{shed} rungs are shed");
    drop(slowed);
    wait::value("the rung to be taken back", BACK_LIMIT, || async {
        (api.status(&live.id).await.ok()?["health"]["state"] == "ok").then_some(())
    })
    .await
    .with_context(|| cluster.tails())?;
    finish(&api, &live, &mut encoder).await?;
    told_of_shed_rungs(&Facts::of(&cluster.nats.url(), &live.id).await?.whole_life().await?)?;
    let ladder = watch.finish().await?;
    ladder.playable()?;
    let copy = ladder.track(COPY)?;
    same("access units", &clip.units.video, &copy.samples()?)?;
    for name in RUNGS {
        let rung = ladder.track(name)?;
        in_step(copy, rung, 1)?;
        pictures::same_pictures(copy, rung, 1).await?;
        println!("{name}: GAPs {:?}", gaps(copy, rung));
    }
    let lost = |name: &str| ladder.track(name).map(|track| gaps(copy, track).len());
    ensure!(lost("240p")? >= lost("144p")?, "the lower rung lacks more than the higher one");
    Ok(())
}

/// Fails unless the events tell of rungs that were left out, and at last of none.
fn told_of_shed_rungs(life: &[LifecycleKind]) -> Result<()> {
    let told = life.iter().filter_map(|kind| match kind {
        LifecycleKind::RungsLeftOut { rungs } => Some(*rungs),
        _ => None,
    });
    let told: Vec<u8> = told.collect();
    ensure!(told.first() >= Some(&1) && told.last() == Some(&0), "rungs left out: {told:?} of {life:?}");
    Ok(())
}

/// A ladder of the tests costs 52 units, and a quarter of the capacity is for copies alone.
const ROOM_FOR_ONE: &str = "[transcode]\ncapacity = 100\n";

#[tokio::test(flavor = "multi_thread")]
async fn full_worker_copies_a_stream_in_words_and_encodes_it_once_there_is_room() -> Result<()> {
    let _turn = TURN.lock().await;
    let server = Standalone::start_with(ROOM_FOR_ONE).await?;
    let api = server.api();
    let clip = Clip::numbered(small_clip(24)).await?;
    let first = create(&api, "first", &small_rungs()).await?;
    let mut first_encoder = push(&clip, &first.push_url(), server.folder())?;
    let first_watch = LadderWatch::begin(&first.hls_url, &RUNGS).await?;
    let second = create(&api, "second", &small_rungs()).await?;
    let mut second_encoder = push(&clip, &second.push_url(), server.folder())?;
    let second_watch = LadderWatch::begin(&second.hls_url, &[COPY]).await?;
    let status = wait::value("a stream that is copied for want of room", SHED_LIMIT, || async {
        let status = api.status(&second.id).await.ok()?;
        (status["health"]["state"] == "degraded").then_some(status)
    })
    .await?;
    let words = status["health"]["message"].as_str().unwrap_or_default();
    ensure!(words.contains("no capacity to encode"), "{status}");
    first_encoder.kill();
    api.stop(&first.id).await?;
    first_watch.finish().await?.playable()?;
    let whole =
        LadderWatch::begin(&second.hls_url, &RUNGS).await.context("the rungs of the second stream")?;
    finish(&api, &second, &mut second_encoder).await?;
    let ladder = whole.finish().await?;
    ladder.playable()?;
    let copied = second_watch.finish().await?;
    same("access units", &clip.units.video, &copied.track(COPY)?.samples()?)?;
    ensure!(copied.track(COPY)?.discontinuities() == 0, "the copy has discontinuities");
    for name in RUNGS {
        let compared = in_step(ladder.track(COPY)?, ladder.track(name)?, 1)?;
        ensure!(compared > 2, "{name}: {compared} segments");
    }
    Ok(())
}
