//! Pictures that are lost on the way, at every position of a part.

use anyhow::Result;
use millrace_tests::tape::Tape;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

/// Where the losses begin: in the middle of the clip, behind a keyframe.
const FROM: usize = 122;

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let clip = Tape::numbered(seconds(), 0).await?;
    let mut cases = Vec::new();
    // A part of 200 ms has six pictures: each position of a pair in it is one row.
    for position in 0..6 {
        let from = FROM + position;
        let tape = clip.clone().keep_pictures(|number, _| !(from..from + 2).contains(&number));
        cases.push(Case::new(format!("pair_at_{position}"), tape, lasting(2)).in_chromium());
    }
    let single = clip.clone().keep_pictures(|number, _| number % 31 != 17);
    cases.push(Case::new("singles", single, lasting(1)).in_chromium());
    let tail = clip.clone().keep_pictures(|number, _| !(110..120).contains(&number));
    cases.push(Case::new("ten_before_a_keyframe", tail, lasting(10)).in_chromium());
    let keyframe = clip.keep_pictures(|number, _| !(120..126).contains(&number));
    cases.push(Case::new(
        "keyframe_and_five",
        keyframe,
        Want { numbered: false, independent: true, ..lasting(6) },
    ));
    Ok(cases)
}

/// The picture before `lost` ones lasts until the next that came.
fn lasting(lost: usize) -> Want {
    Want { longest_ms: (lost + 1) as f64 * 33.4 + 5.0, ..Want::whole() }
}
