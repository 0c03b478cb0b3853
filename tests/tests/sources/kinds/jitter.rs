//! Picture times that scatter around a steady rate: phones, and software encoders that stamp at capture.

use anyhow::Result;
use millrace_testkit::ClipSpec;
use millrace_tests::tape::Tape;

use super::{seconds, seeds};
use crate::seen::Case;
use crate::want::Want;

/// Four tenths of a frame at 30 pictures a second, before the rate is known: far from a sample that a player would take
/// for a fault.
const SHORTEST_MS: f64 = 13.0;

fn want(spread_ms: i64) -> Want {
    Want {
        shortest_ms: SHORTEST_MS,
        longest_ms: 95.0,
        // Parts that begin before the rate is known have one picture less.
        short_parts: true,
        strayed_ms: 2.0 * spread_ms as f64 + 5.0,
        apart_ms: spread_ms as f64 + 25.0,
        ..Want::whole()
    }
}

pub(crate) const REPAIRS: &[(&str, u64, u64)] =
    &[("decoding_time_moved", 0, 40), ("picture_time_steadied", 1000, u64::MAX)];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let plain = Tape::numbered(seconds(), 0).await?;
    let reordered = Tape::numbered(seconds(), 2).await?;
    for seed in 0..seeds() {
        for spread in [10, 15, 30] {
            let tape = plain.clone().jitter_pictures(spread, seed);
            cases.push(Case::new(format!("{spread}_ms_seed_{seed}"), tape, want(spread)).in_chromium());
        }
        let tape = reordered.clone().jitter_pictures(15, seed);
        cases.push(Case::new(format!("b_frames_seed_{seed}"), tape, want(15)).in_chromium());
    }
    let spec = ClipSpec { frames: 60 * seconds(), fps: 60, gop: 120, b_frames: 0, ..ClipSpec::default() };
    let fast = Tape::of(spec).await?.jitter_pictures(8, 1);
    let half_frame = Want { shortest_ms: 6.0, longest_ms: 48.0, ..want(8) };
    cases.push(Case::new("60_fps", fast, half_frame).in_chromium());
    let alone = plain.clone().video_alone().jitter_pictures(15, 2);
    cases.push(Case::new("without_sound", alone, want(15)).in_chromium());
    let steady = Want { shortest_ms: 33.0, longest_ms: 34.0, strayed_ms: 1.0, ..want(0) };
    cases.push(Case::new("rounded_to_ms_only", plain, steady));
    Ok(cases)
}
