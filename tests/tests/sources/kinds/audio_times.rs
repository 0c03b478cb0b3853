//! Audio times that stray: bundles under one time, steps rounded down or up, clocks that are off.

use anyhow::Result;
use millrace_tests::tape::Tape;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

pub(crate) const REPAIRS: &[(&str, u64, u64)] =
    &[("audio_hole", 1, 2), ("audio_times_stray", 1, 60), ("silence_in_hole", 11, 13)];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let clip = Tape::numbered(seconds(), 0).await?;
    let want = |apart_ms| Want { strayed_ms: apart_ms, apart_ms, ..Want::whole() };
    let lost = clip.clone();
    let mut number = 0;
    let lost = lost.keep(|tag| {
        number += usize::from(tag.is_sound());
        !tag.is_sound() || !(200..212).contains(&number)
    });
    let slower =
        format!("-f lavfi -i anoisesrc=r=44100:a=0.2:seed=3:duration={} -c:a aac -b:a 96k", seconds());
    let slower = Tape::made(&format!("audio-times-{}", seconds()), &slower).await?;
    let slower = clip.clone().with_sound_of(slower);
    Ok(vec![
        Case::new("bundles_of_10", clip.clone().bundle_sounds(10, true), want(230.0)),
        Case::new("bundles_of_4", clip.clone().bundle_sounds(4, true), want(100.0)),
        Case::new("bundles_stamped_apart", clip.clone().bundle_sounds(10, false), want(25.0)),
        Case::new("steps_of_21", clip.clone().step_sounds(&[21]), want(170.0)),
        Case::new("steps_of_22", clip.clone().step_sounds(&[22]), want(330.0)),
        // Frames of 23.2 ms, rounded to even numbers.
        Case::new("steps_of_22_and_24", slower.step_sounds(&[22, 24]), want(120.0)),
        Case::new("half_a_per_cent_fast", clip.clone().skew_sounds(0.995), want(80.0)),
        Case::new("half_a_per_cent_slow", clip.clone().skew_sounds(1.005), want(80.0)),
        // A real hole of a quarter of a second is filled once.
        Case::new("hole_of_256_ms", lost, Want { audio_invented: 11..=13, ..want(45.0) }),
    ])
}
