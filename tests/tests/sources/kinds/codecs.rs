//! Codecs that are taken under another name, and codecs that are not.

use anyhow::Result;
use millrace_tests::tape::{TagKind, Tape};
use millrace_wire::close_reason::CloseReason;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

/// Replaces the codec number in the first byte of video messages (Adobe FLV 10.1, §E.4.3.1).
fn codec_id(tape: &Tape, id: u8) -> Tape {
    tape.clone().map(|tag| {
        if tag.kind == TagKind::Video {
            tag.body = [&[tag.body[0] & 0xf0 | id], &tag.body[1..]].concat().into();
        }
    })
}

/// Replaces the sound format (Adobe FLV 10.1, §E.4.2.1).
fn sound_format(tape: &Tape, format: u8) -> Tape {
    tape.clone().map(|tag| {
        if tag.kind == TagKind::Audio {
            tag.body = [&[format << 4 | 0x0f], &tag.body[1..]].concat().into();
        }
    })
}

pub(crate) const REPAIRS: &[(&str, u64, u64)] = &[];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let clip = Tape::numbered(seconds(), 2).await?;
    let avc1 = clip.clone().enhanced_video(b"avc1");
    let enhanced = |name: &str, tape: Tape| {
        let case = Case::new(name, tape, Want::whole());
        Case { classic: Some(clip.clone()), ..case }
    };
    let mut cases = vec![
        enhanced("enhanced_avc1", avc1.clone()),
        enhanced("enhanced_mp4a", clip.clone().enhanced_audio(b"mp4a")),
        enhanced("enhanced_both", avc1.enhanced_audio(b"mp4a")),
    ];
    let refused = |words| Want::ends(CloseReason::CodecNotAccepted, words);
    for (four_cc, words) in [(b"hvc1", "HEVC"), (b"av01", "AV1"), (b"vp09", "VP9"), (b"xyz1", "xyz1")] {
        let name = format!("enhanced_{}", String::from_utf8_lossy(four_cc));
        cases.push(Case::new(name, clip.clone().enhanced_video(four_cc), refused(words)));
    }
    for (four_cc, words) in [(b"Opus", "Opus"), (b".mp3", "MP3"), (b"ac-3", "AC-3"), (b"fLaC", "FLAC")] {
        let name = format!("enhanced_{}", String::from_utf8_lossy(four_cc));
        cases.push(Case::new(name, clip.clone().enhanced_audio(four_cc), refused(words)));
    }
    for (id, words) in [(2, "H.263"), (4, "VP6"), (12, "HEVC"), (13, "AV1")] {
        cases.push(Case::new(format!("video_codec_{id}"), codec_id(&clip, id), refused(words)));
    }
    for (format, words) in [(2, "MP3"), (11, "Speex"), (7, "G.711")] {
        cases.push(Case::new(format!("sound_format_{format}"), sound_format(&clip, format), refused(words)));
    }
    Ok(cases)
}
