//! Pictures that pause or come rarely: variable frame rate, static scenes, one cover picture, slow cameras.

use anyhow::{Context, Result};
use millrace_media::codec::h264::ParameterSets;
use millrace_testkit::ClipSpec;
use millrace_tests::tape::{TagKind, Tape};

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

/// The last picture stands by its duration or is repeated as long as the pause, the rest stays strict.
fn lasting(longest_ms: f64) -> Want {
    Want {
        longest_ms,
        video_invented: 0..=800,
        short_parts: true,
        may_degrade: true,
        independent: false,
        strayed_ms: 40.0,
        apart_ms: 45.0,
        ..Want::whole()
    }
}

/// A camera of one picture every `step_ms`, each a keyframe.
async fn slow(pictures: u32, step_ms: i64, sound: bool) -> Result<Tape> {
    let intra = ClipSpec { frames: pictures, gop: 1, b_frames: 0, audio: false, ..ClipSpec::default() };
    let tape = Tape::of(intra).await?.video_alone().retime_pictures(|number| number as i64 * step_ms);
    if !sound {
        return Ok(tape);
    }
    let length = i64::from(pictures) * step_ms;
    let clip = Tape::numbered((length / 1000) as u32, 0).await?;
    Ok(tape.with_sound_of(clip))
}

/// A clip of x264 with these settings, whose pictures pause from 4 s to 8 s.
async fn paused(name: &str, x264: &str) -> Result<Tape> {
    let length = seconds().max(12);
    let spec = ClipSpec { frames: 30 * length, gop: 60, b_frames: 0, ..ClipSpec::default() };
    let arguments =
        format!("-c:a copy -c:v libx264 -preset veryfast -crf 26 -x264-params keyint=60:scenecut=0:{x264}");
    let tape = Tape::encoded(&format!("pauses-{name}-{length}"), spec, &arguments).await?;
    Ok(tape.keep_pictures(|number, _| !(120..240).contains(&number)))
}

/// The tape with the parameter sets of another one in its header, before its own.
fn with_sets_of(tape: Tape, other: &Tape) -> Result<Tape> {
    let mut sets = ParameterSets::default();
    for set in other.sets().iter().chain(&tape.sets()) {
        sets.insert(set).context("a parameter set")?;
    }
    let record = sets.record(Some(0)).context("a record of both")?;
    Ok(tape.map(|tag| {
        if tag.kind == TagKind::Video && tag.is_header() {
            tag.set_media(&record);
        }
    }))
}

pub(crate) const REPAIRS: &[(&str, u64, u64)] =
    &[("repeated_picture", 500, u64::MAX), ("segment_without_keyframe", 0, 30), ("picture_hole", 0, 5)];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let length = seconds().max(12);
    let clip = Tape::numbered(length, 0).await?;
    let mut cases = Vec::new();
    // A muted camera: the pictures stop, the sound goes on, and the pictures come back, with a keyframe or in the middle.
    for (name, from, until) in
        [("pause_of_5_s", 4.0, 9.0), ("pause_of_1_s", 4.0, 5.0), ("pause_in_a_gop", 4.5, 8.0)]
    {
        let choose = format!("not(gte(t,{from})*lt(t,{until}))");
        let tape = Tape::selected(&name.replace('_', "-"), length, &choose).await?;
        cases.push(Case::new(name, tape, lasting((until - from) * 1_000.0 + 40.0)).in_chromium());
    }
    let every_seventh = Tape::selected("every-seventh", length, "not(eq(mod(n,7),3))").await?;
    cases.push(Case::new("every_seventh_missing", every_seventh, lasting(68.0)).in_chromium());
    let scene = Tape::selected("scenes", length, "lt(mod(n,60),4)+eq(mod(n,20),0)").await?;
    cases.push(Case::new("static_scenes", scene, lasting(760.0)).in_chromium());
    let cover = slow(1, 1_000, false).await?.with_sound_of(clip.clone());
    let want = Want { health: vec!["The last picture is repeated"], ..lasting(20_000.0) };
    let cover = Case::new("one_cover_picture", cover, want).in_chromium();
    cases.push(Case { page_within: Some(9.0), ..cover });
    let stop = clip.clone().keep_pictures(|_, tag| tag.true_ms < 5_000);
    cases.push(Case::new("pictures_stop_for_good", stop, lasting(20_000.0)).in_chromium());
    let fields = paused("interlaced", "tff=1:bframes=0").await?;
    cases.push(Case::new("interlaced", fields, lasting(4_040.0)).in_chromium());
    let fields = paused("interlaced-b", "bff=1:bframes=2:cabac=0").await?;
    cases.push(Case::new("interlaced_with_b_frames", fields, lasting(4_040.0)));
    let sets =
        with_sets_of(paused("plain", "bframes=0").await?, &paused("other", "sps-id=1:cabac=0").await?)?;
    cases.push(Case::new("two_sets_of_parameters", sets, lasting(4_040.0)));
    for (name, pictures, step, sound) in [
        ("one_in_2_s_with_sound", 7, 2_000, true),
        ("one_in_4_s_with_sound", 4, 4_000, true),
        ("one_in_2_s_alone", 8, 2_000, false),
        ("one_in_5_s_alone", 5, 5_000, false),
        ("two_in_1_s_alone", 24, 500, false),
    ] {
        let tape = slow(pictures, step, sound).await?;
        let want =
            Want { playable_within_s: 4.0 + 2.0 * step as f64 / 1000.0, ..lasting(step as f64 + 20.0) };
        cases.push(Case::new(name, tape, want).in_chromium());
    }
    Ok(cases)
}
