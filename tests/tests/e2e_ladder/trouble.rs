//! Sources in trouble, pushed side by side: each loses what it must, and the stream beside them nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::{ClipSpec, wait};
use millrace_tests::ladder::rules::in_step;
use millrace_tests::ladder::{COPY, Ladder, LadderWatch, RUNGS, held, pictures, small_clip, small_rungs};
use millrace_tests::standalone::Standalone;
use millrace_tests::tape::Tape;
use millrace_tests::tape::send::send;

use crate::{ROOM, TURN, create};

/// Sends a tape into a ladder and returns the renditions, of which there must be these.
async fn served_as(server: &Standalone, name: &'static str, tape: Tape, wanted: &[&str]) -> Result<Ladder> {
    let api = server.api();
    let live = create(&api, name, &small_rungs()).await?;
    let url = live.push_url();
    let sending = tokio::spawn(async move { send(&tape, &url).await });
    let watch = LadderWatch::begin(&live.hls_url, wanted).await.context(name)?;
    let told = sending.await.context("a sender's task")??;
    ensure!(told.refused.is_none(), "{name}: {told:?}");
    api.stop_after_encoder(&live.id).await?;
    watch.finish().await.context(name)
}

async fn served(server: &Standalone, name: &'static str, tape: Tape) -> Result<Ladder> {
    served_as(server, name, tape, &RUNGS).await
}

/// The picture before lost ones lasts longer than others, so a part may end early for it.
const SHORT_PARTS: &[&str] = &["PartTooShort"];

/// Fails unless the rungs have every segment of the source, in step, with `discontinuities` and as many initialisation sections
/// as sizes.
fn whole(ladder: &Ladder, discontinuities: usize, sizes: usize, excused: &[&str]) -> Result<()> {
    for track in ladder.tracks.values() {
        track.check_but(excused)?;
    }
    let copy = ladder.track(COPY)?;
    for name in RUNGS {
        let rung = ladder.track(name)?;
        let compared = in_step(copy, rung, 1)?;
        ensure!(compared == held(copy), "{name}: {compared} of {} segments", held(copy));
        let found = rung.discontinuities();
        ensure!(found == discontinuities, "{name}: {found} discontinuities");
        ensure!(rung.inits.len() == sizes, "{name}: {:?}", rung.inits.keys());
    }
    Ok(())
}

/// Two sizes in one publish.
async fn two_sizes() -> Result<Tape> {
    let spec = ClipSpec { frames: 180, gop: 60, b_frames: 0, audio: false, ..small_clip(6) };
    let other = ClipSpec { width: 480, height: 270, first: 180, ..spec.clone() };
    Ok(Tape::of(spec).await?.video_alone().then(6_000, Tape::of(other).await?.video_alone()))
}

