//! The media before the resume point that a successor's encoders decode first: the pictures since the newest keyframe, and
//! some audio.
//!
//! Encoded media go on without a click or a broken picture only if decoder, resampler and encoder have seen what came before.
//! The replay buffer keeps those messages beyond their age for streams that encode. They are bounded in time by
//! [`PRE_ROLL_MS`], and in bytes by the buffer, which drops them first.

use millrace_wire::ids::Msn;
use millrace_wire::message::media::{MediaUnit, Track};

use crate::log::replay_buffer::ReplayBuffer;
use crate::time::Millis;

/// Media published longer ago than this before the resume point are no pre-roll: the longest distance of keyframes that
/// encoders are set to in practice is 10 s, with room for an uneven network.
pub const PRE_ROLL_MS: u64 = 12_000;
/// Audio frames of a pre-roll. AAC refers to one frame before, MP3 of low rates to six; Opus converges within 80 ms
/// (RFC 7845, 4.6), which are 16 frames of 5 ms. More brings encoded sound no closer to the undisturbed: measured up to 48.
pub const PRE_ROLL_SOUNDS: u32 = 16;

/// A published message as its session finds it again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    /// The newest segment that the message belongs to.
    pub(super) msn: Msn,
    at: Millis,
    has_keyframe: bool,
    sounds: u32,
}

impl Published {
    /// Describes a message of `units` that is published at `now`; `open` is the open segment.
    pub(super) fn new(now: Millis, open: Msn, units: &[MediaUnit]) -> Self {
        let frames = || units.iter().filter_map(MediaUnit::frame);
        Self {
            msn: open,
            at: now,
            has_keyframe: frames().any(|frame| frame.track == Track::Video && frame.keyframe),
            sounds: frames().map(|frame| u32::from(frame.track == Track::Audio)).sum(),
        }
    }
}

/// Returns the number of the first message of the pre-roll of a worker that resumes with message `resume_from`; `None` if
/// nothing before it is held or needed.
pub(super) fn pre_roll_start(media: &ReplayBuffer<Published>, resume_from: u64) -> Option<u64> {
    let newest = media.back_from(resume_from).next()?.1.at;
    let recent =
        || media.back_from(resume_from).take_while(|(_, message)| newest - message.at <= PRE_ROLL_MS);
    let keyframe = recent().find(|(_, message)| message.has_keyframe).map(|(seq, _)| seq);
    let mut sounds = 0;
    let with_sound = recent().filter(|(seq, message)| *seq < resume_from && message.sounds > 0);
    let sound = with_sound.take_while(|(_, message)| {
        let is_wanted = sounds < PRE_ROLL_SOUNDS;
        sounds += message.sounds;
        is_wanted
    });
    let sound = sound.last().map(|(seq, _)| seq);
    keyframe.into_iter().chain(sound).min().filter(|first| *first < resume_from)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::log::replay_buffer::ReplayLimits;

    /// Messages of one picture each, 40 ms apart, that have a keyframe where `keyframes` says so and `sounds` audio frames.
    fn media(count: u64, keyframes: &[u64], sounds: u32) -> ReplayBuffer<Published> {
        let mut media = ReplayBuffer::new(ReplayLimits { bytes: 1 << 20, age_ms: 60_000 });
        for seq in 0..count {
            let (at, has_keyframe) = (Millis(seq * 40), keyframes.contains(&seq));
            let message = Published { msn: Msn(seq / 50), at, has_keyframe, sounds };
            media.push(at, message, vec![Bytes::new()]);
        }
        media
    }

    #[test]
    fn pre_roll_begins_with_the_newest_keyframe_and_has_enough_sounds() {
        let enough = u64::from(PRE_ROLL_SOUNDS);
        assert_eq!(pre_roll_start(&media(300, &[0, 120], 1), 200), Some(120));
        assert_eq!(pre_roll_start(&media(300, &[0, 190], 1), 200), Some(200 - enough));
        assert_eq!(pre_roll_start(&media(300, &[0, 190], 4), 200), Some(190));
        assert_eq!(pre_roll_start(&media(300, &[200], 4), 200), Some(200 - enough / 4));
        assert_eq!(pre_roll_start(&media(300, &[200, 250], 0), 200), None, "a boundary with a keyframe");
        assert_eq!(pre_roll_start(&media(300, &[120], 0), 300), Some(120), "no message of the segment yet");
        assert_eq!(pre_roll_start(&media(300, &[0], 2), 0), None);
        assert_eq!(pre_roll_start(&media(3, &[0], 1), 2), Some(0), "as much as there is");
    }

    #[test]
    fn keyframe_that_is_too_old_leaves_the_sounds_alone() {
        let since = PRE_ROLL_MS / 40;
        assert_eq!(pre_roll_start(&media(900, &[500 - since], 2), 500), Some(500 - since));
        let sounds = 500 - u64::from(PRE_ROLL_SOUNDS / 2);
        assert_eq!(pre_roll_start(&media(900, &[499 - since], 2), 500), Some(sounds));
        assert_eq!(pre_roll_start(&media(900, &[499 - since], 0), 500), None);
    }
}
