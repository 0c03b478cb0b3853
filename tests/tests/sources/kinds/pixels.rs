//! Pixels that are not square.

use anyhow::Result;
use millrace_testkit::ClipSpec;
use millrace_tests::tape::Tape;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

pub(crate) const REPAIRS: &[(&str, u64, u64)] = &[];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, coded, ratio, shown) in [
        ("pal_wide", "720x576", "64/45", "1024x576"),
        ("pal_4_3", "720x576", "16/15", "768x576"),
        ("ntsc_wide", "720x480", "32/27", "853x480"),
        ("anamorphic_hd", "480x360", "4/3", "640x360"),
        ("square", "320x180", "1", "320x180"),
    ] {
        let spec = ClipSpec { frames: 30 * seconds(), gop: 60, b_frames: 0, ..ClipSpec::default() };
        let size = coded.replace('x', ":");
        let arguments = format!(
            "-vf scale={size},setsar={ratio} -c:a copy -c:v libx264 -preset veryfast -crf 26 -g 60 -bf 0 -sc_threshold 0"
        );
        let tape = Tape::encoded(&format!("pixels-{name}-{}", seconds()), spec, &arguments).await?;
        let want = Want { multivariant: vec![format!("RESOLUTION={shown}")], ..Want::whole() };
        cases.push(Case::new(name, tape, want).in_chromium());
    }
    Ok(cases)
}