/// Every fifth picture between keyframes has damaged slices.
fn damaged(tape: Tape) -> Tape {
    tape.map_pictures(|number, tag| {
        if number % 5 == 2 && !tag.is_keyframe() {
            let mut media = tag.media().to_vec();
            let from = media.len() / 3;
            media[from..].iter_mut().for_each(|byte| *byte ^= 0x5a);
            tag.set_media(&media);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_a_source_reaches_its_own_rungs_only() -> Result<()> {
    let _turn = TURN.lock().await;
    let server = Standalone::start_with(ROOM).await?;
    let clip = small_clip(14);
    let numbered = Tape::of(clip.clone()).await?;
    // The second keyframe and the five pictures behind it.
    let lost = Tape::of(ClipSpec { b_frames: 0, ..clip.clone() }).await?;
    let lost = lost.keep_pictures(|number, _| !(120..126).contains(&number) && number != 200);
    let sparse = Tape::of(ClipSpec { gop: 300, ..clip.clone() }).await?;
    let slow = Tape::of(ClipSpec { fps: 1, frames: 16, gop: 4, b_frames: 0, ..clip.clone() }).await?;
    let (plain, sizes, lost, sparse, slow) = tokio::join!(
        served(&server, "neighbour", numbered),
        async { served(&server, "sizes", two_sizes().await?).await },
        served(&server, "lost", lost),
        served(&server, "sparse", sparse),
        served(&server, "one-fps", slow),
    );
    let plain = plain?;
    plain.playable()?;
    plain.uninterrupted().context("neighbour")?;
    plain.complete(&RUNGS, clip.frames as usize).await.context("neighbour")?;
    let sizes = sizes?;
    whole(&sizes, 1, 2, &[]).context("two sizes")?;
    for name in RUNGS {
        let shown = pictures::shown(sizes.track(name)?).await?;
        let wanted: Vec<Option<u16>> = (0..360).map(Some).collect();
        ensure!(shown == wanted, "{name}: {shown:?}");
    }
    whole(&lost?, 0, 1, SHORT_PARTS).context("lost pictures")?;
    let sparse = sparse?;
    whole(&sparse, 0, 1, &[]).context("keyframes 10 s apart")?;
    let starts = held(sparse.track(COPY)?);
    ensure!(starts >= 6, "keyframes 10 s apart: {starts} segments");
    whole(&slow?, 0, 1, &[]).context("one picture a second")
}

/// Clocks that jump, damaged slices, the highest rate, and pictures that are smaller than every rung.
#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_clocks_slices_rates_and_sizes_leaves_the_rungs_in_step() -> Result<()> {
    let _turn = TURN.lock().await;
    let server = Standalone::start_with(ROOM).await?;
    let clip = ClipSpec { b_frames: 0, ..small_clip(10) };
    let tape = Tape::of(clip.clone()).await?;
    let fast = ClipSpec { width: 426, height: 240, fps: 120, frames: 960, gop: 240, ..clip };
    let tiny =
        "-f lavfi -i testsrc2=s=16x16:r=30:d=8 -c:v libx264 -preset ultrafast -g 60 -bf 0 -pix_fmt yuv420p";
    let (ahead, back, slices, fast, tiny) = tokio::join!(
        served(&server, "ahead", tape.clone().step_clock(5_000, 60_000, |_| true)),
        served(&server, "back", tape.clone().step_clock(5_000, -4_000, |_| true)),
        served(&server, "slices", damaged(tape)),
        async { served(&server, "120-fps", Tape::of(fast).await?).await },
        async { served_as(&server, "16x16", Tape::made("ladder-8-tiny", tiny).await?, &[COPY]).await },
    );
    whole(&ahead?, 1, 1, &[]).context("a minute ahead")?;
    whole(&back?, 1, 1, &[]).context("four seconds back")?;
    whole(&slices?, 0, 1, &[]).context("damaged slices")?;
    let fast = fast?;
    whole(&fast, 0, 1, &[]).context("120 pictures a second")?;
    for name in RUNGS {
        let shown = pictures::shown(fast.track(name)?).await?;
        ensure!(shown.len() == 960, "{name}: {} pictures of 120 a second", shown.len());
    }
    let tiny = tiny?;
    tiny.playable().context("16x16")?;
    ensure!(tiny.tracks.len() == 1 && held(tiny.track(COPY)?) >= 4, "16x16: {:?}", tiny.tracks.keys());
    Ok(())
}

/// What no decoder takes is refused in words that the encoder shows.
#[tokio::test(flavor = "multi_thread")]
async fn sound_that_is_not_decoded_is_refused_with_a_reason_that_the_encoder_shows() -> Result<()> {
    let server = Standalone::start_with(ROOM).await?;
    let picture = "-f lavfi -i testsrc2=s=320x180:r=30:d=4 -c:v libx264 -preset ultrafast -g 60";
    for (name, sound) in [
        ("Speex", "-f lavfi -i sine=r=16000:d=4 -c:a libspeex -ac 1 -ar 16000"),
        ("Nellymoser", "-f lavfi -i sine=r=44100:d=4 -c:a nellymoser -ac 1 -ar 44100"),
    ] {
        let (input, codec) = sound.split_once(" -c:a").context("a codec")?;
        let (pictures, video) = picture.split_once(" -c:v").context("a codec")?;
        let arguments = format!("{pictures} {input} -c:v{video} -c:a{codec}");
        let tape = Tape::made(&format!("ladder-{name}"), &arguments).await?;
        let live = create(&server.api(), name, &small_rungs()).await?;
        let told = send(&tape, &live.push_url()).await?;
        let (_, words) = told.refused.clone().with_context(|| format!("{name}: {told:?}"))?;
        ensure!(words.contains(name), "{name}: {words}");
        wait::value("the reason in the status", Duration::from_secs(10), || async {
            let status = server.api().status(&live.id).await.ok()?;
            let last = &status["last_disconnect"];
            (last["code"] == "codec_not_accepted" && last["text"].as_str()?.contains(name)).then_some(())
        })
        .await?;
    }
    Ok(())
}
