//! Keyframes that are no IDR pictures: open groups of pictures, recovery points, intra refresh.

use anyhow::Result;
use millrace_testkit::ClipSpec;
use millrace_tests::tape::Tape;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

/// Longer than the 30 s without an IDR picture after which publishers used to be closed.
const LONG_S: u32 = 36;

async fn encoded(name: &str, seconds: u32, x264: &str) -> Result<Tape> {
    let spec = ClipSpec { frames: 30 * seconds, gop: 60, b_frames: 0, ..ClipSpec::default() };
    let arguments = format!("-c:a copy -c:v libx264 -preset veryfast -crf 26 -x264-params scenecut=0:{x264}");
    Tape::encoded(&format!("keyframes-{name}-{seconds}"), spec, &arguments).await
}

pub(crate) const REPAIRS: &[(&str, u64, u64)] = &[("segment_on_refresh", 10, 20), ("leading_picture", 0, 20)];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let long = LONG_S.max(seconds());
    let open = encoded("open", long, "keyint=60:min-keyint=60:open-gop=1:bframes=2:b-adapt=0").await?;
    let one_b = encoded("open-b1", long, "keyint=50:min-keyint=50:open-gop=1:bframes=1:b-adapt=0").await?;
    let refresh = encoded("refresh", long, "keyint=60:intra-refresh=1:bframes=0").await?;
    let pyramid =
        encoded("pyramid", seconds(), "keyint=60:min-keyint=60:bframes=3:b-pyramid=normal:b-adapt=0").await?;
    let short = encoded("intra-only", seconds(), "keyint=1:bframes=0").await?;
    let not_independent = Want { independent: false, health: vec!["gradual refresh"], ..Want::whole() };
    Ok(vec![
        Case::new("open_gop", open.clone(), Want::whole()),
        Case::new("open_gop_one_b_frame", one_b, Want::whole()),
        Case::new("open_gop_without_marks", unmarked(open), Want::whole()),
        Case::new("intra_refresh", refresh, not_independent),
        Case::new("b_pyramid", pyramid, Want::whole()),
        Case::new("every_picture_a_keyframe", short, Want::whole()),
    ])
}

/// Marks no picture but the first as a keyframe: some muxers mark IDR pictures only.
fn unmarked(tape: Tape) -> Tape {
    tape.map_pictures(|number, tag| {
        if number > 0 && tag.is_keyframe() {
            let mut body = tag.body.to_vec();
            body[0] = 2 << 4 | body[0] & 0x0f;
            tag.body = body.into();
        }
    })
}
