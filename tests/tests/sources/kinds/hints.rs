//! Preload hints, at every distance of keyframes: each hint names what will come and is answered.

use anyhow::Result;
use millrace_testkit::ClipSpec;
use millrace_tests::known_clip::Clip;
use millrace_tests::tape::Tape;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

pub(crate) const REPAIRS: &[(&str, u64, u64)] = &[("segment_without_keyframe", 5, 12)];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (fps, gop, b_frames) in [(30, 60, 0), (30, 50, 2), (25, 59, 0), (60, 130, 2)] {
        let spec = ClipSpec { frames: fps * seconds(), fps, gop, b_frames, ..ClipSpec::default() };
        let frame_ms = 1_000.0 / f64::from(fps);
        let want = Want { shortest_ms: frame_ms - 2.0, longest_ms: frame_ms + 2.0, ..Want::whole() };
        cases.push(Case::new(format!("{fps}_fps_gop_{gop}"), Tape::of(spec).await?, want));
    }
    let long = ClipSpec { frames: 30 * seconds().max(12), gop: 250, ..ClipSpec::default() };
    let want = Want {
        independent: false,
        health: vec!["set the encoder's keyframe interval to 2 s"],
        ..Want::whole()
    };
    cases.push(Case::new("gop_of_8_s", Tape::of(long).await?, want));
    // 2.5 s: the time between two keyframes is divided evenly, and every other segment begins without one.
    let halves = ClipSpec { frames: 24 * seconds().max(12), fps: 24, gop: 60, ..ClipSpec::default() };
    let want = Want {
        independent: false,
        longest_ms: 43.7,
        health: vec!["set the encoder's keyframe interval to 2 s"],
        ..Want::whole()
    };
    cases.push(Case::new("24_fps_gop_60", Tape::of(halves).await?, want));
    let tone = Tape::open(&Clip::tone(seconds()).await?.path)?;
    cases.push(Case::new("sound_alone", tone, Want::whole()));
    Ok(cases)
}
