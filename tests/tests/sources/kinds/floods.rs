//! Publishes that make a server invent or work without bound.

use anyhow::Result;
use bytes::Bytes;
use millrace_tests::tape::{Tag, TagKind, Tape};
use millrace_wire::close_reason::CloseReason;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

/// Longer than the 30 s for which a publish without a keyframe is borne.
const LONG_S: u32 = 36;

/// Both headers of the clip.
fn headers(clip: &Tape) -> Tape {
    clip.clone().keep(Tag::is_header)
}

/// Inter pictures of a few bytes with stamps 1.5 s apart, sent far faster, and one audio frame at the end.
fn sparse(clip: &Tape, pictures: i64, every_ms: i64) -> Tape {
    let mut tape = headers(clip);
    for number in 0..pictures {
        let at = number * 1_500;
        let body = Bytes::from_static(&[0x27, 1, 0, 0, 0, 0, 0, 0, 2, 0x41, 0x9a]);
        tape.tags.push(Tag {
            kind: TagKind::Video,
            true_ms: at,
            stamp_ms: at,
            due_ms: number * every_ms,
            body,
        });
    }
    if let Some(sound) = clip.sounds().next() {
        let (stamp_ms, due_ms) = (pictures * 1_500, pictures * every_ms);
        tape.tags.push(Tag { stamp_ms, due_ms, ..sound.clone() });
    }
    tape
}

/// Messages of one byte, `per_ms` in each millisecond.
fn empty(clip: &Tape, kind: TagKind, body: &'static [u8], per_ms: i64) -> Tape {
    let mut tape = headers(clip);
    for number in 0..per_ms * 4_000 {
        let at = number / per_ms;
        tape.tags.push(Tag { kind, true_ms: at, stamp_ms: at, due_ms: at, body: Bytes::from_static(body) });
    }
    tape
}

pub(crate) const REPAIRS: &[(&str, u64, u64)] =
    &[("early_audio", 100, 1600), ("empty_message", 2_000, 200_000), ("picture_before_keyframe", 500, 6000)];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let clip = Tape::numbered(seconds(), 0).await?;
    let no_keyframe = || Want::ends(CloseReason::KeyframeInterval, "keyframe");
    let too_many = || Want::ends(CloseReason::MessageRateExceeded, "messages per second");
    Ok(vec![
        Case::new("pictures_without_a_keyframe", sparse(&clip, 4_000, 9), no_keyframe()),
        Case::new(
            "keyframes_never_come",
            Tape::numbered(LONG_S, 0).await?.keep(|tag| !tag.is_keyframe()),
            no_keyframe(),
        ),
        Case::new("empty_pictures", empty(&clip, TagKind::Video, &[0x57], 40), too_many()),
        Case::new("empty_sounds", empty(&clip, TagKind::Audio, &[0xaf, 1], 40), too_many()),
        // A neighbour of all of them loses nothing and is on time.
        Case::new("neighbour", clip, Want::whole()),
    ])
}
