//! Parameter sets in pictures, start codes in place of lengths, stray bytes.

use anyhow::Result;
use millrace_testkit::ClipSpec;
use millrace_tests::tape::{TagKind, Tape};
use millrace_wire::close_reason::CloseReason;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

/// Longer than the 30 s for which a publish without a keyframe is borne.
const LONG_S: u32 = 36;

pub(crate) const REPAIRS: &[(&str, u64, u64)] = &[
    ("config_from_pictures", 2, 10),
    ("start_codes_replaced", 400, 700),
    ("stray_bytes_removed", 300, 2000),
    ("unconfigured_picture", 600, 1100),
];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let clip = Tape::numbered(seconds(), 2).await?;
    let in_band = clip.clone().sets_in_keyframes();
    let headless = in_band.clone().without_headers(TagKind::Video);
    let mut cases = vec![
        Case::new("in_band_and_header", in_band, Want::whole()),
        Case::new("in_band_only", headless.clone(), Want::whole()),
        Case::new("annex_b", clip.clone().annex_b(), Want::whole()),
        Case::new("annex_b_without_header", headless.annex_b(), Want::whole()),
    ];
    for count in 1..=3 {
        let name = format!("{count}_zeros_behind_units");
        cases.push(Case::new(name, clip.clone().zeros_behind_units(count), Want::whole()));
    }
    for count in 1..=3 {
        let stray = vec![0; count];
        let name = format!("{count}_zeros_behind_pictures");
        cases.push(Case::new(name, clip.clone().bytes_behind_pictures(&stray), Want::whole()));
    }
    // Nothing to decode with: the publish ends with words.
    let nothing = Tape::numbered(LONG_S, 2).await?.without_headers(TagKind::Video);
    cases.push(Case::new(
        "no_sets_at_all",
        nothing,
        Want::ends(CloseReason::NoUsableMedia, "sends no sequence header"),
    ));
    let wide = ClipSpec { frames: 150, gop: 60, width: 480, height: 270, ..ClipSpec::default() };
    let wide = Tape::of(wide).await?.sets_in_keyframes().without_headers(TagKind::Video).without_metadata();
    let narrow = ClipSpec { frames: 120, gop: 60, ..ClipSpec::default() };
    let narrow = Tape::of(narrow).await?.sets_in_keyframes();
    let sized = narrow.then(4_000, wide.keep(|tag| !tag.is_header()));
    let want = Want {
        discontinuities: 1..=1,
        hints_broken: 0..=1,
        multivariant_at_end: vec!["RESOLUTION=480x270"],
        ..Want::whole()
    };
    cases.push(Case::new("size_changes_in_band", sized, Want { numbered: false, apart_ms: 45.0, ..want }));
    Ok(cases)
}
