//! Ladders that run for as long as MILLRACE_LADDER_MINUTES says: equal numbers stay equal media times in all renditions.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use millrace_testkit::ClipSpec;
use millrace_tests::ladder::rules::{in_step, sound_in_step};
use millrace_tests::ladder::{COPY, LadderWatch, gaps, held, pictures, small_clip};
use millrace_tests::standalone::Standalone;
use millrace_tests::tape::Tape;
use millrace_tests::tape::send::send;
use serde_json::json;

/// The minutes of a run that says nothing else.
const MINUTES: u32 = 10;
/// Seconds of the clips that are sent again and again.
const CLIP_SECONDS: u32 = 60;

/// Numbered pictures of `fps` × 1000/1001 pictures a second; the clip lasts `CLIP_SECONDS` × 1001/1000.
async fn of_ntsc(fps: u32) -> Result<(Tape, i64)> {
    let spec = ClipSpec { fps, frames: fps * CLIP_SECONDS, gop: 1, b_frames: 0, ..small_clip(CLIP_SECONDS) };
    let spec = ClipSpec { audio: false, ..spec };
    let arguments = format!(
        "-an -vf setpts=N*1001/({fps}000*TB) -fps_mode passthrough -c:v libx264 -preset veryfast -crf 26 -bf 2 -g {} \
         -sc_threshold 0",
        2 * fps
    );
    let tape = Tape::encoded(&format!("ntsc-360-{fps}"), spec, &arguments).await?.video_alone();
    Ok((tape, i64::from(CLIP_SECONDS) * 1_001))
}

/// Pictures at uneven times: one of 31 is lost, then five, and each third half-second has half of them.
async fn of_uneven_times() -> Result<(Tape, i64)> {
    let choose =
        "not(eq(mod(n,31),17))*not(between(mod(n,400),301,305))*not(eq(mod(floor(n/15),3),1)*eq(mod(n,2),1))";
    let tape = Tape::selected("uneven", CLIP_SECONDS, choose).await?.video_alone();
    Ok((tape, i64::from(CLIP_SECONDS) * 1_000))
}

/// Sends the clip again and again for the length of the run, beside a mono tone of 44.1 kHz.
async fn run(server: &Standalone, name: &str, (clip, length_ms): (Tape, i64), minutes: u32) -> Result<()> {
    let mut tape = Tape::default();
    for round in 0..minutes {
        tape = tape.then(i64::from(round) * length_ms, clip.clone());
    }
    let seconds = minutes * CLIP_SECONDS;
    let sound = format!("-f lavfi -i sine=r=44100:d={seconds} -c:a aac -ac 1 -b:a 64k");
    let tape = tape.with_sound_of(Tape::made(&format!("tone-mono-{seconds}"), &sound).await?);
    let rungs = json!([{ "height": 180, "bitrate": 300_000 }, { "height": 144, "bitrate": 200_000, "preset": "ultrafast" }]);
    let live = server.api().create_with(json!({ "title": name, "ladder": rungs })).await?;
    let url = live.push_url();
    let sending = tokio::spawn(async move { send(&tape, &url).await });
    let watch = LadderWatch::begin(&live.hls_url, &["180p", "144p", "aac"]).await.context("renditions")?;
    let told = sending.await.context("the sender's task")??;
    ensure!(told.refused.is_none() && !told.closed, "{told:?}");
    server.api().stop_after_encoder(&live.id).await?;
    let ladder = watch.finish().await?;
    for track in ladder.tracks.values() {
        // The picture before lost ones lasts longer than others, so a part may end early for it.
        track.check_but(if name == "uneven" { &["PartTooShort"] } else { &[] })?;
    }
    let copy = ladder.track(COPY)?;
    for rung in ["180p", "144p"] {
        let track = ladder.track(rung)?;
        let compared = in_step(copy, track, 1)?;
        println!(
            "{name} {rung}: {compared} of {} segments in step, GAPs {:?}",
            held(copy),
            gaps(copy, track)
        );
        ensure!(compared == held(copy), "{rung}: {compared} of {}", held(copy));
        let shown = pictures::same_pictures(copy, track, 1).await?;
        println!("{name} {rung}: {shown} pictures are the source's");
    }
    let sounds = sound_in_step(copy, ladder.track("aac")?)?;
    println!("{name} aac: {sounds} segments in step");
    ensure!(sounds + 1 >= held(copy), "aac: {sounds} of {}", held(copy));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn renditions_of_ntsc_and_uneven_sources_stay_in_step_to_the_end() -> Result<()> {
    let minutes =
        std::env::var("MILLRACE_LADDER_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(MINUTES);
    let server = Standalone::start_with("[transcode]\ncapacity = 5000\n").await?;
    let (slow, fast, uneven) = (of_ntsc(30).await?, of_ntsc(60).await?, of_uneven_times().await?);
    let (slow, fast, uneven) = tokio::join!(
        run(&server, "29.97", slow, minutes),
        run(&server, "59.94", fast, minutes),
        run(&server, "uneven", uneven, minutes),
    );
    slow.context("29.97")?;
    fast.context("59.94")?;
    uneven.context("uneven")
}
