//! Tracks that begin late without having been announced.

use anyhow::Result;
use millrace_tests::tape::{TagKind, Tape};

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

/// The clip without the messages of `kind` before `from_ms`, its header among them, and without metadata.
async fn late(kind: TagKind, from_ms: i64) -> Result<Tape> {
    let clip = Tape::numbered(seconds().max(18), 0).await?.without_metadata();
    let header = clip.tags.iter().find(|tag| tag.kind == kind && tag.is_header()).cloned();
    let mut tape = clip.keep(|tag| tag.kind != kind || tag.true_ms >= from_ms && !tag.is_header());
    let at = tape.tags.iter().position(|tag| tag.due_ms >= from_ms).unwrap_or_default();
    if let Some(mut header) = header {
        (header.true_ms, header.stamp_ms, header.due_ms) = (from_ms, from_ms, from_ms);
        tape.tags.insert(at, header);
    }
    Ok(tape)
}

pub(crate) const REPAIRS: &[(&str, u64, u64)] = &[];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    // Who watched from the first playlist on goes on with what it named; who comes later gets both.
    let sound = Want {
        multivariant_at_end: vec!["TYPE=AUDIO", "mp4a.40.2"],
        first_tracks_only: true,
        hints_broken: 0..=1,
        ..Want::whole()
    };
    let pictures = Want {
        multivariant_at_end: vec!["RESOLUTION=320x180", "avc1."],
        discontinuities: 0..=1,
        ..sound.clone()
    };
    let page = Case::new("sound_from_5_s", late(TagKind::Audio, 5_000).await?, sound.clone());
    Ok(vec![
        Case { page_within: Some(15.0), ..page.in_chromium() },
        Case::new("sound_from_2_s", late(TagKind::Audio, 2_000).await?, sound.clone()),
        Case::new("sound_from_700_ms", late(TagKind::Audio, 700).await?, sound),
        Case::new("pictures_from_4_s", late(TagKind::Video, 4_000).await?, pictures),
    ])
}
