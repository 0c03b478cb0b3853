//! Configurations that change within one publish.

use anyhow::Result;
use millrace_testkit::ClipSpec;
use millrace_tests::tape::Tape;
use millrace_wire::close_reason::CloseReason;

use crate::seen::Case;
use crate::want::Want;

/// Clips of one length and two sizes, sound in none.
async fn sizes(frames: u32, gop: u32) -> Result<[Tape; 2]> {
    let spec = ClipSpec { frames, gop, b_frames: 0, audio: false, ..ClipSpec::default() };
    let wide = ClipSpec { width: 480, height: 270, ..spec.clone() };
    Ok([Tape::of(spec).await?.video_alone(), Tape::of(wide).await?.video_alone()])
}

/// Alternates the clips `count` times, each with its own header.
async fn alternating(frames: u32, count: usize) -> Result<Tape> {
    let clips = sizes(frames, frames.min(30)).await?;
    let length_ms = i64::from(frames) * 1_000 / 30;
    let mut tape = Tape::default();
    for number in 0..count {
        tape = tape.then(number as i64 * length_ms, clips[number % 2].clone());
    }
    Ok(tape)
}

pub(crate) const REPAIRS: &[(&str, u64, u64)] = &[];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    // A change of configuration cannot be foreseen when the part before it is hinted.
    let changes = |count| Want {
        discontinuities: count..=count,
        hints_broken: 0..=count,
        numbered: false,
        ..Want::whole()
    };
    // The same header again, at every keyframe, changes nothing.
    let [clip, _] = sizes(300, 60).await?;
    let header = clip.tags.iter().find(|tag| tag.is_header()).cloned().expect("a clip has a header");
    let mut repeated = Tape::default();
    for tag in clip.tags.iter().filter(|tag| tag.is_picture()) {
        if tag.is_keyframe() {
            let at = tag.stamp_ms;
            repeated.tags.push(millrace_tests::tape::Tag {
                true_ms: at,
                stamp_ms: at,
                due_ms: at,
                ..header.clone()
            });
        }
        repeated.tags.push(tag.clone());
    }
    Ok(vec![
        Case::new("header_repeated", repeated, Want::whole()),
        Case::new("one_change", alternating(150, 2).await?, changes(1)),
        Case::new("four_changes", alternating(90, 5).await?, changes(4)),
        Case::new(
            "four_hundred_changes",
            alternating(1, 400).await?,
            Want::ends(CloseReason::ConfigurationChanges, "change"),
        ),
    ])
}
