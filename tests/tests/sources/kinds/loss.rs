//! Pictures that are lost on the way, at every position of a part.

use anyhow::Result;
use millrace_tests::tape::Tape;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

/// Where the losses begin: in the middle of the clip, behind a keyframe.
const FROM: usize = 122;

pub(crate) const REPAIRS: &[(&str, u64, u64)] =
    &[("repeated_picture", 1, 20), ("segment_without_keyframe", 1, 2)];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    // A part of 200 ms has six pictures: each position of a pair in it is one row.
    for position in 0..6 {
        let from = FROM + position;
        let choose = format!("not(between(n,{from},{}))", from + 1);
        let tape = Tape::selected(&format!("pair-{from}"), seconds(), &choose).await?;
        cases.push(Case::new(format!("pair_at_{position}"), tape, lasting(2)).in_chromium());
    }
    let singles = Tape::selected("singles", seconds(), "not(eq(mod(n,31),17))").await?;
    cases.push(Case::new("singles", singles, lasting(1)).in_chromium());
    let tail = Tape::selected("ten-before", seconds(), "not(between(n,110,119))").await?;
    cases.push(Case::new("ten_before_a_keyframe", tail, lasting(10)).in_chromium());
    // Lost after the encoder: what refers to them decodes with faults, and only that is the encoder's to answer for.
    let clip = Tape::numbered(seconds(), 0).await?;
    let on_the_way = Want { decodes: false, ..lasting(2) };
    let tape = clip.clone().keep_pictures(|number, _| !(126..128).contains(&number));
    cases.push(Case::new("pair_on_the_way", tape, on_the_way.clone()).in_chromium());
    let keyframe = clip.keep_pictures(|number, _| !(120..126).contains(&number));
    let want = Want { independent: false, longest_ms: 239.0, ..on_the_way };
    cases.push(Case::new("keyframe_and_five_on_the_way", keyframe, want));
    Ok(cases)
}

/// The picture before `lost` ones lasts until the next that came.
fn lasting(lost: usize) -> Want {
    Want {
        longest_ms: (lost + 1) as f64 * 33.4 + 5.0,
        short_parts: true,
        video_invented: 0..=10,
        ..Want::whole()
    }
}
