//! Clocks that step, stand still, wrap, or carry presentation times.

use anyhow::Result;
use millrace_tests::tape::{TagKind, Tape};

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

pub(crate) const REPAIRS: &[(&str, u64, u64)] = &[
    ("audio_times_stray", 1, 100),
    ("clock_jump", 3, 10),
    ("clock_stands_still", 200, 400),
    ("decoding_time_moved", 0, 100),
    ("decoding_time_recovered", 200, 400),
    ("picture_time_steadied", 0, 600),
    ("repeated_picture", 0, 30),
];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let clip = Tape::numbered(seconds(), 0).await?;
    let reordered = Tape::numbered(seconds(), 2).await?;
    let want = |discontinuities| Want {
        discontinuities,
        strayed_ms: 60.0,
        apart_ms: 60.0,
        shortest_ms: 12.0,
        longest_ms: 67.0,
        // A step cannot be foreseen: the part before it ends early.
        hints_broken: 0..=1,
        short_parts: true,
        may_degrade: true,
        ..Want::whole()
    };
    let both = |by| clip.clone().step_clock(5_000, by, |_| true);
    // Standing still for a second: afterwards the clock is right again.
    let still = clip.clone().map(|tag| {
        if (5_000..6_000).contains(&tag.true_ms) {
            tag.stamp_ms = 5_000;
        }
    });
    Ok(vec![
        Case::new("both_back_by_700_ms", both(-700), want(1..=1)),
        Case::new("both_back_by_200_ms", both(-200), want(0..=1)),
        Case::new("both_ahead_by_10_s", both(10_000), want(1..=1)),
        Case::new(
            "video_back_by_500_ms",
            clip.clone().step_clock(5_000, -500, |tag| tag.kind == TagKind::Video),
            Want { strayed_ms: 600.0, apart_ms: 600.0, ..want(0..=1) },
        ),
        Case::new(
            "presentation_times",
            reordered.clone().stamp_presentation_times(),
            Want { shortest_ms: 8.0, longest_ms: 150.0, ..want(0..=0) },
        ),
        Case::new(
            "all_zero",
            clip.clone().map(|tag| tag.stamp_ms = 0),
            Want {
                strayed_ms: 700.0,
                apart_ms: 700.0,
                longest_ms: 400.0,
                shortest_ms: 1.0,
                // The arrival times that stand in for the clock are no steadier than the machine.
                video_invented: 0..=30,
                health: vec!["stand"],
                ..want(0..=0)
            },
        ),
        Case::new(
            "still_for_1_s",
            still,
            Want { strayed_ms: 300.0, apart_ms: 300.0, shortest_ms: 1.0, longest_ms: 300.0, ..want(0..=0) },
        ),
        Case::new("wraps_at_32_bits", clip.clone().begin_at((1 << 32) - 4_000), want(0..=0)),
        Case::new("wraps_at_24_bits", reordered.clone().begin_at((1 << 24) - 4_000), want(0..=0)),
        Case::new("begins_late", reordered.begin_at(500_000_000), want(0..=0)),
    ])
}
